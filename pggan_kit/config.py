"""The only module that talks to gin: parse with file and line, check, build, archive.

gin 0.5 neither checks types nor remembers where a binding stood, and its registry is global. So files are read here
statement by statement (with gin's own parser), checked as a whole (`checking.py`), and only then handed to gin, which
builds the components.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import threading
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin
from gin import config_parser

from pggan_kit.checking import (
    SINGLETON,
    Binding,
    Macro,
    Place,
    Reference,
    Walk,
    check_arguments,
    require_arguments,
    require_known,
)
from pggan_kit.contracts import leaves, require_protocol, signature_of
from pggan_kit.data import DataSettings
from pggan_kit.errors import ConfigError, PluginError, UserError
from pggan_kit.evaluating import EvaluationSettings
from pggan_kit.experiment import Experiment
from pggan_kit.plugins import Plugins, Row
from pggan_kit.schedule import ScheduleSettings, checked_sizes

Roots = Mapping[str, Callable[..., Any]]
"""Names of a config that are no components: what the first makes is given what the others make, under their names."""

ROOTS: Roots = {
    "train": Experiment,
    "schedule": ScheduleSettings,
    "data": DataSettings,
    "evaluation": EvaluationSettings,
}
"""Those of an experiment."""

OVERRIDE = "-b"
_LOCK = threading.Lock()  # gin's configuration is one per process.


@dataclass(frozen=True)
class Config:
    """A config as read: its bindings in effect, by what they bind.

    Attributes:
        name: the main file's stem.
        bindings: the last one for each (scope, selector, parameter), in file order.
        before: the same without the overrides.
    """

    name: str
    bindings: tuple[Binding, ...]
    before: tuple[Binding, ...] = ()

    def text(self) -> str:
        """The config as one self-contained gin file: includes and overrides resolved, macros first."""
        macros = [b for b in self.bindings if b.is_macro]
        others = [b for b in self.bindings if not b.is_macro]
        return "\n".join([*(b.text() for b in macros), "", *(b.text() for b in others), ""])


@dataclass(frozen=True)
class Built:
    """What a config describes, built.

    Attributes:
        experiment: the components and settings; of another config than an experiment's, what its first root makes.
        parts: the chosen components by their path (`train.loss.penalties.0`), each with its row, in config order.
        config: the bindings that it uses, and no others: what a run archives.
        operative: all parameters in effect, defaults included, as gin text.
        idle: bindings that nothing uses, of included files, or displaced by an override.
    """

    experiment: Any
    parts: dict[str, tuple[Row, Any]]
    config: Config
    operative: str
    idle: tuple[Binding, ...]


def read(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a gin file, its includes (relative to the including file), and overrides.

    Args:
        file: the main file.
        overrides: bindings that win over the files, e.g. `penalties.R1.weight = 5`.

    Raises:
        ConfigError: a file is missing, a statement is broken, or a file imports something.
    """
    path = Path(file)
    return _overridden(path.stem, _read_file(path, included_from=None, chain=()), overrides)


def _overridden(name: str, found: list[Binding], overrides: Sequence[str]) -> Config:
    before = _last_of_each(found)
    for text in overrides:
        place = Place(f"{OVERRIDE} '{text}'", None, included=False)
        bound = _parse(text, place)
        if not bound:
            raise ConfigError(f"{place}: binds nothing; write it like {OVERRIDE} 'train.seed = 1'")
        found += bound
    return Config(name, _last_of_each(found), before)


def parse_text(text: str, name: str, overrides: Sequence[str] = ()) -> Config:
    """Read an archived config from its text, and overrides as in `read`."""
    found = _parse(text, Place(name, 1, included=False))
    return _overridden(name, found, overrides)


def _last_of_each(bindings: Sequence[Binding]) -> tuple[Binding, ...]:
    return tuple({binding.key: binding for binding in bindings}.values())


def build(config: Config, plugins: Plugins, roots: Roots = ROOTS) -> Built:
    """Check a config as a whole, then build its experiment, or what other roots describe.

    Raises:
        ConfigError: an unknown component, parameter or macro, a binding that nothing uses, a value of the wrong type
            or out of range; the message says where.
        UserError: what a component says of its own input.
    """
    signatures = _signatures(plugins, roots)
    bindings = _with_defaults(config, plugins)
    require_known(bindings, signatures, roots)
    walk = Walk(bindings, roots, signatures)
    unused = [b for b in bindings if b.key not in walk.used and not b.place.default]
    idle = tuple(b for b in unused if b.place.included or _displaced(b, config, plugins, roots, signatures))
    for binding in unused:
        if binding not in idle:
            raise ConfigError(
                f"{binding.place}: nothing in this experiment uses {binding.name}; "
                f"remove it, or choose the part it belongs to"
            )
    used = Config(config.name, tuple(b for b in bindings if b.key in walk.used))
    with _LOCK, _gin_of_our_own():
        experiment, parts, operative = _Builder(plugins, walk, roots).build(used)
    return Built(experiment, parts, used, operative, idle)


