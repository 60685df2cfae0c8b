"""Identify the experiment that a checkpoint belongs to: noted in it, and compared wherever its weights are loaded.

The bindings in effect are compared, those of nested components and defaults included. What decides which function the
weights are can never change: the networks, the schedule, and the data's channels and classes. Another data set is
refused where a run is resumed. Everything else may change then, and is recorded with its clock.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError
from pggan_kit.schedule import Schedule, at_height

if TYPE_CHECKING:
    from pggan_kit.data.sampler import Data

Settings = Mapping[str, Mapping[str, str]]
"""By place in the experiment (`train.loss`): the bindings in effect there and in what it holds, with their values."""

PLACES = {
    "architecture": (
        "train.architecture",
        "train.discriminator_architecture",
        "train.encoder_architecture",
        "train.latent_size",
    ),
    "resampling": ("train.resampling",),
    "image_resampling": ("train.image_resampling",),
}
"""Places whose settings decide, with the schedule, which function the weights are, by section of an identity."""

NETWORKS = {
    "architecture": "architecture",
    "resampling": "resampling",
    "image_resampling": "resampling of images",
    "schedule": "schedule",
    "data": "kind of data",
}
"""Sections that are compared wherever weights are loaded, and their names in errors."""

EXPERIMENT = {**NETWORKS, "dataset": "data set"}
"""Sections that are compared where a run is resumed, and their names in errors."""

SECTIONS = (*EXPERIMENT, "settings")
"""All sections of an identity. Those of the last may change when a run is resumed."""

Identity = dict[str, dict[str, str]]
"""Settings of each section as text, by name."""

Change = tuple[str | None, str | None]
"""A setting's value before and now; None where there is no such setting."""

MISSING = "nothing"
_LONGEST = 80
_SHOWN = 3


def identify_networks(settings: Settings, schedule: Schedule) -> Identity:
    """Return what decides which function the weights of an experiment's networks are.

    Args:
        settings: the settings in effect.
        schedule: the stages.
    """
    identity: Identity = {}
    for section, places in PLACES.items():
        identity[section] = _merge_places(settings, places)

    # What was configured stands first: it explains what follows from it.
    stages = {"sizes": ", ".join(stage.size for stage in schedule.stages), "total_images": str(schedule.total)}
    for stage in schedule.stages:
        for name in ("fade_images", "stable_images", "batch_size"):
            stages[f"{name} at {stage.size}"] = str(getattr(stage, name))
        if stage.discriminator is not None:
            stages[f"discriminator at {stage.size}"] = stage.discriminator.size
    identity["schedule"] = stages

    base = schedule.stages[0]
    identity["data"] = {"channels": str(base.image_channels), "classes": str(base.classes)}
    return identity


def identify_experiment(settings: Settings, schedule: Schedule, data: Data) -> Identity:
    """Return the identity that an experiment's checkpoints note.

    Args:
        settings: the settings in effect.
        schedule: the stages.
        data: the opened data set.
    """
    dataset = {"images": str(len(data)), "content": data.fingerprint}
    if not data.values.is_plain:
        dataset["values"] = str(data.values)
    return {
        **identify_networks(settings, schedule),
        "dataset": dataset,
        "settings": merge_other_settings(settings),
    }


def merge_other_settings(settings: Settings) -> dict[str, str]:
    """Return the settings in effect that do not decide which function the weights are, by name."""
    # The schedule is compared stage by stage: an epoch may be written in images.
    deciding = {place for places in PLACES.values() for place in places}
    others = [place for place in settings if place not in deciding and not place.startswith("schedule.")]
    return _merge_places(settings, others)


