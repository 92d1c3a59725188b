"""Every fast path of LSGA-ViT; whoever skips this folder loses nothing of the idea."""
