"""Check the arguments of components against signatures and annotations."""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pggan_kit.components import KINDS
from pggan_kit.errors import ConfigError, SettingError
from pggan_kit.schedule import Curve, values_per_stage

SelectorOf = Callable[[Any], str | None]
"""Returns the component that a value is, or None: `losses.Hinge` for an instance, `@losses.Hinge` for its factory."""

LONGEST = 60
"""Maximum number of characters of a value in a message."""

LIST_ORIGINS = (list, collections.abc.Sequence, collections.abc.Iterable)
"""Annotations for which a list or tuple of any length fits."""

BARE_LISTS = (
    *(list, tuple, collections.abc.Sequence, collections.abc.Iterable),
    *(typing.List, typing.Tuple, typing.Sequence, typing.Iterable),  # noqa: UP006
)
"""Annotations for which a list or tuple of anything fits."""

BARE_DICTS = (dict, collections.abc.Mapping, typing.Dict, typing.Mapping)  # noqa: UP006
"""Annotations for which a dict of anything fits."""

TYPE_NAMES: dict[Any, str] = {
    None: "None",
    type(None): "None",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a string",
    Path: "a string",
}
"""Names of types in messages."""

UNEVALUATED = (NameError, AttributeError, TypeError, SyntaxError)
"""Errors of annotations that name what is imported for type checkers alone, or that are none."""

_SIGNATURES: weakref.WeakKeyDictionary[type, inspect.Signature] = weakref.WeakKeyDictionary()
"""Signatures of classes: those of all components are needed for each config, and take a tenth of its checks."""

_ANNOTATIONS: weakref.WeakKeyDictionary[type, Mapping[str, Any]] = weakref.WeakKeyDictionary()
"""Annotations of the parameters of classes, which take another tenth."""


def read_signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a factory; an empty one where Python does not know it."""
    if not isinstance(factory, type):
        return _inspect_signature(factory)
    signature = _SIGNATURES.get(factory)
    if signature is None:
        signature = _inspect_signature(factory)
        _SIGNATURES[factory] = signature
    return signature


def _inspect_signature(factory: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return inspect.Signature([])


def list_required_parameters(factory: Callable[..., Any]) -> list[str]:
    """Return the names of a factory's parameters that have no default."""
    required = []
    for parameter in read_signature(factory).parameters.values():
        is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if is_named and parameter.default is parameter.empty:
            required.append(parameter.name)
    return required


