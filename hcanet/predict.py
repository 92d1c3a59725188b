"""Remove the noise of a scene of any size and number of bands; no clean reference is needed.

    python hcanet/predict.py --checkpoint runs/hcanet_scene --input SCENE.hdr --output CLEAN.hdr
    python hcanet/predict.py --checkpoint DIR --input scene.mat:cube --output clean.mat --memory 2G
    python hcanet/predict.py --checkpoint DIR --input SCENE.tif --output CLEAN.tif --tile 64

Reads and writes MATLAB, NumPy, ENVI and GeoTIFF files. The output has the input's type, wavelengths, georeference and
pixels without data. If a scene has more bands than the network, they are processed in groups. A before/after sheet
with the residual and spectra of a few pixels are written beside the output. The noise level of every band is estimated
from the scene itself and printed.

The result of a network with the released local branch depends on the size of its image, so by default it gets tiles of
its training size, blended where they overlap. With local_mix pixel the whole scene is processed at once if --memory
allows it.

A GeoTIFF or ENVI scene that needs more than half of --memory is read and written by windows, in one or several
processes, into a GeoTIFF (--output must end in .tif), without sheet, spectra and noise levels. This needs
fullpaper-common[raster]. After an interruption the same command continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from common import config, memory
from common.config import AnyNumber, Positive
from common.environment import choose_device
from common.errors import UserError, command
from common.figures import comparison_sheet
from common.files import make_room
from common.hyperspectral.display import shown_bands
from common.hyperspectral.layers import make_cog
from common.hyperspectral.no_data import value_for
from common.hyperspectral.outputs import output_files, refuse_inputs
from common.hyperspectral.raster import TIFF, larger_than
from common.hyperspectral.scene import BandAxis, Scene, open_scene
from common.hyperspectral.writing import check_type, write_scene
from common.networks.weights import locate
from hcanet.checkpoints import load_model, load_preparation
from hcanet.denoising import band_groups, denoise_scene, released_mix, tile_for_memory
from hcanet.large import denoise_raster
from hcanet.noise import estimated_sigmas
from hcanet.pictures import colours, draw_spectra, grey, stretch, worst_band
from hcanet.scaling import restored
from hcanet.scenes import Scaling, limits

DRAWN = ("before_after", "spectra")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, or a file in the published form."""
    input: str
    """FILE[:KEY] of the noisy scene."""
    output: Path
    """The denoised scene; its suffix determines the format, by default the input's."""
    band_axis: BandAxis | None = None
    """Axis of the bands of --input: first or last."""
    no_data: AnyNumber[float] | None = None
    """Value of pixels without data; by default as the file declares."""
    scaling: Scaling | None = None
    """Scale values to [0, 1] by the 99.9 percentile or by minimum and maximum; by default as in training."""
    tile: Positive[int] | None = None
    """Side of the tiles in pixels; by default the training size with local_mix released, else as --memory allows."""
    memory: str | None = None
    """Memory for the network on one tile, or for the whole process if a scene is read by windows, such as 800M or 4G;
    by default a quarter of the device's."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto uses a GPU if there is one."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """What to do if an output exists."""
    cog: bool = False
    """Write a cloud-optimised GeoTIFF with overviews."""


@command
def main() -> None:
    """Read, denoise, write, draw."""
    options = config.parse(PredictConfig, __doc__)
    checkpoint = locate(options.checkpoint)
    source = Path(options.input if Path(options.input).exists() else options.input.rpartition(":")[0] or options.input)
    target = options.output if options.output.suffix else options.output.with_suffix(source.suffix)
    device = choose_device(options.device)
    if options.cog and target.suffix.lower() not in TIFF:
        raise UserError(f"{target}: --cog makes a cloud-optimised GeoTIFF; choose an --output ending in .tif")
    budget = memory.budget(options.memory, device)
    large = larger_than(budget, options.input, 16)
    outputs = [*output_files(target), *(target.with_name(f"{target.stem}_{name}.png") for name in DRAWN)]
    if not make_room(target, options.existing, beside=outputs, windows=large):
        return
    refuse_inputs(outputs, [options.input])
    if large:
        if target.suffix.lower() not in TIFF:
            raise UserError(f"{target}: a scene larger than --memory becomes a GeoTIFF; name it .tif")
        model, preparation = load_model(checkpoint).float(), load_preparation(checkpoint)
        scaling = options.scaling or preparation.scaling
        denoise_raster(model, options.input, target, scaling, options, tile=options.tile, preparation=preparation)
        return
    scene = open_scene(options.input, band_axis=options.band_axis, no_data=options.no_data)
    check_type(target, scene.cube.dtype)
    model = load_model(checkpoint).float().to(device)
    preparation = load_preparation(checkpoint)
    groups = band_groups(scene.bands, model.bands)
    for remark in scene.remarks:
        print(f"note: {remark}")
    if not scene.valid.all():
        print(f"note: {int((~scene.valid).sum())} of {scene.valid.size} pixels hold no data; they stay as they are")
    offset, divisor = limits(scene.cube, scene.valid, options.scaling or preparation.scaling, scene.source)
    # Unlike clean training scenes, a noisy scene is not clipped, because noise exceeds both limits.
    noisy = (np.moveaxis(scene.cube, -1, 0).astype(np.float32) - np.float32(offset)) / np.float32(divisor)
    levels = report_noise(noisy)

    limit = tile_for_memory(model, budget, *scene.shape)
    tile = options.tile or (preparation.tile if released_mix(model) else limit)
    passes = f"{len(groups)} group(s) of {model.bands} bands"
    if preparation.eigen_images:
        passes = f"{preparation.eigen_images} eigen-images"
    if max(scene.shape) > tile:
        why = "the size it was trained on" if tile == preparation.tile else "as --tile or --memory say"
        print(f"{passes}, tiles of {tile} × {tile} pixels, {why}")
    else:
        print(f"{passes}, the whole scene at once")
    with tqdm(unit="px", unit_scale=True) as bar:
        try:
            batch = max(1, limit**2 // tile**2)
            denoised = denoise_scene(
                model, torch.from_numpy(noisy), preparation, tile, batch=batch, progress=bar.update, valid=scene.valid
            ).numpy()
        except torch.OutOfMemoryError:
            raise UserError("the device's memory is too small; use a smaller --memory or --tile") from None
    cube = restored(denoised, offset, divisor, scene)
    files = write_scene(
        target, cube, description="denoised by HCANet", wavelengths=scene.wavelengths, georeference=scene.georeference,
        source=scene.source, no_data=None if scene.valid.all() else float(value_for(cube.dtype, scene.no_data)),
    )  # fmt: skip
    if options.cog:
        make_cog(target)
    files += draw(target, scene, noisy, denoised)
    removed = 255 * float(np.sqrt(((noisy - denoised)[:, scene.valid] ** 2).mean()))
    after = estimated_sigmas(denoised) if min(scene.shape) > 2 else levels
    print(
        f"removed: root mean square {removed:.1f} of 255; "
        f"median level {np.median(levels):.1f} before, {np.median(after):.1f} after"
    )
    print(f"{scene.shape[0]} × {scene.shape[1]} × {scene.bands}: {', '.join(map(str, files))}")


def report_noise(noisy: np.ndarray) -> np.ndarray:
    """Print and return the estimated level of every band, on the scale of 0 to 255 of the scaled values."""
    if min(noisy.shape[1:]) < 3:
        print("noise: the scene is too small to estimate its level")
        return np.zeros(len(noisy))
    levels = estimated_sigmas(noisy)
    print(f"estimated noise level of each band, of 255 (median {np.median(levels):.1f}):")
    for first in range(0, len(levels), 16):
        print(f"  band {first:3d}: " + " ".join(f"{level:5.1f}" for level in levels[first : first + 16]))
    return levels


def draw(output: Path, scene: Scene, noisy: np.ndarray, denoised: np.ndarray) -> list[Path]:
    """Draw the before/after sheet and the spectra beside the output."""
    bands = shown_bands(scene)
    shown = stretch(denoised, bands)
    worst = worst_band(noisy, denoised)
    low, high = np.percentile(denoised[worst], (2, 98))
    # Grey is no change; black and white are three standard deviations. Visible structure was lost by denoising.
    removed = noisy[worst] - denoised[worst]
    spread = max(3 * float(removed.std()), 1e-12)
    panels = [
        colours(noisy, bands, shown), colours(denoised, bands, shown), grey(noisy[worst], (low, high)),
        grey(denoised[worst], (low, high)), grey(removed, (-spread, spread)),
    ]  # fmt: skip
    titles = ["before", "after", f"band {worst}, which changed most", "after", f"removed there (white: {spread:.2g})"]
    path, spectra = (output.with_name(f"{output.stem}_{name}.png") for name in DRAWN)
    images = {"noisy": noisy, "HCANet": denoised}
    return [comparison_sheet([panels], titles, path), draw_spectra(spectra, scene, images)]


if __name__ == "__main__":
    main()
