"""Heads: maps to queries, and what they say."""
