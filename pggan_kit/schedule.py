"""The schedule of growth: stages, budgets and the clock. It builds no networks and reads no files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from pggan_kit.errors import LARGEST_WHOLE_NUMBER, SettingError, check_above, check_at_least

T = TypeVar("T")
U = TypeVar("U")

PerStage: TypeAlias = T | Mapping[int, T]
"""A value, or a dict keyed by image height, of which the largest key not above the stage's height counts."""

Budget: TypeAlias = int | str
"""Number of images, or a text with a unit: `'3000 steps'`, `'2 epochs'`, `'40000 images'`.

A step is a batch of reals: an update that draws several in a step takes that many of them at once.
"""

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

FADE = "fade"
"""The phase of a stage in which its new blocks are blended in."""

STABLE = "stable"
"""The phase of a stage after its fade."""


EARLY_TICKS = (16, 8, 4, 2)
"""Shares of the first tick, as divisors, at which there are ticks before it: a run shows something at once."""

EARLY_BATCHES = 4
"""Minimum number of batches before an early tick: a tick of a few batches needs none."""


A_SETTING = "a per-stage setting"
"""Name of a setting in errors where the caller gives none."""


def at_height(value: PerStage[T], height: int, name: str = A_SETTING) -> T:
    """Return the value of a setting, which may be per stage, at a stage of an image height.

    Args:
        value: Value of the setting.
        height: Height of the stage's images.
        name: Name of the setting, for the error.

    Raises:
        SettingError: There is no value, the smallest key of a dict is above `height`, or a key is no height.
    """
    if value is None:
        raise SettingError(name, "must have a value, and is None")
    return values_per_stage(name, value, [(height, height)])[0]


def values_per_stage(name: str, value: PerStage[T] | None, sizes: Sequence[Size]) -> list[T]:
    """Return the value of a setting, which may be per stage, at each stage; nothing for None.

    Args:
        name: Name of the setting.
        value: Value of the setting.
        sizes: Sizes of the stages.

    Raises:
        SettingError: The smallest key of a dict is above the first height, or a key is no height.
    """
    # One value for all stages, or none.
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [value] * len(sizes)
    if not all(isinstance(key, int) and not isinstance(key, bool) and key >= 1 for key in value):
        raise SettingError(name, f"must be keyed by image height, e.g. {{4: ..., 64: ...}}, not {dict(value)}")

    # The value of a height holds up to the next one.
    values = []
    for height, _ in sizes:
        reached = [key for key in value if key <= height]
        if not reached:
            raise SettingError(name, f"has no value for height {height}: the smallest key of {dict(value)} is above it")
        values.append(value[max(reached)])
    return values


@dataclass(frozen=True)
class Stage:
    """A stage of growth, as far as it is known before training.

    Attributes:
        index: Number of the stage, 0 for the base size.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        image_channels: Channels of the images.
        fade_images: Reals spent while the new blocks are blended in; 0 at the base size.
        stable_images: Reals spent after the fade.
        batch_size: Reals that an update draws at once, over all ranks.
        previous: The stage before; None at the base size.
        classes: Number of classes of the data set's labels; 0 without labels.
        discriminator: The stage that D has grown to in this stage, where it is another; None where it is this one.
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
    discriminator: Stage | None = field(default=None, repr=False, compare=False)

    def of(self, net: str) -> Stage:
        """Return the stage that a network, `generator` or `discriminator`, has grown to in this stage."""
        if net == "discriminator" and self.discriminator is not None:
            return self.discriminator
        return self

    def keeps(self, net: str) -> bool:
        """Return whether a network stays as large as in the stage before."""
        return self.previous is not None and self.of(net).index == self.previous.of(net).index

    @property
    def budget(self) -> int:
        """Return the number of reals that the stage spends."""
        return self.fade_images + self.stable_images

    @property
    def factor(self) -> int:
        """Return how many times larger the images are than those of the stage before; 1 at the base size."""
        if self.previous is None:
            return 1
        return self.height // self.previous.height

    @property
    def size(self) -> str:
        """Return the size for people, height first: `28x28`."""
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Position:
    """A place on the clock.

    Attributes:
        stage: Stage that the networks have grown to.
        phase: Phase of the stage, `fade` or `stable`.
        progress: Spent share of the phase, in [0, 1].
        images: Reals drawn since the start of the run.
        stage_start: Image count at which the stage began.
        stage_end: Image count at which the stage ends by its budget, or by the run's.
        total: Image count at which the run ends.
    """

    stage: Stage
    phase: str
    progress: float
    images: int
    stage_start: int
    stage_end: int
    total: int

    @property
    def phase_start(self) -> int:
        """Return the image count at which the phase began."""
        if self.phase == FADE:
            return self.stage_start
        return self.stage_start + self.stage.fade_images

    @property
    def phase_end(self) -> int:
        """Return the image count at which the phase ends by its budget, or by the run's."""
        if self.phase == FADE:
            return min(self.stage_end, self.stage_start + self.stage.fade_images)
        return self.stage_end

    def __str__(self) -> str:
        """Return the place for messages: `images 40000 (28x28, stable)`."""
        return f"images {self.images} ({self.stage.size}, {self.phase})"


