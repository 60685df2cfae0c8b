"""What plugins and parts promise: which of their functions are hooks, and the Protocol that each kind satisfies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pggan_kit import hookspecs
from pggan_kit.components import KINDS
from pggan_kit.errors import PluginError, did_you_mean, suggest

MARK = "@pggan_kit.hookimpl"


def marked_hooks(thing: Any, owner: str) -> dict[str, Callable[..., Any]]:
    """The functions or methods of a plugin or part that are marked as hooks.

    Raises:
        PluginError: one that is named like a hook and not marked, that is marked and no hook, that takes arguments
            which the hook does not have, or that wraps others.
    """
    found: dict[str, Callable[..., Any]] = {}
    for attribute in dir(thing):
        member = inspect.getattr_static(thing, attribute, None)
        function = getattr(member, "__func__", member)
        if not inspect.isfunction(function):
            continue
        options = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if options is not None:
            _check_hook(attribute, function, options, owner)
            found[attribute] = getattr(thing, attribute)
        elif attribute in HOOKS:
            raise PluginError(f"{owner}: {attribute}() is named like a hook, so mark it with {MARK}, or rename it")
    return found


HOOKS: dict[str, inspect.Signature] = {
    name: inspect.signature(spec)
    for name, spec in vars(hookspecs).items()
    if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}
"""All hooks, with their arguments."""


def _check_hook(name: str, function: Callable[..., Any], options: Mapping[str, Any], owner: str) -> None:
    hook = options["specname"] or name
    if hook not in HOOKS:
        raise PluginError(f"{owner}: {hook} is no hook{suggest(did_you_mean(hook, HOOKS))}")
    if options["hookwrapper"] or options["wrapper"]:
        raise PluginError(
            f"{owner}: {hook} is a wrapper; hooks here have no order that matters, so they cannot wrap each other"
        )
    given = HOOKS[hook].parameters
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in (*given, "self", "cls") and parameter.default is parameter.empty:
            raise PluginError(
                f"{owner}: {hook}() takes {parameter.name}, which this hook does not give"
                f"{suggest(did_you_mean(parameter.name, given))}; it gives {', '.join(given) or 'nothing'}"
            )


def require_protocol(thing: Any, kind: str, selector: str) -> None:
    """Check a component, or the class that makes it, against the Protocol of its kind.

    Raises:
        PluginError: a method or attribute is missing, or a method does not take the Protocol's arguments.
    """
    protocol = KINDS[kind]
    marked_hooks(thing, selector)
    for name, member in vars(protocol).items():
        if name.startswith("_") and name not in ("__call__", "__len__"):
            continue
        if not inspect.isfunction(member):
            continue
        found = inspect.getattr_static(thing, name, None)
        if found is None or (name == "__call__" and isinstance(thing, type) and "__call__" not in dir(thing)):
            raise PluginError(f"{selector} is no {protocol.__name__}: it has no {name}()")
        if not _accepts(thing, name, member):
            raise PluginError(f"{selector} is no {protocol.__name__}: {name}() must take {_arguments(member)}")
    if not isinstance(thing, type):
        for name in getattr(protocol, "__annotations__", {}):
            if not hasattr(thing, name):
                raise PluginError(f"{selector} is no {protocol.__name__}: it has no attribute {name}")


def _accepts(thing: Any, name: str, wanted: Callable[..., Any]) -> bool:
    """Whether a method can be called with the arguments of the Protocol's. Hooks take only those that they want."""
    found = inspect.getattr_static(thing, name)
    if hasattr(getattr(found, "__func__", found), f"{hookspecs.PROJECT}_impl"):
        return True
    if not callable(getattr(thing, name)):
        return False
    unbound = isinstance(thing, type) and not isinstance(found, (staticmethod, classmethod))
    count = len(inspect.signature(wanted).parameters) - (0 if unbound else 1)
    try:
        inspect.signature(getattr(thing, name)).bind(*range(count))
    except TypeError:
        return False
    return True


def _arguments(function: Callable[..., Any]) -> str:
    return ", ".join(name for name in inspect.signature(function).parameters if name != "self") or "nothing"


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What lists, tuples and dicts hold in the end, each with its path: `path.0.key`."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(f"{path}.{index}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(f"{path}.{key}", item)
    else:
        yield path, value
