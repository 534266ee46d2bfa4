"""Latency, memory, operations and bytes."""
