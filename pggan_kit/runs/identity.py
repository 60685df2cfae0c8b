"""What a checkpoint belongs to: noted in it, and compared when a run goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError

if TYPE_CHECKING:
    from pggan_kit.data.sampler import Data
    from pggan_kit.experiment import Experiment
    from pggan_kit.schedule import Schedule

SECTIONS = {"architecture": "architecture", "schedule": "schedule", "dataset": "data set"}
"""What is compared, and what errors call it."""

Identity = dict[str, dict[str, str]]
"""For each section its settings as text, by name."""

MISSING = "nothing"
_LONGEST = 80
_SHOWN = 3


def identity(experiment: Experiment, schedule: Schedule, data: Data) -> Identity:
    """What an experiment's checkpoints belong to.

    Args:
        experiment: its architecture and resampling are described by their classes and public plain attributes.
        schedule: the stages.
        data: the opened data set.
    """
    architecture = {"train.latent_size": str(experiment.latent_size)}
    for name in ("architecture", "resampling", "image_resampling"):
        architecture |= _described(f"train.{name}", getattr(experiment, name))
    stages = {"sizes": ", ".join(stage.size for stage in schedule.stages), "total_images": str(schedule.total)}
    for stage in schedule.stages:
        for name in ("fade_images", "stable_images", "batch_size"):
            stages[f"{name} at {stage.size}"] = str(getattr(stage, name))
    dataset = {
        **_described("train.dataset", experiment.dataset),
        "images": str(len(data)),
        "channels": str(data.image_channels),
        "classes": str(data.classes),
        "data.filter": experiment.data.filter,
        "data.mirror": str(experiment.data.mirror),
        "content": data.fingerprint,
    }
    return {"architecture": architecture, "schedule": stages, "dataset": dataset}


def require_same(noted: Identity, own: Identity) -> None:
    """Check that a checkpoint belongs to this experiment. One of before checkpoints noted this passes.

    Args:
        noted: the identity in the checkpoint; empty where it notes none.
        own: the experiment's identity.

    Raises:
        RunError: another architecture, schedule or data set; the message says which, and how they differ.
    """
    if not noted:
        return
    differing = [
        f"another {called} ({found})"
        for section, called in SECTIONS.items()
        if (found := _difference(noted[section], own[section]))
    ]
    if differing:
        raise RunError(
            f"the checkpoint is of {' and of '.join(differing)}. To go on from its weights nevertheless, begin a new "
            "run from it: pggan-kit train CONFIG --from RUN"
        )


def noted_sizes(noted: Identity) -> list[str]:
    """Return the sizes of a run's stages (`7x7`, ...), as its checkpoint notes them.

    Raises:
        RunError: it does not.
    """
    try:
        sizes = noted["schedule"]["sizes"]
    except KeyError:
        raise RunError("the checkpoint does not say of which run it is: it was written by an older version") from None
    return sizes.split(", ")


def noted_fingerprint(noted: Identity) -> str | None:
    """Return the fingerprint of a run's data set, as its checkpoint notes it; None where it notes none."""
    return noted.get("dataset", {}).get("content")


def _difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    # What was configured explains what follows from it.
    told = [f"{name}: {_short(there.get(name))} there, {_short(here.get(name))} here" for name in names[:_SHOWN]]
    return "; ".join(told) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _short(value: Any) -> str:
    text = MISSING if value is None else "".join(c for c in str(value) if c.isprintable())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _described(name: str, part: Any) -> dict[str, str]:
    settings = {
        f"{type(part).__name__}.{key}": repr(value)
        for key, value in getattr(part, "__dict__", {}).items()
        if not key.startswith("_") and _plain(value)
    }
    return {name: type(part).__name__, **settings}


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_plain(key) and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)
