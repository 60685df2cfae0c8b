"""Each hook is called at its documented moment with its documented arguments, also after a resume; and errors."""

import inspect
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from helpers.paths import STUB_PLUGIN
from helpers.recording import Recorder, expected, expected_alphas
from tensorboard.backend.event_processing import event_accumulator

import pggan_kit
from pggan_kit import Component, hookimpl, hookspecs, load_generator
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, PluginError, TrainingError
from pggan_kit.plugin_host.contracts import HOOKS
from pggan_kit.runs.checkpoints import Checkpoints

SIZES = (4, 8, 16)
CASES = {
    "plain": (8, 8, 4, 8),
    "ticks within phases": (8, 8, 4, 4),
    "few ticks": (8, 8, 4, 1000),
    "ticks before the first": (8, 20, 4, 64),
    "budgets that no batch divides": (8, 7, 3, 5),
    "no fade": (0, 8, 4, 8),
    "nothing but fades": (8, 0, 4, 8),
    "batches larger than phases": (3, 2, 8, 8),
}


def write_schedule(fade: int, stable: int, batch: int, tick: int) -> list[str]:
    return [
        f"schedule.fade_images = {fade}",
        f"schedule.stable_images = {stable}",
        f"schedule.batch_size = {batch}",
        f"train.tick = {tick}",
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_whole_run_calls_its_hooks_in_the_documented_order(case: str, train: Callable[..., Any]) -> None:
    recorder = Recorder()
    train(*write_schedule(*CASES[case]), plugins=(recorder,))
    assert recorder.events == list(expected(SIZES, *CASES[case]))
    assert not recorder.resumed and not any(recorder.continued)


def test_a_hard_switch_calls_no_hook_of_a_fade(train: Callable[..., Any]) -> None:
    recorder = Recorder()
    train("train.switch = @switches.Hard()", plugins=(recorder,))
    assert recorder.events == list(expected(SIZES, 8, 8, 4, 8, soft=False))
    assert not {"before_fade", "after_fade"} & recorder.calls.keys()


def test_alpha_is_asked_for_each_path_before_each_step_of_a_fade(train: Callable[..., Any]) -> None:
    recorder = Recorder()
    train(*write_schedule(12, 8, 4, 8), plugins=(recorder,))
    assert recorder.alphas == expected_alphas(SIZES, 12, 8, 4)
    recorder = Recorder()
    train(*write_schedule(12, 8, 4, 8), "train.fade_reals = False", plugins=(recorder,))
    assert recorder.alphas == [a for a in expected_alphas(SIZES, 12, 8, 4) if a[-1] != "reals"]


def test_every_hook_has_documentation_for_each_of_its_arguments() -> None:
    for hook, signature in HOOKS.items():
        text = inspect.getdoc(getattr(hookspecs, hook)) or ""
        assert len(text.splitlines()[0]) > 20, f"{hook} has no documentation"
        documented = text.partition("Args:")[2].partition("Returns:")[0]
        names = {name for row in re.findall(r"^    ([\w, ]+):", documented, re.MULTILINE) for name in row.split(", ")}
        assert names == set(signature.parameters), hook
        if signature.return_annotation not in ("None", None):
            assert "Returns:" in text or hook in ("components", "importers"), hook


def test_every_hook_is_called_by_a_run_that_fails_and_is_resumed(train: Callable[..., Any]) -> None:
    recorder = Recorder()
    with pytest.raises(TrainingError):
        train(plugins=(recorder, Stop("after_fade", 16)), run_dir="run")
    resume("run", plugins=[STUB, recorder])
    # Called in tests/training/test_compiler.py and in tests/plugins/importers/.
    called = set(recorder.calls) | {"before_compile", "importers"}
    assert called == set(HOOKS), "a hook that no run calls, or that this suite's Recorder does not know"


STUB = str(STUB_PLUGIN)


class Stop:
    """A plugin that stops a run in a hook at a clock: by a signal, which saves first, or by an error."""

    def __init__(self, hook: str, images: int, by_signal: bool = False) -> None:
        self.at = (hook, images)
        self.by_signal = by_signal

    def _stop_if_due(self, hook: str, state: Any) -> None:
        if self.at == (hook, state.images):
            if not self.by_signal:
                raise RuntimeError("stopped here")
            os.kill(os.getpid(), signal.SIGTERM)

    @hookimpl
    def after_step(self, state: Any) -> None:
        self._stop_if_due("after_step", state)

    @hookimpl
    def after_fade(self, state: Any) -> None:
        self._stop_if_due("after_fade", state)

    @hookimpl
    def after_stage(self, state: Any) -> None:
        self._stop_if_due("after_stage", state)


RESUMED = {
    "mid-fade": (
        Stop("after_step", 12, by_signal=True),
        12,
        [("before_stage", "8x8", 12), ("before_fade", "8x8", 12)],
    ),
    "mid-stage": (
        Stop("after_step", 20, by_signal=True),
        20,
        [("before_stage", "8x8", 20)],
    ),
    "at a fade's end": (
        Stop("after_fade", 16),
        16,
        [("before_stage", "8x8", 16), ("before_fade", "8x8", 16)],
    ),
    "at a stage's end": (Stop("after_stage", 24), 24, [("before_stage", "8x8", 24)]),
    "in the last fade": (
        Stop("after_step", 28, by_signal=True),
        28,
        [("before_stage", "16x16", 28), ("before_fade", "16x16", 28)],
    ),
    "at the end of all": (Stop("after_stage", 40), 40, [("before_stage", "16x16", 40)]),
}


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of the tiny experiment from its beginning to its end."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.gin").write_text(TINY)
    return pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[STUB])


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_continues_as_if_it_had_never_stopped(
    case: str, train: Callable[..., Any], never_stopped: Any
) -> None:
    stop, clock, opening = RESUMED[case]
    with pytest.raises(Interrupted if stop.by_signal else TrainingError) as caught:
        train(plugins=(Recorder(), stop), run_dir="stopped")
    if stop.by_signal:
        assert caught.value.signal == signal.SIGTERM
    recorder = Recorder()
    resumed = resume("stopped", plugins=[STUB, recorder])
    assert recorder.resumed and recorder.loaded == {"at": clock, "nested": [(1, "two")]}

    whole = list(expected(SIZES, 8, 8, 4, 8))
    # The last event at the stop's clock that a checkpoint may follow: those after it are still to come.
    last_hooks = ("after_step", "should_advance", "save_state")
    done = max(index for index, event in enumerate(whole) if event[-1] == clock and event[0] in last_hooks)
    assert recorder.events == [("before_run",), *opening, ("load_state", clock), *whole[done + 1 :]]
    assert recorder.continued == [True, *[False] * (len(recorder.continued) - 1)]

    for net in ("generator", "discriminator", "ema"):
        weights = getattr(resumed.state, net).state_dict()
        for name, wanted in getattr(never_stopped.state, net).state_dict().items():
            assert torch.equal(weights[name], wanted), f"{net}.{name}"


