"""The fast forms of the paper's two modules on a CPU: same numbers, other order of work.

Whoever reads `attention.py` and `feedforward.py` loses nothing by skipping this folder.
"""

from hcanet.fast.attention import cafm
from hcanet.fast.choice import usable
from hcanet.fast.feedforward import msfn

__all__ = ["cafm", "msfn", "usable"]
