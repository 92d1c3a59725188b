"""Classifying scenes: published scenes and splits, components, scores over seeds, maps."""
