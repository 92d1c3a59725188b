"""FSAS and DFFN on a CPU as one operator each, computed in pieces that fit into the cache.

The paper's modules are `attention` and `feed_forward` in the package above; the results are the same.
"""
