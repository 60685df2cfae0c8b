"""Build the experiment that a config describes, and list the bindings that it uses."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import gin

from pggan_kit.config.arguments import check_arguments, read_signature, require_arguments
from pggan_kit.config.bindings import SINGLETON, Binding, Macro, Place, Reach, require_known
from pggan_kit.config.gin_files import Config, parse_statements
from pggan_kit.config.operative import Made, Settings, list_settings
from pggan_kit.config.per_stage_keys import take_out_unread_keys
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import ConfigError, PluginError, SettingError, UserError, did_you_mean, suggest
from pggan_kit.evaluation.settings import EvaluationSettings
from pggan_kit.experiment import Experiment
from pggan_kit.pictures.channels import PictureSettings
from pggan_kit.plugin_host.contracts import require_protocol
from pggan_kit.plugin_host.loading import Plugins, Row
from pggan_kit.schedule import ScheduleSettings, check_sizes

Roots = Mapping[str, Callable[..., Any]]
"""Factories by names of a config that are not components. The first gets what the others make, under their names."""

ROOTS: Roots = {
    "train": Experiment,
    "schedule": ScheduleSettings,
    "data": DataSettings,
    "evaluation": EvaluationSettings,
    "pictures": PictureSettings,
}
"""Roots of an experiment."""

GIN_STATE = (
    "_ARG_SPEC_CACHE",
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
"""Variables of the module `gin.config` that hold its state."""

_LOCK = threading.Lock()  # gin has one state for the whole process.

MainT = TypeVar("MainT")

Components = dict[str, tuple[Row, Any]]
"""Components by their path in the experiment, each with its row."""


@dataclass(frozen=True)
class BuiltConfig(Generic[MainT]):
    """The objects that a config describes.

    Attributes:
        experiment: The object that the first root makes: of an experiment's config, the experiment.
        components: The chosen components by their path (`train.loss.penalties.0`), each with its row, in config order.
        config: The bindings that take effect, and no others: what a run archives.
        operative: All parameters in effect, defaults included, as gin text.
        settings: The same by place in the experiment, with those of objects that no binding can describe.
        idle: Bindings that have no effect: those that nothing uses, of included files or displaced by an override;
            those that a file included later takes back; and the keys of per-stage dicts that no stage reads.
    """

    experiment: MainT
    components: Components
    config: Config
    operative: str
    settings: Settings
    idle: tuple[Binding, ...]


Built = BuiltConfig[Experiment]
"""An experiment that was built, and its components."""


@overload
def build_from_config(config: Config, plugins: Plugins) -> Built: ...


@overload
def build_from_config(config: Config, plugins: Plugins, roots: Roots) -> BuiltConfig[Any]: ...


def build_from_config(config: Config, plugins: Plugins, roots: Roots = ROOTS) -> BuiltConfig[Any]:
    """Check a config as a whole, then build its experiment, or the object that other roots describe.

    Args:
        config: The config.
        plugins: The plugins whose components it may name.
        roots: The roots.

    Raises:
        ConfigError: A component, parameter or macro is unknown, a binding or a key per stage is not used, or a value is
            of the wrong type or out of range; the message says where.
        UserError: A component refuses its own input.
    """
    signatures = _list_signatures(plugins, roots)
    bindings = _add_defaults(config, plugins)
    require_known(bindings, signatures, roots)
    reach = Reach(bindings, roots, signatures)

    # Bindings that nothing uses are mistakes, unless another file or an override explains them.
    idle = [*config.taken_back]
    for binding in bindings:
        if binding.key in reach.used or binding.place.default:
            continue
        if not binding.place.included and not _is_displaced(binding, config, plugins, roots, signatures):
            raise ConfigError(_describe_idle(binding, bindings))
        idle.append(binding)

    # Keys of per-stage dicts too; a macro may have no user without them.
    kept, unread = take_out_unread_keys(
        [binding for binding in bindings if binding.key in reach.used], reach, _list_factories(plugins, roots)
    )
    idle += unread
    reach = Reach(kept, roots, signatures)

    used = Config(config.name, tuple(binding for binding in kept if binding.key in reach.used))
    with _LOCK, _set_gin_aside():
        builder = _Builder(plugins, reach, roots)
        experiment, components, operative = builder.build(used)
    return BuiltConfig(experiment, components, used, operative, builder.settings, tuple(idle))


def _list_factories(plugins: Plugins, roots: Roots) -> dict[str, Callable[..., Any]]:
    """Return the factories of all that a config may bind, by selector."""
    factories = {selector: row.component.factory for selector, row in plugins.rows.items()}
    return {**roots, **factories}


def _list_signatures(plugins: Plugins, roots: Roots) -> dict[str, inspect.Signature]:
    """Return the signatures of all that a config may bind, by selector."""
    signatures = {name: read_signature(factory) for name, factory in roots.items()}

    # The first root gets the objects of the others from the builder, never from a binding.
    main = next(iter(roots))
    bound = [parameter for name, parameter in signatures[main].parameters.items() if name not in roots]
    signatures[main] = signatures[main].replace(parameters=bound)

    for selector, row in plugins.rows.items():
        signatures[selector] = read_signature(row.component.factory)
    constructor = inspect.Parameter("constructor", inspect.Parameter.KEYWORD_ONLY)
    signatures[SINGLETON] = inspect.Signature([constructor])
    return signatures


def _add_defaults(config: Config, plugins: Plugins) -> list[Binding]:
    """Return the bindings of a config, and before them the default ones that components bring."""
    bound = {(binding.selector, binding.parameter) for binding in config.bindings if not binding.scope}
    defaults: list[Binding] = []
    for selector, row in plugins.rows.items():
        place = Place(f"defaults of {selector}", None, included=True, default=True)
        for parameter, value in row.component.defaults.items():
            if (selector, parameter) not in bound:
                defaults += parse_statements(f"{selector}.{parameter} = {value}", place).bindings
    return [*defaults, *config.bindings]


def _describe_idle(binding: Binding, bindings: Sequence[Binding]) -> str:
    """Return what is wrong with a binding that nothing uses, with the macro whose name may have been meant."""
    unused = f"{binding.place}: nothing in this experiment uses {binding.name}"
    if not binding.is_macro:
        return f"{unused}; remove it, or choose the component that it belongs to"
    macros = [each.name for each in bindings if each.is_macro and each.name != binding.name]
    return (
        f"{unused}{suggest(did_you_mean(binding.name, macros))}; remove it, or write %{binding.name} where it belongs"
    )


def _is_displaced(
    binding: Binding, config: Config, plugins: Plugins, roots: Roots, signatures: Mapping[str, inspect.Signature]
) -> bool:
    """Return whether the config uses a binding of its files without the overrides."""
    if binding.place.line is None:
        return False
    before = _add_defaults(Config(config.name, config.before), plugins)
    try:
        return binding.key in Reach(before, roots, signatures).used
    except ConfigError:  # the files alone are wrong, which the override mends: they use nothing
        return False


@contextlib.contextmanager
def _set_gin_aside() -> Iterator[None]:
    """Set aside what a notebook or another library keeps in gin's module-wide state, and put it back afterwards.

    In between gin knows its own macro and singleton, and nothing else; so a component may be defined again under its
    name.
    """
    kept = {name: getattr(gin.config, name) for name in GIN_STATE}
    for name, value in kept.items():
        empty = False if isinstance(value, bool) else type(value)()
        setattr(gin.config, name, empty)
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


class _Builder:
    """Build what the roots describe with gin, and remember which component each call made, from which arguments.

    Args:
        plugins: The plugins whose components are built.
        reach: The components that are needed.
        roots: The roots.

    Attributes:
        made: Each component that was made, by the object's id.
        arguments: Arguments of each root.
        settings: The settings in effect, known once everything is built.
        base_height: Height of the first stage, known once the schedule is made, which is first.
        error: The first error, before gin rewrote it.
    """

    def __init__(self, plugins: Plugins, reach: Reach, roots: Roots) -> None:
        self.plugins = plugins
        self.reach = reach
        self.roots = roots
        self.made: dict[int, Made] = {}
        self.arguments: dict[str, Mapping[str, Any]] = {}
        self.settings: Settings = {}
        self.base_height: int | None = None
        self.error: UserError | None = None

    def build(self, config: Config) -> tuple[Any, Components, str]:
        """Return the object that the first root makes, the components by path, and the operative text."""
        # Tell gin about the roots and about the components that are needed.
        factories: dict[str, Any] = {}
        for name, factory in self.roots.items():
            factories[name] = gin.external_configurable(self._wrap_factory(name, factory), name)
        for selector in self.reach.selectors - set(self.roots):
            component = self.plugins.rows[selector].component
            wrapped = self._wrap_factory(selector, component.factory)
            gin.external_configurable(wrapped, component.name, component.kind)
        gin.parse_config(config.text())
        gin.finalize()

        # Make the other roots first, since the first one takes them.
        main, *others = self.roots
        try:
            settings = {name: factories[name]() for name in others}
            experiment = factories[main](**settings)
        except (Exception, SystemExit) as error:
            # gin rewrites the exceptions that pass through it; the one raised first is the one to show.
            raise self.error or error from None

        for name, built in {main: experiment, **settings}.items():
            self.settings |= list_settings(name, self.roots[name], built, self.arguments[name], self.made)
        # The first root holds the others, whose settings have places of their own.
        for name in others:
            self.settings.pop(f"{main}.{name}", None)

        components: Components = {}
        for name in self.roots:
            components.update(self._take_components(name, self.arguments[name]))
        # A class under @gin.configurable, which gin's text would name, is known here by its row alone.
        for key in list(gin.config._OPERATIVE_CONFIG):
            if key[1] not in gin.config._REGISTRY:
                del gin.config._OPERATIVE_CONFIG[key]
        return experiment, components, gin.operative_config_str()

    def _wrap_factory(self, selector: str, factory: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a factory for gin in a function with its signature, which checks what gin passes to it.

        Raises:
            PluginError: A default is `gin.REQUIRED`.
        """
        for parameter in read_signature(factory).parameters.values():
            if parameter.default is gin.REQUIRED:
                origin = self.plugins.rows[selector].plugin.description
                raise PluginError(
                    f"{selector} of plugin {origin} has gin.REQUIRED as the default of {parameter.name}: leave the "
                    "default out, which requires a value as well"
                )

        def make(*_: Any, **arguments: Any) -> Any:
            try:
                return self._make(selector, factory, arguments)
            except (Exception, SystemExit) as error:  # a component's `sys.exit()` is no end of the caller's process
                self._keep_error(selector, error)
                raise

        functools.update_wrapper(make, factory, assigned=("__doc__",), updated=())
        del make.__dict__["__wrapped__"]
        make.__name__ = selector.rpartition(".")[2]
        make.__signature__ = read_signature(factory)  # type: ignore[attr-defined]
        make.selector = f"@{selector}"  # type: ignore[attr-defined]
        return make

    def _make(self, selector: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        require_arguments(selector, factory, arguments, self.plugins.rows)
        check_arguments(factory, arguments, self._find_selector, self.base_height)
        made = factory(**arguments)

        row = self.plugins.rows.get(selector)
        if row is None:
            self.arguments[selector] = arguments
        else:
            require_protocol(made, row.component.kind, selector)
            self.made[id(made)] = Made(row, made, arguments, gin.current_scope_str())
        if selector == "schedule":
            self.base_height = check_sizes(made.sizes)[0][0]
        return made

    def _keep_error(self, selector: str, error: Exception | SystemExit) -> None:
        """Keep the first error, in a user's words."""
        if self.error is not None:
            return
        row = self.plugins.rows.get(selector)
        if isinstance(error, UserError):
            self.error = error
        elif isinstance(error, (ValueError, TypeError)):
            self.error = ConfigError(self._explain(selector, error))
        elif row is not None:
            origin = f"plugin {row.plugin.name} ({row.plugin.origin})"
            self.error = PluginError(f"{selector} of {origin} cannot be made: {error!r}")

    def _find_selector(self, value: Any) -> str | None:
        """Return the selector of a component that was made, or `@selector` of a wrapped factory; else None."""
        if id(value) in self.made:
            return self.made[id(value)].row.selector
        if inspect.isfunction(value):
            selector = getattr(value, "selector", None)
            if isinstance(selector, str):
                return selector
        return None

    def _explain(self, selector: str, error: Exception) -> str:
        """Return a component's complaint, with the place of the binding of the setting that it is about."""
        if not isinstance(error, SettingError):
            return f"{selector}: {error}"
        binding = self.reach.find_effective(gin.current_scope_str(), selector).get(error.setting)
        if binding is None:
            return f"{selector}: {error}"

        complaint = f"{binding.place}: {binding.name} {error.complaint}"
        if isinstance(binding.value, Macro):
            macro = self.reach.find_macro(binding.value.name)
            if macro is not None:
                complaint += f" ({binding.value} is defined at {macro.place})"
        return complaint

    def _take_components(self, path: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Row, Any]]]:
        """Yield the components among arguments, and among theirs, by path; a shared one only where it stands first."""
        for name, value in arguments.items():
            for inner_path, item in _iterate_leaves(f"{path}.{name}", value):
                if id(item) in self.made:
                    made = self.made.pop(id(item))
                    yield inner_path, (made.row, made.component)
                    yield from self._take_components(inner_path, made.arguments)


def _iterate_leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what lists, tuples and dicts hold in the end, each with its path: `path.0.key`."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _iterate_leaves(f"{path}.{index}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _iterate_leaves(f"{path}.{key}", item)
    else:
        yield path, value


def list_bindings(config: Config) -> list[str]:
    """Return a line for each binding in effect, with its place, for `config show`."""
    return [f"{binding.text()}    # {binding.place}" for binding in config.bindings]
