"""The contracts of plugins and components: which functions are hooks, and the Protocol of each kind."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pggan_kit import hookspecs
from pggan_kit.components import KINDS, VARIANTS, Quantity
from pggan_kit.errors import PluginError, did_you_mean, suggest
from pggan_kit.schedule import Curve

MARK = "@pggan_kit.hookimpl"
"""Decorator that marks a hook, as messages write it."""

IMPLEMENTATION_ATTRIBUTE = f"{hookspecs.PROJECT}_impl"
"""Attribute in which pluggy keeps the options of a marked function."""

HOOKS: dict[str, inspect.Signature] = {
    name: inspect.signature(spec)
    for name, spec in vars(hookspecs).items()
    if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}
"""Signatures of all hooks, by name."""

ROW_HOOKS = ("components", "importers")
"""Hooks whose results are iterated, and which may therefore yield them."""

CHECKED_SPECIAL_METHODS = ("__call__", "__len__")
"""Special methods that a Protocol may demand; other names with an underscore are Python's own."""


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_interval(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_varying_number(value: object) -> bool:
    values = list(value.values()) if isinstance(value, Mapping) else [value]
    are_numbers = [isinstance(each, numbers.Real) and not isinstance(each, bool) for each in values]
    return all(is_number or isinstance(each, Curve) for is_number, each in zip(are_numbers, values, strict=True))


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _is_list_of_texts(value: Any) -> bool:
    return _is_list(value) and all(isinstance(item, str) for item in value)


def _are_quantities(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(name, str) and isinstance(quantity, Quantity) for name, quantity in value.items())


VALUE_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "every": (_is_interval, "a whole number of at least 1"),
    "weight": (_is_varying_number, "a number, a curve, or a dict of these by image height"),
    "penalties": (_is_list, "a list or tuple of penalties"),
    "names": (_is_list_of_texts, "a list or tuple of texts"),
    "classes": (_is_whole, "a whole number"),
    "quantities": (_are_quantities, "a dict of Quantity objects by the names of values"),
}
"""Checks of the values of attributes that Protocols state, by the attribute's name, and what they must be.

What has none here is True or False, or is checked where the experiment is made.
"""


def find_marked_hooks(thing: Any, owner: str) -> dict[str, Callable[..., Any]]:
    """Return the functions or methods of a plugin or component that are marked as hooks, by attribute name.

    Args:
        thing: The plugin or component, or its class.
        owner: Its name in messages.

    Raises:
        PluginError: A function has the name of a hook and is not marked; something else than a function is marked; a
            marked function is not a hook, has a parameter that the hook cannot give it, has to be awaited or iterated,
            wraps other hooks or asks for a place among them; or two of them are one hook.
    """
    hooks: dict[str, Callable[..., Any]] = {}
    attributes: dict[str, str] = {}
    for attribute, member in _read_members(thing).items():
        # Python's own names, nine of ten, are no hooks.
        if attribute.startswith("__"):
            continue
        function = _unwrap_method(member)
        options = _read_mark(function) or _read_mark(member)
        if options is None:
            if attribute in HOOKS and (callable(function) or isinstance(function, property)):
                raise PluginError(f"{owner}: {attribute}() is named like a hook, so mark it with {MARK}, or rename it")
            continue
        if not inspect.isfunction(function) or _read_mark(function) is None:
            raise PluginError(
                f"{owner}: {attribute} is marked with {MARK} and is a {type(member).__name__}, which is never called: "
                "mark a function, as `def` makes it, below a @staticmethod or @classmethod"
            )

        hook = options["specname"] or attribute
        _check_hook(hook, function, options, owner)
        if hook in attributes:
            raise PluginError(
                f"{owner}: {attributes[hook]}() and {attribute}() are both {hook}: make them one function"
            )
        attributes[hook] = attribute
        hooks[attribute] = getattr(thing, attribute)
    return hooks


def _read_members(thing: Any) -> dict[str, Any]:
    """Return the members of a thing and of its classes by name, as they are: `getattr` would run properties."""
    classes = thing.__mro__ if isinstance(thing, type) else type(thing).__mro__
    members: dict[str, Any] = {}
    for owner in reversed(classes):
        members.update(vars(owner))
    if not isinstance(thing, type):
        members.update(getattr(thing, "__dict__", {}))
    return dict(sorted(members.items()))


def _unwrap_method(member: Any) -> Any:
    """Return the function of a method, static method or class method; anything else as it is."""
    return getattr(member, "__func__", member)


def _read_mark(member: Any) -> dict[str, Any] | None:
    """Return the options of a marked function, or of anything else that is marked; None for all others."""
    # Not `getattr`: some modules and objects have any attribute that they are asked for.
    attributes: Mapping[str, Any] = getattr(member, "__dict__", {})
    return attributes.get(IMPLEMENTATION_ATTRIBUTE)


