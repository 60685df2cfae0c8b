"""Draw Gaussian random fields with a known spectrum, for `experiments/random_fields.gin`.

    python scripts/make_random_fields.py fields.npy

The file holds float32 (n, 64, 64): periodic fields of mean 0 and variance 1, whose power at a spatial frequency of k
cycles a side is in proportion to (1 + (k / 4)^2)^-1.5. Nothing is downloaded, and field i is always the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SIDE = 64
KNEE = 4.0
SLOPE = 1.5


def compute_spectrum(side: int = SIDE) -> np.ndarray:
    """Return the power (side, side) at each frequency of `numpy.fft.fft2`, of mean 1, and 0 at the frequency 0."""
    cycles = np.fft.fftfreq(side) * side
    power: np.ndarray = (1 + (cycles[:, None] ** 2 + cycles**2) / KNEE**2) ** -SLOPE
    power[0, 0] = 0
    return power / power.mean()


def make_field(number: int) -> np.ndarray:
    """Return a field, float32 (SIDE, SIDE)."""
    noise = np.random.default_rng((2, number)).normal(size=(SIDE, SIDE))
    field = np.fft.ifft2(np.fft.fft2(noise) * np.sqrt(compute_spectrum())).real
    return field.astype(np.float32)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write Gaussian random fields.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=4_000)
    options = parser.parse_args()
    np.save(options.file, np.stack([make_field(i) for i in range(options.count)]))
    print(f"wrote {options.count} fields to {options.file}")


if __name__ == "__main__":
    main()
