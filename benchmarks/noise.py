"""A plugin for benchmarks: colour images that need no data on disk."""

from __future__ import annotations

import numpy as np

from pggan_kit import Component, hookimpl


class Noise:
    """64 colour images of noise, 128x128."""

    classes = 0

    def __len__(self) -> int:
        return 64

    def image(self, i: int) -> np.ndarray:
        """Return image i, uint8 (128, 128, 3)."""
        return np.random.default_rng(i).integers(0, 256, (128, 128, 3), np.uint8)

    def label(self, i: int) -> int:
        """Return 0: there are no classes."""
        return 0

    def fingerprint(self) -> str:
        """Return a constant: the noise is always the same."""
        return "benchmarks/noise.py"


@hookimpl
def components() -> list[Component]:
    return [Component("datasets", "Noise", Noise)]