@runtime_checkable
class Curve(Protocol):
    """A number that moves with the clock.

    It is a pure function of the position: a resumed run needs no state, and all ranks have the same value.
    """

    def at(self, position: Position) -> float:
        """Return the value at a place on the clock: a finite number, as a plain float, not a tensor."""


Varying: TypeAlias = T | Curve | Mapping[int, T | Curve]
"""A value, a curve over the clock, or a dict of these that is keyed by image height, like `PerStage`."""


def value_at(setting: Varying[T], position: Position, name: str = A_SETTING) -> T | float:
    """Return the value of a setting, which may be per stage or a curve, at a place on the clock.

    Args:
        setting: Value of the setting.
        position: Place on the clock.
        name: Name of the setting, for the error.

    Raises:
        SettingError: There is no value, the smallest key of a dict is above the stage's height, or a key is no height.
    """
    value: Any = at_height(setting, position.stage.height, name)
    if isinstance(value, Curve):
        return value.at(position)
    return cast("T", value)


def is_moving(setting: Varying[Any]) -> bool:
    """Return whether a setting is a curve, or a dict per stage that holds one."""
    if isinstance(setting, Mapping):
        return any(isinstance(value, Curve) for value in setting.values())
    return isinstance(setting, Curve)


def constant_at(setting: Varying[T], stage: Stage, instead: U) -> T | U:
    """Return the value of a setting that holds throughout a stage, and `instead` where it moves within the stage."""
    value: Any = at_height(setting, stage.height)
    if isinstance(value, Curve):
        return instead
    return cast("T", value)


