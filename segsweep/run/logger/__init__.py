"""Loggers: views of the curve in metrics.jsonl, never its keeper."""
