"""What a finished run becomes elsewhere: programs, HF adapters, and bundles to hand on."""
