"""Find, load and block plugins, and collect the components that they bring."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pggan_kit.components import KINDS, Component
from pggan_kit.errors import PluginError, did_you_mean, quote_path, suggest
from pggan_kit.plugin_host.contracts import MARK, require_protocol
from pggan_kit.plugin_host.manager import make_manager, register_hooks
from pggan_kit.plugin_host.plugin_files import (
    RecordedFile,
    import_plugin,
    load_plugin_file,
    locate_plugin_file,
)

GROUP = "pggan_kit"
"""Entry-point group of installed plugins."""

BLOCK_VARIABLE = "PGGAN_KIT_NO_PLUGINS"
"""Environment variable with the names of installed plugins to leave out, separated by commas."""


@dataclass(frozen=True)
class Plugin:
    """A plugin, with its origin.

    Attributes:
        name: Name of its entry point, file or object.
        origin: Origin for people: `DISTRIBUTION VERSION`, the file's path, or the caller.
        object: The module or object with the hooks; None for a blocked plugin.
        sha256: SHA-256 of a file.
        distribution, version: Distribution of an installed plugin, and its version.
    """

    name: str
    origin: str
    object: Any
    sha256: str | None = None
    distribution: str | None = None
    version: str | None = None

    @property
    def key(self) -> str:
        """Return a unique name: two distributions may have plugins of one name."""
        if self.distribution:
            return f"{self.distribution}:{self.name}"
        return self.name


@dataclass(frozen=True)
class Row:
    """A component that configs may name, and the plugin that brought it."""

    component: Component
    plugin: Plugin

    @property
    def selector(self) -> str:
        """Return the name in configs, `losses.Hinge`."""
        return f"{self.component.kind}.{self.component.name}"


class Plugins:
    """The plugins of a process, or of one call of the API.

    Attributes:
        loaded: Plugins in load order.
        blocked: Installed plugins that were left out.
        rows: Components by selector.
    """

    def __init__(self) -> None:
        self.loaded: list[Plugin] = []
        self.blocked: list[Plugin] = []
        self.rows: dict[str, Row] = {}
        self._manager = make_manager()

    def add(self, plugin: Plugin) -> None:
        """Add a plugin and the components that it brings.

        Raises:
            PluginError: The plugin has no hook, misspells one, repeats a name, or returns something other than
                components.
        """
        if not register_hooks(self._manager, plugin.object, plugin.key, plugin.origin):
            raise PluginError(f"plugin {plugin.name} ({plugin.origin}) implements no hook; mark one with {MARK}")
        self.loaded.append(plugin)
        for implementation in self._manager.hook.components.get_hookimpls():
            if implementation.plugin_name == plugin.key:
                for component in _call_components(implementation.function, plugin):
                    self._add_component(component, plugin)

    def add_components(self, components: Iterable[Component]) -> None:
        """Add components that the caller gave, without a plugin.

        Raises:
            PluginError: One is not a component, or its name is taken.
        """
        for component in components:
            self._add_component(component, Plugin("caller", "given by the caller", None))

    def _add_component(self, component: Component, plugin: Plugin) -> None:
        _check_component(component, plugin)
        row = Row(component, plugin)
        taken = self.rows.get(row.selector)
        if taken is not None:
            raise PluginError(
                f"plugin {plugin.name} ({plugin.origin}) registers {row.selector}, which {taken.plugin.name} "
                f"({taken.plugin.origin}) already brings; rename one, or block one: --no-plugin {plugin.key}"
            )
        # What a function makes is checked once it is made.
        if isinstance(component.factory, type):
            require_protocol(component.factory, component.kind, row.selector)
        self.rows[row.selector] = row


def _call_components(function: Callable[[], Any], plugin: Plugin) -> list[Component]:
    try:
        return list(function())
    except Exception as error:
        raise PluginError(f"plugin {plugin.name} ({plugin.origin}): components() raised {error!r}") from error


def _check_component(component: Component, plugin: Plugin) -> None:
    """Check that a row of a plugin's `components()` is a component with a kind, a name and a factory."""
    if not isinstance(component, Component):
        raise PluginError(f"plugin {plugin.name}: components() returns Component rows, not {component!r}")
    if not callable(component.factory) or not str(component.name).isidentifier():
        raise PluginError(
            f"plugin {plugin.name}: {component.kind}.{component.name} needs an identifier as its name and a class "
            f"or function as its factory, not {component.factory!r}"
        )
    if component.kind not in KINDS:
        raise PluginError(
            f"plugin {plugin.name}: {component.name} is of an unknown kind {component.kind!r}"
            f"{suggest(did_you_mean(component.kind, KINDS))}; kinds are {', '.join(KINDS)}"
        )


