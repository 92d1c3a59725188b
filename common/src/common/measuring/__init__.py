"""Benchmarks and ablations. Training and prediction do not need this package."""
