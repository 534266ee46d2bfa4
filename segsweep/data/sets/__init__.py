"""Data sets, one file each; the file name is the word on the command line."""
