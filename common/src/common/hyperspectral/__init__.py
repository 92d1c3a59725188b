"""Hyperspectral scenes: reading, pixels without data, and processing of large scenes by windows. Import the modules."""
