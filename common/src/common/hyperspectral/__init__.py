"""Hyperspectral scenes: reading, pixels without data, windows of large ones. Import the modules."""
