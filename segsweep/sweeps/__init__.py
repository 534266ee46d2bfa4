"""Runs and sweeps: identity, state, files, products of overrides."""
