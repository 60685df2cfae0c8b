"""The attributes of an object, wherever it keeps them: what a component holds, for all who look into it."""

from __future__ import annotations

import types
from collections.abc import Iterator, MutableMapping
from typing import Any


class SlotAttributes(MutableMapping[str, Any]):
    """The attributes of an object with slots, as `vars` gives those of others: filled slots, and those of its dict.

    Args:
        thing: The object, which is changed with the mapping; also where it is frozen.
        slots: Names of its slots.
    """

    def __init__(self, thing: object, slots: list[str]) -> None:
        self._thing = thing
        self._slots = slots

    def __getitem__(self, name: str) -> Any:
        """Return the value of an attribute."""
        if name not in self:
            raise KeyError(name)
        return object.__getattribute__(self._thing, name)

    def __setitem__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        object.__setattr__(self._thing, name, value)

    def __delitem__(self, name: str) -> None:
        """Remove an attribute; a slot is empty then."""
        if name not in self:
            raise KeyError(name)
        object.__delattr__(self._thing, name)

    def __contains__(self, name: object) -> bool:
        """Return whether there is an attribute of a name."""
        return name in self._list_names()

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names."""
        return iter(self._list_names())

    def __len__(self) -> int:
        """Return the number of attributes."""
        return len(self._list_names())

    def _list_names(self) -> list[str]:
        filled = [name for name in self._slots if _is_filled(self._thing, name)]
        return [*getattr(self._thing, "__dict__", {}), *filled]


def open_attributes(thing: object) -> MutableMapping[str, Any] | None:
    """Return the attributes of an object itself, not those of its class; None where it can have none.

    What is changed in the mapping is changed in the object. Attributes that C code keeps are not among them.
    """
    slots = []
    for cls in reversed(type(thing).__mro__):
        if "__slots__" in vars(cls):
            slots += [name for name, member in vars(cls).items() if isinstance(member, types.MemberDescriptorType)]
    if slots:
        return SlotAttributes(thing, slots)
    return getattr(thing, "__dict__", None)


def _is_filled(thing: object, name: str) -> bool:
    try:
        object.__getattribute__(thing, name)
    except AttributeError:
        return False
    return True
