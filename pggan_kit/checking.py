"""Checks of a config before anything is built: names, bindings that nothing uses, and the types of arguments."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pggan_kit.errors import ConfigError
from pggan_kit.plugins import nearest

MACRO = "gin.macro"
SINGLETON = "gin.singleton"


@dataclass(frozen=True)
class Place:
    """Where a binding stands: a file (or an override, or a component's defaults) and a line.

    Attributes:
        file: as the user named it.
        line: from 1, or None.
        included: not the main file, nor an override: such a binding may be idle.
        default: brought by a component, not by the user.
    """

    file: str
    line: int | None
    included: bool
    default: bool = False

    def at(self, line: int | None) -> Place:
        """Another line of the same file."""
        return self if self.line is None else replace(self, line=line)

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Reference:
    """`@scope/losses.Hinge()` in a value."""

    name: str
    evaluate: bool

    @property
    def scope(self) -> str:
        """`scope`, or nothing."""
        return self.name.rpartition("/")[0]

    @property
    def selector(self) -> str:
        """`losses.Hinge`."""
        return self.name.rpartition("/")[2]

    def __repr__(self) -> str:
        return f"@{self.name}{'()' if self.evaluate else ''}"


@dataclass(frozen=True)
class Macro:
    """`%SIZES` in a value."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Binding:
    """`scope/selector.parameter = value`, or a macro, whose parameter is empty."""

    scope: str
    selector: str
    parameter: str
    value: Any = field(compare=False)
    place: Place = field(compare=False)

    @property
    def is_macro(self) -> bool:
        """Whether this defines a macro."""
        return not self.parameter

    @property
    def name(self) -> str:
        """The left-hand side, as written."""
        scope = f"{self.scope}/" if self.scope else ""
        return f"{scope}{self.selector}" + (f".{self.parameter}" if self.parameter else "")

    @property
    def key(self) -> tuple[str, str, str]:
        """What is bound: a later binding of the same key wins."""
        return (self.scope, self.selector, self.parameter)

    def text(self) -> str:
        """As a line of gin."""
        return f"{self.name} = {self.value!r}"


@dataclass
class Walk:
    """What an experiment reaches from its roots.

    Attributes:
        used: keys of the bindings in reach.
        selectors: components in reach.
    """

    bindings: Sequence[Binding]
    used: set[tuple[str, str, str]] = field(default_factory=set)
    selectors: set[str] = field(default_factory=set)

    def bindings_of(self, selector: str, parameter: str) -> list[Binding]:
        """The used bindings of one parameter, those of the innermost scope first."""
        found = [
            b for b in self.bindings if (b.selector, b.parameter) == (selector, parameter) and b.key in self.used
        ]
        return sorted(found, key=lambda b: -len(b.scope))


def references(value: Any) -> Iterator[Reference | Macro]:
    """The references and macros inside a value."""
    if isinstance(value, (Reference, Macro)):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(key)
            yield from references(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)


def require_known(
    bindings: Sequence[Binding], signatures: Mapping[str, inspect.Signature], roots: Iterable[str]
) -> None:
    """Refuse names that do not exist, in a binding or inside its value.

    Raises:
        ConfigError: an unknown component, parameter or macro; the message has the nearest known name.
    """
    macros = {binding.name for binding in bindings if binding.is_macro}
    components = [name for name in signatures if name not in set(roots)]
    for binding in bindings:
        if not binding.is_macro and (binding.selector, binding.parameter) != (SINGLETON, "constructor"):
            _require_parameter(binding, signatures)
        for used in references(binding.value):
            if isinstance(used, Macro):
                if used.name not in macros:
                    raise ConfigError(f"{binding.place}: unknown macro {used}{nearest(used.name, macros)}")
            elif used.selector != SINGLETON and used.selector not in components:
                raise ConfigError(
                    f"{binding.place}: unknown component {used.selector}{_hint(used.selector, components)}"
                )


def _require_parameter(binding: Binding, signatures: Mapping[str, inspect.Signature]) -> None:
    signature = signatures.get(binding.selector)
    if signature is None:
        raise ConfigError(
            f"{binding.place}: unknown component {binding.selector}{_hint(binding.selector, signatures)}"
        )
    parameters = signature.parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    if binding.parameter not in parameters:
        raise ConfigError(
            f"{binding.place}: {binding.selector} has no parameter {binding.parameter}"
            f"{nearest(binding.parameter, parameters)}; it has {', '.join(parameters) or 'none'}"
        )


def _hint(selector: str, known: Iterable[str]) -> str:
    known = list(known)
    found = nearest(selector, known)
    if not found:
        by_name = {name.rpartition(".")[2]: name for name in known}
        near = nearest(selector.rpartition(".")[2], by_name)
        found = next((f" (did you mean {by_name[name]}?)" for name in by_name if f" {name}?" in near), "")
    return found or "; `pggan-kit plugins list` shows what there is"


def reachable(
    bindings: Sequence[Binding], roots: Iterable[str], signatures: Mapping[str, inspect.Signature]
) -> Walk:
    """Follow references from the roots, scope by scope, as gin will."""
    walk = Walk(bindings)
    by_selector: dict[str, list[Binding]] = {}
    for binding in bindings:
        by_selector.setdefault(binding.name if binding.is_macro else binding.selector, []).append(binding)
    seen: set[tuple[str, str]] = set()
    waiting = [("", root) for root in roots]
    while waiting:
        scope, selector = waiting.pop()
        if (scope, selector) in seen:
            continue
        seen.add((scope, selector))
        if selector in signatures:
            walk.selectors.add(selector)
        for binding in by_selector.get(selector, []):
            if not binding.is_macro and not _applies(binding.scope, scope):
                continue
            walk.used.add(binding.key)
            for used in references(binding.value):
                if isinstance(used, Macro):
                    waiting.append((scope, used.name))
                else:
                    waiting.append((used.scope or scope, used.selector))
    return walk


def _applies(bound: str, current: str) -> bool:
    """Whether a binding's scope is the current one or a leading part of it: gin's rule."""
    return not bound or current == bound or current.startswith(f"{bound}/")


def check_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Compare arguments with the annotations of a class or function.

    Raises:
        ValueError: a value of another type; the message begins with the parameter's name.
    """
    function = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # a third party's annotations may name what is not importable at run time: then none are checked
        hints = {}
    for name, value in arguments.items():
        if name in hints and not fits(value, hints[name]):
            raise ValueError(f"{name} must be {readable(hints[name])}, not {value!r}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type. Unknown forms of annotation fit everything."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable) or (origin is tuple and args[1:] == (...,)):
        return isinstance(value, (list, tuple)) and all(fits(item, args[0]) for item in value)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and len(value) == len(args) and all(map(fits, value, args))
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if origin is collections.abc.Callable:
        return callable(value)
    if isinstance(hint, type) and not getattr(hint, "_is_protocol", False):
        return isinstance(value, hint)
    if isinstance(hint, type):
        # Whether a component keeps its Protocol is checked where it is made; here, only that one was given.
        return not isinstance(value, (int, float, str, bytes, bool, list, tuple, dict, type(None)))
    return True


def readable(hint: Any) -> str:
    """An annotation in a user's words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (None, type(None)):
        return "None"
    if hint is int:
        return "a whole number"
    if hint is float:
        return "a number"
    if hint is bool:
        return "True or False"
    if hint is str:
        return "a text"
    if origin in (typing.Union, types.UnionType):
        words = list(dict.fromkeys(readable(arg) for arg in args))
        return " or ".join(words)
    if origin is typing.Literal:
        return " or ".join(map(repr, args))
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        inner = [readable(arg) for arg in args if arg is not ...]
        return f"a list of ({', '.join(dict.fromkeys(inner))})"
    if origin in (dict, collections.abc.Mapping):
        return f"a dict of {readable(args[0])} to {readable(args[1])}"
    name = getattr(hint, "__name__", str(hint))
    return f"a component, as @{name}()" if getattr(hint, "_is_protocol", False) else f"a {name}"