def _check_hook(hook: str, function: Callable[..., Any], options: Mapping[str, Any], owner: str) -> None:
    if hook not in HOOKS:
        raise PluginError(f"{owner}: {hook} is not a hook{suggest(did_you_mean(hook, HOOKS))}")
    if options["hookwrapper"] or options["wrapper"]:
        raise PluginError(
            f"{owner}: {hook} is a wrapper, which is not supported: no hook may depend on the order of others"
        )
    if options["tryfirst"] or options["trylast"]:
        raise PluginError(
            f"{owner}: {hook} has tryfirst or trylast, which are not supported: no hook may depend on the order of "
            "others"
        )
    _require_direct_result(hook, function, owner)

    # An argument with a default is the function's own business.
    arguments = HOOKS[hook].parameters
    for parameter in inspect.signature(function).parameters.values():
        required = parameter.default is parameter.empty
        if required and parameter.name not in (*arguments, "self", "cls"):
            raise PluginError(
                f"{owner}: {hook}() requires {parameter.name}, which is not an argument of this hook"
                f"{suggest(did_you_mean(parameter.name, arguments))}; it has {', '.join(arguments) or 'none'}"
            )
        if parameter.name in arguments and parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise PluginError(
                f"{owner}: {hook}() takes {parameter.name} {parameter.kind.description}, and would not be given it: "
                "remove the * or / from its signature"
            )


def _require_direct_result(hook: str, function: Callable[..., Any], owner: str) -> None:
    """Check that a call of a hook runs it: a coroutine or generator only begins once it is awaited or iterated."""
    complaint = None
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        complaint = "is an `async def`, which a call does not run: write `def`"
    elif inspect.isgeneratorfunction(function) and hook not in ROW_HOOKS:
        complaint = "has a `yield`, so that a call does not run it: return the result"
    if complaint is not None:
        raise PluginError(f"{owner}: {hook}() {complaint}")


def require_protocol(thing: Any, kind: str, selector: str) -> None:
    """Check a component, or the class that makes it, against the Protocol of its kind.

    Args:
        thing: The component or its class. Attributes that are not methods are checked on components only, because a
            class may set them in `__init__`.
        kind: A key of `KINDS`.
        selector: Its name in messages.

    Raises:
        PluginError: A method or attribute is missing, a method does not take the Protocol's arguments, or an attribute
            has a value that the Protocol excludes.
    """
    protocol = KINDS[kind]
    refusal = f"{selector} is not a valid {protocol.__name__}"
    find_marked_hooks(thing, selector)

    # Methods, with the Protocol's arguments
    for name, method in [*_list_methods(protocol), *_list_methods_of_variant(thing, protocol)]:
        if not _has_method(thing, name):
            raise PluginError(f"{refusal}: it has no {name}()")
        if not _accepts_arguments(thing, name, method):
            raise PluginError(f"{refusal}: {name}() must take {_list_arguments(method)}")

    # Attributes
    if isinstance(thing, type):
        return
    for name in getattr(protocol, "__annotations__", {}):
        if not hasattr(thing, name):
            raise PluginError(f"{refusal}: it has no attribute {name}")
        if name in VALUE_CHECKS:
            is_right, described = VALUE_CHECKS[name]
            value = getattr(thing, name)
            if not is_right(value):
                raise PluginError(f"{refusal}: {name} must be {described}, not {value!r:.100}")

    # The penalties of a loss have a Protocol of their own.
    if kind == "losses":
        for index, penalty in enumerate(thing.penalties):
            name = f"{selector}.penalties[{index}]"
            if isinstance(penalty, type):
                raise PluginError(f"{name} is the class {penalty.__name__}: make an object of it, {penalty.__name__}()")
            require_protocol(penalty, "penalties", f"{name} ({type(penalty).__name__})")


def _list_methods(protocol: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the methods that a Protocol demands, by name."""
    for name, member in vars(protocol).items():
        is_private = name.startswith("_") and name not in CHECKED_SPECIAL_METHODS
        if inspect.isfunction(member) and not is_private:
            yield name, member


def _list_methods_of_variant(thing: Any, protocol: type) -> list[tuple[str, Callable[..., Any]]]:
    """Return the methods of that variant of a Protocol of which a component has most, else of the first one."""
    candidates = [list(_list_methods(variant)) for variant in VARIANTS.get(protocol, ())]

    def count_present(methods: list[tuple[str, Callable[..., Any]]]) -> int:
        return sum(_has_method(thing, name) for name, _ in methods)

    return max(candidates, key=count_present, default=[])


def _has_method(thing: Any, name: str) -> bool:
    if inspect.getattr_static(thing, name, None) is None:
        return False
    # Every class can be called, and gets `__call__` from its metaclass; `dir` leaves that out.
    if name == "__call__" and isinstance(thing, type):
        return "__call__" in dir(thing)
    return True


def _accepts_arguments(thing: Any, name: str, demanded: Callable[..., Any]) -> bool:
    """Return whether a method can be called with the arguments of the Protocol's method."""
    member = inspect.getattr_static(thing, name)
    # A hook takes only the arguments that it wants; `find_marked_hooks` has checked them.
    if hasattr(_unwrap_method(member), IMPLEMENTATION_ATTRIBUTE):
        return True
    method = getattr(thing, name)
    if not callable(method):
        return False

    # The demanded signature has a `self`, which is to be passed only where the method is not bound.
    count = len(inspect.signature(demanded).parameters)
    is_bound = not isinstance(thing, type) or isinstance(member, (staticmethod, classmethod))
    if is_bound:
        count -= 1
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    return True


def _list_arguments(function: Callable[..., Any]) -> str:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return ", ".join(names) or "nothing"
