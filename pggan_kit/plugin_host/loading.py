"""Find, load and block plugins; collect their components; call their hooks, and say whose fault an error is."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit.components import KINDS, Component
from pggan_kit.errors import PluginError, did_you_mean, suggest
from pggan_kit.plugin_host.contracts import MARK, require_protocol
from pggan_kit.plugin_host.files import RecordedFile, imported, load_file
from pggan_kit.plugin_host.manager import new_manager, register

if TYPE_CHECKING:
    pass

GROUP = "pggan_kit"
BLOCK_VARIABLE = "PGGAN_KIT_NO_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """A plugin: its name, the distribution and version it came in (or its file), and the object itself.

    Attributes:
        name: of its entry point, file or object.
        origin: for people: `DISTRIBUTION VERSION`, the file's path, or who gave it.
        object: what has the hooks; None of a blocked one.
        sha256: of a file.
        distribution, version: of an installed one.
    """

    name: str
    origin: str
    object: Any
    sha256: str | None = None
    distribution: str | None = None
    version: str | None = None

    @property
    def key(self) -> str:
        """What tells it from all others: two distributions may have plugins of one name."""
        return f"{self.distribution}:{self.name}" if self.distribution else self.name


@dataclass(frozen=True)
class Row:
    """A component that configs may name, and the plugin that brought it."""

    component: Component
    plugin: Plugin

    @property
    def selector(self) -> str:
        """`losses.Hinge`."""
        return f"{self.component.kind}.{self.component.name}"


class Plugins:
    """The plugins of one process or one call of the API.

    Attributes:
        loaded: in load order.
        blocked: installed ones that were left out.
        rows: components by selector.
    """

    def __init__(self) -> None:
        self.loaded: list[Plugin] = []
        self.blocked: list[Plugin] = []
        self.rows: dict[str, Row] = {}
        self._manager = new_manager()

    def add(self, plugin: Plugin) -> None:
        """Register a plugin and take in its components.

        Raises:
            PluginError: it misspells a hook, repeats a name, or returns something else than components.
        """
        if not register(self._manager, plugin.object, plugin.key, plugin.origin):
            raise PluginError(f"plugin {plugin.name} ({plugin.origin}) implements no hook; mark one with {MARK}")
        self.loaded.append(plugin)
        for implementation in self._manager.hook.components.get_hookimpls():
            if implementation.plugin_name == plugin.key:
                for component in _called(implementation.function, plugin):
                    self._take(component, plugin)

    def take(self, components: Iterable[Component]) -> None:
        """Take in components that no plugin brings.

        Raises:
            PluginError: one that is none, or whose name is taken.
        """
        for component in components:
            self._take(component, Plugin("caller", "given by the caller", None))

    def _take(self, component: Component, plugin: Plugin) -> None:
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
        row = Row(component, plugin)
        taken = self.rows.get(row.selector)
        if taken is not None:
            raise PluginError(
                f"plugin {plugin.name} ({plugin.origin}) registers {row.selector}, which {taken.plugin.name} "
                f"({taken.plugin.origin}) already brings; rename one, or block one: --no-plugin {plugin.key}"
            )
        if isinstance(component.factory, type):
            require_protocol(component.factory, component.kind, row.selector)
        self.rows[row.selector] = row


def load(extra: Sequence[Any] = (), blocked: Iterable[str] = ()) -> Plugins:
    """The plugins of all installed distributions, then `extra` ones.

    Args:
        extra: paths of Python files, which are trusted, since whoever runs this named them; a `RecordedFile` for each
            that a file on the disk names; modules or objects with hooks; or `Component` rows.
        blocked: installed plugins to leave out, besides those in the environment variable PGGAN_KIT_NO_PLUGINS
            (comma-separated): NAME, or DISTRIBUTION:NAME where two distributions have one of that name.

    Raises:
        PluginError: a plugin that cannot be imported or breaks the contract; the message names it.
    """
    plugins = Plugins()
    left_out = {*blocked, *blocked_by_environment()}
    for plugin, entry in installed():
        if left_out & {plugin.name, plugin.key}:
            plugins.blocked.append(plugin)
            continue
        remedy = f"mend it, or leave it out with --no-plugin {plugin.key}, or {BLOCK_VARIABLE}={plugin.key}"
        module = imported(entry.load, f"{plugin.name} ({plugin.origin})", remedy)
        plugins.add(replace(plugin, object=module))
    rows = [item for item in extra if isinstance(item, Component)]
    for item in extra:
        if isinstance(item, (str, os.PathLike)):
            plugins.add(_of_file(Path(item), Path(item)))
        elif isinstance(item, RecordedFile):
            plugins.add(_of_file(item.path, item))
        elif isinstance(item, type):
            raise PluginError(f"the plugin {item.__name__} is a class: give an instance of it, {item.__name__}()")
        elif not isinstance(item, Component):
            name = getattr(item, "__name__", type(item).__name__)
            plugins.add(Plugin(name, f"given by the caller ({name})", item))
    plugins.take(rows)
    return plugins


def _of_file(path: Path, file: Path | RecordedFile) -> Plugin:
    module, digest = load_file(file)
    return Plugin(path.name, str(path.resolve()), module, digest)


def installed() -> list[tuple[Plugin, importlib.metadata.EntryPoint]]:
    """The plugins of all installed distributions, not imported, and their entry points."""
    found = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.dist is None:
            found.append((Plugin(entry.name, entry.value, None), entry))
        else:
            name, version = entry.dist.name, entry.dist.version
            found.append((Plugin(entry.name, f"{name} {version}", None, None, name, version), entry))
    return found


def blocked_by_environment() -> list[str]:
    """What PGGAN_KIT_NO_PLUGINS names."""
    return [name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",") if name.strip()]


def require_installed(names: Iterable[str]) -> None:
    """Check that plugins that are to be left out are there.

    Args:
        names: NAME or DISTRIBUTION:NAME.

    Raises:
        PluginError: one is not; the message has the nearest name.
    """
    known = dict.fromkeys(word for plugin, _ in installed() for word in (plugin.name, plugin.key))
    for name in names:
        if name not in known:
            raise PluginError(
                f"--no-plugin {name}: no installed plugin has this name{suggest(did_you_mean(name, known))}; "
                "see `pggan-kit plugins list`"
            )


def load_recorded(record: Path, rows: Sequence[Mapping[str, Any]], blocked: Iterable[str] = ()) -> Plugins:
    """Load the plugins of a run: all installed ones, and the files that it used, if they still are what they were.

    Args:
        record: the run's `run.json`.
        rows: its plugins. Those that are no files (installed plugins and objects) have no SHA-256, and nothing is
            loaded from their rows.
        blocked: the installed ones that the run left out.

    Raises:
        PluginError: besides what `load` raises: a file is gone, has changed, was never named on this machine, or is
            recorded by a relative path or without its SHA-256.
    """
    files = []
    for row in rows:
        origin: str = row["origin"]
        sha256: Any = row.get("sha256")
        if sha256 is not None or origin.endswith(".py"):
            change = f"name it to go on with the new one: --plugin {origin}"
            files.append(RecordedFile(Path(origin), sha256, record, change))
    return load(files, blocked)


def _called(function: Callable[[], Any], plugin: Plugin) -> list[Component]:
    try:
        return list(function())
    except Exception as error:
        raise PluginError(f"plugin {plugin.name} ({plugin.origin}): components() raised {error!r}") from error
