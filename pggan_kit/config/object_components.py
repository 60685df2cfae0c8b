"""Turn objects that are given to `train` into components, as if a plugin had brought them and a config named them."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pggan_kit.components import KINDS, Component
from pggan_kit.config.arguments import read_annotations
from pggan_kit.errors import ConfigError, RunError, did_you_mean, suggest
from pggan_kit.experiment import Experiment

SUFFIX = "_object"
"""Suffix of the name of an object in the run's config: `@losses.Mine_object()`."""


@dataclass(frozen=True)
class ObjectComponents:
    """Objects as the rest of the framework sees components.

    Attributes:
        rows: A component for each object.
        bindings: Overrides that put the components in their places.
        names: Selectors of the components by place, which a run's `run.json` records.
    """

    rows: list[Component] = field(default_factory=list)
    bindings: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)


def components_from_objects(parts: Mapping[str, object]) -> ObjectComponents:
    """Make components of objects.

    Args:
        parts: Objects by their places in the experiment, e.g. `{"train.loss": Mine(), "train.observers": [Watcher()]}`;
            a list where the experiment has one.

    Raises:
        ConfigError: There is no such place; a class is given instead of an object, or an object instead of a list.
    """
    if not isinstance(parts, Mapping):
        example = "{'train.loss': Mine()}"
        raise ConfigError(f"parts must be a dict of objects by their places, e.g. {example}, not {parts!r}")
    components = ObjectComponents()
    places = find_component_places()
    for place, value in parts.items():
        if place not in places:
            raise ConfigError(
                f"parts: {place} is not the place of a component{suggest(did_you_mean(place, places))}; "
                f"places are {', '.join(places)}"
            )

        # One object or a list of them
        kind, takes_list = places[place]
        if takes_list and not isinstance(value, (list, tuple)):
            raise ConfigError(f"parts: {place} takes a list of objects, not {value!r}")
        objects: Sequence[object] = [value]
        if takes_list:
            objects = typing.cast("Sequence[object]", value)

        # A component for each, and one binding for all
        selectors = []
        for thing in objects:
            component = _make_component(thing, kind, place, components.rows)
            components.rows.append(component)
            selectors.append(f"{kind}.{component.name}")
        components.bindings.append(_bind(place, selectors, takes_list))
        components.names[place] = selectors
    return components


def _make_component(thing: object, kind: str, place: str, others: Sequence[Component]) -> Component:
    """Make a component whose factory returns an object, under a name that no other component has."""
    if isinstance(thing, type):
        raise ConfigError(f"parts: {place}: {thing.__name__} is a class; give an object, {thing.__name__}(...)")
    taken = {component.name for component in others}
    name = next(name for name in _candidate_names(thing) if name not in taken)
    return Component(kind, name, lambda: thing)


def _candidate_names(thing: object) -> Iterator[str]:
    """Yield names for an object of a class: `Mine_object`, `Mine2_object`, ..."""
    name = type(thing).__name__
    yield f"{name}{SUFFIX}"
    for number in itertools.count(2):
        yield f"{name}{number}{SUFFIX}"


def _bind(place: str, selectors: Sequence[str], takes_list: bool) -> str:
    calls = ", ".join(f"@{selector}()" for selector in selectors)
    if takes_list:
        return f"{place} = [{calls}]"
    return f"{place} = {calls}"


def require_same_places(
    recorded: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]], needless: Sequence[str] = ()
) -> None:
    """Check that a run is used with objects of the same classes, in the same places, as it was begun with.

    Args:
        recorded: The `names` of the objects that the run was begun with.
        now: Those of the objects that are given now.
        needless: Places whose objects may be left out.

    Raises:
        RunError: They differ; the message says which objects to give.
    """
    wanted = {place: list(selectors) for place, selectors in recorded.items()}
    left_out = {place for place in needless if place not in now}
    if {place: selectors for place, selectors in wanted.items() if place not in left_out} == now:
        return
    if not wanted:
        raise RunError("parts: this run was begun without any: leave them out")

    # Say which objects to give, as they are written.
    entries = []
    places = find_component_places()
    for place, selectors in wanted.items():
        made = ", ".join(f"{selector.partition('.')[2].removesuffix(SUFFIX)}(...)" for selector in selectors)
        _, takes_list = places.get(place, ("", False))
        entries.append(f"{place!r}: [{made}]" if takes_list else f"{place!r}: {made}")
    raise RunError(
        "parts: this run was begun with objects, which are in no file. Give ones of the same classes, made with the "
        f"same arguments, in Python: parts={{{', '.join(entries)}}}"
    )


def find_component_places() -> dict[str, tuple[str, bool]]:
    """Return the places of components in an experiment: the kind, and whether the place takes a list."""
    kinds: dict[object, str] = {protocol: kind for kind, protocol in KINDS.items()}
    places = {}
    for name, hint in read_annotations(Experiment).items():
        takes_list = typing.get_origin(hint) is Sequence
        # The kind stands alone, in `Sequence[...]`, or beside None.
        for candidate in (hint, *typing.get_args(hint)):
            if candidate in kinds:
                places[f"train.{name}"] = (kinds[candidate], takes_list)
    return places
