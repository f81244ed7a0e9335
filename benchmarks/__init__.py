"""Benchmarks against the PyTorch reference."""
