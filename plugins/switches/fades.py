"""Switches that depend on nothing but how far the fade has come."""

from __future__ import annotations

from pggan_kit import hookimpl


class Linear:
    """The soft switch of Karras et al. 2018, section 2: alpha grows linearly from 0 to 1."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """alpha = progress."""
        return progress


class Hard:
    """The new layers take over at once. The fade's images are spent all the same, and no old path is kept."""

    @hookimpl
    def fade_alpha(self) -> float:
        """alpha = 1."""
        return 1.0