def _displaced(
    binding: Binding, config: Config, plugins: Plugins, roots: Roots, signatures: Mapping[str, inspect.Signature]
) -> bool:
    """Whether the main file's own experiment uses a binding, and only an override made it useless."""
    before = _with_defaults(Config(config.name, config.before), plugins)
    return binding.place.line is not None and binding.key in Walk(before, roots, signatures).used


_GIN_STATE = (
    "_REGISTRY",
    "_INVERSE_REGISTRY",
    "_RENAMED_SELECTORS",
    "_CONFIG",
    "_CONFIG_IS_LOCKED",
    "_CONSTANTS",
    "_FINALIZE_HOOKS",
    "_IMPORTS",
    "_OPERATIVE_CONFIG",
    "_SINGLETONS",
)


@contextlib.contextmanager
def _gin_of_our_own() -> Iterator[None]:
    """Set aside what a notebook or another library keeps in gin's module-wide state, and put it back afterwards.

    In between gin knows its own macro and singleton, and nothing else; so a part may be defined again under its name.
    """
    kept = {name: getattr(gin.config, name) for name in _GIN_STATE}
    for name, value in kept.items():
        setattr(gin.config, name, False if isinstance(value, bool) else type(value)())
    registry = gin.config._REGISTRY
    for selector, configurable in kept["_REGISTRY"].items():
        if selector.startswith("gin."):
            registry[selector] = configurable
    # In the operative text gin would shorten `optimizers.Adam` to `Adam`, which no config here may say.
    registry.minimal_selector = lambda selector: selector.removeprefix(f"{__name__}.")
    try:
        with gin.config_scope(None):
            yield
    finally:
        for name, value in kept.items():
            setattr(gin.config, name, value)


def _read_file(path: Path, included_from: Place | None, chain: tuple[Path, ...]) -> list[Binding]:
    where = f"{included_from}: includes" if included_from else "config"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{where} {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} {path}: cannot be read ({error})") from None
    if path.resolve() in chain:
        raise ConfigError(f"{where} {path}: includes itself")
    return _parse(text, Place(str(path), 1, included_from is not None), path, (*chain, path.resolve()))


def _parse(text: str, start: Place, path: Path | None = None, chain: tuple[Path, ...] = ()) -> list[Binding]:
    found: list[Binding] = []
    place = start
    try:
        for statement in config_parser.ConfigParser(text, _Delegate()):
            place = start.at(statement.location.line_num)
            if isinstance(statement, config_parser.ImportStatement):
                raise ConfigError(f"{place}: a config may not import; load a plugin with --plugin FILE instead")
            if isinstance(statement, config_parser.IncludeStatement):
                if path is None:
                    raise ConfigError(f"{place}: an override cannot include a file")
                found += _read_file(path.parent / statement.filename, place, chain)
            elif isinstance(statement, config_parser.BindingStatement):
                _check_finite(statement.value, place)
                found.append(Binding(statement.scope, statement.selector, statement.arg_name, statement.value, place))
    except SyntaxError as error:
        raise ConfigError(f"{start.at(_line_of(error))}: broken gin syntax: {_reason(error)}") from None
    except tokenize.TokenError as error:
        reason = str(error.args[0])
        if "EOF" in reason or "unterminated" in reason:
            reason = "a bracket or text is opened and never closed"
            reason += f"; look after the statement at {place}" if found else ""
        raise ConfigError(f"{start.at(error.args[1][0])}: broken gin syntax: {reason}") from None
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{place}: broken gin syntax here or in the statement after it: {reason}") from None
    return found


def _line_of(error: SyntaxError) -> int | None:
    location = error.args[1] if len(error.args) > 1 else None
    return location[1] if location else error.lineno


def _reason(error: SyntaxError) -> str:
    lines = str(error.msg).strip().splitlines()
    token = re.search(r"Failed to parse token '(.*)'", lines[-1])
    if token:
        return f"{token[1]} is no value; a text needs quotes, a macro %, a component @"
    return lines[0]


def _check_finite(value: Any, place: Place) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place}: a number is too large to be kept")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_finite(item, place)


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def _signatures(plugins: Plugins, roots: Roots) -> dict[str, inspect.Signature]:
    found = {name: signature_of(factory) for name, factory in roots.items()}
    main = next(iter(roots))
    found[main] = found[main].replace(parameters=[p for name, p in found[main].parameters.items() if name not in roots])
    for selector, row in plugins.rows.items():
        found[selector] = signature_of(row.component.factory)
    found[SINGLETON] = inspect.Signature([inspect.Parameter("constructor", inspect.Parameter.KEYWORD_ONLY)])
    return found


