"""Numbers on the command line, and the recorded flags of the run that wrote a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from common.config import (
    AnyNumber,
    BelowOne,
    Bound,
    Fraction,
    LoaderConfig,
    Positive,
    from_command_line,
    parse,
    recorded,
)
from common.errors import UserError
from common.files import write_json


@dataclass(frozen=True, kw_only=True)
class Numbers(LoaderConfig):
    """One field of each kind."""

    plain: float = 0.5
    share: Fraction[float] = 0.5
    decay: BelowOne[float] = 0.9
    sizes: tuple[Positive[int], ...] = (1, 2)
    seeds: tuple[int, ...] = (1, 2)
    free: AnyNumber[float] | None = None
    narrow: Annotated[int, Bound(low=2, high=4)] = 3
    flag: bool = False


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--batch-size", "0"], "--batch-size 0: expected a number above 0"),
        (["--batch-size", "1000000000000"], "--batch-size 1000000000000: expected a number above 0 and of at most"),
        (["--gradient-accumulation", "0"], "--gradient-accumulation 0: expected a number above 0"),
        (["--max-steps", "0"], "--max-steps 0: expected a number above 0"),
        (["--workers", "-1"], "--workers -1: expected a number of at least 0"),
        (["--workers", "4000"], "--workers 4000: expected a number of at least 0 and of at most 256"),
        (["--save-every", "-1"], "--save-every -1: expected a number of at least 0"),
        (["--log-every", "-3"], "--log-every -3: expected a number of at least 0"),
        (["--seed", "-1"], "--seed -1: expected a number of at least 0 and of at most 2147483647"),
        (["--plain", "nan"], "--plain nan: expected a number of at least 0"),
        (["--plain", "inf"], "--plain inf: expected a number of at least 0"),
        (["--plain", "-0.1"], "--plain -0.1: expected a number of at least 0"),
        (["--share", "1.5"], "--share 1.5: expected a number of at least 0 and of at most 1"),
        (["--share", "nan"], "--share nan: expected"),
        (["--decay", "1"], "--decay 1.0: expected a number of at least 0 and below 1"),
        (["--sizes", "3", "0"], "--sizes 0: expected a number above 0"),
        (["--seeds", "3", "3"], "--seeds 3 3: names a seed twice; expected different ones"),
        (["--narrow", "5"], "--narrow 5: expected a number of at least 2 and of at most 4"),
    ],
)
def test_numbers_that_cannot_be_are_one_sentence(arguments: list[str], expected: str) -> None:
    with pytest.raises(UserError) as error:
        from_command_line({"demo": Numbers}, "", arguments)
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)
    with pytest.raises(UserError):
        parse(Numbers, "", arguments)


def test_the_ends_of_the_ranges_are_taken() -> None:
    arguments = "--workers 0 --save-every 0 --log-every 0 --max-steps 1 --share 1 --decay 0 --narrow 4 --plain 0 --flag"
    config = from_command_line({"demo": Numbers}, "", arguments.split())
    assert (config.workers, config.save_every, config.log_every, config.max_steps) == (0, 0, 0, 1)
    assert (config.share, config.decay, config.narrow, config.flag) == (1.0, 0.0, 4, True)


@pytest.mark.parametrize("value", ["-9999", "-3.4028235e+38", "nan", "inf"])
def test_a_declared_value_may_be_any_number(value: str) -> None:
    assert repr(parse(Numbers, "", ["--free", value]).free) == repr(float(value))


def test_the_run_around_a_model_folder_is_found(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"config": {"preset": "demo", "seed": 3}})
    (tmp_path / "model").mkdir()
    assert recorded(tmp_path / "model") == {"preset": "demo", "seed": 3}


def test_files_and_folders_from_elsewhere_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    (tmp_path / "model").mkdir()
    assert recorded(tmp_path / "weights.pth") == {"preset": "released"}
    assert recorded(tmp_path / "model") == {"preset": "unknown"}
    write_json(tmp_path / "config.json", ["no run"])
    assert recorded(tmp_path / "model") == {"preset": "unknown"}
    write_json(tmp_path / "config.json", {"config": {"preset": 3}})
    assert recorded(tmp_path / "model") == {"preset": "unknown"}
    write_json(tmp_path / "config.json", {"config": {"seed": 3}})
    assert recorded(tmp_path / "model") == {"preset": "unknown", "seed": 3}
    (tmp_path / "config.json").write_text('{"config": {"seed"')
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        recorded(tmp_path / "model")


def test_the_last_of_several_presets_gives_values_and_name() -> None:
    presets = {"one": lambda: Numbers(plain=1.0), "two": lambda: Numbers(plain=2.0)}
    for arguments in (["--preset", "one", "--preset", "two"], ["--preset=one", "--seed", "1", "--preset=two"]):
        found = from_command_line(presets, None, arguments)
        assert (found.preset, found.plain) == ("two", 2.0)
    assert from_command_line(presets, None, []).plain == 1.0