def _merge_places(settings: Settings, places: Iterable[str]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for place in places:
        merged |= settings[place]
    return merged


def require_same(
    noted: Identity, own: Identity, sections: Mapping[str, str] = EXPERIMENT, *, overridden: bool = False
) -> None:
    """Check that a checkpoint belongs to this experiment; one that was saved outside of a run passes.

    Args:
        noted: the identity in the checkpoint; empty where it notes none.
        own: the experiment's identity; empty where a run was made by hand.
        sections: the sections to compare, and their names in errors.
        overridden: whether the experiment has overrides beside the run's config, for the message.

    Raises:
        RunError: other networks, another schedule or data set; the message says which bindings differ, and how.
    """
    if not noted or not own:
        return

    # One message for all sections, since one change often shows in several.
    differing = []
    changed: set[str] = set()
    for section, name in sections.items():
        difference = describe_difference(noted[section], own[section])
        if difference:
            differing.append(f"another {name} ({difference})")
            changed |= list_changes(noted[section], own[section]).keys()
    if not differing:
        return

    # Pictures may have changed under a config that has not.
    undo = "change the run's config.gin back"
    if overridden:
        undo = "leave out the overrides (-b) that change this"
    remedy = f"{undo[0].upper()}{undo[1:]}"
    if changed <= {"images", "content"}:
        remedy = f"Put its files back as they were, or {undo} if another data set is bound"
    raise RunError(
        f"the checkpoint is of {' and of '.join(differing)}. {remedy}; or, to go on from its weights with what is here "
        "now, begin a new run from it: pggan-kit train CONFIG --from RUN"
    )


def require_same_networks(noted: Identity, own: Identity) -> None:
    """Check that a checkpoint's weights are the function that this experiment describes; see `require_same`."""
    require_same(noted, own, NETWORKS)


def require_branch_fits(noted: Identity, own: Identity, stage: int, bridged: bool) -> None:
    """Check that the networks of a branch are those of a checkpoint, as far as they have grown there.

    Args:
        noted: the identity in the checkpoint; empty where it was saved outside of a run.
        own: the branch's identity; empty where a run was made by hand.
        stage: the checkpoint's stage.
        bridged: whether the checkpoint has an old path.

    Raises:
        RunError: a binding differs that has an effect at the stages up to the branch; the message names it.
    """
    if not noted or not own:
        return

    # Both networks, as far as they have grown: D may be ahead of G.
    sizes = read_noted_sizes(noted)
    discriminator = read_discriminator_size(noted, stage)
    grown = max(stage, sizes.index(discriminator))
    heights = [int(size.partition("x")[0]) for size in sizes[: grown + 1]]

    # Resampling of features begins with the first growth; that of images shows in old paths, and where D resizes.
    sections = ["architecture"]
    if grown > 0:
        sections.append("resampling")
    if bridged or discriminator != sizes[stage]:
        sections.append("image_resampling")

    for section in sections:
        for name, (before, now) in list_changes(noted[section], own[section]).items():
            if not _are_same_at(before, now, heights):
                raise RunError(
                    f"{_shorten(name)} is {_shorten(before)} there, and {_shorten(now)} in this config: bind it to the "
                    "value that it has there"
                )


def _are_same_at(one: str | None, other: str | None, heights: Sequence[int]) -> bool:
    """Return whether two values, at least one of them per stage, are the same at all of these stages."""
    try:
        values = [ast.literal_eval(str(one)), ast.literal_eval(str(other))]
        if not any(isinstance(value, Mapping) for value in values):
            return False
        return all(at_height(values[0], height) == at_height(values[1], height) for height in heights)
    except (ValueError, SyntaxError, TypeError):  # no literal, or no value for each stage
        return False


def list_changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, Change]:
    """Return the settings that differ, by name."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return {name: (before.get(name), now.get(name)) for name in names}


def are_below(changes: Iterable[str], settings: Settings, places: Iterable[str]) -> bool:
    """Return whether one of the settings that changed is in effect at one of these places."""
    names = _merge_places(settings, places)
    return any(name in names for name in changes)


def describe_changes(changes: Mapping[str, Change]) -> str:
    """Return settings that changed as one line, `train.seed: 0 -> 1; ...`."""
    return "; ".join(f"{name}: {_shorten(before)} -> {_shorten(now)}" for name, (before, now) in changes.items())


def is_list_of_changes(value: object) -> bool:
    """Return whether a value, read from a file, is the list of what changed as a run was resumed.

    Its entries have the clock `images`, and under `bindings` pairs of the value before and the value after, by name.
    """
    if not isinstance(value, list):
        return False
    for entry in value:
        if not isinstance(entry, dict) or type(entry.get("images")) is not int:
            return False
        bindings = entry.get("bindings")
        if not isinstance(bindings, dict) or not all(isinstance(name, str) for name in bindings):
            return False
        if not all(_is_pair_of_texts(values) for values in bindings.values()):
            return False
    return True


def _is_pair_of_texts(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(text is None or isinstance(text, str) for text in value)


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


def read_discriminator_size(identity: Identity, stage: int) -> str:
    """Return the size that D has in a stage of an experiment, as `28x28`.

    Raises:
        RunError: the identity does not note the sizes.
    """
    size = read_noted_sizes(identity)[stage]
    return identity["schedule"].get(f"discriminator at {size}", size)


def read_noted_fingerprint(noted: Identity) -> str | None:
    """Return the fingerprint of a run's data set, as its checkpoint notes it; None where it notes none."""
    return noted.get("dataset", {}).get("content")


def describe_difference(noted: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Return the first settings that differ, in words; nothing where none does."""
    changes = list_changes(noted, own)
    shown = []
    for name, (before, now) in list(changes.items())[:_SHOWN]:
        shown.append(f"{_shorten(name)}: {_shorten(before)} there, {_shorten(now)} here")
    text = "; ".join(shown)
    if len(changes) > _SHOWN:
        text += f"; and {len(changes) - _SHOWN} more"
    return text


def _shorten(value: Any) -> str:
    """Return a value as short text without characters that would steer a terminal."""
    if value is None:
        return MISSING
    text = "".join(character for character in str(value) if character.isprintable())
    if len(text) > _LONGEST:
        return text[:_LONGEST] + "..."
    return text
