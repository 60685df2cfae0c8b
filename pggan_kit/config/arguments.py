"""Check the arguments of components against signatures and annotations."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pggan_kit.components import KINDS
from pggan_kit.errors import ConfigError, SettingError
from pggan_kit.schedule import values_per_stage


def signature_of(factory: Callable[..., Any]) -> inspect.Signature:
    """A factory's parameters; none where Python does not know them."""
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return inspect.Signature([])


def required_by(factory: Callable[..., Any]) -> list[str]:
    """The parameters of a factory that have no default."""
    return [
        p.name
        for p in signature_of(factory).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]


def annotations_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a factory's parameters; none where a third party's cannot be evaluated at run time.

    They are the same on every Python: a default of None admits None, which `typing` says on 3.10 alone; and those of a
    dataclass are read from its `__init__`, because its body may hold a `KW_ONLY`, which 3.10 does not take for a type.
    """
    function = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(function)
        for parameter in signature_of(factory).parameters.values():
            if parameter.default is None and parameter.name in hints:
                hints[parameter.name] |= None
    except (NameError, AttributeError, TypeError, SyntaxError):  # a name for type checkers alone, or no annotation
        return {}
    return hints


def kind_of(annotation: Any) -> str | None:
    """The kind of component that an annotation asks for: `losses` for `Loss`."""
    return next((kind for kind, protocol in KINDS.items() if protocol is annotation), None)


SelectorOf = Callable[[Any], str | None]
"""Tells which component a value is, or None: `losses.Hinge` for an instance, `@losses.Hinge` for what makes one."""


def _no_component(value: Any) -> str | None:
    return None


def require_arguments(
    selector: str, factory: Callable[..., Any], arguments: Mapping[str, Any], selectors: Iterable[str]
) -> None:
    """Refuse to leave out a parameter that has no default.

    Raises:
        ConfigError: one is left out; where it takes a component, the message has those of `selectors` that would do.
    """
    missing = [name for name in required_by(factory) if name not in arguments]
    if missing:
        kind = kind_of(annotations_of(factory).get(missing[0]))
        choices = " or ".join(f"@{name}()" for name in selectors if kind is not None and name.startswith(f"{kind}."))
        binding = f"{selector}.{missing[0]} = {choices}" if choices else f"{selector}.{missing[0]}"
        raise ConfigError(f"{selector} needs a value for {', '.join(missing)}: bind {binding}")


def check_arguments(
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    selector_of: SelectorOf = _no_component,
    base_height: int | None = None,
) -> None:
    """Compare arguments with the annotations of a class or function.

    Args:
        factory: the class or function.
        arguments: what it is about to be given.
        selector_of: tells components among them.
        base_height: of the first stage, for which a per-stage dict must have a value.

    Raises:
        SettingError: a value of another type, or none for the first stage.
    """
    hints = annotations_of(factory)
    for name, value in arguments.items():
        if name in hints and not fits(value, hints[name], selector_of):
            raise SettingError(name, f"must be {readable(hints[name])}, not {shown(value, selector_of)}")
        if name in hints and base_height is not None and isinstance(value, Mapping) and _is_per_stage(hints[name]):
            values_per_stage(name, value, [(base_height, base_height)])


def _is_per_stage(hint: Any) -> bool:
    """Whether an annotation is `PerStage[...]`."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and any(
        typing.get_origin(arg) is collections.abc.Mapping and typing.get_args(arg)[0] is int
        for arg in typing.get_args(hint)
    )


def fits(value: Any, hint: Any, selector_of: SelectorOf = _no_component) -> bool:
    """Whether a value is of an annotated type. Unknown forms of annotation fit everything."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg, selector_of) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin is None and isinstance(hint, type):  # on Python 3.10 `list[int]` passes for a type as well
        return _is_part(value, hint, selector_of) if getattr(hint, "_is_protocol", False) else isinstance(value, hint)
    return _fits_container(value, origin, args, selector_of)


def _fits_container(value: Any, origin: Any, args: tuple[Any, ...], selector_of: SelectorOf) -> bool:
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable) or (origin is tuple and args[1:] == (...,)):
        return isinstance(value, (list, tuple)) and all(fits(item, args[0], selector_of) for item in value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(args):
            return False
        return all(fits(item, arg, selector_of) for item, arg in zip(value, args, strict=True))
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, args[0], selector_of) and fits(item, args[1], selector_of) for key, item in value.items()
        )
    return callable(value) if origin is collections.abc.Callable else True


def _is_part(value: Any, protocol: type, selector_of: SelectorOf) -> bool:
    """Whether a value is a component of the kind that a Protocol describes, and not only what would make one."""
    selector = selector_of(value) or ""
    kind = kind_of(protocol)
    if kind is not None:
        return selector.startswith(f"{kind}.")
    return not selector.startswith("@") and not isinstance(
        value, (int, float, str, bytes, bool, list, tuple, dict, type(None))
    )


LONGEST = 60


def shown(value: Any, selector_of: SelectorOf = _no_component) -> str:
    """A value in a message: as a config writes it, and short."""
    selector = selector_of(value)
    if selector is not None:
        return f"{selector} without its parentheses ()" if selector.startswith("@") else f"@{selector}()"
    if isinstance(value, (list, tuple)) and any(selector_of(item) for item in value):
        text = f"[{', '.join(shown(item, selector_of) for item in value)}]"
    else:
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


WORDS: dict[Any, str] = {
    None: "None",
    type(None): "None",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
}


def readable(hint: Any) -> str:
    """An annotation in a user's words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, (type, type(None))) and hint in WORDS:
        return WORDS[hint]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(readable(arg) for arg in args))
    if origin is typing.Literal:
        return " or ".join(map(repr, args))
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        inner = [readable(arg) for arg in args if arg is not ...]
        return f"a list of ({', '.join(dict.fromkeys(inner))})"
    if origin in (dict, collections.abc.Mapping):
        return f"a dict of {readable(args[0])} to {readable(args[1])}"
    kind = kind_of(hint)
    return f"a component, as @{kind}.NAME()" if kind else f"a {getattr(hint, '__name__', hint)}"
