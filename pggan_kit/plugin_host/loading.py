"""Find, load and block plugins, and collect the components that they bring."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pggan_kit.components import KINDS, Component, Importer
from pggan_kit.errors import PluginError, did_you_mean, quote_path, require_list, suggest
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

GIVEN = "given by the caller"
"""Origin of what a caller gave in Python, which no file brings."""

_VALID_CLASSES: dict[str, weakref.WeakSet[type]] = {kind: weakref.WeakSet() for kind in KINDS}
"""Classes that fulfil the Protocol of their kind and whose parameters configs can bind.

To check the shipped ones again would be two thirds of the time of loading.
"""


@dataclass(frozen=True)
class Plugin:
    """A plugin, with its origin.

    Attributes:
        name: Name of its entry point, file or object.
        origin: Origin for people: `DISTRIBUTION VERSION`, the file's path, or the caller.
        object: The module or object with the hooks; None for a blocked plugin.
        sha256: SHA-256 of a file.
        distribution, version: Distribution of an installed plugin, and its version.
        folder: Folder that the distribution is installed in.
    """

    name: str
    origin: str
    object: Any
    sha256: str | None = None
    distribution: str | None = None
    version: str | None = None
    folder: str | None = None

    @property
    def description(self) -> str:
        """Return the name, and where the plugin comes from, for messages."""
        place = f" in {self.folder}" if self.folder else ""
        return f"{self.name} ({self.origin}{place})"

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
        broken: Installed plugins that cannot be loaded, with the reason, where the caller accepts such.
        rows: Components by selector.
    """

    def __init__(self) -> None:
        self.loaded: list[Plugin] = []
        self.blocked: list[Plugin] = []
        self.broken: list[tuple[Plugin, str]] = []
        self.rows: dict[str, Row] = {}
        self._manager = make_manager()

    def add(self, plugin: Plugin) -> None:
        """Add a plugin and the components that it brings, or nothing of it.

        Raises:
            PluginError: The plugin is a class, has no hook, misspells one, repeats a name, or returns something other
                than components.
        """
        # The hooks.
        _require_object(plugin)
        self._require_own_name(plugin)
        if not register_hooks(self._manager, plugin.object, plugin.key, plugin.origin):
            raise PluginError(f"plugin {plugin.name} ({plugin.origin}) implements no hook; mark one with {MARK}")

        # The components: if one of them is wrong, nothing of the plugin stays.
        try:
            for implementation in self._manager.hook.components.get_hookimpls():
                if implementation.plugin_name == plugin.key:
                    for component in _call_components(implementation.function, plugin):
                        self._add_component(component, plugin)
        except PluginError:
            self._manager.unregister(name=plugin.key)
            self.rows = {selector: row for selector, row in self.rows.items() if row.plugin is not plugin}
            raise
        self.loaded.append(plugin)

    def _require_own_name(self, plugin: Plugin) -> None:
        """Check that no other plugin has the name, under which its state is saved."""
        for other in self.loaded:
            if other.key != plugin.key:
                continue
            remedy = "rename one"
            if other.object is plugin.object or (other.sha256 is not None and other.origin == plugin.origin):
                remedy = "give it once"
            elif other.sha256 is None and plugin.sha256 is None and plugin.distribution is None:
                remedy = "give one of the objects another name, in its attribute `__name__`"
            raise PluginError(f"two plugins are named {plugin.key}: {other.origin} and {plugin.origin}; {remedy}")

    def add_components(self, components: Iterable[Component]) -> None:
        """Add components that the caller gave, without a plugin.

        Raises:
            PluginError: One is not a component, or its name is taken.
        """
        for component in components:
            self._add_component(component, Plugin("caller", GIVEN, None))

    def list_given_components(self) -> list[str]:
        """Return the selectors of the components that the caller gave, without a plugin."""
        return [selector for selector, row in self.rows.items() if row.plugin.origin == GIVEN]

    def list_importers(self) -> list[Importer]:
        """Return the importers that the plugins bring.

        Raises:
            PluginError: One cannot be made, or is none.
        """
        importers: list[Importer] = []
        for implementation in self._manager.hook.importers.get_hookimpls():
            name = implementation.plugin_name
            make: Callable[[], Any] = implementation.function
            # A plugin's code may raise anything.
            try:
                made = list(make())
            except (Exception, SystemExit) as error:
                raise PluginError(f"plugin {name}: importers() raised {error!r}") from error
            for importer in made:
                if not isinstance(getattr(importer, "name", None), str) or not callable(
                    getattr(importer, "read", None)
                ):
                    raise PluginError(
                        f"plugin {name}: importers() returns objects with a name and a method read, not {importer!r}"
                    )
            importers += made
        return importers

    def _add_component(self, component: Component, plugin: Plugin) -> None:
        _check_component(component, plugin)
        row = Row(component, plugin)
        taken = self.rows.get(row.selector)
        if taken is not None:
            raise PluginError(
                f"plugin {plugin.description} registers {row.selector}, which {taken.plugin.description} already "
                f"brings; rename one{_advise_blocking(plugin, taken.plugin)}"
            )
        _check_factory(component, row.selector, plugin)
        self.rows[row.selector] = row


