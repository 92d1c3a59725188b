"""The scripts as a user runs them: training, interruption, two processes, evaluation, maps, wrong flags."""

from __future__ import annotations

import copy
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common import launch
from common.errors import UserError
from common.hyperspectral.classification.seeds import model_folders
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.readers import read_array
from common.hyperspectral.stored import Georeference
from common.hyperspectral.synthetic import synthetic_scene
from conftest import CROPS
from support.ablation import parameters, run_ablation
from support.parallel import first_update
from support.scripts import call_script, run_script

PROJECT = Path(__file__).parents[1]
TRAIN = PROJECT / "train.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> Path:
    """A run over two seeds with every option on."""
    folder = tmp_path_factory.mktemp("runs") / "two_seeds"
    options = ["--augmentation", "--ema", "0.9", "--schedule", "cosine", "--draw-map"]
    run_script(TRAIN, *flags, *options, "--seeds", "1", "2", "--output", folder)
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_a_run_leaves_its_results(finished: Path) -> None:
    rows = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert [row["metric"] for row in rows] == ["OA", "AA", "kappa"]
    assert all(row["seeds"] == [1, 2] and "std" in row and "published" not in row for row in rows)
    assert "of test windows hold training pixels" in rows[0]["split"]
    for seed in (1, 2):
        names = {path.name for path in (finished / f"seed_{seed}" / "model").iterdir()}
        assert names == {"model.safetensors", "config.json", "split.npz", "components.npz", "classes.json", "README.md"}
        card = (finished / f"seed_{seed}/model/README.md").read_text(encoding="utf-8")
        assert f"| {rows[0]['value']:.2f} ± " in card and rows[0]["command"] in card
        pictures = {path.name for path in (finished / f"seed_{seed}" / "figures").iterdir()}
        assert pictures == {"map.png", "confusion.png", "curves.png"}
    assert weights(finished / "seed_1") != weights(finished / "seed_2")


def test_killed_and_continued_equals_straight(finished: Path, flags: list[str], tmp_path: Path) -> None:
    options = ["--augmentation", "--ema", "0.9", "--schedule", "cosine", "--draw-map"]
    options += ["--seeds", "1", "2", "--output", str(tmp_path)]
    command = [sys.executable, str(TRAIN), *flags, *options]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"})
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("seed_1/checkpoints/step_*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("seed_1/checkpoints/step_*"))
    assert not (tmp_path / "seed_2" / "scores.json").exists()
    run_script(TRAIN, *flags, *options)
    for seed in ("seed_1", "seed_2"):
        assert weights(tmp_path / seed) == weights(finished / seed)
        assert (tmp_path / seed / "scores.json").read_text() == (finished / seed / "scores.json").read_text()


def test_two_processes_share_the_seeds_out(finished: Path, flags: list[str], tmp_path: Path) -> None:
    options = ["--augmentation", "--ema", "0.9", "--schedule", "cosine", "--draw-map"]
    options += ["--seeds", "1", "2", "--output", str(tmp_path)]
    done = run_script(TRAIN, *flags, *options, processes=2)
    assert weights(tmp_path / "seed_1") == weights(finished / "seed_1")
    assert weights(tmp_path / "seed_2") == weights(finished / "seed_2")
    assert done.stdout.count("| kappa") == 2  # one table per class and one of rows, from one process


def test_two_processes_share_the_batches_of_one_seed(flags: list[str], tmp_path: Path) -> None:
    """Each process normalises by itself, as on every CPU: the same gradients as by accumulation, and one writer."""
    options = [*flags, "--seeds", "--seed", "1", "--network", "drop_path=0", "--output"]
    two = first_update(TRAIN, *options, tmp_path / "two", processes=2)
    one = first_update(TRAIN, *options, tmp_path / "one", "--gradient-accumulation", 2)
    assert two.distance(one) < 1e-5 and two.unused == 0 and two.flags == {"broadcast_buffers"}
    config = json.loads((tmp_path / "two/config.json").read_text(encoding="utf-8"))
    assert config["processes"] == 2
    # 81 training pixels in global batches of 32: three updates an epoch.
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert (tmp_path / "two/scores.json").exists()


def test_batch_norms_are_synchronised_where_they_can_be(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two GPUs; without other processes torch computes as before."""
    held: list[nn.Module] = []
    prepare, convert = Accelerator.prepare, launch.sync_batch_norm
    monkeypatch.setattr(Accelerator, "prepare", lambda self, *parts: held.append(parts[0]) or prepare(self, *parts))
    options = [*flags, "--seeds", "--seed", "1", "--max-steps", "2", "--output"]
    call_script(TRAIN, *options, tmp_path / "plain")

    def another(model: nn.Module, *_: object) -> nn.Module:
        returned.append(convert(copy.copy(model), 2, torch.device("cuda")))
        return returned[0]

    returned: list[nn.Module] = []
    monkeypatch.setattr(launch, "sync_batch_norm", another)
    call_script(TRAIN, *options, tmp_path / "shared")
    assert any(part is returned[0] for part in held), "what it returns is trained"
    norms = [
        {name: type(part) for name, part in model.named_modules() if isinstance(part, _BatchNorm)}
        for model in held
        if isinstance(model, nn.Module)
    ]
    assert [set(kinds.values()) for kinds in norms] == [{nn.BatchNorm2d, nn.BatchNorm3d}, {nn.SyncBatchNorm}]
    assert norms[0].keys() == norms[1].keys()
    assert weights(tmp_path / "shared") == weights(tmp_path / "plain")


def call(capsys: pytest.CaptureFixture[str], script: str, *arguments: object, status: int = 0) -> tuple[str, str]:
    """Run a script in this process; return its output and its warnings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(PROJECT / script), *map(str, arguments)])
        patch.setenv("ACCELERATE_USE_CPU", "true")
        try:
            runpy.run_path(str(PROJECT / script), run_name="__main__")
            found = 0
        except SystemExit as end:
            found = end.code or 0
    out, complaint = capsys.readouterr()
    assert found == status, complaint
    return out, complaint


