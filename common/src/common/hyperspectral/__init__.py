"""Hyperspectral scenes: reading, published scenes, splits, transforms, scores, pictures. Import the modules."""
