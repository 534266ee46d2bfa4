"""Hydra plugins of segsweep: typed config files and the product sweeper."""
