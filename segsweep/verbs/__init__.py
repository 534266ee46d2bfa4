"""The words of the command line, one thin file each."""