def _require_object(plugin: Plugin) -> None:
    """Check that a plugin is not a class, whose hooks would be called without an object."""
    if not isinstance(plugin.object, type):
        return
    name = plugin.object.__name__
    remedy = f"give an instance of it, {name}()"
    if plugin.distribution is not None:
        remedy = f"let the entry point name an instance of it, MODULE:plugin, where MODULE has `plugin = {name}()`"
    raise PluginError(f"plugin {plugin.description} is a class: {remedy}")


def _advise_blocking(*plugins: Plugin) -> str:
    """Return how to leave out one of some plugins, as the end of a sentence; nothing where none is installed."""
    for plugin in plugins:
        if plugin.distribution is not None:
            return f", or block one: --no-plugin {plugin.key}"
    return ""


def _call_components(function: Callable[[], Any], plugin: Plugin) -> list[Component]:
    try:
        return list(function())
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {plugin.name} ({plugin.origin}): components() raised {error!r}") from error


def _check_component(component: Component, plugin: Plugin) -> None:
    """Check that a row of a plugin's `components()` is a component with a kind, a name and a factory."""
    if not isinstance(component, Component):
        raise PluginError(f"plugin {plugin.name}: components() returns Component rows, not {component!r}")
    # gin has names in ASCII alone.
    has_name = isinstance(component.name, str) and component.name.isidentifier() and component.name.isascii()
    if not callable(component.factory) or not has_name:
        raise PluginError(
            f"plugin {plugin.name}: {component.kind}.{component.name} needs an identifier of ASCII letters as its name "
            f"and a class or function as its factory, not {component.factory!r}"
        )
    if not isinstance(component.kind, str) or component.kind not in KINDS:
        raise PluginError(
            f"plugin {plugin.name}: {component.name} is of an unknown kind {component.kind!r}"
            f"{suggest(did_you_mean(str(component.kind), KINDS))}; kinds are {', '.join(KINDS)}"
        )
    if not isinstance(component.defaults, Mapping):
        raise PluginError(
            f"plugin {plugin.name}: the defaults of {component.kind}.{component.name} are a "
            f"{type(component.defaults).__name__}, and must be a dict of gin values by parameter"
        )


def _require_bindable_parameters(component: Component, selector: str, plugin: Plugin) -> None:
    """Check that configs can bind every parameter that needs a value by its name, and that those of defaults exist."""
    try:
        parameters = inspect.signature(component.factory).parameters
    except (TypeError, ValueError):  # Python does not know it
        return
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in component.defaults:
        if name not in parameters and not takes_any:
            raise PluginError(
                f"plugin {plugin.name}: the defaults of {selector} have {name}, which is no parameter of it"
                f"{suggest(did_you_mean(str(name), parameters))}; it has {', '.join(parameters) or 'none'}"
            )
    for parameter in parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise PluginError(
                f"{selector} takes {parameter.name} by its place alone, and configs bind parameters by their names: "
                "remove the / from its signature"
            )


def _check_factory(component: Component, selector: str, plugin: Plugin) -> None:
    """Check the parameters of a factory, and a class against the Protocol of its kind, once in a process.

    What a factory makes is checked once it is made.
    """
    factory = component.factory
    valid_classes = _VALID_CLASSES[component.kind]
    is_valid = isinstance(factory, type) and factory in valid_classes
    if not is_valid or component.defaults:
        _require_bindable_parameters(component, selector, plugin)
    if isinstance(factory, type) and not is_valid:
        require_protocol(factory, component.kind, selector)
        valid_classes.add(factory)


def load_plugins(extra: Sequence[Any] = (), blocked: Iterable[str] = (), *, accept_broken: bool = False) -> Plugins:
    """Load the plugins of all installed distributions, then extra ones.

    Args:
        extra: Paths of Python files, which are trusted, since the user of this process named them; a `RecordedFile` for
            each file that a record on the disk names; modules or objects with hooks; or `Component` rows.
        blocked: Installed plugins to leave out, besides those in the environment variable PGGAN_KIT_NO_PLUGINS
            (separated by commas): NAME, or DISTRIBUTION:NAME where two distributions have a plugin of that name.
        accept_broken: Whether an installed plugin that cannot be loaded is noted, and raises nothing.

    Raises:
        PluginError: A plugin cannot be imported or breaks the contract; the message names it.
    """
    require_list("plugins", extra)
    plugins = Plugins()
    left_out = {*blocked, *read_blocked_plugins()}
    for plugin, entry in find_installed_plugins():
        if left_out & {plugin.name, plugin.key}:
            plugins.blocked.append(plugin)
            continue
        try:
            _add_installed(plugins, plugin, entry)
        except PluginError as error:
            if not accept_broken:
                raise
            plugins.broken.append((plugin, str(error)))

    # Components without a plugin come last, so that a name taken by a plugin is theirs to change.
    for item in extra:
        if not isinstance(item, Component):
            plugins.add(_load_extra(item))
    plugins.add_components(item for item in extra if isinstance(item, Component))
    return plugins


