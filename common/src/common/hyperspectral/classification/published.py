"""The published scenes as data: files, keys, shapes, class names, addresses, checksums, fixed splits.

Class names are the publishers' unless a comment says otherwise. `catalogue.py` reads the files.
"""

from __future__ import annotations

from dataclasses import dataclass

_EHU = "https://www.ehu.eus/ccwintco/uploads/"
_HOUSTON_2013 = "request the 2013 contest data at hyperspectral.ee.uh.edu/?page_id=459 (it may not be passed on)"


@dataclass(frozen=True)
class Source:
    """One published file. Without `url` it must be placed by hand, and `origin` says where it comes from."""

    file: str
    key: str = ""
    url: str = ""
    origin: str = ""

    @property
    def checksum(self) -> str:
        """SHA-256, or the id as a git blob (40 digits), of a verified copy; empty where none is known."""
        return _CHECKSUMS.get(self.file, "")


@dataclass(frozen=True)
class Published:
    """One published scene.

    Attributes:
        labels: None if the fixed split contains all labels.
        shape: rows, columns, bands of the cube.
        names: class names, code 1 first; a scene need not hold every code.
        composite_bands: red, green and blue band of its images.
        label_scale: label pixels along one pixel of the cube.
        minimum_pixels: classes with fewer labelled pixels are left out, as in the published protocol.
        fixed: training and test map of a published split.
        fixed_codes: the scene's code of each code in those maps; None if they are the same.
    """

    title: str
    cube: Source
    labels: Source | None
    shape: tuple[int, int, int]
    names: tuple[str, ...]
    composite_bands: tuple[int, int, int]
    label_scale: int = 1
    minimum_pixels: int = 1
    fixed: tuple[Source, Source] | None = None
    fixed_codes: tuple[int, ...] | None = None


def _ehu(folder: str, name: str, key: str) -> Source:
    return Source(f"{name}.mat", key, f"{_EHU}{folder}/{name}.mat")


def _minigcn(name: str) -> Source:
    return Source(name, origin="from github.com/danfenghong/IEEE_TGRS_GCN")


_CHECKSUMS = {
    "Indian_pines_corrected.mat": "75b6d6e7df046fce91eda23e7559e274c92da711",
    "Indian_pines_gt.mat": "65c4687a8ab04f6da4789799bc3bc4f6e88bccac3ed6a2e6ae367e5e6b9e429c",
    "Salinas_corrected.mat": "2a745377a77369bd5a9d430c722f0bf5e0d0ffc1",
    "Salinas_gt.mat": "ecfab4d31ef5553f097943235d8ea502038eb4a2067b2ad10b33e37c949955e2",
    "SalinasA_corrected.mat": "d75684ed3ab71a1024cee0f9db9061f50a3523a92ff5edfbbb1eed976b9f1721",
    "SalinasA_gt.mat": "17814c1d3296c0e29b27f320f2c4174d2a68adb87e376abe78f02923e2c2e454",
    "PaviaU.mat": "6eecc933bedec1130bb046483dd12e25cf091b24",
    "PaviaU_gt.mat": "23f6a426928f9b32984adffe659e29f554f9fb6c93b5a107528d308d5087a829",
    "IndianTR123_temp123.tif": "9f7cb2caea985577c11bbeea1086c9348aa067ab7e3825d2fa671508b4ae6684",
    "IndianTE123_temp123.tif": "f7a8e34026ce97a4a21918441f7b03dba0718f63ff2619d1a35dcaa33da24ad3",
    "TRpaviaU.mat": "783bf32ee43172cb7cfe76ea381401af4b57dc1bd53ccdf49137976aa3ded77d",
    "TSpaviaU.mat": "bea2b7592e27456c187cf57ed0cbf8ffeb45294e811da7516cb0d9ce7f073173",
    "houston_dataset.mat": "944585424ac0b9aa55f879d46dd8dad06b9df9cb02fd06c7a13042ab1d5a50c5",
}

_SALINAS_NAMES = (
    *("Broccoli green weeds 1", "Broccoli green weeds 2", "Fallow", "Fallow rough plough", "Fallow smooth", "Stubble"),
    *("Celery", "Grapes untrained", "Soil vineyard develop", "Corn senesced green weeds", "Lettuce romaine 4 weeks"),
    *("Lettuce romaine 5 weeks", "Lettuce romaine 6 weeks", "Lettuce romaine 7 weeks", "Vineyard untrained"),
    "Vineyard vertical trellis",
)
_HOUSTON_2013_NAMES = (
    *("Healthy grass", "Stressed grass", "Synthetic grass", "Trees", "Soil", "Water", "Residential", "Commercial"),
    *("Road", "Highway", "Railway", "Parking lot 1", "Parking lot 2", "Tennis court", "Running track"),
)

