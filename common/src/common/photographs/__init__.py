"""Photographs: reading them upright, and folders of them."""
