"""Folders of annotated pictures as programs write them: one file for each format."""