CATALOGUE: dict[str, Published] = {
    "indian_pines": Published(
        "Indian Pines (AVIRIS)",
        _ehu("6/67", "Indian_pines_corrected", "indian_pines_corrected"),
        _ehu("c/c4", "Indian_pines_gt", "indian_pines_gt"),
        (145, 145, 200),
        (
            *("Alfalfa", "Corn-notill", "Corn-mintill", "Corn", "Grass-pasture", "Grass-trees", "Grass-pasture-mowed"),
            *("Hay-windrowed", "Oats", "Soybean-notill", "Soybean-mintill", "Soybean-clean", "Wheat", "Woods"),
            *("Buildings-grass-trees-drives", "Stone-steel-towers"),
        ),
        (29, 19, 9),
        fixed=(
            _minigcn("IndianTR123_temp123.tif"),
            _minigcn("IndianTE123_temp123.tif"),
        ),
        fixed_codes=(2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16, 1, 7, 9),
    ),
    "salinas": Published(
        "Salinas (AVIRIS)",
        _ehu("a/a3", "Salinas_corrected", "salinas_corrected"),
        _ehu("f/fa", "Salinas_gt", "salinas_gt"),
        (512, 217, 204),
        _SALINAS_NAMES,
        (29, 19, 9),
    ),
    "salinas_a": Published(
        "Salinas-A (AVIRIS)",
        _ehu("1/1a", "SalinasA_corrected", "salinasA_corrected"),
        _ehu("a/aa", "SalinasA_gt", "salinasA_gt"),
        (83, 86, 204),
        _SALINAS_NAMES,
        (29, 19, 9),
    ),
    "pavia_university": Published(
        "Pavia University (ROSIS)",
        _ehu("e/ee", "PaviaU", "paviaU"),
        _ehu("5/50", "PaviaU_gt", "paviaU_gt"),
        (610, 340, 103),
        (
            *("Asphalt", "Meadows", "Gravel", "Trees", "Painted metal sheets", "Bare soil", "Bitumen"),
            *("Self-blocking bricks", "Shadows"),
        ),
        (50, 29, 7),
        fixed=(
            _minigcn("TRpaviaU.mat"),
            _minigcn("TSpaviaU.mat"),
        ),
    ),
    "pavia_centre": Published(
        "Pavia Centre (ROSIS)",
        _ehu("e/e3", "Pavia", "pavia"),
        _ehu("5/53", "Pavia_gt", "pavia_gt"),
        (1096, 715, 102),
        # In the publisher's order; several papers print these names in another order.
        ("Water", "Trees", "Asphalt", "Self-blocking bricks", "Bitumen", "Tiles", "Shadows", "Meadows", "Bare soil"),
        (50, 29, 7),
    ),
    "ksc": Published(
        "Kennedy Space Center (AVIRIS)",
        _ehu("2/26", "KSC", "KSC"),
        _ehu("a/a6", "KSC_gt", "KSC_gt"),
        (512, 614, 176),
        (
            *("Scrub", "Willow swamp", "Cabbage palm hammock", "Cabbage palm/oak hammock", "Slash pine"),
            *("Oak/broadleaf hammock", "Hardwood swamp", "Graminoid marsh", "Spartina marsh", "Cattail marsh"),
            *("Salt marsh", "Mud flats", "Water"),
        ),
        (29, 19, 9),
    ),
    "botswana": Published(
        "Botswana (Hyperion)",
        _ehu("7/72", "Botswana", "Botswana"),
        _ehu("5/58", "Botswana_gt", "Botswana_gt"),
        (1476, 256, 145),
        (
            *("Water", "Hippo grass", "Floodplain grasses 1", "Floodplain grasses 2", "Reeds", "Riparian", "Firescar"),
            *("Island interior", "Acacia woodlands", "Acacia shrublands", "Acacia grasslands", "Short mopane"),
            *("Mixed mopane", "Exposed soils"),
        ),
        (22, 12, 4),
    ),
    "houston2013": Published(
        "Houston 2013 (CASI), contest files",
        Source("2013_IEEE_GRSS_DF_Contest_CASI.tif", origin=_HOUSTON_2013),
        None,
        (349, 1905, 144),
        _HOUSTON_2013_NAMES,
        (55, 36, 17),
        fixed=(
            Source("2013_IEEE_GRSS_DF_Contest_Samples_TR.txt", origin=_HOUSTON_2013),
            Source("2013_IEEE_GRSS_DF_Contest_Samples_VA.txt", origin=_HOUSTON_2013),
        ),
    ),
    "houston2013_mat": Published(
        "Houston 2013 (CASI), derived MATLAB files",
        Source("Houston.mat", "Houston", origin=_HOUSTON_2013),
        Source("Houston_gt.mat", "gt", origin=_HOUSTON_2013),
        (349, 1905, 144),
        _HOUSTON_2013_NAMES,
        (55, 36, 17),
    ),
    "houston2018_crop": Published(
        "Houston 2018, campus crop",
        Source(
            "houston_dataset.mat",
            "hyprImg",
            "https://raw.githubusercontent.com/JuanMarcosRamirez/featurefusion_igarss2021/"
            "53493e1c83311d380d001e3f438ea2e80876598a/data/houston_dataset.mat",
        ),
        Source("houston_dataset.mat", "clasLabs"),
        (128, 128, 48),
        # The file has no names: inferred from the contest's classes, the vegetation index and the shapes.
        (
            *("Healthy grass", "Stressed grass", "Artificial turf", "Evergreen trees", "Non-residential buildings"),
            *("Roads", "Sidewalks", "Crosswalks", "Major thoroughfares", "Paved parking", "Cars", "Stadium seats"),
        ),
        (18, 12, 6),
        label_scale=4,
        minimum_pixels=90,
    ),
}
