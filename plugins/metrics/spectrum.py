"""The radial power spectrum of images, in which an upsampler leaves its traces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pggan_kit import Quantity, at_least_float32, check_at_least


class RadialSpectrum:
    """The distance of the fakes' radial power spectrum from the reals' (after Durall et al. 2020, section 3.1), in dB.

    An image's power spectrum is averaged over its channels and over rings of equal spatial frequency, up to the corners
    of the spectrum, and then over the images. `SpectralDistance` is the root mean square, over all rings but that of
    the mean brightness, of the difference between the two spectra on a logarithmic scale. Upsampling by repeating
    pixels or with transposed convolutions leaves too much power at the highest frequencies, smooth upsampling too
    little; `observers.Spectra` draws both curves.

    Few images suffice: 1,000 gray ones of 28x28 have a noise floor of about 0.1 dB, and 26,000 one of 0.01 dB.

    Args:
        suffix: A suffix of the value's name, `SpectralDistance`.
        levels: Number of levels of the data's numbers from the lower to the upper end of their range: 256 of bytes,
            4,096 of 12 bits. No smaller power is resolved than what rounding to so many leaves; floats whose spectrum
            falls below that of bytes need more.

    Raises:
        SettingError: `levels` below 2.
    """

    def __init__(self, suffix: str = "", levels: int = 256) -> None:
        check_at_least("levels", levels, 2, whole=True)
        self.suffix = suffix
        # Rounding adds this power at each frequency of pixels in [-1, 1].
        self._rounding_power = (2 / (levels - 1)) ** 2 / 12
        self.quantities = {f"SpectralDistance{suffix}": Quantity("lower", (0.0, math.inf), "log")}

    def describe(self, images: Tensor) -> Tensor | None:
        """Return the radial spectra (N, K) of images (N, C, h, w); None at 1x1, which has no frequency but 0."""
        if max(images.shape[2:]) < 2:
            return None
        return compute_radial_spectra(images)

    def fingerprint(self) -> str:
        """Return a name for the spectra."""
        return "radial power spectra, channels averaged, the mean brightness apart"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `SpectralDistance` of spectra (M, K) and (N, K); computed in float64."""
        fake_power = fake.double().mean(0) + self._rounding_power
        real_power = real.double().mean(0) + self._rounding_power
        difference = 10 * (fake_power / real_power).log10()
        return {f"SpectralDistance{self.suffix}": float(difference[1:].square().mean().sqrt())}


def compute_radial_spectra(images: Tensor) -> Tensor:
    """Compute the mean power of images in rings of equal frequency.

    Args:
        images: Images (N, C, h, w).

    Returns:
        Power (N, K) in ring k = 0, 1, ..., K - 1, whose frequencies are k / min(h, w) cycles a pixel, rounded. Ring 0
        has the frequency 0 alone; lower frequencies than 1 / min(h, w), along the longer side, are in ring 1. White
        noise of variance v has the power v in each ring.
    """
    height, width = images.shape[2:]
    power = torch.fft.fft2(at_least_float32(images)).abs().square().mean(1) / (height * width)

    # The corners have frequencies up to sqrt(2) times those of the edges, and no ring is empty.
    shorter = min(height, width)
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    columns = torch.fft.fftfreq(width, dtype=torch.float64)
    frequencies = torch.hypot(rows, columns)
    rings = (frequencies * shorter).round().clamp(min=1).where(frequencies > 0, 0).long().flatten()
    sizes = torch.bincount(rings).to(power)
    sums = power.new_zeros(len(power), len(sizes)).index_add_(1, rings.to(power.device), power.flatten(1))
    return sums / sizes
