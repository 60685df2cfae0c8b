"""What the observers have in common."""

from __future__ import annotations

from pggan_kit import FADE, STABLE, TrainState


def phase_shown(state: TrainState) -> str:
    """`fade` while an old path is blended in, else `stable`: also where a hard switch spends a fade's images."""
    return FADE if state.fading else STABLE
