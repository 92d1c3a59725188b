"""The Triton kernels equal the literal equation, in Triton's interpreter on a CPU, and on a GPU if there is one.

The interpreter must be selected before Triton is imported, so a second process runs this file as a script. The script
prints the errors of every case, relative to the largest reference value.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

from biformer.fast.routing import routed_attention
from biformer.literal import literal_routed_attention

pytest.importorskip("triton")

# batch, regions, tokens, key tokens, heads, head width, top_k, dtype
CASES = {
    "stage 1": (1, 2, 64, 64, 1, 32, 1, "float32"),
    "stage 2": (1, 3, 16, 16, 2, 32, 2, "float32"),
    "stage 3, four heads in a tile": (1, 5, 4, 4, 5, 32, 4, "float32"),
    "one token": (2, 2, 1, 1, 8, 32, 2, "float32"),
    "dense task": (1, 2, 100, 100, 1, 32, 1, "float32"),
    "no power of two": (1, 3, 3, 3, 2, 20, 2, "float32"),
    "pooled keys": (1, 2, 35, 7, 1, 16, 2, "float32"),
    "wide heads": (1, 2, 8, 8, 1, 200, 2, "float32"),
    "bfloat16": (1, 3, 4, 4, 4, 32, 2, "bfloat16"),
    "float16": (1, 3, 16, 16, 2, 48, 2, "float16"),
}
TOLERANCES = {"float32": 2e-6, "bfloat16": 1.5e-2, "float16": 2e-3}


def errors(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, float]:
    """Errors of the output and of the three gradients, compared with float64."""
    batch, regions, tokens, key_tokens, heads, width, top_k = shape
    generator = torch.Generator().manual_seed(0)
    channels = heads * width

    def parts(length: int, count: int) -> list[torch.Tensor]:
        # Parts of one tensor, as in the module: their rows are not contiguous.
        together = torch.randn(batch, regions, length, count * channels, generator=generator)
        return [x.requires_grad_() for x in together.to(device, dtype).split(channels, dim=-1)]

    (q, upstream), (k, v, _) = parts(tokens, 2), parts(key_tokens, 3)
    routes = torch.rand(batch, regions, regions, generator=generator).topk(top_k, dim=-1).indices.to(device)
    out, _ = torch.ops.biformer.routed_attention(q, k, v, routes, heads, channels**-0.5)
    ours = [out, *torch.autograd.grad(out, (q, k, v), upstream)]
    q, k, v = (x.detach().double().requires_grad_() for x in (q, k, v))
    out = literal_routed_attention(q, k, v, routes, heads, channels**-0.5)
    literal = [out, *torch.autograd.grad(out, (q, k, v), upstream.double())]
    names = ("output", "q", "k", "v")
    return {
        name: ((mine - theirs).abs().max() / theirs.abs().max()).item()
        for name, mine, theirs in zip(names, ours, literal, strict=True)
    }


def interpret() -> None:
    """All cases on the CPU, as JSON; needs TRITON_INTERPRET=1."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    multiply = InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):
        # The interpreter stores bfloat16 as bit patterns, and its product would multiply these as integers.
        if a.dtype == tl.bfloat16:
            a, b = (self.cast_impl(x, tl.block_type(tl.float32, list(x.data.shape))) for x in (a, b))
        return multiply(self, a, b, *rest)

    InterpreterBuilder.create_dot = create_dot
    results = {name: errors(case[:-1], getattr(torch, case[-1]), "cpu") for name, case in CASES.items()}
    print(json.dumps(results))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_interpreted_kernels_are_the_literal_equation(name, interpreted):
    assert max(interpreted[name].values()) <= TOLERANCES[CASES[name][-1]], interpreted[name]


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_compiled_kernels_are_the_literal_equation(name):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    *shape, dtype = CASES[name]
    found = errors(tuple(shape), getattr(torch, dtype), "cuda")
    assert max(found.values()) <= TOLERANCES[dtype], found


@pytest.mark.gpu
def test_routed_attention_takes_the_kernels_on_a_gpu_also_when_compiled():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    q, k, v = torch.randn(3, 2, 49, 4, 64, device="cuda").unbind(0)
    routes = torch.rand(2, 49, 49, device="cuda").topk(16, dim=-1).indices
    expected = torch.ops.biformer.routed_attention(q, k, v, routes, 2, 0.125)[0]
    assert torch.equal(routed_attention(q, k, v, routes, 2, 0.125), expected)
    assert torch.equal(torch.compile(routed_attention, fullgraph=True)(q, k, v, routes, 2, 0.125), expected)


TARGETS = ("forward_kernel", "query_gradient_kernel", "key_gradient_kernel", "invert_kernel")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("kernel", TARGETS)
def test_kernels_compile_without_the_gpu(kernel):
    """The interpreter accepts code that the compiler refuses, such as a variable that changes its type in a loop."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from biformer.fast import triton_kernels, triton_launch

    function = getattr(triton_kernels, kernel)
    _, tile = triton_launch.tiling(torch.empty(1, 49, 4, 256, dtype=torch.bfloat16), 4, 8, tensors=2)
    constants = tile | {"REGIONS": 64}
    kinds = {"scale": "fp32", "lse": "*fp32", "delta": "*fp32", "routes": "*i64", "choosers": "*i32", "chosen": "*i32"}
    kinds |= dict.fromkeys(("grad", "q", "k", "v", "out", "dq", "dk", "dv"), "*bf16")
    signature = {x: "constexpr" if x in constants else kinds.get(x, "i32") for x in function.arg_names}
    source = ASTSource(function, signature, {x: constants[x] for x in signature if signature[x] == "constexpr"})
    options = {"num_warps": tile["num_warps"], "num_stages": tile["num_stages"]}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.metadata.shared <= 99 * 1024, "does not fit a consumer card"
    assert "mma" in compiled.asm["ptx"] or kernel == "invert_kernel", "not on the tensor cores"


if __name__ == "__main__":
    interpret()
