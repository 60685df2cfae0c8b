"""The number of maps of an architecture's blocks, stage by stage."""

from __future__ import annotations

from pggan_kit import PerStage, Stage, check_at_least, values_per_stage

MAX_CHANNELS = 512
"""Maximum number of maps of a stage whose number is not set."""


def check_channels(channels: PerStage[int] | None) -> None:
    """Check a number of maps, which may be per stage.

    Raises:
        SettingError: A number is below 1.
    """
    check_at_least("channels", channels, 1)


def choose_width(stage: Stage, channels: PerStage[int] | None, base: int, most: int = MAX_CHANNELS) -> int:
    """Return the number of maps of a stage's blocks.

    Args:
        stage: The stage.
        channels: Number of maps, may be per stage. None: `min(base / 2^(index + 1), most)`, and at least 1.
        base: Numerator of that formula.
        most: Maximum of that formula.

    Raises:
        SettingError: `channels` has no value for this stage.
    """
    if channels is None:
        width = min(base // 2 ** (stage.index + 1), most)
        return max(1, width)
    return values_per_stage("channels", channels, [(stage.height, stage.width)])[0]
