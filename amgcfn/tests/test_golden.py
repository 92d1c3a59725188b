"""The released network's numbers: outputs, input gradients and parameter gradients in float64."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from amgcfn import AMGCFN, CAFM, convert_released, literal
from amgcfn.checkpoints import cafm_names, released_names
from amgcfn.graph import superpixel_adjacency
from amgcfn.hops import hop_graphs, sparse_tensor
from support.reference import ReferenceCase

GOLDEN = Path(__file__).parent / "golden"


def test_cafm_equals_the_release():
    case = ReferenceCase.load(GOLDEN / "amgcfn_cafm.npz")
    names = cafm_names()
    module = CAFM(192).double()
    ours = {_ours(name, names): value for name, value in case.state_dict.items()}
    shapes = module.state_dict()
    module.load_state_dict({name: value.reshape(shapes[name].shape) for name, value in ours.items()})
    inputs = case.inputs
    outputs = module(inputs["f1"], inputs["f2"])
    parameters = dict(module.named_parameters())
    case.check(
        [output.flatten(2)[0].T for output in outputs],
        inputs,
        {name: parameters[_ours(name, names)] for name in case.meta["grad_norm"]},
    )


def _released_network() -> tuple[ReferenceCase, AMGCFN]:
    case = ReferenceCase.load(GOLDEN / "amgcfn.npz")
    model = AMGCFN(bands=20, num_classes=6).double()
    model.load_state_dict(convert_released(case.state_dict))
    return case, model.eval()


@pytest.mark.parametrize("form", ["forward", "literal"])
def test_network_equals_the_release(form):
    case, model = _released_network()
    inputs = case.inputs
    hops = [inputs[f"adjacency{k}"] for k in (1, 2, 3)]
    compute = model if form == "forward" else partial(literal.network, model)
    logits = compute(inputs["cube"], inputs["superpixel_features"], inputs["segments"], hops)
    # The grouped convolution holds the release's six one-channel convolutions: give each its slice.
    parameters, names = dict(model.named_parameters()), released_names()
    heads: dict[str, nn.Parameter] = {}
    released = {}
    for name in case.meta["grad_norm"]:
        if "attn_conv" in name:
            heads[name] = released[name] = nn.Parameter(torch.empty(0))
        else:
            released[name] = parameters[_ours(name, names)]

    def split_heads(leaf: str):
        def hook(gradient: torch.Tensor) -> None:
            for i in range(6):
                part = heads[f"CNN_Multihead.attn_conv{i}.{leaf}"]
                part.data = gradient[i : i + 1].clone()
                part.grad = gradient[i : i + 1].clone()

        return hook

    for leaf in ("weight", "bias"):
        parameters[f"pixel_attention.conv.{leaf}"].register_hook(split_heads(leaf))
    case.check([output.softmax(dim=1) for output in logits], inputs, released)
    assert sum(p.numel() for p in model.parameters()) == case.meta["parameters"]


def test_sparse_hops_give_the_same_logits():
    case, model = _released_network()
    inputs = {name: value.detach() for name, value in case.inputs.items()}
    dense = [inputs[f"adjacency{k}"] for k in (1, 2, 3)]
    arguments = inputs["cube"], inputs["superpixel_features"], inputs["segments"]
    for expected, found in zip(
        model(*arguments, dense), model(*arguments, [d.to_sparse() for d in dense]), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_graph_equals_the_release():
    with np.load(GOLDEN / "amgcfn_graph.npz") as case:
        arrays = dict(case)
    features = arrays["superpixel_features"].astype(np.float64)
    adjacency = superpixel_adjacency(arrays["segments"], features)
    np.testing.assert_allclose(adjacency.toarray(), arrays["adjacency"], rtol=1e-6, atol=0)
    for k, hop in enumerate(hop_graphs(arrays["adjacency"], 3), start=1):
        np.testing.assert_allclose(hop.toarray(), arrays[f"hop{k}"], rtol=1e-6, atol=0)
        np.testing.assert_array_equal(sparse_tensor(hop, torch.float64).to_dense().numpy(), hop.toarray())


def _ours(name: str, names: dict[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{names[module]}.{leaf}"
