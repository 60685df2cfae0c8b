"""Which settings of an experiment have an effect on the numbers that its runs give."""

from __future__ import annotations

from pggan_kit.api.prepare import Prepared
from pggan_kit.components import Dataset
from pggan_kit.plugin_host.contracts import find_marked_hooks

HARMLESS = (
    "train.observers",
    "train.keep",
    "train.keep_best",
    "train.keep_stages",
    "train.checkpoint_every",
    "train.time_limit",
    "train.collapse_below",
    "data.cache",
    "data.workers",
    "data.device_memory",
)
"""Places whose settings change nothing of what a run trains."""

MEASURING = ("train.metrics", "train.diversity_every", "evaluation.")
"""Beginnings of the places whose settings change nothing, unless what they measure decides when networks grow, or is a
curve of the plan."""

COMPARED = ("train.metrics", "evaluation.dataset", "evaluation.count", "evaluation.batch_size")
"""Places whose settings change values that are compared; `evaluation.every` says when they are measured, not how."""

DECIDING_HOOKS = {"should_advance", "should_end"}
"""Hooks by which a component may end a stage or a run, for example when a metric stands still."""

DATASETS = ("train.dataset", "evaluation.dataset")
"""Places of data sets, whose settings have an effect if the content differs."""


def grows_by_clock(prepared: Prepared) -> bool:
    """Return whether no component may decide by what is measured when a stage or the run ends."""
    for path, (_, component) in prepared.built.components.items():
        if DECIDING_HOOKS & set(find_marked_hooks(component, path)):
            return False
    return True


def list_effective_differences(one: Prepared, other: Prepared) -> list[str]:
    """Return the places in which two experiments differ with an effect on what is trained or measured."""
    own_settings = one.built.settings
    other_settings = other.built.settings
    places = []
    for place in {**own_settings, **other_settings}:
        if place in HARMLESS or own_settings.get(place) == other_settings.get(place):
            continue
        if place in DATASETS and _have_same_content(_find_dataset(one, place), _find_dataset(other, place)):
            continue
        places.append(place)
    return places


def list_measuring_differences(one: Prepared, other: Prepared) -> list[str]:
    """Return the places in which two experiments differ in how they measure values that are compared."""
    return [place for place in list_effective_differences(one, other) if place in COMPARED]


def differ_in_training(one: Prepared, other: Prepared) -> bool:
    """Return whether two experiments differ in what they train.

    What they measure counts only where it may decide when networks grow.
    """
    places = list_effective_differences(one, other)
    measures_decide = not (grows_by_clock(one) and grows_by_clock(other))
    return any(measures_decide or not place.startswith(MEASURING) for place in places)


def _find_dataset(prepared: Prepared, place: str) -> Dataset | None:
    experiment = prepared.built.experiment
    return experiment.dataset if place == DATASETS[0] else experiment.evaluation.dataset


def _have_same_content(one: Dataset | None, other: Dataset | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.fingerprint() == other.fingerprint()
