"""The folders of a training with several seeds: `OUTPUT/seed_N/` with model, configuration and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import numpy as np

from common.config import RunConfig
from common.errors import UserError
from common.files import write_json
from common.hyperspectral.classification.scores import Scores, from_confusion
from common.networks.weights import locate
from common.recording import check_same, describe

Config = TypeVar("Config", bound=RunConfig)

# Flags that runs of version 0.1 recorded, although they had no effect in trainers without a loader.
_RETIRED = ("batch_size", "workers", "gradient_accumulation", "mixed_precision")


def seed_folder(folder: Path, seeds: tuple[int, ...], seed: int) -> Path:
    """Return the folder of a seed: one per seed with `--seeds`, the run's own folder with a single `--seed`."""
    return folder / f"seed_{seed}" if seeds else folder


def refuse_mixed(folder: Path, config: RunConfig) -> None:
    """Refuse a folder with seeds of another configuration, which would be scored together with the new ones.

    Raises:
        UserError: there is such a seed.
    """
    paths = sorted(folder.glob("seed_*/config.json"))
    described = describe(config) if paths else {}  # reads the whole cube, for its digest
    for path in paths:
        # Every seed records itself as the only one.
        own = {"seed": int(path.parent.name.removeprefix("seed_")), "seeds": []}
        check_same(path, described | {"config": described["config"] | own})


def model_folders(checkpoint: Path) -> list[Path]:
    """Return the model folders that a checkpoint path means: the folder itself, a run's, or those of a run's seeds.

    Raises:
        UserError: there is no model folder.
    """
    if (checkpoint / "model.safetensors").exists():
        return [checkpoint]
    found = [checkpoint / "model"] if (checkpoint / "model" / "model.safetensors").exists() else []
    found = found or sorted(path.parent for path in checkpoint.glob("seed_*/model/model.safetensors"))
    if not found:
        raise UserError(f"{checkpoint}: holds no model; expected a run's folder, its model folder, or a released file")
    return found


def one_model(checkpoint: str, missing: str) -> Path:
    """Return the only model folder that `--checkpoint` means.

    Args:
        missing: what a prediction needs and the authors' files do not hold, for the message.

    Raises:
        UserError: it is one of the authors' files, or there is no model folder, or there are several.
    """
    found = locate(checkpoint)
    if found.is_file():
        raise UserError(f"{found}: the authors' file has {missing}; expected the model folder of a run")
    folders = model_folders(found)
    if len(folders) > 1:
        raise UserError(f"{checkpoint}: holds {len(folders)} models; choose one, for example {folders[0]}")
    return folders[0]


def recorded_config(model_folder: Path, kind: type[Config]) -> Config:
    """Return the configuration of the run that wrote a model folder.

    Args:
        kind: the project's configuration class, which has `seeds`.

    Raises:
        UserError: the model folder is not inside the folder of such a run.
    """
    path = model_folder.parent / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["config"]
        values = {name: value for name, value in values.items() if name not in _RETIRED or hasattr(kind, name)}
        paths = {name: Path(values[name]) for name in ("data_root", "output") if values[name]}
        return kind(**{**values, **paths, "seeds": tuple(values["seeds"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: does not describe a run of this project ({error}); keep a model in its run") from None


def write_scores(path: Path, scores: Scores) -> None:
    """Write one seed's scores and the confusion matrix they come from."""
    write_json(path, {**scores.metrics, "confusion": scores.confusion.tolist()})


def read_scores(path: Path) -> Scores:
    """Read what `write_scores` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return from_confusion(np.array(json.loads(path.read_text(encoding="utf-8"))["confusion"]))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; that seed has not finished, run the same command again") from None
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: does not hold scores ({error})") from None
