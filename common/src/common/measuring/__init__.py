"""Benchmarks and ablations: what the projects measure themselves with; nothing that trains or predicts needs it."""
