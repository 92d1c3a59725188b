"""Counts and timings of the benchmarks, compared with numbers computed by hand."""

import math
import sys

import pytest
import torch
from torch import nn

from common.measuring import counting, racing
from common.measuring.benchmarking import Benchmark
from common.measuring.racing import Work

CPU = torch.device("cpu")


def test_a_product_reads_two_matrices_and_writes_one():
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    assert counting.count(lambda: a @ b) == counting.Count(2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))


def test_views_move_nothing_and_copies_do():
    x = torch.randn(8, 16)
    assert counting.count(lambda: x.t()[2:].unflatten(1, (2, 4))).bytes == 0
    assert counting.count(lambda: x.t().contiguous()).bytes == 2 * x.nbytes
    assert counting.count(lambda: x.mul_(2)).bytes == 2 * x.nbytes


def test_the_gradient_of_a_grouped_convolution_is_two_more_convolutions():
    conv, x = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), torch.randn(2, 6, 5, 7, requires_grad=True)
    forward = 2 * 2 * 5 * 7 * 6 * 9
    assert counting.count(lambda: conv(x)).operations == forward
    assert counting.count(lambda: conv(x).sum().backward()).operations == 3 * forward


def test_transforms_count_by_their_length():
    assert counting.count(lambda: torch.fft.fft2(torch.zeros(3, 8, 8, dtype=torch.complex64))).operations == (
        5 * 3 * 64 * math.log2(64)
    )


def test_an_operator_of_a_projects_own_hides_its_work():
    @torch.library.custom_op("benchmarks::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    assert counting.count(lambda: twice(torch.ones(3))) == counting.Count(None, None)


def test_the_bound_is_the_slower_of_memory_and_arithmetic():
    device = counting.Device(bandwidth=100.0, rate=1000.0)
    assert device.bound(counting.Count(operations=500, bytes=10)) == (0.5, "arithmetic")
    assert device.bound(counting.Count(operations=500, bytes=80)) == (0.8, "memory")


def test_forms_are_compared_and_one_that_fails_is_left_out(capsys):
    def work(form, run):
        return Work("sum", form, "tiny", 3, run)

    def fails():
        raise RuntimeError("no such kernel\nand more")

    works = [
        work("literal", lambda: torch.tensor([1.0, 2.0])),
        work("broken", fails),
        work("ours", lambda: torch.tensor([1.0, 2.5])),
    ]
    literal, ours = racing.race(works, CPU, "float32", repeats=3)
    assert (literal.ratio, literal.difference, ours.difference) == (1.0, 0.0, 0.25)
    assert ours.ratio == literal.seconds / ours.seconds
    assert "left out, broken: RuntimeError: no such kernel\n" in capsys.readouterr().err


@pytest.mark.parametrize(("dtype", "training"), [("bfloat16", False), ("float32", True)])
def test_a_network_runs_in_the_format_and_leaves_no_gradient(dtype, training):
    module, seen = nn.Linear(4, 4), []

    def network(x):
        y = module(x)
        seen.append((y.dtype, torch.is_grad_enabled(), module.training))
        return y

    what = "training step" if training else "forward"
    (measured,) = racing.race([racing.network_work(what, "ours", "", network, module, torch.ones(2, 4))], CPU, dtype, 1)
    assert set(seen) == {(getattr(torch, dtype), training, training)}
    assert module.weight.grad is None
    assert measured.work.items == 2


def test_rows_are_kept_as_they_come(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"

    def networks(benchmark):
        yield benchmark.row("loader", "ours", "first", 0.5, 2)
        kept.append(len(path.read_text().splitlines()))  # what a killed run leaves
        yield benchmark.row("loader", "ours", "second", 0.25)

    kept: list[int] = []
    for flags in ([], ["--append"], []):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "--small", "--device", "cpu", "--output", str(path), *flags])
        Benchmark("", networks=networks).run()
        kept.append(len(path.read_text().splitlines()))
    assert kept == [2, 3, 4, 5, 2, 3]


def test_loaders_take_turns(monkeypatch):
    begun = []
    seconds = iter([9.0, 1.0, 3.0, 2.0, 4.0, 8.0] * 2)

    def loaded(loader, batches, items):
        begun.append((loader, batches, items))
        return next(seconds)

    monkeypatch.setattr(racing, "loaded", loaded)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device", "cpu", "--repeats", "3"])
    builders = {"theirs": lambda workers: f"a{workers}", "ours": lambda workers: f"b{workers}"}
    rows = list(Benchmark(__doc__).race_loaders("any", builders, 4, 2))
    assert begun == [("a1", 4, 2), ("b1", 4, 2)] * 3 + [("a2", 4, 2), ("b2", 4, 2)] * 3
    assert [(row["form"], row["setting"], row["seconds"], row["fastest"], row["ratio"]) for row in rows] == [
        ("theirs", "any, 1 workers", "4", "3", "1.00"),
        ("ours", "any, 1 workers", "2", "1", "2.00"),
        ("theirs", "any, 2 workers", "4", "3", "1.00"),
        ("ours", "any, 2 workers", "2", "1", "2.00"),
    ]


def test_memory_is_that_of_the_named_form(capsys, monkeypatch):
    """The process that measures memory may leave out forms that its parent measured."""
    forms = {"small": lambda: torch.ones(2**18), "large": lambda: torch.ones(2**24)}  # 1 and 64 MiB

    def part(benchmark):
        yield from benchmark.race(lambda: [Work("ones", form, "", 1, forms[form]) for form in ("large",)])

    arguments = ["benchmark.py", "--device", "cpu", "--dtypes", "float32", "--peak-of", "0"]
    monkeypatch.setattr(sys, "argv", [*arguments, "large"])
    with pytest.raises(SystemExit) as end:
        Benchmark("", networks=part).run()
    assert not end.value.code and 60 < float(capsys.readouterr().out.split()[-1]) < 80
    monkeypatch.setattr(sys, "argv", [*arguments, "small"])
    with pytest.raises(SystemExit, match="does not fit"):
        Benchmark("", networks=part).run()
