"""Parts that are given to `train` as objects instead of by their names in a config."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pggan_kit.components import KINDS, Component
from pggan_kit.config.arguments import annotations_of
from pggan_kit.errors import ConfigError, RunError, did_you_mean, suggest
from pggan_kit.experiment import Experiment

SUFFIX = "_object"
"""Ends the name under which an object stands in the run's config: `@losses.Mine_object()`."""


@dataclass(frozen=True)
class Given:
    """Objects as the rest of the framework sees parts.

    Attributes:
        rows: a component for each object.
        bindings: that put them in their places, and win over the config.
        names: for each place, what stands there; a run's `run.json` notes it.
    """

    rows: list[Component]
    bindings: list[str]
    names: dict[str, list[str]]


def given(parts: Mapping[str, object]) -> Given:
    """Objects by their places in the experiment.

    Args:
        parts: e.g. `{"train.loss": Mine(), "train.observers": [Watcher()]}`; a list where the experiment has one.

    Raises:
        ConfigError: there is no such place, a class instead of an object, or no list where one is wanted.
    """
    found, places = Given([], [], {}), _places()
    for place, value in parts.items():
        if place not in places:
            raise ConfigError(
                f"parts: {place} is no place of a part{suggest(did_you_mean(place, places))}; "
                f"places are {', '.join(places)}"
            )
        kind, many = places[place]
        if many and not isinstance(value, (list, tuple)):
            raise ConfigError(f"parts: {place} takes a list of objects, not {value!r}")
        objects: Sequence[object] = typing.cast("Sequence[object]", value) if many else [value]
        references = []
        for thing in objects:
            if isinstance(thing, type):
                raise ConfigError(f"parts: {place}: {thing.__name__} is a class; give an object, {thing.__name__}(...)")
            row = Component(kind, _name(thing, found.rows), lambda thing=thing: thing)
            found.rows.append(row)
            references.append(f"{kind}.{row.name}")
        calls = ", ".join(f"@{reference}()" for reference in references)
        found.bindings.append(f"{place} = [{calls}]" if many else f"{place} = {calls}")
        found.names[place] = references
    return found


def require_same_places(noted: Mapping[str, Sequence[str]], now: Given) -> None:
    """Check that a run that was begun with objects goes on with objects of the same classes in the same places.

    Raises:
        RunError: it does not; the message says what to give.
    """
    if {place: list(names) for place, names in noted.items()} != now.names:
        wanted = ", ".join(
            f"{place}: {', '.join(name.partition('.')[2].removesuffix(SUFFIX) for name in names)}"
            for place, names in noted.items()
        )
        raise RunError(
            "parts: a run goes on with objects of the classes that it was begun with, made with the same arguments; "
            f"{'it was begun with ' + wanted if wanted else 'this one was begun without any'}"
        )


def _places() -> dict[str, tuple[str, bool]]:
    """Kind, and whether there are many, by place."""
    kinds: dict[object, str] = {protocol: kind for kind, protocol in KINDS.items()}
    places = {}
    for name, hint in annotations_of(Experiment).items():
        many = typing.get_origin(hint) is Sequence
        for inner in (hint, *typing.get_args(hint)):
            if inner in kinds:
                places[f"train.{name}"] = (kinds[inner], many)
    return places


def _name(thing: object, taken: Sequence[Component]) -> str:
    """An identifier that is not taken: of two objects of one class, the second is `Mine2_object`."""
    names = {row.name for row in taken}
    candidates = (f"{type(thing).__name__}{number if number > 1 else ''}{SUFFIX}" for number in itertools.count(1))
    return next(name for name in candidates if name not in names)
