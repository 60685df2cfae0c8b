"""Settings that move with the clock: those of optimizers, the weights of penalties, and those of other components."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pggan_kit.components import GeneratorPenalty, Penalty, Update
from pggan_kit.errors import ConfigError, SettingError
from pggan_kit.growth.learning_rates import set_rate
from pggan_kit.growth.planned_steps import find_phase, group_steps
from pggan_kit.schedule import FADE, STABLE, Curve, Position, Schedule, is_moving, value_at

if TYPE_CHECKING:
    import torch

OptimizerT = TypeVar("OptimizerT", bound="torch.optim.Optimizer")

SettingsAt = Callable[[Position], Mapping[str, Any]]
"""A function that returns the settings of an optimizer's groups at a place on the clock: `{"lr": 0.001}`."""

PLACES_IN_A_PHASE = 16
"""Number of places of a phase at which settings are checked before training."""


def follow_clock(optimizer: OptimizerT, settings_at: SettingsAt) -> OptimizerT:
    """Let the core set an optimizer's settings before each of its steps, and return the optimizer.

    Args:
        optimizer: A new optimizer.
        settings_at: A pure function of the position; it raises a SettingError where a value is out of range. The rate
            is `lr`, without the factor of a growth policy.
    """
    optimizer.settings_at = settings_at  # type: ignore[attr-defined]
    return optimizer


def set_to_clock(name: str, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Set an optimizer's settings to a place on the clock; nothing for one that does not follow it.

    Raises:
        ConfigError: A value is out of range.
    """
    for setting, value in find_settings(name, optimizer, position).items():
        for group in optimizer.param_groups:
            if setting == "lr":
                set_rate(group, value)
            else:
                group[setting] = value


def find_settings(name: str, optimizer: torch.optim.Optimizer, position: Position) -> Mapping[str, Any]:
    """Return the settings of an optimizer's groups at a place on the clock; none for one that does not follow it.

    Raises:
        ConfigError: A value is out of range.
    """
    settings_at: SettingsAt | None = getattr(optimizer, "settings_at", None)
    if settings_at is None:
        return {}
    with name_place(f"the optimizer {name}", position):
        return settings_at(position)


def find_weight(penalty: Penalty | GeneratorPenalty, position: Position) -> float:
    """Return the weight of a penalty at a place on the clock.

    Raises:
        ConfigError: A weight that moves is no finite number of at least 0.
    """
    weight: float = value_at(penalty.weight, position, "weight")
    if is_moving(penalty.weight) and not (math.isfinite(weight) and weight >= 0):
        raise ConfigError(
            f"the weight of {type(penalty).__name__} must be finite and at least 0, and is {weight} at {position}"
        )
    return weight


def check_over_schedule(
    schedule: Schedule,
    update: Update,
    penalties: Iterable[Penalty | GeneratorPenalty],
    optimizers: Mapping[str, torch.optim.Optimizer],
    checks: Sequence[Callable[[Position], object]],
) -> None:
    """Check the values of what moves at places all over the planned schedule, before anything is trained.

    Args:
        schedule: The stages.
        update: The update, which decides where steps begin.
        penalties: The penalties on both networks.
        optimizers: The optimizers by name.
        checks: Functions that raise a ConfigError where a value is out of range.

    Raises:
        ConfigError: A value is out of range; the message says where.
    """
    # Where nothing moves, there is nothing to look up.
    moving = [penalty for penalty in penalties if is_moving(penalty.weight)]
    following = {name: each for name, each in optimizers.items() if hasattr(each, "settings_at")}
    if not moving and not following and not checks:
        return

    # Reading a value checks it.
    for position in list_places(schedule, update):
        for penalty in moving:
            find_weight(penalty, position)
        for name, optimizer in following.items():
            find_settings(name, optimizer, position)
        for check in checks:
            check(position)


@contextmanager
def name_place(name: str, position: Position) -> Iterator[None]:
    """Turn a SettingError into one that says whose setting it is and where on the clock.

    Raises:
        ConfigError: A SettingError was raised.
    """
    try:
        yield
    except SettingError as error:
        raise ConfigError(f"{name}: {error}, at {position}") from None


def list_places(schedule: Schedule, update: Update) -> Iterator[Position]:
    """Yield places of the planned schedule at which steps may begin, each phase's first and last among them."""
    starts = schedule.planned_starts()
    for index, start in enumerate(starts):
        own_starts = starts[: index + 1]
        for phase in (FADE, STABLE):
            low, high = find_phase(schedule, own_starts, phase)
            if low == high:
                continue
            # A curve may leave its range in the last step alone; what it gives behind that is never used.
            *_, group = group_steps(update, schedule, own_starts, start, high)
            last = max(low, group.begin + (group.steps - 1) * group.images)
            step = max(1, (high - low) // PLACES_IN_A_PHASE)
            places = {*range(low, last, step), last}
            for images in sorted(places):
                yield schedule.at(images, own_starts)


def list_moving_settings(components: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of components that move, by name: `train.loss.penalties.0.weight`.

    Args:
        components: The components by their path in the experiment. A setting is a public attribute.
    """
    settings = {}
    for path, component in components.items():
        # A curve that another one holds is part of it.
        if isinstance(component, Curve):
            continue
        for name, value in getattr(component, "__dict__", {}).items():
            if not name.startswith("_") and is_moving(value):
                settings[f"{path}.{_find_parameter(component, name)}"] = value
    return settings


def _find_parameter(component: object, attribute: str) -> str:
    """Return the parameter that an attribute holds: itself, or `factor` for `old_factor`.

    Where a component has a method of the parameter's name, its attribute has a word before it.
    """
    try:
        parameters = inspect.signature(type(component)).parameters
    except ValueError:  # classes that are not written in Python may have none
        return attribute
    if attribute in parameters:
        return attribute
    return next((name for name in parameters if attribute.endswith(f"_{name}")), attribute)
