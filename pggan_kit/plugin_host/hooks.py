"""Call the hooks of one run, and name the implementation whose hook raised."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pluggy

from pggan_kit.errors import Interrupted, TrainingError, UserError
from pggan_kit.plugin_host.loading import Plugins, Row
from pggan_kit.plugin_host.manager import new_manager, register


class Hooks:
    """The hooks of one run: of all plugins, and of every component that the experiment chose.

    An observer that says of itself `critical = False` cannot end a run: where it fails, it is switched off with a
    warning. What it raises as a `UserError` in `before_run`, when nothing is trained yet, still ends it.

    Args:
        plugins: hear hooks first.
        parts: components by their path in the experiment (`train.loss.penalties.0`), in config order.
        silent: kinds whose components hear nothing on this rank.
    """

    def __init__(self, plugins: Plugins, parts: Mapping[str, tuple[Row, Any]], silent: Iterable[str] = ()) -> None:
        self._manager = new_manager()
        self._expendable: set[str] = set()
        names: list[tuple[Any, str, str]] = [(p.object, p.key, p.origin) for p in plugins.loaded]
        for path, (row, part) in parts.items():
            if row.component.kind in silent:
                continue
            names.append((part, path, f"{row.selector} of {row.plugin.name}"))
            if row.component.kind == "observers" and not getattr(part, "critical", True):
                self._expendable.add(path)
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
        found = {i.plugin_name: self._one(i, hook, arguments) for i in self.implementations(hook)}
        # One that failed just now is off, and has nothing to remember.
        return {name: value for name, value in found.items() if self._manager.has_plugin(name)}

    def tell(self, name: str, hook: str, **arguments: Any) -> None:
        """Tell one implementation by name; nobody if it is not there."""
        for implementation in self.implementations(hook):
            if implementation.plugin_name == name:
                self._one(implementation, hook, arguments)

    def _one(self, implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, Any]) -> Any:
        try:
            return self._called(implementation, arguments)
        except (TrainingError, Interrupted):
            raise
        except Exception as error:
            name, expendable = implementation.plugin_name, implementation.plugin_name in self._expendable
            if isinstance(error, UserError) and (not expendable or hook == "before_run"):
                raise
            failed = f"{name} failed in its hook {hook}{_place(arguments)}: {type(error).__name__}: {error}"
            if not expendable:
                raise TrainingError(failed) from error
            self._switch_off(name, failed, error, arguments.get("run"))
            return None

    def _called(self, implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
        wanted = (*implementation.argnames, *implementation.kwargnames)
        return implementation.function(**{name: arguments[name] for name in wanted if name in arguments})

    def _switch_off(self, name: str, failed: str, error: Exception, run: Any) -> None:
        """Let a failed observer let go of what it holds, in its `on_error`; then it hears nothing more.

        Args:
            name: of the observer.
            failed: what failed, in a sentence's beginning.
            error: what it raised.
            run: the run that its hook was given, or None.
        """
        for implementation in self.implementations("on_error"):
            if implementation.plugin_name == name:
                with suppress(Exception):
                    self._called(implementation, {"run": run, "error": error})
        self._manager.unregister(name=name)
        warn = warnings.warn if run is None else run.files.warn
        warn(f"{failed}. It is switched off; the run goes on")


def _place(arguments: Mapping[str, Any]) -> str:
    """Where a run stands, as far as a hook's arguments tell."""
    state = arguments.get("state")
    if state is not None:
        return f" (stage {state.stage.size}, images {state.images})"
    where = ", ".join(f"{name} {arguments[name]}" for name in ("stage", "images", "path") if name in arguments)
    return f" ({where})" if where else ""


def part_classes(hooks: Hooks, hook: str) -> dict[str, str]:
    """The classes of those that implement a hook, by their names."""
    found = {}
    for implementation in hooks.implementations(hook):
        owner = getattr(implementation.function, "__self__", None)  # None: a function of a plugin module
        found[implementation.plugin_name] = "a module" if owner is None else type(owner).__qualname__
    return found
