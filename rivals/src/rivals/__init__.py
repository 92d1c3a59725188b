"""Other methods on the splits of this repository's scene classifiers."""

from rivals.hybridsn import HybridSN

__all__ = ["HybridSN"]
