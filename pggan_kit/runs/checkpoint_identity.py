"""Identify the experiment that a checkpoint belongs to: noted in it, and compared when a run goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError

if TYPE_CHECKING:
    from pggan_kit.data.sampler import Data
    from pggan_kit.experiment import Experiment
    from pggan_kit.schedule import Schedule

SECTIONS = {"architecture": "architecture", "schedule": "schedule", "dataset": "data set"}
"""Sections that are compared, and their names in errors."""

Identity = dict[str, dict[str, str]]
"""Settings of each section as text, by name."""

MISSING = "nothing"
_LONGEST = 80
_SHOWN = 3


def identify_experiment(experiment: Experiment, schedule: Schedule, data: Data) -> Identity:
    """Return the identity that an experiment's checkpoints note.

    Args:
        experiment: the experiment; its architecture and resampling are described by their classes and public plain
            attributes.
        schedule: the stages.
        data: the opened data set.
    """
    architecture = {"train.latent_size": str(experiment.latent_size)}
    for name in ("architecture", "resampling", "image_resampling"):
        architecture |= _describe_component(f"train.{name}", getattr(experiment, name))

    # What was configured stands first: it explains what follows from it.
    stages = {"sizes": ", ".join(stage.size for stage in schedule.stages), "total_images": str(schedule.total)}
    for stage in schedule.stages:
        for name in ("fade_images", "stable_images", "batch_size"):
            stages[f"{name} at {stage.size}"] = str(getattr(stage, name))

    dataset = {
        **_describe_component("train.dataset", experiment.dataset),
        "images": str(len(data)),
        "channels": str(data.image_channels),
        "classes": str(data.classes),
        "data.filter": experiment.data.filter,
        "data.mirror": str(experiment.data.mirror),
        "content": data.fingerprint,
    }
    return {"architecture": architecture, "schedule": stages, "dataset": dataset}


def require_same(noted: Identity, own: Identity) -> None:
    """Check that a checkpoint belongs to this experiment; one that notes no identity, of an older version, passes.

    Args:
        noted: the identity in the checkpoint; empty where it notes none.
        own: the experiment's identity.

    Raises:
        RunError: another architecture, schedule or data set; the message says which, and how they differ.
    """
    if not noted:
        return

    # One message for all sections, since one change often shows in several.
    differing = []
    for section, name in SECTIONS.items():
        difference = _describe_difference(noted[section], own[section])
        if difference:
            differing.append(f"another {name} ({difference})")
    if differing:
        raise RunError(
            f"the checkpoint is of {' and of '.join(differing)}. To go on from its weights nevertheless, begin a new "
            "run from it: pggan-kit train CONFIG --from RUN"
        )


def read_noted_sizes(noted: Identity) -> list[str]:
    """Return the sizes of a run's stages (`7x7`, ...), as its checkpoint notes them.

    Raises:
        RunError: the checkpoint notes none.
    """
    try:
        sizes = noted["schedule"]["sizes"]
    except KeyError:
        raise RunError("the checkpoint does not say of which run it is: it was written by an older version") from None
    return sizes.split(", ")


def read_noted_fingerprint(noted: Identity) -> str | None:
    """Return the fingerprint of a run's data set, as its checkpoint notes it; None where it notes none."""
    return noted.get("dataset", {}).get("content")


def _describe_difference(noted: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Return the first settings that differ, in words; nothing where none does."""
    names = [name for name in {**noted, **own} if noted.get(name) != own.get(name)]
    shown = [f"{name}: {_shorten(noted.get(name))} there, {_shorten(own.get(name))} here" for name in names[:_SHOWN]]
    text = "; ".join(shown)
    if len(names) > _SHOWN:
        text += f"; and {len(names) - _SHOWN} more"
    return text


def _shorten(value: Any) -> str:
    """Return a value as short text without characters that would steer a terminal."""
    if value is None:
        return MISSING
    text = "".join(character for character in str(value) if character.isprintable())
    if len(text) > _LONGEST:
        return text[:_LONGEST] + "..."
    return text


def _describe_component(name: str, component: Any) -> dict[str, str]:
    """Return a component's class under its name, and its public plain attributes."""
    class_name = type(component).__name__
    settings = {name: class_name}
    for key, value in getattr(component, "__dict__", {}).items():
        if not key.startswith("_") and _is_plain(value):
            settings[f"{class_name}.{key}"] = repr(value)
    return settings


def _is_plain(value: Any) -> bool:
    """Return whether a value consists of numbers, texts and None, in dicts, lists and tuples."""
    if isinstance(value, Mapping):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)
