"""Methods that are no paper of this repository, on the splits of its scene classifiers."""

from rivals.hybridsn import HybridSN

__all__ = ["HybridSN"]
