"""The same numbers sooner: FSAS and DFFN on a CPU as one operator each, in pieces that stay in the cache.

Nothing of the idea is here; `attention` and `feed_forward` of the package above are the paper's modules.
"""
