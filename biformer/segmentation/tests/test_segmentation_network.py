"""The segmentation network: both heads equal mmsegmentation's equations; loss, labels of any size, and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biformer import create_model
from biformer.segmentation import inference, scoring
from biformer.segmentation.heads import AuxiliaryHead, SemanticFPNHead, UPerNetHead
from biformer.segmentation.inference import MULTI_SCALE, Protocol, enlarged_rows, fitted, normalised, predict_labels
from biformer.segmentation.model import Segmenter, load_segmenter, pixel_loss
from common import launch
from common.errors import UserError

CHANNELS = (8, 12, 16, 20)
SIZES = ((17, 22), (9, 11), (5, 6), (3, 3))
NARROW = {"depths": (1, 1, 1, 1), "dims": (32, 64, 128, 256)}


def narrow(head: str = "semantic_fpn", **keywords) -> Segmenter:
    torch.manual_seed(0)
    keywords = {"num_classes": 5, "num_regions": 2, "head_width": 16, "backbone": NARROW} | keywords
    return Segmenter("biformer_tiny", head, **keywords).eval()


def maps(batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]


def with_statistics(head: nn.Module) -> nn.Module:
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return head.eval()


def unit(block: nn.Sequential, x: Tensor) -> Tensor:
    """Convolution, BatchNorm in evaluation mode, ReLU, written out."""
    conv, norm = block[0], block[1]
    x = F.conv2d(x, conv.weight, padding=conv.kernel_size[0] // 2)
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return F.relu((x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None])


def enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def test_semantic_fpn_is_mmsegs() -> None:
    head = with_statistics(SemanticFPNHead(CHANNELS, 5, width=6))
    inputs = maps()
    inner = [block[0] for block in head.neck.inner_blocks]
    outer = [block[0] for block in head.neck.layer_blocks]
    laterals = [F.conv2d(x, conv.weight, conv.bias) for x, conv in zip(inputs, inner, strict=True)]
    for i in (3, 2, 1):
        laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], SIZES[i - 1], mode="nearest")
    pyramid = [F.conv2d(x, conv.weight, conv.bias, padding=1) for x, conv in zip(laterals, outer, strict=True)]
    total = unit(head.levels[0][0], pyramid[0])
    for i, count in ((1, 1), (2, 2), (3, 3)):
        x = pyramid[i]
        for k in range(count):
            x = unit(head.levels[i][2 * k], x)
            x = enlarge(x, (2 * x.shape[-2], 2 * x.shape[-1]))
        total = total + enlarge(x, SIZES[0])
    expected = F.conv2d(total, head.classifier[1].weight, head.classifier[1].bias)
    torch.testing.assert_close(head(inputs), expected, rtol=1e-4, atol=1e-5)


def test_upernet_is_mmsegs() -> None:
    """The LayerNorms of the library, which would change the result, are removed."""
    head = with_statistics(UPerNetHead(CHANNELS, 5, width=6))
    inputs, decoder = maps(), head.decoder
    pooled = [
        enlarge(unit(block[1], F.adaptive_avg_pool2d(inputs[3], size)), SIZES[3])
        for block, size in zip(decoder.psp.blocks, (1, 2, 3, 6), strict=True)
    ]
    levels = [unit(decoder.psp.out_conv, torch.cat([inputs[3], *pooled], 1))]
    for i, block in zip((2, 1, 0), decoder.fpn_lateral_blocks, strict=True):
        levels.append(unit(block.conv_norm_relu, inputs[i]) + enlarge(levels[-1], SIZES[i]))
    smooth = [unit(block, x) for block, x in zip(decoder.fpn_conv_blocks, levels[1:], strict=True)]
    stacked = torch.cat([enlarge(x, SIZES[0]) for x in reversed([levels[0], *smooth])], 1)
    expected = F.conv2d(unit(decoder.fusion_block, stacked), head.classifier[1].weight, head.classifier[1].bias)
    torch.testing.assert_close(head(inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_published_widths_give_mmsegs_parameter_counts() -> None:
    channels, classes = (64, 128, 256, 512), 150
    with torch.device("meta"):
        fpn, upernet = SemanticFPNHead(channels, classes), UPerNetHead(channels, classes)
        auxiliary = AuxiliaryHead(256, classes)

    def unit_count(inputs: int, outputs: int, side: int) -> int:
        return inputs * outputs * side**2 + 2 * outputs

    neck = sum(c * 256 + 256 for c in channels) + 4 * (256 * 256 * 9 + 256)
    levels = 4 * unit_count(256, 128, 3) + 3 * unit_count(128, 128, 3)
    assert count(fpn) == neck + levels + 128 * 150 + 150
    pyramid = 4 * unit_count(512, 512, 1) + unit_count(512 + 4 * 512, 512, 3)
    laterals = sum(unit_count(c, 512, 1) for c in channels[:3]) + 3 * unit_count(512, 512, 3)
    assert count(upernet) == pyramid + laterals + unit_count(4 * 512, 512, 3) + 512 * 150 + 150
    assert count(auxiliary) == unit_count(256, 256, 3) + 256 * 150 + 150


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("head", [SemanticFPNHead, UPerNetHead])
def test_initial_values_are_mmsegs(head: type) -> None:
    torch.manual_seed(0)
    module = head(CHANNELS, 150, width=64)
    last = module.classifier[1]
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.05) and not last.bias.any()
    conv = module.levels[0][0][0] if head is SemanticFPNHead else module.decoder.fusion_block[0]
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert module.classifier[0].p == 0.1


@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_every_parameter_receives_a_gradient(head: str) -> None:
    model = narrow(head).train()
    labels = torch.randint(0, 5, (2, 50, 66))
    model(torch.rand(2, 3, 50, 66), labels).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_loss_is_divided_by_all_pixels_and_the_auxiliary_counts_four_tenths() -> None:
    model = narrow("upernet", dropout=0.0)
    x, labels = torch.rand(2, 3, 32, 40), torch.randint(0, 5, (2, 32, 40), dtype=torch.uint8)
    labels[:, :20] = 255
    features = model.backbone(x)
    losses = []
    for logits in (model.head(features), model.auxiliary(features[2])):
        shares = enlarge(logits, (32, 40)).log_softmax(1)
        picked = shares.gather(1, labels.clamp(max=4).long()[:, None])[:, 0]
        losses.append(-(picked * (labels != 255)).sum() / (2 * 32 * 40))
    torch.testing.assert_close(model(x, labels), losses[0] + 0.4 * losses[1])
    assert pixel_loss(model(x), torch.full_like(labels, 255)).item() == 0


def test_only_the_backbones_batch_norms_are_frozen() -> None:
    model = narrow(freeze_batch_norm=True).train()
    modes = {name: m.training for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert modes and all(mode == name.startswith("head.") for name, mode in modes.items())
    assert narrow().train().backbone.backbone.stem[1].training


@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_saved_and_loaded_it_computes_the_same(head: str, tmp_path: Path) -> None:
    model = narrow(head, class_names=list("abcde"), image_size=64, size_divisor=32)
    model.save_pretrained(tmp_path)
    loaded = load_segmenter(tmp_path)
    assert (loaded.head_name, loaded.class_names, loaded.image_size, loaded.size_divisor) == (
        head,
        list("abcde"),
        64,
        32,
    )
    x = torch.rand(1, 3, 32, 48)
    assert torch.equal(loaded(x), model(x)) and not loaded.training and loaded(x).shape == (1, 5, 8, 12)


def test_other_checkpoints_are_refused_in_one_sentence(tmp_path: Path) -> None:
    create_model("biformer_tiny", num_classes=2).save_pretrained(tmp_path / "classifier")
    (tmp_path / "weights.pth").write_bytes(b"x")
    narrow().save_pretrained(tmp_path / "other")
    text = (tmp_path / "other/config.json").read_text()
    (tmp_path / "other/config.json").write_text(text.replace('"semantic_fpn"', '"upernet"'))
    for name, words in {
        "classifier": "holds a BiFormer, expected a Segmenter",
        "weights.pth": "is a file, expected the model folder",
        "none": "no such file or folder",
        "other": "does not fit Segmenter: .* missing",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            load_segmenter(tmp_path / name)
        assert "\n" not in str(caught.value)
    for keywords, words in (
        ({"head": "fcn"}, "no head 'fcn'"),
        ({"num_classes": 255}, "1 to 254"),
        ({"class_names": ["a"]}, "1 class_names for 5"),
    ):
        with pytest.raises(ValueError, match=words):
            narrow(**keywords)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((480, 640), 1, (512, 683)),
        ((640, 480), 0.5, (341, 256)),
        ((100, 2000), 1, (102, 2048)),
        ((1, 4000), 1, (1, 2048)),
    ],
)
def test_resized_sizes_are_mmcvs(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert fitted(*size, 512, scale) == expected


def test_rows_are_those_of_two_interpolations() -> None:
    logits = torch.randn(3, 7, 9)
    expected = enlarge(enlarge(logits[None], (25, 33)), (61, 40))[0]
    for first, last in ((0, 61), (0, 1), (17, 18), (30, 61)):
        rows = enlarged_rows(logits, (25, 33), (61, 40), first, last)
        torch.testing.assert_close(rows, expected[:, first:last], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "divisor"), [((40, 57), 1), ((57, 40), 16), ((5, 5), 1), ((2, 150), 1), ((1, 1), 32)])
@pytest.mark.parametrize("several", [False, True])
def test_labels_at_any_size_are_the_literal_ones(
    size: tuple[int, int], divisor: int, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strips of one or a few rows give the same as whole maps."""
    monkeypatch.setattr(inference, "_STRIP_VALUES", 900)
    model = narrow()
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    protocol = Protocol(24, divisor, MULTI_SCALE if several else (1.0,), several)
    total = torch.zeros(5, *size)
    for scale in protocol.scales:
        fit = fitted(*size, 24, scale)
        view = inference.resized(image, *fit)
        aligned = tuple(-(-max(s, model.least_size) // divisor) * divisor for s in fit)
        view = normalised(view if aligned == fit else inference.resized(view, *aligned))[None]
        for mirror in (False, True)[: 1 + several]:
            with torch.no_grad():
                logits = enlarge(enlarge(model(view.flip(-1) if mirror else view), aligned), size)
            shares = logits.softmax(1)[0]
            total += shares.flip(-1) if mirror else shares
    found = predict_labels(model, image, protocol)
    assert found.shape == size
    best = total.gather(0, found[None])[0]
    torch.testing.assert_close(
        best, total.amax(0), rtol=1e-5, atol=1e-5
    )  # classes can differ only where scores are equal up to rounding


def test_scores_are_counted_by_hand() -> None:
    labels = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 255]], dtype=torch.uint8)
    found = torch.tensor([[0, 0, 1, 1], [1, 3, 0, 2]])
    scores = scoring.Scores(scoring.confusion(labels, found, 5).numpy(), 1)
    assert scores.confusion.sum() == 6
    # class 0: 2 of 3; class 1: 2 of 4; class 3: predicted once, never correct; classes 2 and 4: nowhere
    np.testing.assert_allclose(scores.iou, [200 / 3, 50, np.nan, 0, np.nan])
    np.testing.assert_allclose(scores.accuracy, [200 / 3, 200 / 3, np.nan, np.nan, np.nan])
    assert scores.values() == pytest.approx({"mIoU": (200 / 3 + 50) / 3, "mAcc": 200 / 3, "aAcc": 400 / 6})


