"""Tasks: what is learnt and what is found."""
