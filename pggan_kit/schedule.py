"""When a network grows: stages, budgets, and where the clock stands. Pure: nothing here knows networks or files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias, TypeVar

from pggan_kit.errors import SettingError, check_at_least

T = TypeVar("T")

PerStage: TypeAlias = T | Mapping[int, T]
"""A value, or a dict keyed by image height of which the largest key not above the stage's height wins."""

Budget: TypeAlias = int | str
"""Images, or a text with a unit: `'3000 steps'`, `'2 epochs'`, `'40000 images'`."""

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

FADE = "fade"
STABLE = "stable"


def at_height(value: PerStage[T], height: int) -> T:
    """Return the value of a setting, which may be per stage, at a stage of an image height.

    Raises:
        ValueError: a dict whose smallest key lies above `height`, or with a key that is no height.
    """
    return values_per_stage("a per-stage setting", value, [(height, height)])[0]


def values_per_stage(name: str, value: PerStage[T] | None, sizes: Sequence[Size]) -> list[T]:
    """Return the value of a setting, which may be per stage, at each stage; nothing for None.

    Args:
        name: of the setting.
        value: of the setting.
        sizes: of the stages.

    Raises:
        SettingError: a dict whose smallest key lies above the first height, or with a key that is no height.
    """
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [value] * len(sizes)
    if not all(isinstance(key, int) and not isinstance(key, bool) for key in value):
        raise SettingError(name, f"must be keyed by image height, e.g. {{4: ..., 64: ...}}, not {dict(value)}")

    values = []
    for height, _ in sizes:
        reached = [key for key in value if key <= height]
        if not reached:
            raise SettingError(name, f"has no value for height {height}: the smallest key of {dict(value)} is above it")
        values.append(value[max(reached)])
    return values


@dataclass(frozen=True)
class Stage:
    """One stage of growth: everything of it that is known before training.

    Attributes:
        index: 0 for the base size.
        height, width: of the images, in pixels.
        image_channels: 1 for gray, 3 for colour.
        classes: number of classes of the data set's labels; 0 without labels.
        fade_images: reals spent while the new block is blended in; 0 at the base size.
        stable_images: reals spent after the fade.
        batch_size: reals an update draws at once, over all ranks.
        previous: the stage before, None at the base size.
    """

    index: int
    height: int
    width: int
    image_channels: int
    fade_images: int
    stable_images: int
    batch_size: int
    previous: Stage | None = field(default=None, repr=False)
    classes: int = 0

    @property
    def budget(self) -> int:
        """Reals this stage spends in all."""
        return self.fade_images + self.stable_images

    @property
    def factor(self) -> int:
        """How many times larger the images are than those of the stage before; 1 at the base size."""
        return 1 if self.previous is None else self.height // self.previous.height

    @property
    def size(self) -> str:
        """`28x28`, height first."""
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Position:
    """Where the clock stands: the stage, `fade` or `stable`, and how far through that phase, in [0, 1]."""

    stage: Stage
    phase: str
    progress: float


@dataclass(frozen=True)
class Schedule:
    """The stages, and the number of images after which the run ends."""

    stages: tuple[Stage, ...]
    total: int

    def at(self, images: int, starts: Sequence[int]) -> Position:
        """Where the clock stands after `images` reals, given the counts at which the stages so far began.

        Args:
            images: reals drawn so far, at or past the last start.
            starts: one count for each stage begun, the first of them 0.
        """
        stage = self.stages[len(starts) - 1]
        spent = images - starts[-1]
        if spent < stage.fade_images:
            return Position(stage, FADE, spent / stage.fade_images)
        length = self.end(starts) - starts[-1] - stage.fade_images
        progress = (spent - stage.fade_images) / length if length > 0 else 1.0
        return Position(stage, STABLE, min(1.0, progress))

    def end(self, starts: Sequence[int]) -> int:
        """The image count at which the current stage ends if nobody asks for another: its budget, or the total."""
        if len(starts) == len(self.stages):
            return self.total
        return min(self.total, starts[-1] + self.stages[len(starts) - 1].budget)

    def planned_starts(self) -> list[int]:
        """The counts at which stages begin when each spends just its budget."""
        starts = [0]
        for stage in self.stages[:-1]:
            starts.append(starts[-1] + stage.budget)
        return starts