def test_only_ade20k_rows_have_published_values() -> None:
    model = narrow("upernet")
    model.variant = "biformer_small"
    scores = scoring.Scores(np.eye(5, dtype=np.int64), 2000)

    def published(dataset: str, split: str, protocol: Protocol) -> list[float | None]:
        rows = scoring.rows(scores, model, preset="p", seeds=[0], dataset=dataset, split=split, protocol=protocol)
        return [row.published for row in rows]

    assert published("ADE20K", "validation", Protocol()) == [49.8, None, None]
    assert published("ADE20K", "validation", Protocol(scales=MULTI_SCALE, flip=True)) == [50.8, None, None]
    assert published("ADE20K", "training", Protocol()) == published("other", "validation", Protocol()) == [None] * 3


def test_autocast_and_batches() -> None:
    model = narrow("upernet").double()
    x = torch.rand(3, 3, 33, 50, dtype=torch.float64)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(image[None]) for image in x])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)
        exact = model.float()(x.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x.float()).float()
    assert half.isfinite().all() and (half - exact).norm() < 0.1 * exact.norm()


def test_batch_norms_are_synchronised_under_the_same_names_and_frozen_ones_stay_frozen() -> None:
    model = narrow("upernet", freeze_batch_norm=True)
    names = list(model.state_dict())
    model = launch.sync_batch_norm(model, 2, torch.device("cuda")).train()
    assert list(model.state_dict()) == names
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for name, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            assert module.training is not name.startswith("backbone."), name
