"""Data sets: records, transforms and loaders."""
