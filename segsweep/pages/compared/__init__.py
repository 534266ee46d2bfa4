"""Runs beside one another: a file for each task, by its word."""
