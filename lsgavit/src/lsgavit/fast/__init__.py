"""Every fast path of LSGA-ViT; the method can be understood without this folder."""
