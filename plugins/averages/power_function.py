"""Averages by power functions, of which an average of any width is made after training."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit import (
    LARGEST_WIDTH,
    Position,
    SettingError,
    check_at_least,
    check_between,
    compute_power_share,
    convert_width_to_exponent,
)

SMALLEST_WIDTH = 1e-4
"""Minimum width: an average of a ten-thousandth of the training is that of the last few updates."""


class PowerFunction:
    """Averages by power functions of age (Karras et al. 2024, arXiv:2312.02696, section 3).

    A width is the standard deviation of an average's profile as a share of the training: that of each piece since its
    birth. `pggan-kit average RUN --width W` makes the average of any other width of the snapshots that are kept.

    Args:
        widths: Widths that are followed, each in [0.0001, 0.288]; two or more are needed to make others.
        snapshots: Number of places on the clock, evenly spread over the run, at which the averages are kept in the
            run's folder.

    Raises:
        SettingError: A width is out of range, two are equal in their first six digits, which name the averages, there
            is none, or `snapshots` is below 1.
    """

    def __init__(self, widths: Sequence[float] = (0.05, 0.10), snapshots: int = 32) -> None:
        for width in widths:
            check_between("widths", width, SMALLEST_WIDTH, LARGEST_WIDTH)
        names = [f"power_{width:g}" for width in widths]
        if not names or len(set(names)) < len(names):
            raise SettingError("widths", f"must be at least one, each once in its first six digits, not {list(widths)}")
        check_at_least("snapshots", snapshots, 1, whole=True)
        self.widths = tuple(widths)
        self.snapshots = snapshots
        self.names: Sequence[str] = tuple(names)
        self.exponents: Sequence[float] = tuple(convert_width_to_exponent(width) for width in widths)

    def compute_shares(self, position: Position, age: int, images: int) -> tuple[float, ...]:
        """Return, for each width, the share of its profile that the update covers."""
        return tuple(compute_power_share(exponent, age, images) for exponent in self.exponents)
