"""Metrics: one file each, with name, unit and direction."""