class Answer:
    """A switch that answers the questions by functions."""

    def __init__(self, alpha: Any = None, advance: Any = None) -> None:
        self.alpha = alpha
        self.advance = advance

    @hookimpl
    def fade_alpha(self, stage: Any, progress: float, images: int, path: str) -> Any:
        return self.alpha(stage, progress, images, path) if self.alpha else None

    @hookimpl
    def should_advance(self, stage: Any, state: Any) -> Any:
        return self.advance(stage, state) if self.advance else None


def make_row(name: str, component: Any, kind: str = "switches") -> Component:
    return Component(kind, name, lambda: component)


def test_two_answers_to_a_question_are_an_error_that_names_both(train: Callable[..., Any]) -> None:
    with pytest.raises(
        TrainingError, match=r"fade_alpha has two answers, from Answer \(0\.5\) and train\.switch \(0\.0\)"
    ):
        train(plugins=(Answer(alpha=lambda *_: 0.5),))
    twice = ["train.switch = @switches.A()", "train.observers = [@observers.B()]"]
    components = (
        make_row("A", Answer(advance=lambda *_: False)),
        make_row("B", Answer(advance=lambda *_: True), "observers"),
    )
    with pytest.raises(
        TrainingError,
        match=r"should_advance has two answers, from train\.switch \(False\) and train\.observers\.0 \(True\)",
    ):
        train(*twice, plugins=components)


