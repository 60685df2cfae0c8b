"""The phase as observers show it."""

from __future__ import annotations

from pggan_kit import FADE, STABLE, TrainState


def name_phase(state: TrainState) -> str:
    """Return `fade` while an old path is blended in, else `stable`: also where a hard switch spends a fade's images."""
    if state.fading:
        return FADE
    return STABLE
