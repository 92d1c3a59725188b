"""Faster implementations with the same results. To understand the paper you need not read this folder."""
