"""Classification of scenes: published scenes and splits, principal components, scores over seeds, class maps."""
