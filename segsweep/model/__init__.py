"""Models: a frozen backbone, a pixel decoder, a transformer decoder and their families."""
