"""Register the hooks of plugins and components with pluggy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

from pggan_kit import hookspecs
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host.contracts import marked_hooks

if TYPE_CHECKING:
    pass


def new_manager() -> pluggy.PluginManager:
    """A pluggy manager that knows the hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def register(manager: pluggy.PluginManager, thing: Any, name: str, origin: str) -> bool:
    """Register an object's hooks. Returns whether it has any.

    Raises:
        PluginError: what `marked_hooks` raises; or the name is taken.
    """
    if manager.has_plugin(name):
        raise PluginError(f"two plugins are named {name} (one of them is {origin}); rename one")
    listener = _Listener()
    vars(listener).update(marked_hooks(thing, f"{name} ({origin})"))
    manager.register(listener, name)
    return bool(vars(listener))


class _Listener:
    """What pluggy holds in place of a plugin or part: its marked functions. pluggy finds plugins by `==`, and two parts
    of one experiment may be equal."""
