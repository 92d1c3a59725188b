"""Half precision, memory formats, compilers, ONNX and the meta device give what float64 and plain PyTorch give."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from amgcfn import AMGCFN, CAFM, GraphConvolution, NodeAttention, PixelAttention, build_graph
from amgcfn.convolution import ConvolutionBlock
from common.hyperspectral.classification.transforms import fit_pca

# Largest difference relative to the largest value, against float64 on the same rounded weights and inputs.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}


def _adjacency(nodes: int) -> Tensor:
    return torch.rand(nodes, nodes) * (torch.rand(nodes, nodes) < 0.3)


MODULES: dict[str, tuple] = {
    "CAFM": (lambda: CAFM(12), lambda: (torch.randn(2, 12, 9, 7), torch.randn(2, 12, 9, 7))),
    "GraphConvolution": (lambda: GraphConvolution(5, 4), lambda: (torch.randn(11, 5), _adjacency(11))),
    "sparse": (lambda: GraphConvolution(5, 4), lambda: (torch.randn(11, 5), _adjacency(11).to_sparse())),
    "NodeAttention": (lambda: NodeAttention(24), lambda: (torch.randn(11, 24),)),
    "PixelAttention": (lambda: PixelAttention(12), lambda: (torch.randn(2, 12, 9, 7),)),
    "ConvolutionBlock": (lambda: ConvolutionBlock(5, 6, 5), lambda: (torch.randn(2, 5, 9, 7),)),
}


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return ((ours.double() - theirs.double()).abs().max() / theirs.abs().max()).item()


def _outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.fixture(scope="module")
def network() -> tuple[AMGCFN, tuple]:
    """A network whose batch norms have seen a raw scene with variances beyond float16, and the scene."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:17, :19]
    cube = np.stack([np.sin(rows / 3 + band) + np.cos(columns / (4 + band)) for band in range(7)], axis=2)
    cube = np.rint(3000 + 1000 * (cube + 0.1 * generator.standard_normal(cube.shape)))
    graph = build_graph(cube, fit_pca(cube, 3), pixels_per_superpixel=20)
    features, segments, hops = graph.tensors()
    arguments = torch.from_numpy(cube).float(), features, segments, [hop.to_dense() for hop in hops]
    torch.manual_seed(0)
    model = AMGCFN(bands=7, num_classes=4, graph_dim=8, conv_dim=8)
    for _ in range(30):
        model(*arguments)
    assert model.levels[0].blocks[0].norm.running_var.max() > torch.finfo(torch.float16).max
    return model.eval(), arguments


def _to(arguments: tuple, dtype: torch.dtype) -> tuple:
    cube, features, segments, hops = arguments
    return cube.to(dtype), features.to(dtype), segments, [hop.to(dtype) for hop in hops]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", list(MODULES))
@torch.no_grad()
def test_modules_in_every_precision(name, dtype):
    torch.manual_seed(0)
    make, inputs = MODULES[name]
    module, arguments = make().eval().to(dtype), [x.to(dtype) for x in inputs()]
    exact = _outputs(copy.deepcopy(module).double()(*(x.double() for x in arguments)))
    for ours, theirs in zip(_outputs(module(*arguments)), exact, strict=True):
        assert ours.dtype == dtype and _apart(ours, theirs) < TOLERANCE[dtype]


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cafm_in_half_precision_survives_large_maps(scale):
    torch.manual_seed(0)
    module = CAFM(12).half().eval()
    x, y = (scale * torch.randn(1, 12, 40, 40).half() for _ in range(2))
    with torch.no_grad():
        for ours, theirs in zip(module(x, y), copy.deepcopy(module).double()(x.double(), y.double()), strict=True):
            assert _apart(ours, theirs) < TOLERANCE[torch.float16]


