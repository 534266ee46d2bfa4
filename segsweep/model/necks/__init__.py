"""Necks: maps of the backbone to maps that a head reads."""
