"""The values of the paper's tables, with their sources.

We could not read the paper's own tables. The values were reprinted in other papers and projects, which agree with
each other.
"""

from __future__ import annotations

_SOURCE = "reprinted in the MLWNet paper and two further places"

PUBLISHED: dict[tuple[str, str], tuple[float, str]] = {
    ("GoPro", "PSNR (dB)"): (34.21, _SOURCE),
    ("GoPro", "SSIM (3-D)"): (0.969, _SOURCE),
    ("HIDE", "PSNR (dB)"): (31.62, _SOURCE),
    ("HIDE", "SSIM (3-D)"): (0.946, _SOURCE),
    ("RealBlur-R", "PSNR (dB)"): (40.11, _SOURCE),
    ("RealBlur-R", "SSIM"): (0.973, _SOURCE),
    ("RealBlur-J", "PSNR (dB)"): (32.62, _SOURCE),
    ("RealBlur-J", "SSIM"): (0.933, _SOURCE),
}
"""(data set, metric) → (value, source). The sources do not say which definition of SSIM was used. Deblurring papers
use the 3-D Gaussian, so the values for GoPro and HIDE are printed beside ours of that definition."""

PARAMETERS = 16_560_474
MULTIPLY_ADDS_256 = 131.8e9
"""For 256 x 256 pixels (MLWNet paper); the convolutions alone have 131.4e9."""
