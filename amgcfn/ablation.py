"""Compare variants of AMGCFN in one table: each branch alone, fewer hops, a sum instead of CAFM.

    python amgcfn/ablation.py                                                        the demo's scene, one seed
    python amgcfn/ablation.py --preset houston2018_crop --data-root DIR --seeds 1330 1331 1332

All flags except --variants, --seeds and --output are passed to train.py, so any scene and recipe can be used.
Operations are counted and times measured on a synthetic scene of 100 × 100 pixels with 100 superpixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amgcfn import AMGCFN
from amgcfn.checkpoints import load_model
from common.errors import command
from common.measuring.ablation import ablate

VARIANTS = {
    "released": ("both branches, hops 1 2 3, CAFM (released)", ()),
    "graph": ("graph branch alone", ("--network", "branches=graph")),
    "convolution": ("convolution branch alone", ("--network", "branches=convolution")),
    "one_hop": ("hop 1 in all blocks", ("--network", "block_hops=(1, 1, 1)")),
    "two_hops": ("hops 1 2 2", ("--network", "block_hops=(1, 2, 2)")),
    "sum": ("branches added, without CAFM", ("--network", "fusion=sum")),
}


def example(model: AMGCFN) -> tuple[Tensor, ...]:
    """Return the network's inputs: cube, node features, square superpixels and hop graphs."""
    rows, columns = torch.meshgrid(torch.arange(100) // 10, torch.arange(100) // 10, indexing="ij")
    hops = [(torch.rand(100, 100) < 0.06 * hop).float() for hop in (1, 2, 3)]
    nodes = torch.randn(100, model.node_features)
    return torch.rand(100, 100, model.bands), nodes, 10 * rows + columns, torch.stack(hops)


@command
def main() -> None:
    """Train every variant, measure it, print the table."""
    metrics = ("OA", "AA", "kappa")
    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=metrics, seeds=(1330,), together=True)


if __name__ == "__main__":
    main()
