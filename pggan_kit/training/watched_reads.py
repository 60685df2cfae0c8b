"""Watch which attributes of components a step reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pggan_kit.training.attributes import open_attributes
from pggan_kit.training.parity import DEPTH
from pggan_kit.training.state_copy import PLAIN, UNSEEN


@contextmanager
def watch_reads(parts: Mapping[str, Any], names: Collection[str], is_outside: Callable[[], bool]) -> Iterator[set[str]]:
    """Yield a set to which those names are added whose attributes are read in the block.

    Args:
        parts: Components by name.
        names: What is watched, as `loss.count` or `loss.counts.0`, which is read with `loss.counts`.
        is_outside: Whether what reads now is no part of what is watched.
    """
    # Find the part that each name is of: the one with the longest path.
    owners = {path: part for name, part in parts.items() for path, part in _list_components(name, part)}
    attributes: dict[str, dict[str, str]] = {}
    read: set[str] = set()
    for name in names:
        paths = [path for path in owners if name.startswith(f"{path}.")]
        if not paths:  # a component that is another one by now
            read.add(name)
            continue
        path = max(paths, key=len)
        attribute = name[len(path) + 1 :].partition(".")[0].partition(" ")[0]
        attributes.setdefault(path, {})[attribute] = name

    def note(name: str) -> None:
        if not is_outside():
            read.add(name)

    # Python asks an object's class for each attribute: each watched part has one of its own until the block ends.
    originals: list[tuple[Any, type]] = []
    try:
        for path, watched in attributes.items():
            original = type(owners[path])
            try:
                object.__setattr__(owners[path], "__class__", _make_watched_class(original, watched, note))
            except TypeError:  # a class that lets nobody watch: all of it counts as read
                read.update(watched.values())
                continue
            originals.append((owners[path], original))
        yield read
    finally:
        for part, original in originals:
            object.__setattr__(part, "__class__", original)


def _make_watched_class(original: type, watched: Mapping[str, str], note: Callable[[str], None]) -> type:
    get: Any = original.__getattribute__

    def note_and_get(self: Any, attribute: str) -> Any:
        if attribute in watched:
            note(watched[attribute])
        return get(self, attribute)

    body = {"__getattribute__": note_and_get, "__slots__": (), "__qualname__": original.__qualname__}
    return type(original)(original.__name__, (original,), body)


def _list_components(name: str, value: Any, seen: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield a component and those in it, by name, as `collect_settings` finds them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _list_components(f"{name}.{key}", item, seen)
    elif isinstance(value, (tuple, list)):
        for number, item in enumerate(value):
            yield from _list_components(f"{name}.{number}", item, seen)
    elif not isinstance(value, (*PLAIN, *UNSEEN, Tensor, nn.Module)):
        attributes = open_attributes(value)
        if attributes is None or id(value) in seen or len(seen) == DEPTH:
            return
        yield name, value
        for key, item in attributes.items():
            yield from _list_components(f"{name}.{key}", item, (*seen, id(value)))
