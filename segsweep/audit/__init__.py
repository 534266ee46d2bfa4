"""What published tables say against themselves."""
