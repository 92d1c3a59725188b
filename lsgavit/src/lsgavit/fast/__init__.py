"""Fast implementations of LSGA-ViT. To understand the paper you need not read this folder."""
