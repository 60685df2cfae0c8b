"""List the settings in effect, defaults and those of nested components included, as text that can be compared."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pggan_kit.config.arguments import read_signature
from pggan_kit.plugin_host.loading import Row

Settings = dict[str, dict[str, str]]
"""By place in the experiment (`train.loss`): the bindings in effect there and in what it holds, with their values."""

DEEPEST = 3
"""Maximum number of objects, one inside the other, that no config made and that are described nevertheless."""

LONGEST = 1000
"""Maximum characters of a value's text; a longer one is replaced by its beginning and its SHA-256."""

_PLAIN = (bool, int, float, str, PurePath, type(None))


@dataclass(frozen=True)
class Made:
    """A component that was made.

    Attributes:
        row: Its row.
        component: The object.
        arguments: The arguments that it was made with; defaults are missing.
        scope: The scope in which it was made.
    """

    row: Row
    component: Any
    arguments: Mapping[str, Any]
    scope: str

    @property
    def name(self) -> str:
        """Return its name on the left-hand side of bindings: `g/optimizers.Adam`."""
        if self.scope:
            return f"{self.scope}/{self.row.selector}"
        return self.row.selector


def list_settings(
    root: str, factory: Callable[..., Any], built: Any, arguments: Mapping[str, Any], made: Mapping[int, Made]
) -> Settings:
    """Return the settings in effect of a root, by place.

    Args:
        root: The root's name, as `train`.
        factory: Its class.
        built: The object that it made.
        arguments: The arguments that it got.
        made: All components that were made, by the object's id.
    """
    lister = _Lister(made)
    settings: Settings = {}
    for name, value in _complete_arguments(factory, built, arguments):
        place = f"{root}.{name}"
        settings[place] = dict(lister.iterate(place, value))
    return settings


class _Lister:
    """The lister of a value's settings.

    Args:
        made: All components that were made, by the object's id.
    """

    def __init__(self, made: Mapping[int, Made]) -> None:
        self._made = made
        self._above: set[int] = set()

    def iterate(self, name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
        """Yield a setting's name and value as text, and those of the components and objects that it holds."""
        # The setting itself.
        text = self._describe(value)
        if len(text) > LONGEST:
            text = f"{text[:LONGEST]}... ({hashlib.sha256(text.encode()).hexdigest()})"
        yield name, text

        # What it holds: components and factories by their own settings, other objects by their arguments.
        for thing in _iterate_things(value):
            own = self._made.get(id(thing))
            selector = _find_factory_selector(thing)
            if own is not None:
                yield from self._iterate_component(own)
            elif selector is not None:
                for other in self._made.values():
                    if f"@{other.row.selector}" == selector:
                        yield from self._iterate_component(other)
            elif depth < DEEPEST:
                for attribute, inner in _read_constructor_arguments(thing):
                    yield from self.iterate(f"{name}.{attribute}", inner, depth + 1)

    def _iterate_component(self, own: Made) -> Iterator[tuple[str, str]]:
        """Yield the settings of a component, and of those that it holds."""
        # A component may take its own factory.
        if id(own) in self._above:
            return
        self._above.add(id(own))
        factory = own.row.component.factory
        for parameter, value in _complete_arguments(factory, own.component, own.arguments):
            yield from self.iterate(f"{own.name}.{parameter}", value)
        # Any other factory than the class may have settings in its code.
        if factory is not type(own.component):
            for attribute, value in _read_constructor_arguments(own.component):
                yield from self.iterate(f"{own.name}.{attribute}", value, 1)
        self._above.remove(id(own))

    def _describe(self, value: Any) -> str:
        """Return a value as text that is the same in every process, as a config would write it."""
        if isinstance(value, Mapping):
            items = [f"{self._describe(key)}: {self._describe(item)}" for key, item in value.items()]
            return f"{{{', '.join(sorted(items))}}}"
        # A list and a tuple have one meaning in a config, and so have 1 and 1.0.
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self._describe(item) for item in value)}]"
        if isinstance(value, float) and value.is_integer():
            return repr(int(value))
        if isinstance(value, PurePath):
            return repr(str(value))
        if isinstance(value, _PLAIN):
            return repr(value)

        own = self._made.get(id(value))
        if own is not None:
            return f"@{own.name}()"
        return _find_factory_selector(value) or _name_class(value)


def _find_factory_selector(value: Any) -> str | None:
    """Return `@selector` of a component's factory, which a config names without parentheses; else None."""
    if not inspect.isfunction(value):
        return None
    selector = getattr(value, "selector", None)
    if isinstance(selector, str):
        return selector
    return None


def _name_class(value: Any) -> str:
    """Return the name of a class or function, or of an object's class."""
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__qualname__
    return type(value).__qualname__


def _iterate_things(value: Any) -> Iterator[Any]:
    """Yield what mappings, lists and tuples hold in the end and is not plain."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _iterate_things(key)
            yield from _iterate_things(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _iterate_things(item)
    elif not isinstance(value, _PLAIN):
        yield value


def _complete_arguments(
    factory: Callable[..., Any], built: Any, arguments: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the arguments that a factory got, and the defaults of the others."""
    yield from arguments.items()
    for parameter in read_signature(factory).parameters.values():
        if parameter.name in arguments or parameter.default is parameter.empty:
            continue
        default = parameter.default
        # The default of a dataclass's field may be made for each object.
        if not isinstance(default, _PLAIN):
            default = getattr(built, parameter.name, default)
        yield parameter.name, default


def _read_constructor_arguments(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arguments that an object was made with in Python, as far as it tells them.

    They are its attributes with the names of its constructor's parameters, which may begin with an underscore. Where
    one is missing, it is not known how the object was made, and all its public attributes count. Otherwise these are
    its state.
    """
    # A class or a function has no arguments that it was made with.
    if isinstance(thing, type) or inspect.isroutine(thing):
        return
    attributes: Mapping[str, Any] = getattr(thing, "__dict__", {})

    # Attributes that have the name of a parameter, or that name after an underscore.
    known: dict[str, Any] = {}
    for parameter in read_signature(type(thing)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        names = [name for name in (parameter.name, f"_{parameter.name}") if name in attributes]
        if not names:
            known |= {name: value for name, value in attributes.items() if not name.startswith("_")}
            break
        known[parameter.name] = attributes[names[0]]
    yield from known.items()