@dataclass(frozen=True)
class Schedule:
    """The stages, and the number of images after which the run ends."""

    stages: tuple[Stage, ...]
    total: int

    def at(self, images: int, starts: Sequence[int]) -> Position:
        """Return the position of the clock after `images` reals.

        Args:
            images: Reals drawn so far, at or past the last start.
            starts: Image counts at which the stages so far began, the first of them 0.
        """
        stage = self.stages[len(starts) - 1]
        start = starts[-1]
        end = self.end(starts)
        spent = images - start
        if spent < stage.fade_images:
            progress = spent / stage.fade_images
            return Position(stage, FADE, progress, images, start, end, self.total)

        # A stage may be shorter than planned where the total cuts it.
        length = end - start - stage.fade_images
        progress = 1.0
        if length > 0:
            progress = min(1.0, (spent - stage.fade_images) / length)
        return Position(stage, STABLE, progress, images, start, end, self.total)

    def end(self, starts: Sequence[int]) -> int:
        """Return the image count at which the current stage ends by its budget, or by the total."""
        if len(starts) == len(self.stages):
            return self.total
        return min(self.total, starts[-1] + self.stages[len(starts) - 1].budget)

    def planned_starts(self) -> list[int]:
        """Return the image counts at which stages begin when each spends exactly its budget.

        A stage for which the total leaves nothing begins where the run ends.
        """
        starts = [0]
        while len(starts) < len(self.stages):
            starts.append(self.end(starts))
        return starts

    def list_planned_stages(self) -> list[Stage]:
        """Return the stages that spend images when each spends exactly its budget, until the total is reached."""
        starts = self.planned_starts()
        ends = [*starts[1:], self.total]
        return [stage for stage, start, end in zip(self.stages, starts, ends, strict=True) if start < end]

    def record(self) -> dict[str, Any]:
        """Return the total, and each stage's size, height and budget, as a run's `run.json` holds them."""
        stages = [{"size": stage.size, "height": stage.height, "budget": stage.budget} for stage in self.stages]
        return {"total": self.total, "stages": stages}

    def list_early_ticks(self, tick: int) -> list[int]:
        """Return the image counts, below the first tick, that are ticks as well.

        Args:
            tick: Images between two ticks.
        """
        least = EARLY_BATCHES * self.stages[0].batch_size
        return [-(-tick // share) for share in EARLY_TICKS if tick >= share * least]


def describe_late_stages(schedule: Schedule, first: int = 0) -> list[str]:
    """Return a sentence about the stages after `first` that never begin, since the total is reached before."""
    late = []
    start = 0
    for stage in schedule.stages:
        if start >= schedule.total and stage.index > first:
            late.append(f"{stage.size} (at {start:,})")
        start += stage.budget
    if not late:
        return []
    return [
        f"the run ends at {schedule.total:,} images, before these stages begin by the budgets of those before them: "
        f"{', '.join(late)}. To train them, raise schedule.total_images, or lower schedule.fade_images and "
        "schedule.stable_images"
    ]


@dataclass(frozen=True)
class ScheduleSettings:
    """The schedule as a config writes it (`schedule.*`). Budgets may be per stage, in images, steps or epochs.

    A step of a budget is a batch of reals: where an update draws two of them, as one with two updates of D for each of
    G does, `'10 steps'` are five of its own.

    Args:
        sizes: Image sizes from the base up: heights of square images, or (height, width) pairs. Each is the same
            whole multiple of the one before in both directions.
        fade_images: Budget of each fade; the base size has none.
        stable_images: Budget of each stage after its fade.
        batch_size: Reals that an update draws at once, over all ranks.
        total_images: Budget of the whole run. The last stage takes what the others leave of it; a stage before which
            it is spent never begins, and a warning names it. Its steps are batches of the stages in which they are
            taken. None for the sum of the budgets.
        discriminator_height: Height of the images that D looks at, one of those in `sizes`; may be per stage. D resizes
            what it is shown, so it may be at full size from the start (one number), or a stage ahead of G or behind it
            (`{7: 14, 14: 28}`). It must not become smaller, nor grow by two sizes at once. None for the height of G's
            images.

    Raises:
        SettingError: Sizes do not grow by whole factors, a budget, batch size or total is out of range, or D cannot
            grow like that.
    """

    sizes: Sequence[int | Sequence[int]]
    fade_images: PerStage[Budget]
    stable_images: PerStage[Budget]
    batch_size: PerStage[int]
    total_images: Budget | None = None
    discriminator_height: PerStage[int] | None = None

    def __post_init__(self) -> None:
        sizes = check_sizes(self.sizes)
        budgets: dict[str, PerStage[Budget]] = {"fade_images": self.fade_images, "stable_images": self.stable_images}
        for name, setting in budgets.items():
            values: list[Budget] = values_per_stage(name, setting, sizes)
            for budget in values:
                convert_to_images(name, budget, 1, 1)
        for batch_size in values_per_stage("batch_size", self.batch_size, sizes):
            check_at_least("batch_size", batch_size, 1, whole=True)
        self._find_discriminator_indices(sizes)
        if self.total_images is not None:
            number, _ = split_budget("total_images", self.total_images)
            check_above("total_images", number, 0)

    def resolve(self, dataset_length: int, image_channels: int, classes: int) -> Schedule:
        """Return the stages with all budgets in images. An epoch is `dataset_length` images.

        Numbers of classes may be NumPy's; those of stages, which files record, are Python's.

        Raises:
            SettingError: The schedule spends no images.
        """
        sizes = check_sizes(self.sizes)
        fade_budgets: list[Budget] = values_per_stage("fade_images", self.fade_images, sizes)
        stable_budgets: list[Budget] = values_per_stage("stable_images", self.stable_images, sizes)

        # The budgets of each stage in images, with its own batch size.
        stages: list[Stage] = []
        for index, (height, width) in enumerate(sizes):
            batch_size = at_height(self.batch_size, height)
            fade = convert_to_images("fade_images", fade_budgets[index], batch_size, dataset_length)
            stable = convert_to_images("stable_images", stable_budgets[index], batch_size, dataset_length)
            previous = None
            if stages:
                previous = stages[-1]
            else:
                fade = 0
            stages.append(Stage(index, height, width, image_channels, fade, stable, batch_size, previous, int(classes)))

        # D may be ahead of G, so its stages are known only now.
        indices = self._find_discriminator_indices(sizes)
        if indices != list(range(len(sizes))):
            apart: list[Stage] = []
            for stage, index in zip(stages, indices, strict=True):
                discriminator = None
                if index != stage.index:
                    discriminator = stages[index]
                previous = apart[-1] if apart else None
                apart.append(replace(stage, previous=previous, discriminator=discriminator))
            stages = apart

        # The last stage ends with the run.
        total = self._resolve_total(stages, dataset_length)
        if total < 1 and self.total_images is not None:
            raise SettingError("total_images", f"is less than one image: {self.total_images!r}")
        if total < 1:
            raise SettingError("stable_images", "must be above 0 somewhere: the schedule spends no images at all")
        return Schedule(tuple(stages), total)

    def _resolve_total(self, stages: Sequence[Stage], dataset_length: int) -> int:
        """Return the image count after which the run ends; each of its steps is one of the stage in which it is taken.

        Raises:
            SettingError: The count is too large.
        """
        if self.total_images is None:
            return sum(stage.budget for stage in stages)
        number, unit = split_budget("total_images", self.total_images)
        if unit != "step":
            return convert_to_images("total_images", self.total_images, 1, dataset_length)

        # Each stage but the last takes the steps of its budget, of which the last one may go beyond it.
        images = 0.0
        for stage in stages[:-1]:
            taken = min(number, math.ceil(stage.budget / stage.batch_size))
            images += taken * stage.batch_size
            number -= taken
        return round_to_images("total_images", images + number * stages[-1].batch_size)

    def _find_discriminator_indices(self, sizes: Sequence[Size]) -> list[int]:
        """Return the number of the stage that D has grown to in each stage.

        Raises:
            SettingError: A height is none of `sizes`, or D cannot grow like that.
        """
        # D has grown as far as G, unless the setting names another height.
        name = "discriminator_height"
        heights = [height for height, _ in sizes]
        indices = list(range(len(sizes)))
        for index, height in enumerate(values_per_stage(name, self.discriminator_height, sizes)):
            if height not in heights:
                raise SettingError(name, f"must be one of the heights of schedule.sizes, {heights}, not {height!r}")
            indices[index] = heights.index(height)

        # It keeps its size or grows by one stage at a time, as G does.
        for stage, (before, now) in enumerate(pairwise(indices), start=1):
            if not before <= now <= before + 1:
                raise SettingError(
                    name,
                    f"goes from {heights[before]} to {heights[now]} at height {heights[stage]}: D keeps its size or "
                    "grows to the next one",
                )
        return indices


def convert_to_images(name: str, budget: Budget, batch_size: int, dataset_length: int) -> int:
    """Convert a budget from images, steps or epochs to images.

    Raises:
        SettingError: The budget is below 0, or a text without a known unit.
    """
    number, unit = split_budget(name, budget)
    size = {"image": 1, "step": batch_size, "epoch": dataset_length}[unit]
    return round_to_images(name, number * size)


def split_budget(name: str, budget: Budget) -> tuple[float, str]:
    """Split a budget into a number and its unit: `image`, `step` or `epoch`.

    Raises:
        SettingError: The budget is below 0, or a text without a known unit.
    """
    # A text with a unit.
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:_\d+)*(?:\.\d+)?)\s*(image|step|epoch)s?\s*", budget)
        if match is None:
            raise SettingError(name, f"must be images, or a text like '3000 steps' or '2 epochs', not {budget!r}")
        return float(match[1]), match[2]

    # A plain number is one of images.
    if not isinstance(budget, int) or isinstance(budget, bool):
        raise SettingError(name, f"must be a whole number of images, or a text with a unit, not {budget!r}")
    check_at_least(name, budget, 0)
    return budget, "image"