def read_annotations(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations of a factory's parameters, but for those that cannot be evaluated at run time.

    They are the same on every Python. A default of None admits None, which `typing` infers on 3.10 alone. Those of a
    dataclass are read from its `__init__`, because its body may hold a `KW_ONLY`, which 3.10 does not take for a type.
    """
    if not isinstance(factory, type):
        return _evaluate_annotations(factory, factory)[0]
    annotations = _ANNOTATIONS.get(factory)
    if annotations is None:
        annotations, are_complete = _evaluate_annotations(factory, factory.__init__)  # type: ignore[misc]
        # A notebook may define later what is missing now.
        if are_complete:
            _ANNOTATIONS[factory] = annotations
    return annotations


def _evaluate_annotations(factory: Callable[..., Any], function: Callable[..., Any]) -> tuple[Mapping[str, Any], bool]:
    """Return the annotations of the parameters of a factory's function, and whether they are all that it has.

    Args:
        factory: The factory.
        function: The factory itself, or a class's `__init__`.
    """
    are_complete = True
    try:
        hints = typing.get_type_hints(function)
    except UNEVALUATED:
        hints = _evaluate_each(function)
        are_complete = False
    for parameter in read_signature(factory).parameters.values():
        if parameter.default is None and parameter.name in hints:
            with contextlib.suppress(TypeError):  # an annotation that is no type
                hints[parameter.name] |= None
    return types.MappingProxyType(hints), are_complete


def _evaluate_each(function: Callable[..., Any]) -> dict[str, Any]:
    """Return those annotations of a function that can be evaluated: others name what only type checkers import."""
    hints: dict[str, Any] = {}
    annotations: Mapping[str, Any] = {}
    with contextlib.suppress(*UNEVALUATED):  # from Python 3.14 on they are evaluated as they are read
        annotations = function.__annotations__
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for name, annotation in annotations.items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(*UNEVALUATED):
            hints |= typing.get_type_hints(alone, names)
    return hints


def find_kind(annotation: Any) -> str | None:
    """Return the kind of component that an annotation asks for, `losses` for `Loss`, or None."""
    for kind, protocol in KINDS.items():
        if protocol is annotation:
            return kind
    return None


def _find_no_selector(value: Any) -> str | None:
    """Return None: without a config, no value is known to be a component."""
    return None


def require_arguments(
    selector: str, factory: Callable[..., Any], arguments: Mapping[str, Any], selectors: Iterable[str]
) -> None:
    """Check that no parameter without a default is left out.

    Args:
        selector: Name of the factory in configs.
        factory: The class or function.
        arguments: The arguments that it is about to get.
        selectors: All components, from which the message suggests those of the right kind.

    Raises:
        ConfigError: A parameter is left out; the message says what to bind.
    """
    missing = [name for name in list_required_parameters(factory) if name not in arguments]
    if not missing:
        return

    # Suggest the components that would do, where the parameter takes one.
    binding = f"{selector}.{missing[0]}"
    kind = find_kind(read_annotations(factory).get(missing[0]))
    if kind is not None:
        choices = [f"@{name}()" for name in selectors if name.startswith(f"{kind}.")]
        if choices:
            binding += f" = {' or '.join(choices)}"
    raise ConfigError(f"{selector} needs a value for {', '.join(missing)}: bind {binding}")


def check_arguments(
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    selector_of: SelectorOf = _find_no_selector,
    base_height: int | None = None,
) -> None:
    """Check arguments against the annotations of a class or function.

    Args:
        factory: The class or function.
        arguments: The arguments that it is about to get.
        selector_of: Function that recognises components among them.
        base_height: Height of the first stage, for which a per-stage dict must have a value.

    Raises:
        SettingError: A value is of another type, or is missing for the first stage.
    """
    hints = read_annotations(factory)
    for name, value in arguments.items():
        if name not in hints:
            continue
        hint = hints[name]
        if not fits_annotation(value, hint, selector_of):
            complaint = f"must be {describe_annotation(hint)}, not {format_value(value, selector_of)}"
            if _holds_curve(value, selector_of) and not _takes_curve(hint):
                complaint += "; it cannot move with the clock"
            raise SettingError(name, complaint)

        # A value holds from its height upwards, so one for the first stage is all that is needed.
        if base_height is not None and isinstance(value, Mapping) and is_per_stage(hint):
            values_per_stage(name, value, [(base_height, base_height)])


def _is_one_of(hint: Any, hints: Iterable[Any]) -> bool:
    """Return whether an annotation, which may be unhashable, is one of several."""
    return any(hint is each for each in hints)


def is_union(hint: Any) -> bool:
    """Return whether an annotation is `Union[...]` or `... | ...`."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def is_per_stage(hint: Any) -> bool:
    """Return whether an annotation is `PerStage[...]`: a value, or a mapping from heights to values."""
    if not is_union(hint):
        return False
    for option in typing.get_args(hint):
        if typing.get_origin(option) is collections.abc.Mapping and typing.get_args(option)[0] is int:
            return True
    return False


def _takes_curve(hint: Any) -> bool:
    """Return whether an annotation is `Varying[...]`, or another union with a curve."""
    return is_union(hint) and Curve in typing.get_args(hint)


def _holds_curve(value: Any, selector_of: SelectorOf) -> bool:
    """Return whether a value is a curve, or a dict per stage that holds one."""
    values = value.values() if isinstance(value, Mapping) else (value,)
    return any((selector_of(each) or "").startswith("curves.") for each in values)


def fits_annotation(value: Any, hint: Any, selector_of: SelectorOf = _find_no_selector) -> bool:
    """Return whether a value is of an annotated type. Every value fits a form of annotation that is not known here."""
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    # A whole number is a number too; True is neither, although it is an int in Python.
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)

    # What a bare container holds is not said.
    if _is_one_of(hint, BARE_LISTS):
        return isinstance(value, (list, tuple))
    if _is_one_of(hint, BARE_DICTS):
        return isinstance(value, Mapping)

    origin = typing.get_origin(hint)
    options = typing.get_args(hint)
    if is_union(hint):
        return any(fits_annotation(value, option, selector_of) for option in options)
    if origin is typing.Literal:
        return any(type(value) is type(option) and value == option for option in options)  # True equals 1
    # On Python 3.10 `list[int]` passes for a type as well, but it has an origin.
    if origin is None and isinstance(hint, type):
        if getattr(hint, "_is_protocol", False):
            return _is_component(value, hint, selector_of)
        return isinstance(value, hint)
    return _fits_container(value, origin, options, selector_of)


