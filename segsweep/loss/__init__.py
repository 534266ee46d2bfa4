"""Losses: matching, point sampling, denoising queries and the criterion."""
