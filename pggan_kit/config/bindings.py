"""Checks of a config before anything is built: names, bindings that nothing uses, and the types of arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pggan_kit.errors import ConfigError, did_you_mean, suggest

MACRO = "gin.macro"
SINGLETON = "gin.singleton"


@dataclass(frozen=True)
class Place:
    """Where a binding stands: a file (or an override, or a component's defaults) and a line.

    Attributes:
        file: as the user named it.
        line: from 1, or None.
        included: not the main file, nor an override: such a binding may be idle.
        default: brought by a component, not by the user.
    """

    file: str
    line: int | None
    included: bool
    default: bool = False

    def at(self, line: int | None) -> Place:
        """Another line of the same file."""
        return self if self.line is None else replace(self, line=line)

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Reference:
    """`@scope/losses.Hinge()` in a value."""

    name: str
    evaluate: bool

    @property
    def scope(self) -> str:
        """`scope`, or nothing."""
        return self.name.rpartition("/")[0]

    @property
    def selector(self) -> str:
        """`losses.Hinge`."""
        return self.name.rpartition("/")[2]

    def __repr__(self) -> str:
        return f"@{self.name}{'()' if self.evaluate else ''}"


@dataclass(frozen=True)
class Macro:
    """`%SIZES` in a value."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Binding:
    """`scope/selector.parameter = value`, or a macro, whose parameter is empty."""

    scope: str
    selector: str
    parameter: str
    value: Any = field(compare=False)
    place: Place = field(compare=False)

    @property
    def is_macro(self) -> bool:
        """Whether this defines a macro."""
        return not self.parameter

    @property
    def name(self) -> str:
        """The left-hand side, as written."""
        scope = f"{self.scope}/" if self.scope else ""
        return f"{scope}{self.selector}" + (f".{self.parameter}" if self.parameter else "")

    @property
    def key(self) -> tuple[str, str, str]:
        """What is bound: a later binding of the same key wins."""
        return (self.scope, self.selector, self.parameter)

    def text(self) -> str:
        """As a line of gin."""
        return f"{self.name} = {self.value!r}"


class Walk:
    """What an experiment reaches from its roots, following references scope by scope, as gin will.

    Attributes:
        used: keys of the bindings in reach that no inner scope overrides wherever they apply.
        selectors: components in reach.

    Raises:
        ConfigError: a macro or component that needs itself; a `gin.singleton` that is not written as it must be.
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
        self._done: set[tuple[str, str]] = set()
        for root in roots:
            self._visit_component("", root, (), None)

    def effective(self, scope: str, selector: str) -> dict[str, Binding]:
        """The bindings that a component gets in a scope, by parameter: those of the innermost scope."""
        found: dict[str, Binding] = {}
        for binding in self._bindings.get(selector, []):
            applies = not binding.scope or f"{scope}/".startswith(f"{binding.scope}/")
            old = found.get(binding.parameter)
            if applies and (old is None or len(binding.scope) >= len(old.scope)):
                found[binding.parameter] = binding
        return found

    def macro(self, name: str) -> Binding | None:
        """The definition of a macro."""
        return self._macros.get(name)

    def _visit_component(
        self, scope: str, selector: str, above: tuple[tuple[str, str], ...], by: Binding | None
    ) -> None:
        bindings = self.effective(scope, selector)
        if selector in self._signatures and selector != SINGLETON:
            self.selectors.add(selector)
        elif by is not None:
            _check_singleton(scope, bindings.get("constructor"), by)
        self._visit((scope, selector), bindings.values(), above, by)

    def _visit(
        self,
        node: tuple[str, str],
        bindings: Iterable[Binding],
        above: tuple[tuple[str, str], ...],
        by: Binding | None,
    ) -> None:
        if node in above:
            assert by is not None
            raise ConfigError(f"{by.place}: {by.name} leads back to itself: {' -> '.join(n for _, n in above)}")
        if node in self._done:
            return
        self._done.add(node)
        scope, target = node
        for binding in bindings:
            self.used.add(binding.key)
            for used in references(binding.value):
                if isinstance(used, Macro):  # gin evaluates a macro in a scope of the macro's name
                    definition = [self._macros[used.name]] if used.name in self._macros else []
                    self._visit((used.name, f"%{used.name}"), definition, (*above, node), binding)
                else:
                    # A reference without parentheses is not built here, so it may name what holds it.
                    below = (*above, node) if used.evaluate or target == SINGLETON else ()
                    self._visit_component(used.scope or scope, used.selector, below, binding)


def _check_singleton(scope: str, constructor: Binding | None, by: Binding) -> None:
    made = constructor.value if constructor is not None else None
    if not scope or not isinstance(made, Reference) or made.evaluate:
        raise ConfigError(
            f"{by.place}: {by.name}: a shared part is written @NAME/{SINGLETON}(), with a line "
            f"NAME/{SINGLETON}.constructor = @kind.Part (there without parentheses)"
        )


def references(value: Any) -> Iterator[Reference | Macro]:
    """The references and macros inside a value."""
    if isinstance(value, (Reference, Macro)):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(key)
            yield from references(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)


def require_known(
    bindings: Sequence[Binding], signatures: Mapping[str, inspect.Signature], roots: Iterable[str]
) -> None:
    """Refuse names that do not exist, in a binding or inside its value.

    Raises:
        ConfigError: an unknown component, parameter or macro; the message has the nearest known name.
    """
    macros = {binding.name for binding in bindings if binding.is_macro}
    components = [name for name in signatures if name not in set(roots)]
    for binding in bindings:
        if not binding.is_macro:
            _require_parameter(binding, signatures)
        for used in references(binding.value):
            if isinstance(used, Macro):
                if used.name not in macros:
                    hint = suggest(did_you_mean(used.name, macros))
                    raise ConfigError(f"{binding.place}: unknown macro {used}{hint}")
            elif used.selector not in components:
                raise ConfigError(
                    f"{binding.place}: unknown component {used.selector}{_hint(used.selector, components)}"
                )


def _require_parameter(binding: Binding, signatures: Mapping[str, inspect.Signature]) -> None:
    signature = signatures.get(binding.selector)
    if signature is None:
        raise ConfigError(f"{binding.place}: unknown component {binding.selector}{_hint(binding.selector, signatures)}")
    parameters = signature.parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    if binding.parameter not in parameters:
        raise ConfigError(
            f"{binding.place}: {binding.selector} has no parameter {binding.parameter}"
            f"{suggest(did_you_mean(binding.parameter, parameters))}; it has {', '.join(parameters) or 'none'}"
        )


def _hint(selector: str, known: Iterable[str]) -> str:
    known = list(known)
    near = did_you_mean(selector, known)
    if near is None:
        # Its kind may be missing or wrong.
        by_name = {name.rpartition(".")[2]: name for name in known}
        near_name = did_you_mean(selector.rpartition(".")[2], by_name)
        near = None if near_name is None else by_name[near_name]
    return suggest(near) or "; `pggan-kit plugins list` shows what there is"