def round_to_images(name: str, images: float) -> int:
    """Return a budget as a whole number of images.

    Raises:
        SettingError: The number is too large.
    """
    if images > LARGEST_WHOLE_NUMBER:
        raise SettingError(name, f"must be at most {LARGEST_WHOLE_NUMBER} images, and is more")
    return round(images)


def check_sizes(sizes: Sequence[int | Sequence[int]]) -> list[tuple[int, int]]:
    """Return sizes as (height, width) pairs, each the same whole multiple (at least 2) of the one before.

    Raises:
        SettingError: There is no size, a size is below 1, or a step is no whole factor.
    """
    if isinstance(sizes, (int, str)) or not sizes:
        raise SettingError("sizes", f"must name at least one image size, e.g. (4, 8, 16), not {sizes!r}")

    # Heights of square images become pairs.
    pairs: list[tuple[int, int]] = []
    for size in sizes:
        pair: tuple[int, ...] = ()
        if isinstance(size, int):
            pair = (size, size)
        elif isinstance(size, Sequence):
            pair = tuple(size)
        if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in pair):
            raise SettingError("sizes", f"holds heights or (height, width) pairs of at least 1, not {size!r}")
        pairs.append((pair[0], pair[1]))

    # Each step multiplies both directions by one factor.
    for old, new in pairwise(pairs):
        factor = new[0] // old[0]
        if factor < 2 or new != (factor * old[0], factor * old[1]):
            raise SettingError(
                "sizes",
                f"must grow by one whole factor in both directions; {old[0]}x{old[1]} -> "
                f"{new[0]}x{new[1]} does not (next would be {2 * old[0]}x{2 * old[1]})",
            )
    return pairs
