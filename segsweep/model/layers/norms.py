"""What all normalisations behind a backbone share."""

GROUPS = 32  # of every GroupNorm behind the backbone
