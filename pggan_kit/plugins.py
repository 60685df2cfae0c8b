"""Find, load and block plugins; collect their components; call their hooks, and say whose fault an error is."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from pggan_kit import hookspecs
from pggan_kit.components import KINDS, Component
from pggan_kit.errors import Interrupted, PluginError, TrainingError, UserError

GROUP = "pggan_kit"
BLOCK_VARIABLE = "PGGAN_KIT_NO_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin: its name, the distribution and version it came in (or its file), and the object itself."""

    name: str
    origin: str
    object: Any
    sha256: str | None = None


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
        blocked: names that were left out.
        rows: components by selector.
    """

    def __init__(self) -> None:
        self.loaded: list[Plugin] = []
        self.blocked: list[str] = []
        self.rows: dict[str, Row] = {}
        self._manager = new_manager()

    def add(self, plugin: Plugin) -> None:
        """Register a plugin and take in its components.

        Raises:
            PluginError: it misspells a hook, repeats a name, or returns something else than components.
        """
        register(self._manager, plugin.object, plugin.name, plugin.origin)
        self.loaded.append(plugin)
        if not hasattr(plugin.object, "components"):
            return
        for implementation in self._manager.hook.components.get_hookimpls():
            if implementation.plugin is plugin.object:
                for component in _called(implementation.function, plugin):
                    self._take(component, plugin)

    def _take(self, component: Component, plugin: Plugin) -> None:
        if not isinstance(component, Component):
            raise PluginError(f"plugin {plugin.name}: components() returns Component rows, not {component!r}")
        if component.kind not in KINDS:
            raise PluginError(
                f"plugin {plugin.name}: {component.name} is of an unknown kind {component.kind!r}"
                f"{nearest(component.kind, KINDS)}; kinds are {', '.join(KINDS)}"
            )
        row = Row(component, plugin)
        taken = self.rows.get(row.selector)
        if taken is not None:
            raise PluginError(
                f"plugin {plugin.name} ({plugin.origin}) registers {row.selector}, which {taken.plugin.name} "
                f"({taken.plugin.origin}) already brings; rename one, or block a plugin with ${BLOCK_VARIABLE}"
            )
        if isinstance(component.factory, type):
            require_protocol(component.factory, component.kind, row.selector)
        self.rows[row.selector] = row


def load(extra: Sequence[Any] = (), blocked: Iterable[str] = ()) -> Plugins:
    """The plugins of all installed distributions, then `extra` ones.

    Args:
        extra: paths of Python files, modules or objects with hooks, or `Component` rows.
        blocked: names to leave out, besides those in the environment variable PGGAN_KIT_NO_PLUGINS (comma-separated).

    Raises:
        PluginError: a plugin that cannot be imported or breaks the contract; the message names it.
    """
    plugins = Plugins()
    left_out = {*blocked, *filter(None, os.environ.get(BLOCK_VARIABLE, "").split(","))}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name in left_out:
            plugins.blocked.append(entry.name)
            continue
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
        plugins.add(Plugin(entry.name, origin, _imported(entry.load, entry.name, origin)))
    rows = [item for item in extra if isinstance(item, Component)]
    for item in extra:
        if isinstance(item, (str, os.PathLike)):
            plugins.add(_from_file(Path(item)))
        elif not isinstance(item, Component):
            name = getattr(item, "__name__", type(item).__name__)
            plugins.add(Plugin(name, f"given by the caller ({name})", item))
    for component in rows:
        plugins._take(component, Plugin("caller", "given by the caller", None))
    return plugins


def _from_file(path: Path) -> Plugin:
    if not path.is_file():
        raise PluginError(f"--plugin {path}: no such file")
    content = path.read_bytes()
    spec = importlib.util.spec_from_file_location(f"pggan_kit_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path}: a plugin file is Python and ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loader = spec.loader
    _imported(lambda: loader.exec_module(module), path.stem, str(path))
    return Plugin(path.stem, str(path), module, hashlib.sha256(content).hexdigest())


def _imported(action: Callable[[], Any], name: str, origin: str) -> Any:
    try:
        return action()
    except Exception as error:
        raise PluginError(
            f"plugin {name} ({origin}) cannot be imported: {type(error).__name__}: {error}. "
            f"Mend it, or leave it out with {BLOCK_VARIABLE}={name}"
        ) from error


def _called(function: Callable[[], Any], plugin: Plugin) -> list[Component]:
    try:
        return list(function())
    except Exception as error:
        raise PluginError(f"plugin {plugin.name} ({plugin.origin}): components() raised {error!r}") from error


def new_manager() -> pluggy.PluginManager:
    """A pluggy manager that knows the hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def register(manager: pluggy.PluginManager, thing: Any, name: str, origin: str) -> None:
    """Register an object's hooks.

    Raises:
        PluginError: a marked function that is no hook, takes arguments that the hook does not have, or wraps others.
    """
    try:
        manager.register(thing, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        known = [hook for hook in vars(manager.hook) if manager.hook.__dict__[hook].has_spec()]
        wrong = [hook for hook in vars(manager.hook) if hook not in known]
        hint = nearest(wrong[0], known) if wrong else ""
        message = str(error).splitlines()[-1].strip() if not wrong else f"{wrong[0]} is no hook{hint}"
        raise PluginError(f"{name} ({origin}): {message}") from error
    for caller in manager.get_hookcallers(thing) or []:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is thing and (implementation.hookwrapper or implementation.wrapper):
                raise PluginError(
                    f"{name} ({origin}): {caller.name} is a wrapper; hooks here have no order that matters, "
                    "so they cannot wrap each other"
                )


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing where no known word is near."""
    candidates = list(known)
    found = get_close_matches(word, candidates, 1, 0.6)
    if not found:
        by_lower = {candidate.lower(): candidate for candidate in candidates}
        found = [by_lower[near] for near in get_close_matches(word.lower(), by_lower, 1, 0.6)]
    return f" (did you mean {found[0]}?)" if found else ""


def require_protocol(thing: Any, kind: str, selector: str) -> None:
    """Check a component, or the class that makes it, against the Protocol of its kind.

    Raises:
        PluginError: a method or attribute is missing, or a method does not take the Protocol's arguments.
    """
    protocol = KINDS[kind]
    for name, member in vars(protocol).items():
        if name.startswith("_") and name not in ("__call__", "__len__"):
            continue
        if not inspect.isfunction(member):
            continue
        found = inspect.getattr_static(thing, name, None)
        if found is None or (name == "__call__" and isinstance(thing, type) and "__call__" not in dir(thing)):
            raise PluginError(f"{selector} is no {protocol.__name__}: it has no {name}()")
        if not _accepts(found, member):
            raise PluginError(
                f"{selector} is no {protocol.__name__}: {name}() must take {inspect.signature(member)}"
            )
    if not isinstance(thing, type):
        for name in getattr(protocol, "__annotations__", {}):
            if not hasattr(thing, name):
                raise PluginError(f"{selector} is no {protocol.__name__}: it has no attribute {name}")


def _accepts(found: Any, wanted: Callable[..., Any]) -> bool:
    bound = isinstance(found, (staticmethod, classmethod))
    function = found.__func__ if bound else found
    if not callable(function):
        return False
    names = list(inspect.signature(wanted).parameters)
    taken = inspect.signature(function).parameters
    if any(getattr(function, f"{hookspecs.PROJECT}_impl", None) is not None for _ in (0,)):
        return set(taken) - {"self"} <= set(names)
    count = len(names) - (1 if isinstance(found, staticmethod) else 0)
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


class Hooks:
    """The hooks of one run: of all plugins, and of every component that the experiment chose.

    Args:
        plugins: hear hooks first.
        parts: components by their path in the experiment (`train.loss.penalties.0`), in config order.
        silent: kinds whose components hear nothing on this rank.
    """

    def __init__(self, plugins: Plugins, parts: Mapping[str, tuple[Row, Any]], silent: Iterable[str] = ()) -> None:
        self._manager = new_manager()
        names: list[tuple[Any, str, str]] = [(p.object, p.name, p.origin) for p in plugins.loaded]
        for path, (row, part) in parts.items():
            if row.component.kind not in silent:
                names.append((part, path, f"{row.selector} of {row.plugin.name}"))
        # pluggy calls the last registered first.
        for thing, name, origin in reversed(names):
            register(self._manager, thing, name, origin)

    def implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Those of one hook, in call order."""
        return list(reversed(getattr(self._manager.hook, hook).get_hookimpls()))

    def call(self, hook: str, **arguments: Any) -> None:
        """Tell all implementations.

        Raises:
            TrainingError: one raised; the message names it, the hook and where the run stood.
        """
        for implementation in self.implementations(hook):
            self._one(implementation, hook, arguments)

    def ask(self, hook: str, **arguments: Any) -> Any:
        """The one answer to a question, None where nobody has one.

        Raises:
            TrainingError: two answers; the message names both.
        """
        answers = [(i.plugin_name, self._one(i, hook, arguments)) for i in self.implementations(hook)]
        given = [(name, answer) for name, answer in answers if answer is not None]
        if len(given) > 1:
            both = " and ".join(f"{name} ({answer})" for name, answer in given)
            raise TrainingError(f"{hook} has two answers, of {both}; at most one may answer")
        return given[0][1] if given else None

    def collect(self, hook: str, **arguments: Any) -> dict[str, Any]:
        """Each implementation's return value by its name."""
        return {i.plugin_name: self._one(i, hook, arguments) for i in self.implementations(hook)}

    def tell(self, name: str, hook: str, **arguments: Any) -> None:
        """Tell one implementation by name; nobody if it is not there."""
        for implementation in self.implementations(hook):
            if implementation.plugin_name == name:
                self._one(implementation, hook, arguments)

    def _one(self, implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, Any]) -> Any:
        try:
            return implementation.function(*(arguments[name] for name in implementation.argnames))
        except (UserError, TrainingError, Interrupted):
            raise
        except Exception as error:
            where = ", ".join(f"{n} {arguments[n]}" for n in ("stage", "images", "path") if n in arguments)
            state = arguments.get("state")
            if state is not None:
                where = f"stage {state.stage.size}, images {state.images}"
            raise TrainingError(
                f"{implementation.plugin_name} failed in its hook {hook}"
                f"{f' ({where})' if where else ''}: {type(error).__name__}: {error}"
            ) from error


def source_of(thing: Any) -> str | None:
    """The file that defines a plugin or factory, if it has one."""
    if isinstance(thing, ModuleType):
        return thing.__file__
    try:
        return inspect.getsourcefile(thing if callable(thing) else type(thing))
    except TypeError:
        return None
