"""Enlarge a scene of any size.

    python essaformer/predict.py --checkpoint DIR --input SCENE.hdr --output LARGE.tif
    python essaformer/predict.py --checkpoint DIR --input scene.mat:cube --output large.mat --memory 2G
    python essaformer/predict.py --checkpoint DIR --input TRUTH.tif --reduce --output again.tif    reduce first, compare

Input and output are MATLAB, NumPy, ENVI or GeoTIFF files, also of different formats. The output has the input's type
(integers are rounded and clipped to their range) and wavelengths; its georeference fits the smaller pixels. Pixels
without data stay without data and keep the value that the input declares for them. The script also draws a false-colour
before/after sheet and the spectra of a few pixels, and with --truth or --reduce an error map.

Scenes that need more than --memory are computed in overlapping tiles, which are blended without seams. The attention
covers one tile, so another tile size gives slightly different values; the script prints the size. A GeoTIFF or ENVI
scene that needs more than half of --memory, with its intermediate results, is read and written window by window, in
one or several processes, into a GeoTIFF (--output must end in .tif) without sheet and spectra. This needs
fullpaper-common[raster]. If it is interrupted, the same command continues.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
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
from essaformer.checkpoints import load_model, load_scaling
from essaformer.large import enlarge_raster
from essaformer.metrics import METRICS, score
from essaformer.model import ESSAformer
from essaformer.pictures import ERROR_SHOWN, colours, draw_spectra, error_map, stretch
from essaformer.resize import imresize
from essaformer.scaling import Scaling, restored, scaled
from essaformer.tiling import check_bands, enlarge_tiled, tile_for_memory

DRAWN = ("before_after", "spectra")
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, owner/name on the Hugging Face hub, or a name
    that docs/weights.md marks as fetched by name."""
    input: str
    """FILE[:KEY] of the scene."""
    output: Path
    """The enlarged scene; the suffix chooses the format."""
    truth: str | None = None
    """FILE[:KEY] of the true large scene, for scores and an error map."""
    reduce: bool = False
    """First reduce the input by the checkpoint's scale, as the protocols do, then compare the output with the input."""
    band_axis: BandAxis | None = None
    """Where the bands of --input and --truth are: first or last."""
    no_data: AnyNumber[float] | None = None
    """Value of pixels without data, instead of the one that --input declares; NaN always means no data."""
    scaling: Literal["checkpoint", "maximum", "percentile"] = "checkpoint"
    """How values are divided: as in training, or by the scene's maximum or 99.9 percentile."""
    memory: str | None = None
    """Memory such as 800M or 4G; by default a quarter of the device's. It limits the network on one tile, and the whole
    process if the scene is read by windows."""
    tile: Positive[int] | None = None
    """Side of the tiles in pixels of the input, instead of --memory."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Autocast type of the network."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """What to do if an output exists: refuse to start, skip the work, or replace it. The input is never replaced."""
    cog: bool = False
    """Write cloud-optimised GeoTIFFs with overviews."""


@command
def main() -> None:
    """Read, enlarge, write, draw."""
    options = config.parse(PredictConfig, __doc__)
    options = replace(options, checkpoint=locate(options.checkpoint))
    device = choose_device(options.device)
    budget = memory.budget(options.memory, device)
    if options.reduce and options.truth:
        raise UserError("--reduce compares with --input; leave out --truth")
    drawn = {name: options.output.with_name(f"{options.output.stem}_{name}.png") for name in DRAWN}
    outputs = [*output_files(options.output), *drawn.values()]
    model = load_model(options.checkpoint).float().to(device)
    large = larger_than(budget, options.input, 4 + 16 * model.scale**2)
    if not make_room(options.output, options.existing, beside=outputs, windows=large):
        return
    chosen = {"maximum": Scaling("maximum"), "percentile": Scaling("percentile", 99.9)}
    scaling = chosen[options.scaling] if options.scaling in chosen else load_scaling(options.checkpoint)
    if options.cog and options.output.suffix.lower() not in TIFF:
        raise UserError(f"{options.output}: --cog makes a cloud-optimised GeoTIFF; choose an --output ending in .tif")
    if large:
        if options.reduce or options.truth:
            raise UserError("--reduce and --truth need the scene in memory; raise --memory")
        if options.output.suffix.lower() not in TIFF:
            raise UserError(f"{options.output}: a scene larger than --memory becomes a GeoTIFF; name it .tif")
        refuse_inputs(outputs, [options.input])
        precision = PRECISIONS.get(options.mixed_precision)
        enlarge_raster(model, options.input, options.output, scaling, options, tile=options.tile, precision=precision)
        return
    scene = open_scene(options.input, band_axis=options.band_axis, no_data=options.no_data)
    if scene.note:
        print(scene.note)
    true_scene = open_scene(options.truth, band_axis=options.band_axis) if options.truth else None
    refuse_inputs(outputs, [found.source for found in (scene, true_scene) if found])
    check_type(options.output, scene.cube.dtype)
    check_bands(model, scene.bands, scene.source)
    divisor = scaling.divisor(scene.spectra(), scene.source)
    report_values(scene, divisor)

    # Reduced again, the scene has its own resolution: the place is that of the input.
    factor = 1 if options.reduce else model.scale
    extent = scene.extent  # a border without data is cut off and put back
    low, valid = scaled(scene.cube[extent], divisor), scene.valid[extent]
    truth = None
    if options.reduce:
        height, width = (side // model.scale * model.scale for side in low.shape[:2])
        truth, valid = low[:height, :width], valid[:height, :width]
        low = np.moveaxis(imresize(np.moveaxis(truth, -1, 0), 1 / model.scale), 0, -1)
    else:
        valid = valid.repeat(factor, axis=0).repeat(factor, axis=1)
    counted = valid
    if true_scene:
        expected = (scene.shape[0] * factor, scene.shape[1] * factor, scene.bands)
        if true_scene.cube.shape != expected:
            found = true_scene.cube.shape
            raise UserError(f"{options.truth}: has shape {found}; expected {expected}, {factor} × the input")
        box = tuple(slice(side.start * factor, side.stop * factor) for side in extent)
        truth, counted = scaled(true_scene.cube[box], divisor), valid & true_scene.valid[box]
    enlarged = enlarge(model, low, options, budget)

    output, no_data = with_no_data(restored(enlarged, divisor, scene.cube.dtype), valid, scene, factor)
    files = write_scene(
        options.output, output, factor, description=f"enlarged by a factor of {factor}",
        wavelengths=scene.wavelengths, georeference=scene.georeference, source=scene.source, no_data=no_data,
    )  # fmt: skip
    if options.cog:
        make_cog(options.output)
    bicubic = np.moveaxis(imresize(np.moveaxis(low, -1, 0), float(model.scale)), 0, -1)
    files += draw(drawn, scene, bicubic, enlarged, truth)
    if truth is not None:
        for name, cube in (("bicubic", bicubic), ("ESSAformer", enlarged)):
            values = score(cube, truth, model.scale, valid=counted)
            print(f"{name}: " + ", ".join(f"{metric} {values[metric]:.4f}" for metric in METRICS) + " (sspsr)")
    print(f"{output.shape[0]} × {output.shape[1]} × {output.shape[2]}: {', '.join(map(str, files))}")


def with_no_data(
    enlarged: np.ndarray, valid: np.ndarray, scene: Scene, factor: int
) -> tuple[np.ndarray, float | int | None]:
    """Put the border without data back, and the no-data value into every pixel without data.

    Args:
        enlarged: `(H, W, bands)` of the scene's extent, in the type of the output.
        valid: `(H, W)` bool.
        factor: size of the output by that of the scene.

    Returns:
        the output, and the value that it is to declare, None when it declares none.
    """
    if scene.valid.all():
        held = scene.no_data is not None and value_for(enlarged.dtype, scene.no_data) == scene.no_data
        return enlarged, scene.no_data if held else None
    value = value_for(enlarged.dtype, scene.no_data)
    rows, columns = scene.extent
    around = ((rows.start, scene.shape[0] - rows.stop), (columns.start, scene.shape[1] - columns.stop))
    enlarged[~valid] = value
    border = [tuple(side * factor for side in sides) for sides in around]
    return np.pad(enlarged, (*border, (0, 0)), constant_values=value), value


def report_values(scene: Scene, divisor: float) -> None:
    """Say what the network will not see as it is: clipped values, constant bands."""
    values = scene.spectra()
    above, below = float((values > divisor).mean()), float((values < 0).mean())
    if above or below:
        print(f"note: {above:.2%} of the values lie above {divisor:g} and {below:.2%} below 0; they are clipped")
    constant = np.flatnonzero(values.max(axis=(0, 1)) == values.min(axis=(0, 1)))
    if len(constant):
        print(f"note: {len(constant)} bands are constant (counted from 0, first {constant[0]})")


def enlarge(model: ESSAformer, low: np.ndarray, options: PredictConfig, budget: int) -> np.ndarray:
    """The network on `(h, w, bands)`, whole or in tiles."""
    picture = torch.from_numpy(np.ascontiguousarray(low.transpose(2, 0, 1)))
    height, width = picture.shape[1:]
    tile = options.tile or tile_for_memory(model, budget, height, width)
    if max(height, width) > tile:
        print(f"tiles of {tile} × {tile} pixels of the input; attention reaches as far as a tile")
    half = options.mixed_precision != "no"
    autocast = (
        torch.autocast(next(model.parameters()).device.type, PRECISIONS[options.mixed_precision]) if half else None
    )
    with autocast or contextlib.nullcontext(), tqdm(total=height * width, unit="px", unit_scale=True) as bar:
        try:
            return enlarge_tiled(model, picture, tile, progress=bar.update).permute(1, 2, 0).numpy()
        except torch.OutOfMemoryError:
            raise UserError("the device's memory is too small for a tile; use a smaller --memory") from None


def draw(
    paths: dict[str, Path], scene: Scene, bicubic: np.ndarray, enlarged: np.ndarray, truth: np.ndarray | None
) -> list[Path]:
    """The sheet and the spectra beside the output; with a truth also error maps in the sheet."""
    bands = shown_bands(scene)
    limits = stretch(bicubic[..., bands])
    sheet = [colours(cube, bands, limits) for cube in (bicubic, enlarged)]
    titles = ["bicubic", "ESSAformer"]
    if truth is not None:
        sheet += [colours(truth, bands, limits), error_map(bicubic, truth), error_map(enlarged, truth)]
        titles += ["truth", f"error of bicubic (white: {ERROR_SHOWN:g})", "error of ESSAformer"]
    sheet_path, spectra_path = (paths[name] for name in DRAWN)
    cubes = {"bicubic": bicubic, "ESSAformer": enlarged}
    return [comparison_sheet([sheet], titles, sheet_path), draw_spectra(spectra_path, scene, cubes, truth=truth)]


if __name__ == "__main__":
    main()
