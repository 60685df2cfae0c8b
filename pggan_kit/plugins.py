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
from typing import Any

import pluggy

from pggan_kit import hookspecs
from pggan_kit.components import KINDS, Component
from pggan_kit.errors import Interrupted, PluginError, TrainingError, UserError

GROUP = "pggan_kit"
BLOCK_VARIABLE = "PGGAN_KIT_NO_PLUGINS"
MARK = "@pggan_kit.hookimpl"


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
        if not register(self._manager, plugin.object, plugin.name, plugin.origin):
            raise PluginError(f"plugin {plugin.name} ({plugin.origin}) implements no hook; mark one with {MARK}")
        self.loaded.append(plugin)
        for implementation in self._manager.hook.components.get_hookimpls():
            if implementation.plugin_name == plugin.name:
                for component in _called(implementation.function, plugin):
                    self._take(component, plugin)

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
    left_out = {*blocked, *(name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(","))}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name in left_out:
            plugins.blocked.append(entry.name)
            continue
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
        remedy = f"mend it, or leave it out with {BLOCK_VARIABLE}={entry.name}"
        plugins.add(Plugin(entry.name, origin, _imported(entry.load, f"{entry.name} ({origin})", remedy)))
    rows = [item for item in extra if isinstance(item, Component)]
    for item in extra:
        if isinstance(item, (str, os.PathLike)):
            plugins.add(_from_file(Path(item)))
        elif isinstance(item, type):
            raise PluginError(f"the plugin {item.__name__} is a class: give an instance of it, {item.__name__}()")
        elif not isinstance(item, Component):
            name = getattr(item, "__name__", type(item).__name__)
            plugins.add(Plugin(name, f"given by the caller ({name})", item))
    for component in rows:
        plugins._take(component, Plugin("caller", "given by the caller", None))
    return plugins


def _from_file(path: Path) -> Plugin:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PluginError(f"--plugin {path}: no such file") from None
    except OSError as error:
        raise PluginError(f"--plugin {path}: cannot be read ({error.strerror})") from error
    spec = importlib.util.spec_from_file_location(f"pggan_kit_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path}: a plugin file is Python and ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loader = spec.loader
    _imported(lambda: loader.exec_module(module), str(path), "mend it, or run without it")
    return Plugin(path.name, str(path.resolve()), module, hashlib.sha256(content).hexdigest())


def _imported(action: Callable[[], Any], name: str, remedy: str) -> Any:
    try:
        return action()
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {name} cannot be imported: {type(error).__name__}: {error}; {remedy}") from error


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
        raise PluginError(f"{owner}: {hook} is no hook{nearest(hook, HOOKS)}")
    if options["hookwrapper"] or options["wrapper"]:
        raise PluginError(
            f"{owner}: {hook} is a wrapper; hooks here have no order that matters, so they cannot wrap each other"
        )
    given = HOOKS[hook].parameters
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in (*given, "self", "cls") and parameter.default is parameter.empty:
            raise PluginError(
                f"{owner}: {hook}() takes {parameter.name}, which this hook does not give"
                f"{nearest(parameter.name, given)}; it gives {', '.join(given) or 'nothing'}"
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
            raise PluginError(
                f"{selector} is no {protocol.__name__}: {name}() must take {_arguments(member)}"
            )
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

    def call_all(self, hook: str, **arguments: Any) -> list[Exception]:
        """Tell all implementations, also after one has raised. Returns what was raised."""
        failures: list[Exception] = []
        for implementation in self.implementations(hook):
            try:
                self._one(implementation, hook, arguments)
            except Exception as error:
                failures.append(error)
        return failures

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
            wanted = (*implementation.argnames, *implementation.kwargnames)
            return implementation.function(**{name: arguments[name] for name in wanted if name in arguments})
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