@pytest.mark.parametrize("name", ["CAFM", "PixelAttention", "ConvolutionBlock"])
def test_channels_last_changes_nothing(name):
    torch.manual_seed(0)
    make, inputs = MODULES[name]
    module, arguments = make().eval(), inputs()
    expected = _outputs(module(*arguments))
    module = module.to(memory_format=torch.channels_last)
    found = _outputs(module(*(x.contiguous(memory_format=torch.channels_last) for x in arguments)))
    for ours, theirs in zip(found, expected, strict=True):
        assert _apart(ours, theirs) < 1e-5


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_the_network_in_every_precision(network, dtype):
    model, arguments = network
    model = copy.deepcopy(model).to(memory_format=torch.channels_last).to(dtype)
    arguments = _to(arguments, dtype)
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        pairs = zip(model(*arguments), exact(*_to(arguments, torch.float64)), strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == dtype and _apart(ours, theirs) < TOLERANCE[dtype]


def test_plain_and_fast_forms_agree(network, monkeypatch):
    model, arguments = network
    fast = model(*arguments)
    monkeypatch.setattr("amgcfn.fast.usable", lambda _: False)
    for ours, theirs in zip(fast, model(*arguments), strict=True):
        assert _apart(ours, theirs) < 1e-5


def test_the_network_compiles_whole_and_trains(network):
    model, arguments = network
    model = copy.deepcopy(model).train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    gradients = []
    for one in (model, torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")):
        sum(logits.square().mean() for logits in one(*arguments)).backward()
        gradients.append({name.removeprefix("_orig_mod."): p.grad for name, p in one.named_parameters()})
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() < 1e-4 * largest, name


@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_of_cafm_on_a_second_input(dynamo, tmp_path):
    torch.manual_seed(0)
    module = CAFM(12).eval()
    example, other = (tuple(torch.randn(2, 1, 12, 9, 7)) for _ in range(2))
    found = _onnx(module, example, other, tmp_path, dynamo=dynamo)
    for ours, theirs in zip(found, module(*other), strict=True):
        assert _apart(ours, theirs) < 1e-4


class _Flat(nn.Module):
    """The network with its hop graphs as three arguments."""

    def __init__(self, model: AMGCFN) -> None:
        super().__init__()
        self.model = model

    def forward(self, cube: Tensor, features: Tensor, segments: Tensor, *hops: Tensor):
        return self.model(cube, features, segments, hops)


@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_of_the_network_on_a_second_scene(network, dynamo, tmp_path):
    model, (cube, features, segments, hops) = network
    model = _Flat(copy.deepcopy(model)).eval().requires_grad_(False)
    # Another scene of the same size: mirrored, with other values and its superpixels numbered backwards.
    order = torch.arange(len(features)).flip(0)
    other = (
        cube.flip(1) * 0.9 + 50, features[order] * 0.8, (len(features) - 1 - segments).flip(1),
        *(hop[order][:, order] for hop in hops),
    )  # fmt: skip
    found = _onnx(model, (cube, features, segments, *hops), other, tmp_path, dynamo=dynamo)
    with torch.no_grad():
        for ours, theirs in zip(found, model(*other), strict=True):
            assert _apart(ours, theirs) < 1e-4


def _onnx(module: nn.Module, example: tuple, other: tuple, folder: Path, *, dynamo: bool) -> list[Tensor]:
    """Export with one input, run ONNX Runtime on another."""
    runtime = pytest.importorskip("onnxruntime")
    names = [f"x{i}" for i in range(len(example))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, folder / "m.onnx", dynamo=dynamo, input_names=names, verbose=False)
    session = runtime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    inputs = {one.name: x.numpy() for one, x in zip(session.get_inputs(), other, strict=True)}
    return [torch.from_numpy(np.asarray(y)) for y in session.run(None, inputs)]


def test_the_meta_device_keeps_everything(network):
    model, arguments = network
    with torch.device("meta"):
        empty = AMGCFN(bands=7, num_classes=4, graph_dim=8, conv_dim=8)
    loaded = empty.to_empty(device="cpu")
    loaded.load_state_dict(model.state_dict())
    for ours, theirs in zip(loaded.eval()(*arguments), model(*arguments), strict=True):
        assert torch.equal(ours, theirs)


def test_imports_are_light_and_load_no_compiler():
    code = """
import sys, time, torch
for line in ("import amgcfn", "from amgcfn.blocks import CAFMBlock", "from amgcfn import AMGCFN"):
    start = time.process_time()
    exec(line)
    assert time.process_time() - start < 1, line
    assert not {"torch._dynamo", "skimage", "matplotlib"} & set(sys.modules), line
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
