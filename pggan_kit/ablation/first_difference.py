"""Where two variants first differ: up to there they are one run, which is trained once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pggan_kit.api.prepare import Prepared
from pggan_kit.config import gin_files as configs
from pggan_kit.config.bindings import Macro
from pggan_kit.plugin_host.contracts import marked_hooks

LATE = ("switch", "resampling", "image_resampling", "fade_reals", "reset_optimizer")
"""Settings of `train` that have no say before the first growth."""

HARMLESS = {"fade_alpha", "before_stage", "before_fade", "after_fade", "after_stage", "save_state", "load_state"}
"""Hooks that a part bound there may implement without a say before the first growth: not `should_advance`, say."""


def first_difference(one: Prepared, other: Prepared) -> int | None:
    """The first stage that two experiments with the same seed train differently; None where they are the same.

    Knows the settings that act at growth only, and schedules. Any other difference counts from stage 0.
    """
    ours, theirs = (_settings(prepared) for prepared in (one, other))
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    stages = [_stage(name, one, other) for name in names]
    return min(stages, default=None)


def _settings(prepared: Prepared) -> dict[tuple[str, str, str], str]:
    """Every parameter in effect, defaults included, as text without macros."""
    bindings = configs.parse_text(prepared.built.operative, "operative").bindings
    macros = {binding.name: binding.value for binding in bindings if binding.is_macro}
    return {b.key: repr(_expanded(b.value, macros)) for b in bindings if not b.is_macro}


def _expanded(value: Any, macros: Mapping[str, Any]) -> Any:
    if isinstance(value, Macro):
        return _expanded(macros[value.name], macros)
    if isinstance(value, Mapping):
        return {_expanded(key, macros): _expanded(item, macros) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_expanded(item, macros) for item in value)
    return value


def _stage(name: tuple[str, str, str], one: Prepared, other: Prepared) -> int:
    _, selector, parameter = name
    if selector == "schedule":
        return _of_schedules(one, other)
    late = parameter in LATE if selector == "train" else _is_late(selector, one, other)
    if not late or not all(_is_harmless(prepared) for prepared in (one, other)):
        return 0
    return 1 if len(one.schedule().stages) > 1 else 0


def _of_schedules(one: Prepared, other: Prepared) -> int:
    """A total that differs counts from the start: parts may look at how much of the run is left."""
    ours, theirs = one.schedule(), other.schedule()
    if ours.total != theirs.total:
        return 0
    same = [a == b for a, b in zip(ours.stages, theirs.stages, strict=False)]
    return same.index(False) if False in same else min(len(ours.stages), len(theirs.stages))


def _is_late(selector: str, *both: Prepared) -> bool:
    """Whether a part stands nowhere but below settings that act at growth."""
    paths = [path for prepared in both for path, (row, _) in prepared.built.parts.items() if row.selector == selector]
    return all(any(f"{path}.".startswith(f"train.{setting}.") for setting in LATE) for path in paths)


def _is_harmless(prepared: Prepared) -> bool:
    parts = [
        (path, part)
        for path, (_, part) in prepared.built.parts.items()
        if any(f"{path}.".startswith(f"train.{setting}.") for setting in LATE)
    ]
    return all(set(marked_hooks(part, path)) <= HARMLESS for path, part in parts)