def _with_defaults(config: Config, plugins: Plugins) -> list[Binding]:
    """The config's bindings, and before them the default ones of the components that brought some."""
    bound = {(b.selector, b.parameter) for b in config.bindings if not b.scope}
    defaults = [
        binding
        for selector, row in plugins.rows.items()
        for parameter, value in row.component.defaults.items()
        if (selector, parameter) not in bound
        for binding in _parse(f"{selector}.{parameter} = {value}", Place(f"defaults of {selector}", None, True, True))
    ]
    return [*defaults, *config.bindings]


class _Builder:
    """Lets gin build what the roots describe; remembers which component each call made and from which arguments."""

    def __init__(self, plugins: Plugins, walk: Walk, roots: Roots) -> None:
        self.plugins = plugins
        self.walk = walk
        self.roots = roots
        self.main = next(iter(roots))
        self.made: dict[int, tuple[Row, Any, Mapping[str, Any]]] = {}
        self.arguments: dict[str, Mapping[str, Any]] = {}  # of each root
        self.base_height: int | None = None  # known once the schedule is made, which is first
        self.error: UserError | None = None

    def build(self, config: Config) -> tuple[Any, dict[str, tuple[Row, Any]], str]:
        makers: dict[str, Any] = {}
        for name, factory in self.roots.items():
            makers[name] = gin.external_configurable(self._maker(name, factory), name)
        for selector in self.walk.selectors - set(self.roots):
            component = self.plugins.rows[selector].component
            maker = self._maker(selector, component.factory)
            gin.external_configurable(maker, component.name, component.kind)
        gin.parse_config(config.text())
        gin.finalize()
        try:
            experiment = makers[self.main](**{name: makers[name]() for name in self.roots if name != self.main})
        except Exception as error:
            # gin rewrites the exceptions that pass through it; the one raised first is the one to show.
            raise self.error or error from None
        parts = {path: part for root in self.roots for path, part in self._paths(root, self.arguments[root])}
        return experiment, parts, gin.operative_config_str()

    def _maker(self, selector: str, factory: Callable[..., Any]) -> Callable[..., Any]:
        signature = signature_of(factory)
        row = self.plugins.rows.get(selector)

        def make(*args: Any, **kwargs: Any) -> Any:
            try:
                require_arguments(selector, factory, kwargs, self.plugins.rows)
                check_arguments(factory, kwargs, self._selector_of, self.base_height)
                made = factory(**kwargs)
                if row is not None:
                    require_protocol(made, row.component.kind, selector)
                    self.made[id(made)] = (row, made, kwargs)
                else:
                    self.arguments[selector] = kwargs
                if selector == "schedule":
                    self.base_height = checked_sizes(made.sizes)[0][0]
                return made
            except UserError as error:
                self.error = self.error or error
                raise
            except (ValueError, TypeError) as error:
                self.error = self.error or ConfigError(self._explained(selector, str(error)))
                raise
            except Exception as error:
                if row is not None:
                    message = f"{selector} of plugin {row.plugin.name} ({row.plugin.origin}) cannot be made: {error!r}"
                    self.error = self.error or PluginError(message)
                raise

        functools.update_wrapper(make, factory, assigned=("__doc__",), updated=())
        del make.__dict__["__wrapped__"]
        make.__name__ = selector.rpartition(".")[2]
        make.__signature__ = signature  # type: ignore[attr-defined]
        make.selector = f"@{selector}"  # type: ignore[attr-defined]
        return make

    def _selector_of(self, value: Any) -> str | None:
        if id(value) in self.made:
            return self.made[id(value)][0].selector
        selector = getattr(value, "selector", None) if inspect.isfunction(value) else None
        return selector if isinstance(selector, str) else None

    def _explained(self, selector: str, message: str) -> str:
        """A component's complaint, with the place of the binding that its first word names."""
        parameter = message.split(" ", 1)[0].rstrip(":")
        binding = self.walk.effective(gin.current_scope_str(), selector).get(parameter)
        if binding is None:
            return f"{selector}: {message}"
        explained = f"{binding.place}: {binding.name}{message.removeprefix(parameter)}"
        macro = self.walk.macro(binding.value.name) if isinstance(binding.value, Macro) else None
        return f"{explained} ({binding.value} stands at {macro.place})" if macro else explained

    def _paths(self, path: str, arguments: Mapping[str, Any]) -> Any:
        for name, value in arguments.items():
            for inner, part in leaves(f"{path}.{name}", value):
                if id(part) in self.made:
                    row, made, kwargs = self.made.pop(id(part))
                    yield inner, (row, made)
                    yield from self._paths(inner, kwargs)


def describe(config: Config) -> list[str]:
    """One line for each binding in effect, with its place, for `config show`."""
    return [f"{binding.text()}    # {binding.place}" for binding in config.bindings]


__all__ = ["Built", "Config", "build", "describe", "parse_text", "read"]
