"""Register the hooks of plugins and components with pluggy."""

from __future__ import annotations

from typing import Any

import pluggy

from pggan_kit import hookspecs
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host.contracts import find_marked_hooks


class _HookHolder:
    """The object that pluggy holds in place of a plugin or component, with its marked functions as attributes.

    pluggy compares the objects that it holds with `==`, and two components of one experiment may be equal.
    """

    def __dir__(self) -> list[str]:
        """Return the names of the marked functions: pluggy looks at every name, and Python's own are 26 more."""
        return list(vars(self))


def make_manager() -> pluggy.PluginManager:
    """Make a pluggy manager that knows the hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def register_hooks(manager: pluggy.PluginManager, thing: Any, name: str, origin: str) -> bool:
    """Register the hooks of a plugin or component; return whether it has any.

    Args:
        manager: The manager.
        thing: The plugin or component.
        name: The name under which it is registered.
        origin: Where it comes from, for messages.

    Raises:
        PluginError: The name is taken, or `find_marked_hooks` refuses a hook.
    """
    if manager.has_plugin(name):
        raise PluginError(f"two plugins are named {name} (one of them is {origin}); rename one")
    hooks = find_marked_hooks(thing, f"{name} ({origin})")

    # pluggy finds implementations by attribute, so the holder has one for each hook.
    holder = _HookHolder()
    vars(holder).update(hooks)
    manager.register(holder, name)
    return bool(hooks)