def _add_installed(plugins: Plugins, plugin: Plugin, entry: importlib.metadata.EntryPoint) -> None:
    """Import an installed plugin and add it."""

    def advise(error: BaseException) -> str:
        action = "fix it"
        if isinstance(error, ModuleNotFoundError) and f"{entry.module}.".startswith(f"{error.name}."):
            remains = f"remove what is left of it: pip uninstall {plugin.distribution}"
            action = f"its code is gone: install it again, or {remains}"
        return f"{action}; or leave it out with --no-plugin {plugin.key}, or {BLOCK_VARIABLE}={plugin.key}"

    module = import_plugin(entry.load, plugin.description, advise)
    plugins.add(replace(plugin, object=module))


def _load_extra(item: Any) -> Plugin:
    """Load a file, or take a module or an object with hooks, as a plugin."""
    if isinstance(item, (str, os.PathLike)):
        return _load_file(Path(item), Path(item))
    if isinstance(item, RecordedFile):
        return _load_file(item.path, item)
    name = getattr(item, "__name__", type(item).__name__)
    return Plugin(name, f"{GIVEN} ({name})", item)


def _load_file(path: Path, file: Path | RecordedFile) -> Plugin:
    module, digest = load_plugin_file(file)
    return Plugin(path.name, str(locate_plugin_file(path)), module, digest)


def find_installed_plugins() -> list[tuple[Plugin, importlib.metadata.EntryPoint]]:
    """Return the plugins of all installed distributions, not yet imported, with their entry points."""
    plugins = []
    described: dict[importlib.metadata.Distribution, tuple[str, str]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.dist is None:
            plugin = Plugin(entry.name, entry.value, None)
        else:
            # Each look at its name or version parses the file that holds them and the whole README.
            if entry.dist not in described:
                metadata = entry.dist.metadata
                described[entry.dist] = (metadata["Name"], metadata["Version"])
            distribution, version = described[entry.dist]
            origin = f"{distribution} {version}"
            folder = str(entry.dist.locate_file(""))
            plugin = Plugin(entry.name, origin, None, distribution=distribution, version=version, folder=folder)
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
            advice = "see `pggan-kit plugins list`"
            if name.endswith(".py"):
                advice = "a plugin file is left out by a command without --plugin"
            raise PluginError(
                f"--no-plugin {name}: no installed plugin has this name{suggest(did_you_mean(name, known))}; {advice}"
            )


def list_distributions(plugins: Plugins) -> dict[str, str | None]:
    """Return the versions of the distributions that the loaded plugins are of, by name."""
    return {plugin.distribution: plugin.version for plugin in plugins.loaded if plugin.distribution is not None}


def list_missing_plugins(rows: Sequence[Mapping[str, Any]], plugins: Plugins) -> list[str]:
    """Return a sentence for each installed plugin of a run that is not loaded now.

    Args:
        rows: The run's plugins. Those that are not installed (files and objects) have no distribution.
        plugins: The plugins of this process.
    """
    keys = {plugin.key for plugin in plugins.loaded}
    return [
        f"this run used the plugin {row['name']} of {row['origin']}, which is not installed, or left out by "
        f"{BLOCK_VARIABLE}"
        for row in rows
        if row.get("distribution") is not None and f"{row['distribution']}:{row['name']}" not in keys
    ]


def list_missing_given(rows: Sequence[Mapping[str, Any]], plugins: Plugins) -> list[str]:
    """Return the names of a run's plugins and components that were given in Python, and are not given now.

    Args:
        rows: The run's plugins; see `list_missing_plugins`.
        plugins: The plugins of this process.
    """
    here = {*plugins.rows, *(plugin.name for plugin in plugins.loaded)}
    return [row["name"] for row in rows if row["origin"].startswith(GIVEN) and row["name"] not in here]


def list_changed_plugins(rows: Sequence[Mapping[str, Any]], plugins: Plugins) -> list[str]:
    """Return a sentence for each distribution with plugins whose version is not the one that a run began with.

    Args:
        rows: The run's plugins; see `list_missing_plugins`.
        plugins: The plugins of this process.
    """
    recorded = {row["distribution"]: row.get("version") for row in rows if row.get("distribution") is not None}
    return [
        f"this run began with the plugins of {name} {recorded[name]}, and goes on with those of {name} {version}"
        for name, version in list_distributions(plugins).items()
        if name in recorded and recorded[name] != version
    ]


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
