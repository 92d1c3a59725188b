"""The best weights are kept, also after a resume; after scoring, networks are in their former mode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.run import Run
from toy_trainer import Config, Toy, demo


def start(folder: Path, **flags: object) -> Run:
    config = Config(**{**vars(demo()), "output": folder, **flags})
    return Run(config, paper="toy", steps=config.iterations)


def network(value: float) -> Toy:
    """All parameters are this value."""
    model = Toy()
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def kept(folder: Path, name: str = "model") -> float:
    return Toy.from_pretrained(folder / name).net[0].bias[0].item()


def test_a_worse_or_equal_score_replaces_nothing(tmp_path: Path) -> None:
    run = start(tmp_path)
    assert run.keep_if_best(-3.0, network(1))
    assert not run.keep_if_best(-3.0, network(2)) and not run.keep_if_best(-4.0, network(3))
    assert (kept(tmp_path), run.best) == (1, -3.0)
    assert run.keep_if_best(0.0, network(4))
    assert not run.keep_if_best(-1.0, network(5)), "0 is a score, not its absence"
    assert (kept(tmp_path), run.best) == (4, 0.0)


def test_other_names_are_other_folders(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.export(network(7))
    assert run.keep_if_best(1.0, network(8), "model_best")
    assert (kept(tmp_path), kept(tmp_path, "model_best")) == (7, 8)


def test_a_resumed_run_remembers_the_best(tmp_path: Path) -> None:
    first = start(tmp_path, max_steps=1)
    first.restore(model=network(0))
    for _ in first.updates():
        first.log(loss=1.0)
        first.keep_if_best(5.0, network(1))
    first.close()
    second = start(tmp_path)
    second.restore(model=network(0))
    second.close()
    assert (second.step, second.best) == (1, 5.0)
    assert not second.keep_if_best(4.0, network(2)) and kept(tmp_path) == 1


@pytest.mark.parametrize("training", [True, False])
def test_a_network_comes_back_from_scoring_as_it_was(tmp_path: Path, training: bool) -> None:
    run, model = start(tmp_path), Toy().train(training)

    def score() -> None:
        with run.scoring(model) as lent:
            assert lent is model and not lent.training
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        score()
    assert model.training is training
    with run.scoring(model) as lent:
        assert not any(module.training for module in lent.modules())
    assert all(module.training is training for module in model.modules())


def test_validation_is_due_at_multiples_and_at_the_end(tmp_path: Path) -> None:
    run = start(tmp_path, max_steps=7, save_every=0, log_every=0)
    run.restore(model=Toy())
    found = {every: [] for every in (0, 2, 3, 7, 100)}
    for _ in run.updates():
        run.log(loss=torch.zeros(()))
        for every, steps in found.items():
            if run.due(every):
                steps.append(run.step)
    run.close()
    assert found == {0: [7], 2: [2, 4, 6, 7], 3: [3, 6, 7], 7: [7], 100: [7]}


def test_a_run_continues_with_a_flag_that_is_no_number(tmp_path: Path) -> None:
    """NaN does not equal itself; it is a value of --no-data."""
    first = start(tmp_path, max_steps=1, slow=float("nan"))
    first.restore(model=Toy())
    assert len(list(first.updates())) == 1
    first.close()
    start(tmp_path, slow=float("nan"))
    with pytest.raises(UserError, match=r"slow nan -> 0\.0"):
        start(tmp_path, slow=0.0)


@pytest.mark.parametrize("content", ["[]", "{", '{"config": 3}'])
def test_a_damaged_record_of_the_flags_is_one_sentence(tmp_path: Path, content: str) -> None:
    first = start(tmp_path, max_steps=1)
    first.restore(model=Toy())
    assert len(list(first.updates())) == 1
    first.close()
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: does not describe a run"):
        start(tmp_path)


def test_cut_off_lines_are_dropped_on_resume(tmp_path: Path) -> None:
    first = start(tmp_path, max_steps=1, log_every=1)
    first.restore(model=Toy())
    for _ in first.updates():
        first.log(loss=1.0)
    first.close()
    path = tmp_path / "metrics.jsonl"
    (line,) = path.read_text().splitlines()
    path.write_text(f"{line}\n{line[:9]}}}\n[1]\n" + line.replace('"step": 1', '"step": 2') + "\n")
    second = start(tmp_path, log_every=1)
    second.restore(model=Toy())
    second.close()
    assert path.read_text() == f"{line}\n"


def test_a_compiled_network_is_scored_without_compiling_it_again(tmp_path: Path) -> None:
    run, model, compiled = start(tmp_path, compile=True), Toy(), 0

    def count(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        nonlocal compiled
        compiled += 1
        return graph

    model.compile(backend=count)
    model(torch.rand(4, 3))
    with run.scoring(model) as network, torch.no_grad():
        network(torch.rand(5, 3))
    model(torch.rand(4, 3))
    assert compiled == 1
