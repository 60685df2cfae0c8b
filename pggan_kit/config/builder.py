"""Build the experiment that a config describes, and archive its bindings."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gin

from pggan_kit.config.arguments import check_arguments, require_arguments, signature_of
from pggan_kit.config.bindings import SINGLETON, Binding, Macro, Place, Walk, require_known
from pggan_kit.config.gin_files import Config, parse_statements
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import ConfigError, PluginError, SettingError, UserError
from pggan_kit.evaluation.settings import EvaluationSettings
from pggan_kit.experiment import Experiment
from pggan_kit.plugin_host.contracts import leaves, require_protocol
from pggan_kit.plugin_host.loading import Plugins, Row
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


_LOCK = threading.Lock()  # gin's configuration is one per process.


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
        for binding in parse_statements(
            f"{selector}.{parameter} = {value}", Place(f"defaults of {selector}", None, True, True)
        )
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
                self.error = self.error or ConfigError(self._explained(selector, error))
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

    def _explained(self, selector: str, error: Exception) -> str:
        """Return a component's complaint, with the place of the binding of the setting that it is about."""
        binding = None
        if isinstance(error, SettingError):
            binding = self.walk.effective(gin.current_scope_str(), selector).get(error.setting)
        if binding is None or not isinstance(error, SettingError):
            return f"{selector}: {error}"
        explained = f"{binding.place}: {binding.name} {error.complaint}"
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
