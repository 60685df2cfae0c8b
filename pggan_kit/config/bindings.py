"""Bindings of a config, and checks of them before anything is built: unknown names, and bindings that nothing uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pggan_kit.errors import ConfigError, did_you_mean, suggest

SINGLETON = "gin.singleton"
"""Selector of gin's own component that makes another one once and shares it."""

OTHER_FILES = {
    "ablate": (
        "this is the file of an ablation, which `pggan-kit ablate` runs; every other command takes the file of an "
        "experiment, such as the one that ablate.base names"
    ),
    "sweep": (
        "this is the file of a sweep, which `pggan-kit sweep` runs; every other command takes the file of an "
        "experiment, such as the one that sweep.base names"
    ),
    **dict.fromkeys(
        ("train", "schedule", "data", "evaluation", "pictures"),
        "this is the file of an experiment, which `pggan-kit train` trains; that of an ablation or a sweep names it as "
        "ablate.base or sweep.base, and binds settings of its experiments in ablate.bindings or sweep.bindings",
    ),
}
"""Hints by the first part of a selector, for a file that is given to a command of another kind."""


class UnknownComponentError(ConfigError):
    """A config names a component that no plugin brings.

    Attributes:
        missing: The place of the binding and the component's name, `PLACE: unknown component KIND.NAME`.
        place: The place of the binding.
    """

    missing: str
    place: Place


Node = tuple[str, str]
"""A component in a scope, or a macro: (scope, selector)."""


@dataclass(frozen=True)
class Place:
    """The place of a binding: a file (or an override, or a component's defaults) and a line.

    Attributes:
        file: The file as the user named it.
        line: The line, from 1, or None.
        included: Whether it is in an included file; such a binding may be idle.
        default: Whether a component brought it, not the user.
    """

    file: str
    line: int | None
    included: bool
    default: bool = False

    def move_to(self, line: int | None) -> Place:
        """Return the place of another line of the same file; of a place without lines, itself."""
        if self.line is None:
            return self
        return replace(self, line=line)

    def __str__(self) -> str:
        if self.line is None:
            return self.file
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Reference:
    """A reference to a component in a value: `@scope/losses.Hinge()`, or without `()` to its factory."""

    name: str
    evaluate: bool

    @property
    def scope(self) -> str:
        """Return `scope`, or an empty string."""
        return self.name.rpartition("/")[0]

    @property
    def selector(self) -> str:
        """Return `losses.Hinge`."""
        return self.name.rpartition("/")[2]

    def __repr__(self) -> str:
        return f"@{self.name}()" if self.evaluate else f"@{self.name}"


@dataclass(frozen=True)
class Macro:
    """The use of a macro in a value: `%SIZES`."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Binding:
    """The binding `scope/selector.parameter = value`, or the definition of a macro, whose parameter is empty."""

    scope: str
    selector: str
    parameter: str
    value: Any = field(compare=False)
    place: Place = field(compare=False)

    @property
    def is_macro(self) -> bool:
        """Return whether the binding defines a macro."""
        return not self.parameter

    @property
    def name(self) -> str:
        """Return the left-hand side as a config writes it."""
        name = self.selector
        if self.scope:
            name = f"{self.scope}/{name}"
        if self.parameter:
            name = f"{name}.{self.parameter}"
        return name

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the scope, selector and parameter: a later binding of the same key wins."""
        return (self.scope, self.selector, self.parameter)

    def text(self) -> str:
        """Return the binding as a line of gin."""
        return f"{self.name} = {self.value!r}"


class Reach:
    """The bindings and components that roots need, found by following references from scope to scope, as gin does.

    Args:
        bindings: All bindings, macros among them.
        roots: Selectors at which the search starts.
        signatures: Signatures of all selectors.

    Attributes:
        used: Keys of the bindings that take effect somewhere.
        selectors: Components that are needed.

    Raises:
        ConfigError: A macro or component needs itself; or a `gin.singleton` is not written as it must be.
    """

    def __init__(
        self, bindings: Sequence[Binding], roots: Iterable[str], signatures: Mapping[str, inspect.Signature]
    ) -> None:
        self.used: set[tuple[str, str, str]] = set()
        self.selectors: set[str] = set()
        self._signatures = signatures
        self._macros = {binding.name: binding for binding in bindings if binding.is_macro}
        self._bindings: dict[str, list[Binding]] = {}
        for binding in bindings:
            if not binding.is_macro:
                self._bindings.setdefault(binding.selector, []).append(binding)
        self._visited: set[Node] = set()
        for root in roots:
            self._visit_component("", root, (), None)

    def find_effective(self, scope: str, selector: str) -> dict[str, Binding]:
        """Return the bindings of a component in a scope, by parameter: those of the innermost scopes."""
        effective: dict[str, Binding] = {}
        for binding in self._bindings.get(selector, []):
            applies = not binding.scope or f"{scope}/".startswith(f"{binding.scope}/")
            other = effective.get(binding.parameter)
            if applies and (other is None or len(binding.scope) >= len(other.scope)):
                effective[binding.parameter] = binding
        return effective

    def find_macro(self, name: str) -> Binding | None:
        """Return the definition of a macro, or None."""
        return self._macros.get(name)

    def _visit_component(self, scope: str, selector: str, above: tuple[Node, ...], user: Binding | None) -> None:
        """Follow the references of a component.

        Args:
            scope: The scope in which it is built.
            selector: Its selector.
            above: The components and macros that need it, from the root down.
            user: The binding that refers to it; None for a root.
        """
        bindings = self.find_effective(scope, selector)
        # All selectors are known by now, and only gin's singleton is not a component itself.
        if selector in self._signatures and selector != SINGLETON:
            self.selectors.add(selector)
        elif user is not None:
            _check_singleton(scope, bindings.get("constructor"), user)
        self._visit((scope, selector), bindings.values(), above, user)

    def _visit(self, node: Node, bindings: Iterable[Binding], above: tuple[Node, ...], user: Binding | None) -> None:
        if node in above:
            assert user is not None
            path = " -> ".join(selector for _, selector in above)
            raise ConfigError(f"{user.place}: {user.name} refers back to itself: {path}")
        if node in self._visited:
            return
        self._visited.add(node)
        for binding in bindings:
            self.used.add(binding.key)
            for reference in iterate_references(binding.value):
                self._follow(reference, binding, node, above)

    def _follow(self, reference: Reference | Macro, binding: Binding, node: Node, above: tuple[Node, ...]) -> None:
        """Follow a reference in a binding of a node."""
        scope, selector = node
        if isinstance(reference, Macro):
            definitions = []
            if reference.name in self._macros:
                definitions.append(self._macros[reference.name])
            # gin evaluates a macro in a scope of the macro's name.
            self._visit((reference.name, f"%{reference.name}"), definitions, (*above, node), binding)
            return

        # A reference without parentheses is not built here, so it may name the component that holds it.
        below: tuple[Node, ...] = ()
        if reference.evaluate or selector == SINGLETON:
            below = (*above, node)
        self._visit_component(reference.scope or scope, reference.selector, below, binding)


