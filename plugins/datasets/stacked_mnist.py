"""Stacked MNIST: three random digits as the channels of a picture, a data set of 1,000 modes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pggan_kit import check_at_least

from .mnist import MNIST

CHANNELS = 3
DRAW_BYTES = 8
"""Bytes of a hash from which each digit is drawn: so many that all digits are equally likely, but for 1 in 10^14."""


class StackedMNIST:
    """Colour pictures of 28x28 pixels, whose red, green and blue channels are three independent digits of MNIST
    (Metz et al. 2017, section 3.3.1): 1,000 modes, about equally frequent, of which `metrics.Modes` counts those that a
    generator draws.

    Picture i is a function of `seed` and i alone. Each of its digits is drawn with replacement from the whole split.

    Args:
        folder: A folder with the full IDX files of MNIST. None: the bundled 10,000 digits; see `datasets.MNIST`.
        split: A split of `datasets.MNIST`.
        length: The number of pictures; 128,000 in PacGAN (Lin et al. 2018) and later work.
        seed: The seed of the draws.
        labels: Whether the mode, 0 to 999 with the red digit first, is the label, for conditional networks.

    Attributes:
        classes: 1,000, or 0 without labels.

    Raises:
        ValueError: An argument out of range.
        DataError: A folder or file that does not exist, or a file that is not what its name says.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        split: str = "train",
        length: int = 128_000,
        seed: int = 0,
        labels: bool = False,
    ) -> None:
        check_at_least("length", length, 1, whole=True)
        check_at_least("seed", seed, 0, whole=True)
        self._digits = MNIST(folder, split)
        self._length = length
        self._seed = seed
        self.classes = 0
        if labels:
            self.classes = MNIST.classes**CHANNELS

    def __len__(self) -> int:
        return self._length

    def image(self, i: int) -> np.ndarray:
        """Return image i as uint8 (28, 28, 3); ink is bright."""
        return np.concatenate([self._digits.image(digit) for digit in self._draw(i)], 2)

    def label(self, i: int) -> int:
        """Return the mode of image i: its three digits as one number; 0 without labels."""
        if not self.classes:
            return 0
        mode = 0
        for digit in self._draw(i):
            mode = MNIST.classes * mode + self._digits.label(digit)
        return mode

    def fingerprint(self) -> str:
        """Return the fingerprint of the digits, and what decides how they are stacked."""
        return f"stacked {self._digits.fingerprint()} {self._length} {self._seed} {self.classes}"

    def _draw(self, i: int) -> list[int]:
        """Return the numbers of the three digits of picture i."""
        content = hashlib.sha256(f"stacked mnist {self._seed} {i}".encode()).digest()
        draws = [content[DRAW_BYTES * c : DRAW_BYTES * (c + 1)] for c in range(CHANNELS)]
        return [int.from_bytes(draw, "big") % len(self._digits) for draw in draws]
