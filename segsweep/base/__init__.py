"""The ground: config, errors, files, owners, signals. Imports nothing above it, no torch."""
