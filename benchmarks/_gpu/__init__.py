"""Blocks of `benchmarks.gpu_check`: generators of rows, each measured on the device given."""
