"""Call the hooks of a run, and name the implementation whose hook failed."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pluggy

from pggan_kit.errors import ConfigError, Interrupted, PluginError, SettingError, TrainingError, UserError, read_message
from pggan_kit.plugin_host.loading import Plugins, Row
from pggan_kit.plugin_host.manager import make_manager, register_hooks
from pggan_kit.system.plain_data import PLAIN_DATA, describe_foreign_value

REPORT_FACTOR = 10
"""Factor between the numbers of failures of one observer that are reported: the 1st, the 10th, the 100th."""

YES_NO_QUESTIONS = ("should_advance", "should_end")
"""Questions that are answered with True, False or None."""

TAG = re.compile(r"[^/\s]+(/[^/\s]+)+")
"""Form of a number's name: groups and a name, with slashes between them."""


@dataclass
class _Expendable:
    """What is known of an observer that cannot end a run.

    Attributes:
        failures: Number of failures so far.
        last_failure: Description of the last one.
        failed_hooks: Hooks that have failed since the last tick, and are not called until the next one.
        is_prepared: Whether its `before_run` has not failed.
    """

    failures: int = 0
    last_failure: str = ""
    failed_hooks: set[str] = field(default_factory=set)
    is_prepared: bool = True


class Hooks:
    """The hooks of a run: those of all plugins, and those of all components that the experiment chose.

    An observer with `critical = False` cannot end a run: where one of its hooks fails, this hook is tried again from
    the next tick on; where it is `before_run`, no other is called before that. The first failure is a warning, the
    others are counted. A `UserError` before the first step, in `before_run` or about what `save_state` returns, still
    ends the run.

    Args:
        plugins: The loaded plugins, whose hooks are called first.
        components: The components by their path in the experiment (`train.loss.penalties.0`), in config order.
        silent: Kinds whose components are not called on this rank.

    Attributes:
        components: See above.
        observer_seconds: Seconds that the hooks of observers have taken so far, by the name of their class.

    Raises:
        PluginError: See `register_hooks`.
    """

    def __init__(self, plugins: Plugins, components: Mapping[str, tuple[Row, Any]], silent: Iterable[str] = ()) -> None:
        self.components = components
        self._manager = make_manager()
        self._expendable: dict[str, _Expendable] = {}
        self._has_trained = False
        self.observer_seconds: dict[str, float] = {}
        self._observers: dict[str, str] = {}
        entries: list[tuple[Any, str, str]] = [(plugin.object, plugin.key, plugin.origin) for plugin in plugins.loaded]
        for path, (row, component) in components.items():
            kind = row.component.kind
            if kind in silent:
                continue
            entries.append((component, path, f"{row.selector} of {row.plugin.name}"))
            if kind == "observers":
                self._observers[path] = type(component).__name__
                if not getattr(component, "critical", True):
                    self._expendable[path] = _Expendable()

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
        if hook == "after_step":
            self._has_trained = True
        elif hook == "after_tick":
            self._wake_observers(arguments)
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
            PluginError: One of `YES_NO_QUESTIONS` has another answer; the message names the implementation.
        """
        require_valid = None
        if hook in YES_NO_QUESTIONS:
            require_valid = _require_yes_or_no

        answers = []
        for implementation in self.list_implementations(hook):
            answer = self._call_implementation(implementation, hook, arguments, require_valid)
            if answer is not None:
                answers.append((implementation.plugin_name, answer))

        # Two answers would make the result depend on the order of plugins.
        if not answers:
            return None
        if len(answers) > 1:
            named = " and ".join(f"{name} ({answer})" for name, answer in answers)
            raise TrainingError(f"{hook} has two answers, from {named}; at most one may answer")
        return answers[0][1]

    def measure_tick(self, stats: Mapping[str, float], **arguments: Any) -> dict[str, float]:
        """Return the numbers of all implementations of `measure_tick`, by tag.

        Args:
            stats: The numbers that the tick has already.
            arguments: The arguments of the hook.

        Raises:
            PluginError: A result is no dict of numbers by tag, or has a tag that is taken; the message names its owner.
        """
        numbers: dict[str, float] = {}
        owners = dict.fromkeys(stats, "the core")
        for implementation in self.list_implementations("measure_tick"):
            name = implementation.plugin_name
            result = self._call_implementation(implementation, "measure_tick", arguments, _require_numbers)
            # An observer that failed in this very call has no result.
            if result is None:
                continue
            for tag, number in result.items():
                if tag in owners:
                    taken = f"{tag!r}, which is a number of {owners[tag]}"
                    raise PluginError(f"{name}: measure_tick() returns {taken}: choose another tag")
                owners[tag] = name
                numbers[tag] = number
        return numbers

    def collect(self, hook: str, **arguments: Any) -> dict[str, Any]:
        """Call all implementations of a hook that returns state for a checkpoint; return their results by name.

        Raises:
            PluginError: A result is something that no checkpoint gives back; the message names its owner and its key.
        """
        results = {}
        for implementation in self.list_implementations(hook):
            result = self._call_implementation(implementation, hook, arguments, _require_state)
            # An observer that failed in this very call has no result.
            if result is not None:
                results[implementation.plugin_name] = result
        return results

    def list_repeated_failures(self) -> list[str]:
        """Return a sentence for each observer that has failed more than once: not all its failures were reported."""
        return [
            f"{name} failed {observer.failures} times, at last: {observer.last_failure}"
            for name, observer in self._expendable.items()
            if observer.failures > 1
        ]

    def _call_implementation(
        self,
        implementation: pluggy.HookImpl,
        hook: str,
        arguments: Mapping[str, Any],
        require_valid: Callable[[Any, str, str], None] | None = None,
    ) -> Any:
        """Call an implementation; return None for an observer that fails without ending the run, or has just failed.

        Args:
            implementation: The implementation.
            hook: Name of the hook.
            arguments: Arguments of the hook.
            require_valid: Check of the result, which is given the result, the implementation's name and the hook.
        """
        name = implementation.plugin_name
        observer = self._expendable.get(name)
        if observer is not None and (hook in observer.failed_hooks or not observer.is_prepared):
            return None

        try:
            if name in self._observers:
                result = self._time_observer(implementation, arguments)
            else:
                result = _call_with_wanted(implementation, arguments)
            if require_valid is not None:
                require_valid(result, name, hook)
            return result
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # a hook that exits must not look like the end of the run
            is_early = hook in ("before_run", "save_state") and not self._has_trained
            # Wrong input has a message of its own, which needs no hook's name in front.
            if isinstance(error, UserError) and (observer is None or is_early):
                raise
            if observer is None and isinstance(error, TrainingError):
                raise
            # A setting that does not fit the run, such as one without a value for a stage.
            if observer is None and isinstance(error, SettingError) and hook == "before_run":
                raise ConfigError(f"{name}: {error}") from error
            reason = f"{type(error).__name__}: {read_message(error)}"
            failure = f"{name} failed in its hook {hook}{_describe_place(arguments)}: {reason}"
            if observer is None:
                raise TrainingError(failure) from error
            self._note_failure(observer, hook, failure, arguments.get("run"))
            return None

    def _time_observer(self, implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
        """Call an observer's hook, and count its time."""
        name = self._observers[implementation.plugin_name]
        began = time.perf_counter()
        try:
            return _call_with_wanted(implementation, arguments)
        finally:
            self.observer_seconds[name] = self.observer_seconds.get(name, 0.0) + time.perf_counter() - began

    def _note_failure(self, observer: _Expendable, hook: str, failure: str, run: Any) -> None:
        """Let a hook of an observer rest until the next tick; report the first failure, the 10th, the 100th, ..."""
        observer.failed_hooks.add(hook)
        observer.failures += 1
        observer.last_failure = failure
        if hook == "before_run":
            observer.is_prepared = False
        if not _is_power(observer.failures, REPORT_FACTOR):
            return

        # Repeated failures are said at their first, tenth, hundredth time and so on.
        count = ""
        if observer.failures > 1:
            count = f" (failure {observer.failures})"
        consequence = "It is tried again at the next tick; the run continues"
        if hook in ("after_run", "on_error"):
            consequence = "The run itself is not affected"
        warning = f"{failure}{count}. {consequence}"
        if run is None:
            warnings.warn(warning, stacklevel=2)
        else:
            run.files.warn(warning)

    def _wake_observers(self, arguments: Mapping[str, Any]) -> None:
        """Let hooks that have failed be called again; an observer whose `before_run` failed begins with it."""
        for name, observer in self._expendable.items():
            observer.failed_hooks.clear()
            if not observer.is_prepared:
                observer.is_prepared = True
                self.call_one(name, "before_run", **arguments)


