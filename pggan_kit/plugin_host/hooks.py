"""Call the hooks of a run, and name the implementation whose hook failed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pluggy

from pggan_kit.errors import Interrupted, TrainingError, UserError
from pggan_kit.plugin_host.loading import Plugins, Row
from pggan_kit.plugin_host.manager import make_manager, register_hooks


class Hooks:
    """The hooks of a run: those of all plugins, and those of all components that the experiment chose.

    An observer with `critical = False` cannot end a run: where it fails, it is switched off with a warning. A
    `UserError` that it raises in `before_run`, when nothing is trained yet, still ends the run.

    Args:
        plugins: The loaded plugins, whose hooks are called first.
        components: The components by their path in the experiment (`train.loss.penalties.0`), in config order.
        silent: Kinds whose components are not called on this rank.

    Attributes:
        components: See above.

    Raises:
        PluginError: See `register_hooks`.
    """

    def __init__(self, plugins: Plugins, components: Mapping[str, tuple[Row, Any]], silent: Iterable[str] = ()) -> None:
        self.components = components
        self._manager = make_manager()
        self._expendable: set[str] = set()
        entries: list[tuple[Any, str, str]] = [(plugin.object, plugin.key, plugin.origin) for plugin in plugins.loaded]
        for path, (row, component) in components.items():
            kind = row.component.kind
            if kind in silent:
                continue
            entries.append((component, path, f"{row.selector} of {row.plugin.name}"))
            if kind == "observers" and not getattr(component, "critical", True):
                self._expendable.add(path)

        # pluggy calls the last registered first.
        for thing, name, origin in reversed(entries):
            register_hooks(self._manager, thing, name, origin)

    def list_implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Return the implementations of a hook, in call order."""
        implementations: list[pluggy.HookImpl] = getattr(self._manager.hook, hook).get_hookimpls()
        return list(reversed(implementations))

    def call(self, hook: str, **arguments: Any) -> None:
        """Call all implementations of a hook.

        Raises:
            TrainingError: An implementation failed; the message names it, the hook, and the place on the clock.
        """
        for implementation in self.list_implementations(hook):
            self._call_implementation(implementation, hook, arguments)

    def call_all(self, hook: str, **arguments: Any) -> list[Exception]:
        """Call all implementations of a hook, even after one has failed; return the exceptions."""
        failures: list[Exception] = []
        for implementation in self.list_implementations(hook):
            try:
                self._call_implementation(implementation, hook, arguments)
            except Exception as error:
                failures.append(error)
        return failures

    def call_one(self, name: str, hook: str, **arguments: Any) -> None:
        """Call the implementation of a plugin or component by its name; do nothing where it has none."""
        for implementation in self.list_implementations(hook):
            if implementation.plugin_name == name:
                self._call_implementation(implementation, hook, arguments)

    def ask(self, hook: str, **arguments: Any) -> Any:
        """Return the only answer to a question, or None where nobody answers.

        Raises:
            TrainingError: Two implementations answered; the message names both. Or one failed, as in `call`.
        """
        answers = []
        for implementation in self.list_implementations(hook):
            answer = self._call_implementation(implementation, hook, arguments)
            if answer is not None:
                answers.append((implementation.plugin_name, answer))

        # Two answers would make the result depend on the order of plugins.
        if not answers:
            return None
        if len(answers) > 1:
            named = " and ".join(f"{name} ({answer})" for name, answer in answers)
            raise TrainingError(f"{hook} has two answers, from {named}; at most one may answer")
        return answers[0][1]

    def collect(self, hook: str, **arguments: Any) -> dict[str, Any]:
        """Call all implementations of a hook; return their results by name."""
        results = {}
        for implementation in self.list_implementations(hook):
            results[implementation.plugin_name] = self._call_implementation(implementation, hook, arguments)
        # An observer that failed in this very call is switched off: it has no result.
        return {name: result for name, result in results.items() if self._manager.has_plugin(name)}

    def _call_implementation(self, implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, Any]) -> Any:
        try:
            return _call_with_wanted(implementation, arguments)
        except (TrainingError, Interrupted):
            raise
        except Exception as error:
            name = implementation.plugin_name
            is_expendable = name in self._expendable
            # Wrong input has a message of its own, which needs no hook's name in front.
            if isinstance(error, UserError) and (not is_expendable or hook == "before_run"):
                raise
            failure = f"{name} failed in its hook {hook}{_describe_place(arguments)}: {type(error).__name__}: {error}"
            if not is_expendable:
                raise TrainingError(failure) from error
            self._switch_off(name, failure, error, arguments.get("run"))
            return None

    def _switch_off(self, name: str, failure: str, error: Exception, run: Any) -> None:
        """Take a failed observer out of all hooks, after its `on_error` has released its resources.

        Args:
            name: The observer's name.
            failure: The beginning of the warning: which hook failed, and how.
            error: The exception that the observer raised.
            run: The run that was passed to its hook, or None.
        """
        # A second failure would only hide the first one.
        for implementation in self.list_implementations("on_error"):
            if implementation.plugin_name == name:
                with suppress(Exception):
                    _call_with_wanted(implementation, {"run": run, "error": error})
        self._manager.unregister(name=name)

        warning = f"{failure}. It is switched off; the run continues"
        if run is None:
            warnings.warn(warning, stacklevel=2)
        else:
            run.files.warn(warning)


def _call_with_wanted(implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
    """Call an implementation with those of the hook's arguments that it takes."""
    names = (*implementation.argnames, *implementation.kwargnames)
    wanted = {name: arguments[name] for name in names if name in arguments}
    return implementation.function(**wanted)


def _describe_place(arguments: Mapping[str, Any]) -> str:
    """Return the place of a run on the clock, as far as a hook's arguments tell it, for the end of a phrase."""
    state = arguments.get("state")
    if state is not None:
        return f" (stage {state.stage.size}, images {state.images})"
    place = ", ".join(f"{name} {arguments[name]}" for name in ("stage", "images", "path") if name in arguments)
    return f" ({place})" if place else ""


def list_implementing_classes(hooks: Hooks, hook: str) -> dict[str, str]:
    """Return the class names of all that implement a hook, by their names; `a module` for a plugin module."""
    classes = {}
    for implementation in hooks.list_implementations(hook):
        owner = getattr(implementation.function, "__self__", None)
        if owner is None:
            classes[implementation.plugin_name] = "a module"
        else:
            classes[implementation.plugin_name] = type(owner).__qualname__
    return classes
