"""What all normalisations behind a backbone share. Composing imports it: no torch here."""

GROUPS = 32  # of every GroupNorm behind the backbone