class SaysDone:
    """A plugin that answers `should_end`."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def should_end(self) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "described"),
    [("no", "'no'"), (0, "0"), (1.0, r"1\.0"), (torch.tensor(False), "a Tensor"), ([], "a list")],
)
def test_an_answer_that_is_neither_yes_nor_no_is_refused(
    answer: Any, described: str, train: Callable[..., Any]
) -> None:
    says = rf"returns {described}: return True, False, or None for no opinion$"
    with pytest.raises(PluginError, match=rf"^train\.switch: should_advance\(\) {says}"):
        train("train.switch = @switches.A()", plugins=(make_row("A", Answer(advance=lambda *_: answer)),))
    with pytest.raises(PluginError, match=rf"^SaysDone: should_end\(\) {says}"):
        train(plugins=(SaysDone(answer),))


def test_answers_may_be_truth_values_of_numpy(train: Callable[..., Any]) -> None:
    early = Answer(advance=lambda stage, state: np.bool_(state.images - state.starts[-1] >= 4))
    run = train("train.switch = @switches.A()", plugins=(make_row("A", early), SaysDone(np.bool_(False))))
    assert run.state.starts == [0, 4, 8]
    assert run.state.images == 40


def test_where_nobody_answers_alpha_is_the_progress(train: Callable[..., Any]) -> None:
    alphas: list[float] = []

    class Watch:
        @hookimpl
        def after_step(self, run: Any) -> None:
            assert set(run.alpha) == {"generator", "discriminator", "reals"}
            alphas.append(run.alpha["generator"])

    train("train.switch = @switches.A()", plugins=(make_row("A", Answer()), Watch()))
    assert alphas == [1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]


def test_a_data_driven_switch_hands_what_it_saves_to_the_last_stage(train: Callable[..., Any]) -> None:
    early = Answer(advance=lambda stage, state: state.images - state.starts[-1] >= 4)
    run = train("train.switch = @switches.A()", plugins=(make_row("A", early),))
    assert run.state.starts == [0, 4, 8]
    assert run.state.images == run.schedule.total == 40


def test_a_data_driven_switch_that_never_advances_ends_with_the_total(train: Callable[..., Any]) -> None:
    recorder = Recorder()
    never = Answer(advance=lambda *_: False)
    run = train("train.switch = @switches.A()", plugins=(make_row("A", never), recorder))
    assert (run.state.starts, run.state.images) == ([0], 40)
    assert recorder.events[-2:] == [("after_stage", "4x4", 40), ("after_run",)]


@pytest.mark.parametrize("wrong", [1.5, -0.1, float("nan")])
def test_alpha_outside_its_range_is_an_error(wrong: float, train: Callable[..., Any]) -> None:
    switch = Answer(alpha=lambda stage, progress, images, path: wrong if images == 12 else progress)
    with pytest.raises(TrainingError, match=rf"alpha {wrong} for the generator at images 12; it lies in \[0, 1\]"):
        train("train.switch = @switches.A()", plugins=(make_row("A", switch),))


def test_alpha_below_1_after_a_start_at_1_is_an_error(train: Callable[..., Any]) -> None:
    switch = Answer(alpha=lambda stage, progress, images, path: 1.0 if progress == 0 else 0.5)
    with pytest.raises(
        TrainingError, match=r"alpha 0\.5 for the generator at images 12, after 1 at the start of stage 8x8"
    ):
        train("train.switch = @switches.A()", plugins=(make_row("A", switch),))


def test_one_network_may_fade_while_the_other_switches_at_once(train: Callable[..., Any]) -> None:
    recorder = Recorder()
    half = Answer(alpha=lambda stage, progress, images, path: 1.0 if path == "discriminator" else progress)
    train("train.switch = @switches.A()", plugins=(make_row("A", half), recorder))
    assert recorder.events == list(expected(SIZES, 8, 8, 4, 8))


def test_an_error_in_a_hook_names_plugin_hook_stage_and_clock_and_is_told(train: Callable[..., Any]) -> None:
    recorder = Recorder()
    text = r"^Stop failed in its hook after_step \(stage 8x8, images 20\): RuntimeError: stopped here$"
    with pytest.raises(TrainingError, match=text) as caught:
        train(plugins=(recorder, Stop("after_step", 20)))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert recorder.events[-2:] == [("after_step", "8x8", 20), ("on_error", "TrainingError")]


def test_an_error_in_a_question_names_path_and_clock(train: Callable[..., Any]) -> None:
    broken = Answer(alpha=lambda stage, progress, images, path: 1 / 0)
    text = r"train\.switch failed in its hook fade_alpha \(stage 8x8, images 8, path generator\): ZeroDivisionError"
    with pytest.raises(TrainingError, match=text):
        train("train.switch = @switches.A()", plugins=(make_row("A", broken),))


class Counter:
    """An observer that counts steps, keeps the count through a resume, and holds other components."""

    def __init__(self, start: int = 0, inner: Any = None) -> None:
        self.inner = inner
        self.steps = start
        self.loaded: int | None = None

    @hookimpl
    def after_step(self) -> None:
        self.steps += 1

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "as tensor": torch.tensor(self.steps)}

    @hookimpl
    def load_state(self, saved: Any) -> None:
        assert saved["as tensor"].item() == saved["steps"]
        self.steps = self.loaded = saved["steps"]


def test_nested_components_have_hooks_and_each_gets_its_own_state_back(train: Callable[..., Any]) -> None:
    nested = [
        "train.observers = [@observers.Counter(), @a/observers.Counter()]",
        "a/observers.Counter.inner = [@b/observers.Counter()]",
        "a/observers.Counter.start = 100",
        "b/observers.Counter.start = 200",
    ]
    counter = Component("observers", "Counter", Counter)
    with pytest.raises(Interrupted):
        train(*nested, plugins=(counter, Stop("after_step", 12, by_signal=True)), run_dir="run")
    saved = Checkpoints(Path("run/checkpoints")).load_last().components
    assert {name for name in saved if name.startswith("train.")} == {
        "train.observers.0",
        "train.observers.1",
        "train.observers.1.inner.0",
    }
    first, second = resume("run", plugins=[STUB, counter]).experiment.observers
    counters = (first, second, second.inner[0])
    assert [counter.loaded for counter in counters] == [3, 103, 203]
    assert [counter.steps for counter in counters] == [10, 110, 210]


class Measured:
    """A plugin whose `measure_tick` returns what a function says."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer

    @hookimpl
    def measure_tick(self, state: Any) -> Any:
        return self.answer(state)


