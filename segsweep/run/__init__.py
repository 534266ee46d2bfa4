"""One run: its identity, its loop, what is kept of it."""