def _check_singleton(scope: str, constructor: Binding | None, user: Binding) -> None:
    if scope and constructor is not None:
        factory = constructor.value
        if isinstance(factory, Reference) and not factory.evaluate:
            return
    raise ConfigError(
        f"{user.place}: {user.name}: a shared component is written @NAME/{SINGLETON}(), with a line "
        f"NAME/{SINGLETON}.constructor = @KIND.NAME (there without parentheses)"
    )


def iterate_references(value: Any) -> Iterator[Reference | Macro]:
    """Yield the references and macros inside a value."""
    if isinstance(value, (Reference, Macro)):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from iterate_references(key)
            yield from iterate_references(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from iterate_references(item)


def require_known(
    bindings: Sequence[Binding], signatures: Mapping[str, inspect.Signature], roots: Iterable[str]
) -> None:
    """Check that all names exist, in bindings and inside their values.

    Args:
        bindings: All bindings, macros among them.
        signatures: Signatures of all selectors.
        roots: Selectors that no value may refer to.

    Raises:
        ConfigError: A component, parameter or macro is unknown; the message has the nearest known name.
    """
    macros = {binding.name for binding in bindings if binding.is_macro}
    forbidden = set(roots)
    components = [selector for selector in signatures if selector not in forbidden]
    for binding in bindings:
        # The left-hand side
        if not binding.is_macro:
            _require_parameter(binding, signatures)

        # The value
        for reference in iterate_references(binding.value):
            if isinstance(reference, Macro):
                _require_macro(reference, macros, binding)
            elif reference.selector in forbidden:
                raise ConfigError(
                    f"{binding.place}: {binding.name}: @{reference.selector} is no component but a group of settings, "
                    f"which has its own lines: {reference.selector}.NAME = VALUE"
                )
            elif reference.selector not in components:
                raise _make_unknown_error(binding, reference.selector, components)


def _require_macro(macro: Macro, macros: set[str], binding: Binding) -> None:
    if macro.name not in macros:
        raise ConfigError(f"{binding.place}: unknown macro {macro}{suggest(did_you_mean(macro.name, macros))}")


def _require_parameter(binding: Binding, signatures: Mapping[str, inspect.Signature]) -> None:
    signature = signatures.get(binding.selector)
    if signature is None:
        raise _make_unknown_error(binding, binding.selector, signatures)
    parameters = signature.parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    if binding.parameter not in parameters:
        raise ConfigError(
            f"{binding.place}: {binding.selector} has no parameter {binding.parameter}"
            f"{suggest(did_you_mean(binding.parameter, parameters))}; it has {', '.join(parameters) or 'none'}"
        )


def _make_unknown_error(binding: Binding, selector: str, known: Iterable[str]) -> ConfigError:
    """Return the error of an unknown component, with the nearest known one."""
    known = list(known)
    if selector in OTHER_FILES:
        parameter = f"{selector}.{binding.parameter}"
        return ConfigError(f"{binding.place}: {parameter} has no place here: {OTHER_FILES[selector]}")
    setting = selector.rpartition(".")[0]
    if setting in OTHER_FILES and setting in known:
        return ConfigError(
            f"{binding.place}: {selector} is a setting: parameters belong to the component that it holds, as in "
            f"KIND.NAME.{binding.parameter} = ..."
        )
    near = did_you_mean(selector, known)
    if near is None:
        # Its kind may be missing or wrong.
        by_name = {candidate.rpartition(".")[2]: candidate for candidate in known}
        name = did_you_mean(selector.rpartition(".")[2], by_name)
        if name is not None:
            near = by_name[name]
    hint = suggest(near) or "; `pggan-kit plugins list` lists all components"
    error = UnknownComponentError(f"{binding.place}: unknown component {selector}{hint}")
    error.missing = f"{binding.place}: unknown component {selector}"
    error.place = binding.place
    return error