def test_numbers_of_a_plugin_are_logged_like_those_of_the_core(train: Callable[..., Any]) -> None:
    run = train(
        "train.observers = [@observers.TensorBoard()]", plugins=(Measured(lambda s: {"Mine/half": s.images / 2}),)
    )
    rows = [json.loads(line) for line in (run.directory / "stats.jsonl").read_text().splitlines()]
    assert [row["Mine/half"] for row in rows] == [row["images"] / 2 for row in rows]
    events = event_accumulator.EventAccumulator(str(run.directory))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("Mine/half")] == [
        (row["images"], row["images"] / 2) for row in rows
    ]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (3.0, "is a float and not a dict"),
        ({"plain": 1.0}, "has the tag 'plain', which is not of the form Group/name"),
        ({1: 1.0}, "has the tag 1, which"),
        ({"Mine/x": torch.tensor(1.0)}, "has a Tensor under 'Mine/x'"),
        ({"Mine/x": True}, "has a bool under 'Mine/x'"),
        ({"Progress/alpha": 1.0}, "'Progress/alpha', which is a number of the core"),
    ],
)
def test_numbers_of_a_plugin_that_are_none(answer: Any, complaint: str, train: Callable[..., Any]) -> None:
    with pytest.raises(PluginError, match=rf"^Measured: .*{complaint}"):
        train(plugins=(Measured(lambda _: answer),))


