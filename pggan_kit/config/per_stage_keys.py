"""Find keys of per-stage dicts that no stage reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pggan_kit.config.arguments import is_per_stage, read_annotations
from pggan_kit.config.bindings import Binding, Macro, Reach
from pggan_kit.errors import ConfigError, SettingError
from pggan_kit.schedule import Size, check_sizes


def take_out_unread_keys(
    bindings: Sequence[Binding], reach: Reach, factories: Mapping[str, Callable[..., Any]]
) -> tuple[list[Binding], list[Binding]]:
    """Take the keys that no stage reads out of per-stage dicts.

    Such a key is a mistake where one file binds the dict and the sizes, and on the command line. The dict of an
    included file, or of a file whose sizes are overridden, may serve other sizes too.

    Args:
        bindings: The bindings that take effect.
        reach: The components that need them.
        factories: Factories by selector.

    Returns:
        The bindings without those keys; and for each dict that had some, a binding of them alone.

    Raises:
        ConfigError: A key is a mistake; the message says where it stands.
    """
    bound_sizes = _look_through_macros(reach.find_effective("", "schedule").get("sizes"), reach)
    sizes = _read_sizes(bound_sizes, reach)
    if bound_sizes is None or not sizes:
        return list(bindings), []

    kept: list[Binding] = []
    idle: list[Binding] = []
    for binding in bindings:
        kept.append(binding)
        source = _look_through_macros(binding, reach)
        if source is None or not isinstance(source.value, Mapping) or not _takes_per_stage(binding, factories):
            continue
        unread = find_unread_keys(source.value, sizes)
        if not unread:
            continue
        if _is_mistake(source, bound_sizes):
            raise ConfigError(_explain(binding, source, bound_sizes, unread, sizes))

        # The macro itself may have other users.
        read = {key: value for key, value in source.value.items() if key not in unread}
        kept[-1] = replace(binding, value=read)
        if not source.place.default:
            rest = {key: source.value[key] for key in unread}
            idle.append(replace(binding, value=rest, place=source.place))
    return kept, idle


def find_unread_keys(value: Mapping[Any, Any], sizes: Sequence[Size]) -> list[int]:
    """Return the keys of a per-stage dict whose values hold at no stage; none where a key is no height."""
    if not all(isinstance(key, int) for key in value):
        return []
    read = {max((key for key in value if key <= height), default=None) for height, _ in sizes}
    return [key for key in value if key not in read]


def _read_sizes(bound_sizes: Binding | None, reach: Reach) -> list[Size]:
    """Return the sizes of the stages; none where they are wrong, which the schedule says with their place."""
    if bound_sizes is None:
        return []
    value = _expand_macros(bound_sizes.value, reach)
    if not isinstance(value, list):
        return []
    try:
        return check_sizes(value)
    except SettingError:
        return []


def _expand_macros(value: Any, reach: Reach) -> Any:
    """Return a value with the values of the macros in it, and lists in place of tuples."""
    if isinstance(value, Macro):
        definition = reach.find_macro(value.name)
        return None if definition is None else _expand_macros(definition.value, reach)
    if isinstance(value, (list, tuple)):
        return [_expand_macros(item, reach) for item in value]
    return value


def _look_through_macros(binding: Binding | None, reach: Reach) -> Binding | None:
    """Return the binding itself, or the definition of the macro that is its value."""
    while binding is not None and isinstance(binding.value, Macro):
        binding = reach.find_macro(binding.value.name)
    return binding


def _takes_per_stage(binding: Binding, factories: Mapping[str, Callable[..., Any]]) -> bool:
    factory = factories.get(binding.selector)
    if factory is None:
        return False
    return is_per_stage(read_annotations(factory).get(binding.parameter))


def _is_mistake(source: Binding, bound_sizes: Binding) -> bool:
    """Return whether the author of a dict knew the sizes: in the same file, or on the command line, which is last."""
    place = source.place
    if place.included or place.default:
        return False
    if place.file == bound_sizes.place.file:
        return True
    return place.line is None and bound_sizes.place.line is not None


def _explain(
    binding: Binding, source: Binding, bound_sizes: Binding, unread: Sequence[int], sizes: Sequence[Size]
) -> str:
    keys = ", ".join(str(key) for key in unread)
    heights = ", ".join(str(height) for height, _ in sizes)
    noun = "key" if len(unread) == 1 else "keys"
    return (
        f"{source.place}: no stage reads the {noun} {keys} of {binding.name}: the stages have the heights {heights} "
        f"(see {bound_sizes.place}), and each reads the largest key that is not above its own; remove the {noun}"
    )