def _fits_container(value: Any, origin: Any, types_inside: tuple[Any, ...], selector_of: SelectorOf) -> bool:
    """Return whether a value fits `list[T]`, `tuple[T, ...]`, `tuple[S, T]`, `dict[K, V]` or `Callable`."""
    is_sequence = isinstance(value, (list, tuple))
    if origin in LIST_ORIGINS or (origin is tuple and types_inside[1:] == (...,)):
        return is_sequence and all(fits_annotation(item, types_inside[0], selector_of) for item in value)

    # A tuple of a fixed length, each item of its own type
    if origin is tuple:
        if types_inside == ((),):  # `Tuple[()]` on Python 3.10
            types_inside = ()
        if not is_sequence or len(value) != len(types_inside):
            return False
        pairs = zip(value, types_inside, strict=True)
        return all(fits_annotation(item, type_inside, selector_of) for item, type_inside in pairs)

    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            return False
        keys_fit = all(fits_annotation(key, types_inside[0], selector_of) for key in value)
        return keys_fit and all(fits_annotation(item, types_inside[1], selector_of) for item in value.values())
    if origin is collections.abc.Callable:
        return callable(value)
    return True


def _is_component(value: Any, protocol: type, selector_of: SelectorOf) -> bool:
    """Return whether a value is a component of a Protocol's kind, and not only its factory."""
    selector = selector_of(value) or ""
    kind = find_kind(protocol)
    if kind is not None:
        return selector.startswith(f"{kind}.")
    # A Protocol of no kind cannot be checked further: any object may satisfy it, but no factory and no plain value.
    is_plain = isinstance(value, (int, float, str, bytes, bool, list, tuple, dict, type(None)))
    return not selector.startswith("@") and not is_plain


def format_value(value: Any, selector_of: SelectorOf = _find_no_selector) -> str:
    """Return a value for a message, as a config writes it, cut at `LONGEST` characters."""
    # A component by its name.
    selector = selector_of(value)
    if selector is not None:
        if selector.startswith("@"):
            return f"{selector} without its parentheses ()"
        return f"@{selector}()"

    # Anything else as Python writes it, with the names of components in it.
    text = repr(value)
    if isinstance(value, (list, tuple)) and any(selector_of(item) for item in value):
        text = f"[{', '.join(format_value(item, selector_of) for item in value)}]"
    if isinstance(value, Mapping) and any(selector_of(item) for item in value.values()):
        items = [f"{key!r}: {format_value(item, selector_of)}" for key, item in value.items()]
        text = f"{{{', '.join(items)}}}"
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}..."
    return text


def describe_annotation(hint: Any) -> str:
    """Return an annotation in a user's words, as what follows "must be"."""
    if isinstance(hint, (type, type(None))) and hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    if _is_one_of(hint, BARE_LISTS):
        return "a list"
    if _is_one_of(hint, BARE_DICTS):
        return "a dict"
    origin = typing.get_origin(hint)
    options = typing.get_args(hint)
    if _takes_curve(hint) and is_per_stage(hint):
        plain = [option for option in options if option is not Curve and typing.get_origin(option) is None]
        described = " or ".join(describe_annotation(option) for option in plain)
        return f"{described}, a curve, as @curves.NAME(), or a dict of these by image height"
    if is_union(hint):
        return " or ".join(dict.fromkeys(describe_annotation(option) for option in options))
    if origin is typing.Literal:
        return " or ".join(repr(option) for option in options)

    # Containers, and what they hold
    if origin is tuple or origin in LIST_ORIGINS:
        inside = [describe_annotation(option) for option in options if option not in (..., ())]
        if not inside:
            return "an empty list"
        # A tuple has a fixed length: each of its entries is named.
        if origin is not tuple or ... in options:
            inside = list(dict.fromkeys(inside))
        return f"a list of ({', '.join(inside)})"
    if origin in (dict, collections.abc.Mapping):
        return f"a dict of {describe_annotation(options[0])} to {describe_annotation(options[1])}"

    # Components, and other classes
    kind = find_kind(hint)
    if kind is not None:
        return f"a component, as @{kind}.NAME()"
    return f"a {getattr(hint, '__name__', hint)}"
