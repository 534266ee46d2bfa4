"""What models found, drawn: overlays, figures and pages of the verbs `predict` and `compare`."""
