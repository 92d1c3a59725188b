"""Fast forms of the paper's two modules on a CPU, with the same results.

To understand the paper you need not read this folder; see `attention.py` and `feedforward.py`.
"""

from hcanet.fast.attention import cafm
from hcanet.fast.choice import usable
from hcanet.fast.feedforward import msfn

__all__ = ["cafm", "msfn", "usable"]