@dataclass(frozen=True)
class ScheduleSettings:
    """The schedule as a config writes it (`schedule.*`). Budgets may be per stage, in images, steps or epochs.

    Args:
        sizes: image sizes from the base up: heights of square images, or (height, width) pairs. Each is the same
            whole multiple of the one before in both directions.
        fade_images: budget of each fade; the base size has none.
        stable_images: budget of each stage after its fade.
        batch_size: reals an update draws at once, over all ranks.
        total_images: when the run ends; the last stage is lengthened or cut to fit. None: the sum of the budgets.

    Raises:
        ValueError: sizes that do not grow by whole factors; a budget, batch size or total out of range.
    """

    sizes: Sequence[int | Sequence[int]]
    fade_images: PerStage[Budget]
    stable_images: PerStage[Budget]
    batch_size: PerStage[int]
    total_images: Budget | None = None

    def __post_init__(self) -> None:
        sizes = checked_sizes(self.sizes)
        budgets: dict[str, PerStage[Budget]] = {"fade_images": self.fade_images, "stable_images": self.stable_images}
        for name, setting in budgets.items():
            values: list[Budget] = values_per_stage(name, setting, sizes)
            for budget in values:
                in_images(name, budget, 1, 1)
        for batch_size in values_per_stage("batch_size", self.batch_size, sizes):
            check_at_least("batch_size", batch_size, 1, whole=True)
        if self.total_images is not None:
            check_at_least("total_images", in_images("total_images", self.total_images, 1, 1), 1)

    def resolve(self, dataset_length: int, image_channels: int, classes: int) -> Schedule:
        """The stages with all budgets in images. An epoch is `dataset_length` images.

        Raises:
            ValueError: a run of no images.
        """
        stages: list[Stage] = []
        for index, (height, width) in enumerate(checked_sizes(self.sizes)):
            batch_size = at_height(self.batch_size, height)
            fade, stable = (
                in_images(name, at_height(getattr(self, name), height), batch_size, dataset_length)
                for name in ("fade_images", "stable_images")
            )
            previous = stages[-1] if stages else None
            fade = 0 if previous is None else fade
            stages.append(Stage(index, height, width, image_channels, fade, stable, batch_size, previous, classes))
        total = sum(stage.budget for stage in stages)
        if self.total_images is not None:
            total = in_images("total_images", self.total_images, stages[-1].batch_size, dataset_length)
        if total < 1:
            raise SettingError("stable_images", "must be above 0 somewhere: the schedule spends no images at all")
        return Schedule(tuple(stages), total)


def in_images(name: str, budget: Budget, batch_size: int, dataset_length: int) -> int:
    """A budget in images, from images, steps or epochs.

    Raises:
        ValueError: a budget below 0, or a text that names no known unit.
    """
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:_\d+)*(?:\.\d+)?)\s*(images|steps|epochs)\s*", budget)
        if match is None:
            raise SettingError(name, f"must be images, or a text like '3000 steps' or '2 epochs', not {budget!r}")
        unit = {"images": 1, "steps": batch_size, "epochs": dataset_length}[match[2]]
        return round(float(match[1]) * unit)
    if not isinstance(budget, int) or isinstance(budget, bool):
        raise SettingError(name, f"must be a whole number of images, or a text with a unit, not {budget!r}")
    check_at_least(name, budget, 0)
    return budget


def checked_sizes(sizes: Sequence[int | Sequence[int]]) -> list[tuple[int, int]]:
    """Sizes as (height, width) pairs, each the same whole multiple (at least 2) of the one before.

    Raises:
        ValueError: no size at all, a size below 1, or a step that is not a whole factor.
    """
    if isinstance(sizes, (int, str)) or not sizes:
        raise SettingError("sizes", f"must name at least one image size, e.g. (4, 8, 16), not {sizes!r}")
    pairs: list[tuple[int, int]] = []
    for size in sizes:
        pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
        if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in pair):
            raise SettingError("sizes", f"holds heights or (height, width) pairs of at least 1, not {size!r}")
        pairs.append((pair[0], pair[1]))
    for old, new in pairwise(pairs):
        factor = new[0] // old[0]
        if factor < 2 or new != (factor * old[0], factor * old[1]):
            raise SettingError(
                "sizes",
                f"must grow by one whole factor in both directions; {old[0]}x{old[1]} -> "
                f"{new[0]}x{new[1]} does not (next would be {2 * old[0]}x{2 * old[1]})",
            )
    return pairs