def test_two_plugins_may_not_log_one_tag(train: Callable[..., Any]) -> None:
    class Other(Measured):
        pass

    both = (Measured(lambda _: {"Mine/x": 1.0}), Other(lambda _: {"Mine/x": 2.0}))
    with pytest.raises(PluginError, match=r"Other: .*'Mine/x', which is a number of Measured: choose another tag"):
        train(plugins=both)


CHANGES: list[Callable[[Any], Any]] = [
    lambda given: given.__setitem__("Mine/x", 1.0),
    lambda given: given.update({"Mine/x": 1.0}),
    lambda given: given.setdefault("Mine/x", 1.0),
    lambda given: given.pop("Loss/x", None),
    lambda given: given.clear(),
    lambda given: given.__ior__({"Mine/x": 1.0}),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_hook_is_given_cannot_be_changed(change: Callable[[Any], Any], train: Callable[..., Any]) -> None:
    class Writer:
        @hookimpl
        def after_step(self, losses: Any) -> None:
            with pytest.raises(TypeError, match="return numbers of your own from the hook measure_tick"):
                change(losses)

        @hookimpl
        def after_tick(self, stats: Any) -> None:
            change(stats)

    with pytest.raises(TrainingError, match=r"Writer failed in its hook after_tick .* from the hook measure_tick"):
        train(plugins=(Writer(),))


class EndAt:
    """A plugin that ends a run at the first tick from a clock on."""

    def __init__(self, images: int) -> None:
        self.images = images

    @hookimpl
    def should_end(self, state: Any) -> bool:
        return bool(state.images >= self.images)


@pytest.mark.parametrize(("images", "fading"), [(12, True), (20, False), (8, False)])
def test_a_run_that_a_plugin_ends_is_complete(images: int, fading: bool, train: Callable[..., Any]) -> None:
    """Within a fade, too: the run then has the half-faded generator that its checkpoint has."""
    recorder = Recorder()
    recorder.after_run = None  # type: ignore[method-assign, assignment]  # it expects the whole budget
    run = train("train.tick = 4", plugins=(recorder, EndAt(images)), run_dir="run")
    assert run.state.images == images and run.state.ended
    said = f"a plugin ended the run (should_end) at images {images} of {run.schedule.total}\n"
    assert said in (run.directory / "log.txt").read_text()
    assert ("before_fade" in recorder.calls) == (images > 8)
    size = "4x4" if images == 8 else "8x8"
    closing: list[Any] = [("should_end", size, images), ("save_state", images)]
    assert recorder.events[-len(closing) - 1 :] == [*closing, ("after_stage", size, images)]
    loaded = load_generator("run", plugins=[STUB])
    assert loaded.images == images
    assert run.state.fading == fading
    latents = run.fixed_latents(4)
    assert torch.equal(run.generator()(latents), loaded(latents))

    # Nothing is left to do, and the checkpoint is one that is kept.
    said: list[str] = []
    again = resume("run", plugins=[STUB], say=said.append)
    assert again.state.images == images
    assert any("was complete already" in line for line in said)
    assert again.checkpoints.load_last().forever


def test_a_branch_of_a_run_that_was_ended_goes_on(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    train("train.tick = 4", plugins=(EndAt(12),), run_dir="run")
    branch = pggan_kit.train(tiny("train.tick = 4"), plugins=[STUB], run_dir="branch", start_from="run")
    assert branch.state.images == 40 and not branch.state.ended