def load_plugins(extra: Sequence[Any] = (), blocked: Iterable[str] = ()) -> Plugins:
    """Load the plugins of all installed distributions, then extra ones.

    Args:
        extra: Paths of Python files, which are trusted, since the user of this process named them; a `RecordedFile` for
            each file that a record on the disk names; modules or objects with hooks; or `Component` rows.
        blocked: Installed plugins to leave out, besides those in the environment variable PGGAN_KIT_NO_PLUGINS
            (separated by commas): NAME, or DISTRIBUTION:NAME where two distributions have a plugin of that name.

    Raises:
        PluginError: A plugin cannot be imported or breaks the contract; the message names it.
    """
    plugins = Plugins()
    left_out = {*blocked, *read_blocked_plugins()}
    for plugin, entry in find_installed_plugins():
        if left_out & {plugin.name, plugin.key}:
            plugins.blocked.append(plugin)
            continue
        remedy = f"fix it, or leave it out with --no-plugin {plugin.key}, or {BLOCK_VARIABLE}={plugin.key}"
        module = import_plugin(entry.load, f"{plugin.name} ({plugin.origin})", remedy)
        plugins.add(replace(plugin, object=module))

    # Components without a plugin come last, so that a name taken by a plugin is theirs to change.
    for item in extra:
        if not isinstance(item, Component):
            plugins.add(_load_extra(item))
    plugins.add_components(item for item in extra if isinstance(item, Component))
    return plugins


def _load_extra(item: Any) -> Plugin:
    """Load a file, or take a module or an object with hooks, as a plugin."""
    if isinstance(item, (str, os.PathLike)):
        return _load_file(Path(item), Path(item))
    if isinstance(item, RecordedFile):
        return _load_file(item.path, item)
    if isinstance(item, type):
        raise PluginError(f"the plugin {item.__name__} is a class: give an instance of it, {item.__name__}()")
    name = getattr(item, "__name__", type(item).__name__)
    return Plugin(name, f"given by the caller ({name})", item)


def _load_file(path: Path, file: Path | RecordedFile) -> Plugin:
    module, digest = load_plugin_file(file)
    return Plugin(path.name, str(locate_plugin_file(path)), module, digest)


def find_installed_plugins() -> list[tuple[Plugin, importlib.metadata.EntryPoint]]:
    """Return the plugins of all installed distributions, not yet imported, with their entry points."""
    plugins = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.dist is None:
            plugin = Plugin(entry.name, entry.value, None)
        else:
            distribution = entry.dist.name
            version = entry.dist.version
            origin = f"{distribution} {version}"
            plugin = Plugin(entry.name, origin, None, distribution=distribution, version=version)
        plugins.append((plugin, entry))
    return plugins


def read_blocked_plugins() -> list[str]:
    """Return the names of plugins in the environment variable PGGAN_KIT_NO_PLUGINS."""
    names = [name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",")]
    return [name for name in names if name]


def require_installed(names: Iterable[str]) -> None:
    """Check that plugins that are to be left out are installed.

    Args:
        names: Names of plugins, NAME or DISTRIBUTION:NAME.

    Raises:
        PluginError: A plugin is not installed; the message has the nearest name.
    """
    # A plugin answers to both of its names.
    known: list[str] = []
    for plugin, _ in find_installed_plugins():
        known += [plugin.name, plugin.key]

    for name in names:
        if name not in known:
            raise PluginError(
                f"--no-plugin {name}: no installed plugin has this name{suggest(did_you_mean(name, known))}; "
                "see `pggan-kit plugins list`"
            )


def load_recorded_plugins(record: Path, rows: Sequence[Mapping[str, Any]], blocked: Iterable[str] = ()) -> Plugins:
    """Load the plugins of a run: all installed ones, and the files that it used, if their content is the same.

    Args:
        record: The run's `run.json`.
        rows: The run's plugins. Those that are not files (installed plugins and objects) have no SHA-256, and nothing
            is loaded from their rows.
        blocked: Installed plugins that the run left out.

    Raises:
        PluginError: See `load_plugins`; or a file is missing, has changed, was never named on this machine, or is
            recorded by a relative path or without its SHA-256.
    """
    files = []
    for row in rows:
        origin: str = row["origin"]
        sha256: Any = row.get("sha256")
        # A file without a SHA-256 is refused by `RecordedFile`, not left out.
        if sha256 is not None or origin.endswith(".py"):
            change = f"name it to continue with the new content: --plugin {quote_path(origin)}"
            files.append(RecordedFile(Path(origin), sha256, record, change))
    return load_plugins(files, blocked)
