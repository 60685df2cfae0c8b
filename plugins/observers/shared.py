"""What the observers have in common."""

from __future__ import annotations

from pggan_kit import FADE, STABLE, TrainState


def require_count(name: str, value: int, least: int) -> None:
    """Check a constructor's whole number.

    Raises:
        ValueError: it is below `least`; the message begins with its name.
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}, and is {value}")


def phase_shown(state: TrainState) -> str:
    """`fade` while an old path is blended in, else `stable`: also where a hard switch spends a fade's images."""
    return FADE if state.fading else STABLE