def test_evaluation_repeats_the_scores_of_training(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "evaluate.py", "--checkpoint", finished)
    trained, again = (
        [row["value"] for row in json.loads((finished / name).read_text(encoding="utf-8"))]
        for name in ("results.json", "evaluation.json")
    )
    assert again == trained
    assert "synthetic class" not in out  # the file's own codes have no names
    assert "class 99000000001" in out
    assert (finished / "figures" / "confusion.png").exists()


def test_codes_of_crops_come_back(
    finished: Path, scene_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Codes beyond 32 bits in every format of the map, which has the georeference of its input."""
    utm = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32615)
    place = Georeference({33550: (2.5, 2.5, 0.0), 33922: (0.0, 0.0, 0.0, 271e3, 3290e3, 0.0), 34735: utm})
    with np.load(scene_file) as file:
        write_geotiff(tmp_path / "cube.tif", file["cube"], place)
    arguments = ["--checkpoint", finished / "seed_1" / "model", "--output", tmp_path / "maps"]
    call(capsys, "predict.py", *arguments, "--input", tmp_path / "cube.tif")
    classes, probabilities = (np.load(tmp_path / "maps" / f"{name}.npy") for name in ("classes", "probabilities"))
    assert classes.shape == (26, 22)
    assert probabilities.shape == (26, 22, 3)
    np.testing.assert_allclose(probabilities.sum(axis=2), 1, atol=1e-5)
    assert np.array_equal(classes, np.array(CROPS)[probabilities.argmax(axis=2)])
    assert np.array_equal(scipy.io.loadmat(tmp_path / "maps" / "classes.mat")["classes"], classes)
    stored = read_array(tmp_path / "maps" / "classes.tif", (2,))
    assert stored.georeference is not None
    assert stored.georeference.tags == place.tags
    assert np.array_equal(stored.values, classes)
    assert (tmp_path / "maps" / "map.png").exists()

    _, complaint = call(capsys, "predict.py", *arguments, status=2)
    assert "add --existing replace or --existing skip" in complaint
    before = (tmp_path / "maps" / "classes.npy").stat().st_mtime_ns
    out, _ = call(capsys, "predict.py", *arguments, "--existing", "skip")
    assert "nothing done" in out
    assert (tmp_path / "maps" / "classes.npy").stat().st_mtime_ns == before
    # The scene of the run has no place; otherwise it is the same. A model's file means its folder.
    arguments[1] = finished / "seed_1" / "model" / "model.safetensors"
    call(capsys, "predict.py", *arguments, "--existing", "replace", "--band-axis", "last", "--device", "cpu")
    assert (tmp_path / "maps" / "classes.npy").stat().st_mtime_ns > before
    assert np.array_equal(np.load(tmp_path / "maps" / "classes.npy"), classes)


def test_wrong_flags_end_with_one_sentence(
    flags: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = [*flags, "--output", tmp_path]
    for script, wrong, message in (
        ("train.py", [*sound, "--window", "23"], "--window 23 is larger than the scene"),
        ("train.py", [*sound, "--window", "0"], "--window 0: expected a number above 0"),
        ("train.py", [*sound, "--learning-rate", "nan"], "--learning-rate nan: expected a number"),
        ("train.py", [*sound, "--batch-size", "0"], "--batch-size 0: expected a number"),
        ("train.py", [*sound, "--ratio", "0"], "a training ratio of 0"),
        ("train.py", [*sound, "--workers", "-1"], "--workers -1: expected a number"),
        ("train.py", ["--preset", "salinas_b"], "choose one of demo, indian_pines"),
        ("evaluate.py", ["--checkpoint"], "--checkpoint names nothing"),
        ("evaluate.py", ["--checkpoint", finished, "--device", "gpu"], "--device gpu: no such device"),
        ("predict.py", ["--checkpoint", finished, "--output", tmp_path], "holds 2 models; choose one"),
        ("benchmark.py", ["--device", "cuda:-1"], "--device cuda:-1: no such device"),
        ("ablation.py", ["--variants", "lsga"], "--variants lsga: unknown"),
    ):
        _, complaint = call(capsys, script, *wrong, status=2)
        assert message in complaint, f"{wrong}: {complaint}"
        assert "Traceback" not in complaint
    for seed in ("1", "9"):  # a trained one, and one that would be scored together with the others
        changed = [*flags, "--epochs", "3", "--seeds", seed, "--output", finished]
        _, complaint = call(capsys, "train.py", *changed, status=2)
        assert "seed_1: holds a run with another configuration" in complaint
    with pytest.raises(UserError, match="holds no model"):
        model_folders(tmp_path)


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py", "benchmark.py", "ablation.py"])
def test_help(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, script, "--help")
    assert "usage" in out.lower()
    assert "--device" in out or script in ("train.py", "ablation.py")
    assert "--band-axis" in out or script in ("benchmark.py", "ablation.py")


def test_benchmark_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(capsys, "benchmark.py", "--small", "--part", "networks", "--threads", "1")[0].splitlines()
    assert lines[0].startswith("what,form,setting,device,dtype,threads,seconds")
    assert [line.split(",")[1] for line in lines[1:]] == ["literal", "ours"] * 2


def test_every_variant_of_the_ablation_trains(tmp_path: Path) -> None:
    scene = synthetic_scene(24, 20, bands=36, num_classes=3)
    np.savez(tmp_path / "scene.npz", cube=scene.cube, labels=scene.labels)
    own = ["--cube", f"{tmp_path}/scene.npz:cube", "--labels", f"{tmp_path}/scene.npz:labels", "--no-draw-map"]
    found = run_ablation(PROJECT / "ablation.py", tmp_path / "ablation", "--ratio", 0.2, "--max-steps", 1, *own)
    sizes = parameters(found)
    # Two layers: Q, K and V against the queries alone; then with the release's token mixing.
    assert sizes["lsgavit_plain"] - sizes["lsgavit_light"] == 2 * (58_080 - 29_040)
    assert sizes["lsgavit"] - sizes["lsgavit_paper"] == 2 * (53_160 - 29_040)
    assert found["lsgavit_gaussian"]["multiply-adds (M)"] > found["lsgavit_paper"]["multiply-adds (M)"]
