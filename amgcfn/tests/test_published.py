"""The published protocol: split sizes from the real ground truths, presets, and the released numbers' keys."""

from __future__ import annotations

import pytest
from scipy.io import loadmat

from amgcfn.presets import PAPER_SEEDS, PRESETS
from amgcfn.published import PUBLISHED, RELEASED_SPREAD, SPLIT_SIZES
from common.hyperspectral.classification.splits import per_class_split
from support.data import real_data

FILES = {
    "indian_pines": ("Indian_pines_gt.mat", "indian_pines_gt"),
    "pavia_university": ("PaviaU_gt.mat", "paviaU_gt"),
    "salinas": ("Salinas_gt.mat", "salinas_gt"),
}


@pytest.mark.parametrize("name", list(SPLIT_SIZES))
def test_split_sizes_are_the_published_ones(name):
    folder = real_data("ground_truth_only")
    file, key = FILES[name]
    labels = loadmat(folder / file)[key].astype(int)
    config = PRESETS[name]()
    for seed in config.seeds[:2]:
        split = per_class_split(labels, ratio=config.ratio, validation=config.validation, seed=seed)
        assert split.sizes == SPLIT_SIZES[name]


def test_presets_are_the_published_training():
    for name in SPLIT_SIZES:
        config = PRESETS[name]()
        assert config.seeds == PAPER_SEEDS == tuple(range(1330, 1340))
        assert (config.learning_rate, config.weight_decay, config.epochs) == (5e-4, 1e-4, 500)
        assert (config.validate_every, config.components, config.sigma) == (10, 3, 5.0)


def test_published_values_name_presets_and_sources():
    assert {preset for preset, _ in PUBLISHED} <= set(PRESETS)
    assert set(RELEASED_SPREAD) <= set(PUBLISHED)
    for value, source in PUBLISHED.values():
        assert 0 < value < 100 and source