def _require_state(value: Any, name: str, hook: str) -> None:
    """Check that what a hook returns for a checkpoint can be read back from it.

    Raises:
        PluginError: It cannot; the message names the owner and the key.
    """
    phrase = describe_foreign_value(value, f"{hook}()")
    if phrase is None and not isinstance(value, dict):
        phrase = f"{hook}() is a {type(value).__name__} and not a dict"
    if phrase is not None:
        raise PluginError(
            f"{name}: {phrase}, which cannot be read back from a checkpoint: return a dict of {PLAIN_DATA} (of others, "
            "for example, float(x), x.tolist() or str(path))"
        )


def _require_yes_or_no(value: Any, name: str, hook: str) -> None:
    """Check that the answer to a question is True, False or None.

    Raises:
        PluginError: It is not, as "no", which would count as yes; the message names its owner.
    """
    if value is None or isinstance(value, (bool, np.bool_)):
        return
    described = repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
    raise PluginError(f"{name}: {hook}() returns {described}: return True, False, or None for no opinion")


def describe_wrong_tag(tag: object) -> str | None:
    """Return the tag of a number and what is wrong with it, as the end of a sentence; None where nothing is."""
    if isinstance(tag, str) and TAG.fullmatch(tag):
        return None
    return f"the tag {tag!r}, which is not of the form Group/name"


def _require_numbers(value: Any, name: str, hook: str) -> None:
    """Check that what a hook returns is a dict of plain numbers by tag.

    Raises:
        PluginError: It is not; the message names the owner and the tag.
    """
    # What is wrong, of the first entry that is.
    phrase = None
    if not isinstance(value, dict):
        phrase = f"is a {type(value).__name__} and not a dict"
    else:
        for tag, number in value.items():
            wrong_tag = describe_wrong_tag(tag)
            if wrong_tag is not None:
                phrase = f"has {wrong_tag}"
            elif type(number) not in (int, float):
                phrase = f"has a {type(number).__name__} under {tag!r}"
            if phrase is not None:
                break
    if phrase is not None:
        raise PluginError(
            f"{name}: what {hook}() returns {phrase}: return a dict of plain numbers, such as "
            "{'Mine/number': float(x)}"
        )


def _is_power(number: int, base: int) -> bool:
    """Return whether a number is 1, or a power of the base."""
    while number % base == 0:
        number //= base
    return number == 1


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
    places = []
    for name in ("stage", "images", "path"):
        if name in arguments:
            value = arguments[name]
            # A stage's own text lists all its fields.
            places.append(f"{name} {getattr(value, 'size', value)}")
    return f" ({', '.join(places)})" if places else ""


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
