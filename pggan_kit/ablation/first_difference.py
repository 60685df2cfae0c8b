"""Find the stage from which two variants differ: up to there they are one run, which is trained once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pggan_kit.api.prepare import Prepared
from pggan_kit.config import gin_files
from pggan_kit.config.bindings import Macro
from pggan_kit.growth.learning import acts_at_base
from pggan_kit.plugin_host.contracts import find_marked_hooks

SETTINGS_OF_GROWTH = ("switch", "resampling", "image_resampling", "fade_reals", "growth")
"""Settings of `train` that have no effect before the first growth; of growth policies it is asked whether they have."""

HARMLESS_HOOKS = {
    "fade_alpha",
    "before_run",
    "before_stage",
    "before_fade",
    "after_fade",
    "after_stage",
    "save_state",
    "load_state",
}
"""Hooks without an effect before the first growth where a component of those settings implements them.

`should_advance`, for example, is none of them: it may end the first stage early.
"""


def find_first_difference(one: Prepared, other: Prepared) -> int | None:
    """Return the first stage that two experiments with the same seed train differently; None if they are the same.

    Knows the settings that act at growth only, and schedules. Any other difference counts from stage 0.

    Args:
        one: the first experiment, whose schedule was checked.
        other: the second one, likewise.
    """
    own_settings = _read_settings(one.built.operative)
    other_settings = _read_settings(other.built.operative)
    differing = [key for key in {**own_settings, **other_settings} if own_settings.get(key) != other_settings.get(key)]
    return min((_find_stage(key, one, other) for key in differing), default=None)


@lru_cache(maxsize=64)  # each variant is compared with each other one
def _read_settings(operative: str) -> Mapping[tuple[str, str, str], str]:
    """Return every parameter in effect, defaults included, as text without macros."""
    bindings = gin_files.parse_text(operative, "operative").bindings
    macros = {binding.name: binding.value for binding in bindings if binding.is_macro}
    settings = {}
    for binding in bindings:
        if not binding.is_macro:
            settings[binding.key] = repr(_expand_macros(binding.value, macros))
    return settings


def _expand_macros(value: Any, macros: Mapping[str, Any]) -> Any:
    """Return a value with each macro in it replaced by the macro's value."""
    if isinstance(value, Macro):
        return _expand_macros(macros[value.name], macros)
    if isinstance(value, Mapping):
        return {_expand_macros(key, macros): _expand_macros(item, macros) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_expand_macros(item, macros) for item in value)
    return value


def _find_stage(key: tuple[str, str, str], one: Prepared, other: Prepared) -> int:
    """Return the first stage on which a parameter with two values has an effect."""
    _, selector, parameter = key
    if selector == "schedule":
        return _compare_schedules(one, other)

    if selector == "train":
        acts_at_growth = parameter in SETTINGS_OF_GROWTH
    else:
        acts_at_growth = _is_used_at_growth_only(selector, one, other)
    if not acts_at_growth or not _has_only_harmless_hooks(one) or not _has_only_harmless_hooks(other):
        return 0
    # A growth policy may be one that acts before the first growth.
    experiments = [(prepared.built.experiment, prepared.resolve_schedule()) for prepared in (one, other)]
    if any(acts_at_base(experiment.growth, schedule, experiment.nets) for experiment, schedule in experiments):
        return 0
    return 1 if len(one.resolve_schedule().stages) > 1 else 0


def _compare_schedules(one: Prepared, other: Prepared) -> int:
    """Return the first stage that two schedules plan differently.

    Totals that differ count from stage 0: components may look at how much of the run is left.
    """
    own_schedule = one.resolve_schedule()
    other_schedule = other.resolve_schedule()
    if own_schedule.total != other_schedule.total:
        return 0
    pairs = zip(own_schedule.stages, other_schedule.stages, strict=False)
    for index, (own_stage, other_stage) in enumerate(pairs):
        if own_stage != other_stage:
            return index
    return min(len(own_schedule.stages), len(other_schedule.stages))


def _is_used_at_growth_only(selector: str, *experiments: Prepared) -> bool:
    """Return whether a component stands nowhere but below settings that act at growth."""
    for prepared in experiments:
        for path, (row, _) in prepared.built.components.items():
            if row.selector == selector and not _is_below_growth_setting(path):
                return False
    return True


def _has_only_harmless_hooks(prepared: Prepared) -> bool:
    """Return whether the components of settings that act at growth implement no hook that acts before it."""
    for path, (_, component) in prepared.built.components.items():
        if _is_below_growth_setting(path) and not set(find_marked_hooks(component, path)) <= HARMLESS_HOOKS:
            return False
    return True


def _is_below_growth_setting(path: str) -> bool:
    return any(f"{path}.".startswith(f"train.{setting}.") for setting in SETTINGS_OF_GROWTH)
