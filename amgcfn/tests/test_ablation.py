"""The ablation trains every variant; a branch alone is what the whole network computes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amgcfn import create_model
from support.ablation import parameters, run_ablation

SCRIPT = Path(__file__).parents[1] / "ablation.py"


def test_every_variant_trains(scene_files: tuple[str, str], tmp_path: Path) -> None:
    flags = ("--cube", scene_files[0], "--labels", scene_files[1], "--epochs", 2, "--validate-every", 1)
    small = ("--ratio", 0.05, "--validation", 0.1, "--pixels-per-superpixel", 40, "--seeds", 1)
    found = run_ablation(SCRIPT, tmp_path, *flags, *small)
    sizes = parameters(found)
    assert sizes["one_hop"] == sizes["two_hops"] == sizes["released"] > sizes["sum"]
    # CAFM and the fused classifier belong to neither branch.
    assert sizes["graph"] + sizes["convolution"] < sizes["sum"]


def test_a_branch_alone_computes_what_the_whole_network_feeds_its_classifier() -> None:
    """Without CAFM's weights, which only the whole network has, the two classifiers give the same."""
    torch.manual_seed(0)
    whole = create_model(bands=4, num_classes=3, graph_dim=4, conv_dim=4, fusion="sum").eval()
    segments = torch.arange(12).repeat_interleave(12).view(12, 12) // 2
    hops = [torch.rand(6, 6) for _ in range(3)]
    arguments = torch.rand(12, 12, 4), torch.randn(6, 3), segments, hops
    together = whole(*arguments)
    assert len(together) == 3
    for branch, place in (("convolution", 1), ("graph", 2)):
        alone = create_model(bands=4, num_classes=3, graph_dim=4, conv_dim=4, branches=branch).eval()
        alone.load_state_dict({name: whole.state_dict()[name] for name in alone.state_dict()})
        (logits,) = alone(*arguments)
        torch.testing.assert_close(logits, together[place])
    one = create_model(bands=4, num_classes=3, graph_dim=4, conv_dim=4, fusion="sum", block_hops=(1, 1, 1)).eval()
    one.load_state_dict(whole.state_dict())
    same = one(*arguments[:3], [hops[0]] * 3)
    torch.testing.assert_close(one(*arguments), same)
    torch.testing.assert_close(whole(*arguments[:3], [hops[0]] * 3), same)


@pytest.mark.parametrize(
    "keywords", [{"branches": "all"}, {"fusion": "mean"}, {"block_hops": (1, 2)}, {"block_hops": (0, 1, 2)}]
)
def test_unknown_parts_are_refused(keywords: dict) -> None:
    with pytest.raises(ValueError, match=r"block_hops needs 3 numbers|branches must be"):
        create_model(bands=4, num_classes=3, **keywords)
