"""Test captured steps with graphs that are replayed on the CPU: equal to eager steps bit for bit, or not captured."""

from __future__ import annotations

import functools
import gc
import math
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STUB, TINY
from helpers.captured_runs import CASES, assert_same_runs, bind_lines, read_log
from helpers.gin_text import bind_again
from torch import Tensor

import pggan_kit
from pggan_kit import Component, hookimpl
from pggan_kit.api.train import resume
from pggan_kit.data.device_feed import ResidentFeed
from pggan_kit.errors import DivergedError, Interrupted
from pggan_kit.runs import learning_rate_tensors
from pggan_kit.runs.state import TrainState
from pggan_kit.testing.replayed_graphs import ReplayedGraph, ReplayRecorder
from pggan_kit.training import capture, compiler, host_work, loop, non_finite
from pggan_kit.training.host_work import (
    EagerHostWork,
    InputBlock,
    ReplayedHostWork,
    UnfitForCaptureError,
    copy_to_device,
)
from pggan_plugins.losses import Hinge
from pggan_plugins.updates import Alternating

FADING = [
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = {4: 0, 8: 24}",
    "schedule.stable_images = {4: 24, 8: 24}",
    "train.tick = 20",
]
"""Two stages and a fade of 6 steps each: the graphs of a region are trusted from its fifth step on."""

TWO_REGIONS = [
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 0",
    "schedule.stable_images = 20",
    "train.tick = 20",
]
"""Two stages of 5 steps each: what fails in a region does so in its third or fourth step."""

ONE_REGION = [
    "schedule.sizes = (4,)",
    "schedule.fade_images = 0",
    "schedule.stable_images = 44",
    "train.tick = 20",
]
"""One stage of 11 steps: graphs are trusted from the fifth on, and those that are new after the sixth in the last."""

CHANGED_AT = 24
"""The clock after the sixth step, the second one that was replayed."""


def let_this_cpu_capture(patch: pytest.MonkeyPatch) -> ReplayRecorder:
    """Let this CPU be a device that captures, whose checks do not wait."""
    made = ReplayRecorder()

    def make_recorder(experiment: Any, device: Any) -> ReplayRecorder | None:
        return None if experiment.capture == "never" else made

    patch.setattr(loop, "make_recorder", make_recorder)
    patch.setattr(learning_rate_tensors, "uses_rate_tensors", lambda device: True)
    patch.setattr(non_finite, "checks_each_step", lambda device: False)
    return made


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> ReplayRecorder:
    return let_this_cpu_capture(monkeypatch)


@pytest.fixture(scope="module")
def eager_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an eager run of `TWO_REGIONS`, which is read and not changed."""
    folder = tmp_path_factory.mktemp("eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        let_this_cpu_capture(patch)
        Path("tiny.gin").write_text(bind_again(TINY, [*TWO_REGIONS, "train.capture = 'never'"]))
        pggan_kit.train("tiny.gin", run_dir="run", plugins=[str(STUB)])
    return folder / "run"


ALIKE = (
    "WGAN-GP",
    "a rate that moves",
    "path length",
    "resident",
    "bfloat16",
    "DiffAugment",
    "a filter for images",
)
"""Cases that others hold in most parts, or along with their own: terms that are due at times, resident data."""

ALONG = {"two critics": CASES["WGAN-GP"], "flipped": CASES["a rate that moves"]}
"""Lines of other cases that a case holds along with its own, in one pair of runs."""

TWO_KINDS = ["schedule.fade_images = {4: 0, 8: 40}", "schedule.stable_images = {4: 52, 8: 4}"]
"""A schedule for two kinds of step that take turns: 13 steps, a fade of 10, and one step after it."""

LONGER = {
    "lazy R1 whose weight moves": TWO_KINDS,
    "path length": TWO_KINDS,
    "two critics": ["schedule.fade_images = {4: 0, 8: 48}", "schedule.stable_images = 48"],
}
"""Schedules of cases that need more images: two kinds of step, or twice the reals a step."""


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE)) for name in CASES])
def test_a_captured_run_equals_an_eager_one(
    case: str, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grow and fade, with alpha, latents, rates and penalties that move from step to step."""
    if case in ("resident", "flipped"):
        monkeypatch.setattr(loop, "choose_feed", lambda source, device, limit: ResidentFeed(source, device))
    lines, base = bind_lines([*FADING, *CASES[case], *ALONG.get(case, []), *LONGER.get(case, [])])
    train(*lines, "train.capture = 'never'", run_dir="eager", base=base)
    assert recorder.replays == 0

    train(*lines, run_dir="captured", base=base)
    assert_same_runs("captured", "eager")
    assert "not captured" not in read_log("captured")
    assert read_log("captured").count("are captured") >= 3
    # Each of the three regions replays a step that is checked, and two that are not.
    assert recorder.replays >= 9
    assert recorder.forgotten >= 2


@pytest.mark.usefixtures("no_compiler_needed")
def test_compiled_passes_run_inside_captured_steps(
    train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of passes that were compiled are not those of graphs, so nothing is said of what compiling pays."""
    monkeypatch.setattr(compiler, "PAYS_FROM_STEPS", 6)
    long_fade = ["schedule.stable_images = {4: 0, 8: 4}", "train.compile = 'auto'"]
    log = compare_runs(train, *FADING, *long_fade)
    assert log.count("compiled the ") == 2
    assert "not captured" not in log
    assert recorder.replays > 0
    assert "pay for itself" not in log


def test_a_recording_that_cannot_end_is_abandoned(
    eager_run: Path, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA says of a recording that has become invalid no sooner than at its end."""
    abandoned: list[Any] = []

    def fail_to_end(graph: Any) -> None:
        raise RuntimeError("the recording was invalidated")

    def abandon(graph: Any) -> None:
        abandoned.append(graph)
        end(graph)

    end = ReplayedGraph.end
    monkeypatch.setattr(ReplayedGraph, "end", fail_to_end)
    monkeypatch.setattr(ReplayedGraph, "abandon", abandon)
    train(*TWO_REGIONS, run_dir="captured")
    assert_same_runs("captured", eager_run)
    assert read_log("captured").count("the recording was invalidated") == 2
    assert len(abandoned) == 2


def test_a_recording_that_cannot_begin_is_abandoned(
    eager_run: Path, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch has begun something by then, which is to be undone."""
    abandoned: list[Any] = []

    def fail_to_begin(graph: Any) -> None:
        raise RuntimeError("this memory is refused")

    def abandon(graph: Any) -> None:
        abandoned.append(graph)

    monkeypatch.setattr(ReplayedGraph, "begin", fail_to_begin)
    monkeypatch.setattr(ReplayedGraph, "abandon", abandon)
    train(*TWO_REGIONS, run_dir="captured")
    assert_same_runs("captured", eager_run)
    assert read_log("captured").count("this memory is refused") == 2
    assert len(abandoned) == 2


def test_after_a_failure_the_next_region_records_in_other_memory(
    eager_run: Path, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a good recording of each region be thrown away: it takes the memory with it that graphs share."""

    def refuse(work: ReplayedHostWork) -> None:
        raise UnfitForCaptureError("it does not draw the same each time")

    monkeypatch.setattr(ReplayedHostWork, "require_all_handed_out", refuse)
    train(*TWO_REGIONS, run_dir="captured")
    assert_same_runs("captured", eager_run)
    assert read_log("captured").count("it does not draw the same") == 2
    assert recorder.forgotten == 2


@pytest.mark.parametrize("number", range(1, 5))
def test_memory_that_lacks_for_the_check_makes_steps_eager(
    number: int, eager_run: Path, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let each of the copies fail that a step is checked by; the fourth is of the second step."""
    copy = capture.StateCopy
    made: list[Any] = []

    def copy_or_fail(state: TrainState) -> Any:
        made.append(None)
        if len(made) == number:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.60 GiB")
        return copy(state)

    monkeypatch.setattr(capture, "StateCopy", copy_or_fail)
    train(*TWO_REGIONS, run_dir="captured")
    assert_same_runs("captured", eager_run)
    assert read_log("captured").count("not captured") == 1
    assert read_log("captured").count("memory") == 1
    # The other region is.
    assert read_log("captured").count("are captured") == 1


class Own:
    """A plugin with one component of its own, which may also hear hooks of a run."""

    def __init__(self, kind: str, cls: type) -> None:
        self._row = Component(kind, "Own", cls)

    @hookimpl
    def components(self) -> list[Component]:
        return [self._row]


def compare_runs(train: Callable[..., Any], *lines: str, plugins: tuple[object, ...] = ()) -> str:
    """Train eagerly and captured, require the same end, and return the log of the second."""
    train(*lines, "train.capture = 'never'", run_dir="eager", plugins=plugins)
    train(*lines, run_dir="captured", plugins=plugins)
    assert_same_runs("captured", "eager")
    return read_log("captured")


OWN_LOSS = "train.loss = @losses.Own()"
OWN_UPDATE = "train.update = @updates.Own()"


class ScaledHinge(Hinge):
    """A loss with a plain number that somebody may change between steps."""

    scale: float

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        return {name: self.scale * value for name, value in super().generator(fake, real).items()}


class MovingHinge(ScaledHinge):
    """Its number changes after each step."""

    @hookimpl
    def after_step(self) -> None:
        self.scale *= 0.9


class TurnedHinge(ScaledHinge):
    """Its number changes once, when graphs are trusted already."""

    @hookimpl
    def after_step(self, state: Any) -> None:
        self.scale = 0.5 if state.images >= CHANGED_AT else 1.0


class CountingHinge(ScaledHinge):
    """Its number changes within a step."""

    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        self.scale *= 0.9
        return super().generator(fake, real)


class WaitingHinge(Hinge):
    """It asks for a value on the host."""

    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        float(fake.score.detach().sum())
        return super().generator(fake, real)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (MovingHinge, "loss.scale moves from step to step, and a step reads it"),
        (CountingHinge, "loss.scale changes within a step, and is no tensor"),
        (WaitingHinge, "is not permitted while a graph is recorded"),
    ],
)
def test_what_cannot_be_captured_runs_eagerly(
    loss: type, reason: str, train: Callable[..., Any], recorder: ReplayRecorder
) -> None:
    log = compare_runs(train, *TWO_REGIONS, OWN_LOSS, plugins=(Own("losses", loss),))
    assert log.count("not captured") == 2
    assert log.count(reason) == 2


def test_a_number_that_changes_later_makes_another_kind_of_step(
    train: Callable[..., Any], recorder: ReplayRecorder
) -> None:
    log = compare_runs(train, *ONE_REGION, OWN_LOSS, plugins=(Own("losses", TurnedHinge),))
    assert "not captured" not in log
    assert "captured (kind 2" in log


def test_updates_that_follow_a_curve_make_other_kinds_of_step(
    train: Callable[..., Any], recorder: ReplayRecorder
) -> None:
    """D has two updates in each step at first, and one later: the curve says so before each step."""
    log = compare_runs(
        train,
        *ONE_REGION,
        "updates.Alternating.n_critic = @curves.Steps()",
        "curves.Steps.values = {0: 2, 56: 1}",
        "losses.Hinge.penalties = [@penalties.R1()]",
        "penalties.R1.every = 2",
        "schedule.stable_images = 100",
    )
    assert "not captured" not in log
    assert "captured (kind 3" in log


class Deciding(Alternating):
    """The number of updates of D depends on the clock, by no setting."""

    def count_drawn_batches(self, position: Any) -> int:
        return 2 if position.images % 3 == 0 else 1


def test_steps_that_differ_are_not_captured(train: Callable[..., Any], recorder: ReplayRecorder) -> None:
    log = compare_runs(train, *ONE_REGION, OWN_UPDATE, plugins=(Own("updates", Deciding),))
    assert "they differ in their number of updates" in log


def test_a_step_that_draws_something_else_is_refused() -> None:
    eager = EagerHostWork(torch.device("cpu"))
    eager.bring(lambda: [torch.zeros(2)])
    work = ReplayedHostWork(eager.before, InputBlock(eager.brought, torch.device("cpu")), ReplayRecorder())
    with pytest.raises(UnfitForCaptureError, match="does not draw the same"):
        work.require_all_handed_out()
    work.bring(lambda: [torch.zeros(2)])
    work.require_all_handed_out()
    with pytest.raises(UnfitForCaptureError, match="does not draw the same"):
        work.bring(lambda: [torch.zeros(2)])


def test_too_many_kinds_of_step_are_not_captured(
    train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Betas are numbers in an optimizer's groups: each value is a kind."""
    monkeypatch.setattr(capture, "MOST_KINDS", 2)
    curve = ["optimizers.Adam.beta1 = @curves.Linear()", "curves.Linear.begin = 0.0", "curves.Linear.end = 0.9"]
    log = compare_runs(train, *TWO_REGIONS, *curve, "curves.Linear.end_images = 200")
    assert log.count("there are more than 2 kinds of them") == 2
    assert recorder.replays == 0


class Meddling:
    """Hooks that change what graphs work on, after they are trusted."""

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.images == 40:
            for group in state.optimizers["generator"].param_groups:
                group["lr"] = 1e-4
        if state.images == 20:
            for param in state.discriminator.parameters():
                param.data = param.data.clone()


def test_a_hook_may_change_rates_and_replace_weights(train: Callable[..., Any], recorder: ReplayRecorder) -> None:
    """Graphs of a GPU know weights by their place: others are others, and make another kind of step."""
    log = compare_runs(train, *ONE_REGION, plugins=(Meddling(),))
    assert "captured (kind 2" in log


@pytest.mark.parametrize("policy", ["stop", "skip", "rewind"])
def test_a_failure_is_found_at_the_tick(policy: str, train: Callable[..., Any], recorder: ReplayRecorder) -> None:
    """Let the loss of one step be NaN; captured or not, the run does the same about it."""
    lines = [*ONE_REGION, OWN_LOSS, f"train.non_finite = '{policy}'"]
    ends = []
    for setting in ("never", "auto"):
        plugin = Own("losses", PoisonedHinge)
        try:
            train(*lines, f"train.capture = '{setting}'", run_dir=setting, plugins=(plugin,))
            ends.append("ended")
        except DivergedError as error:
            ends.append(str(error))
    assert ends[0] == ends[1]
    assert ("non-finite" in ends[0]) == (policy == "stop")
    assert_same_runs("never", "auto")
    assert recorder.replays > 0


class PoisonedHinge(Hinge):
    """A loss that is NaN in one step."""

    def __init__(self) -> None:
        super().__init__()
        self.poison = torch.zeros(())

    def discriminator(self, real: Any, fake: Any) -> dict[str, Tensor]:
        return {name: value + self.poison for name, value in super().discriminator(real, fake).items()}

    @hookimpl
    def before_stage(self) -> None:
        self.poison.zero_()

    @hookimpl
    def after_step(self, state: Any) -> None:
        poisoned = state.images == CHANGED_AT and state.rewinds == 0 and state.dropped == 0
        self.poison.fill_(math.nan if poisoned else 0.0)


def test_a_resumed_run_equals_one_that_never_stopped(train: Callable[..., Any], recorder: ReplayRecorder) -> None:
    class Stop:
        @hookimpl
        def after_step(self, run: Any, state: Any) -> None:
            if state.images == 44 and not run.resumed:
                run.experiment.time_limit = 1e-9

    lines = [*FADING, *CASES["a rate that moves"]]
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(Stop(),))
    resume("run", plugins=[STUB])
    train(*lines, run_dir="whole")
    assert_same_runs("run", "whole")
    rates = [
        group["lr"]
        for group in torch.load(find_last("run"), weights_only=True)["optimizers"]["generator"]["param_groups"]
    ]
    assert all(isinstance(rate, float) for rate in rates)


@pytest.mark.parametrize("saved_on_gpu", [True, False])
def test_a_checkpoint_of_another_device_leaves_optimizers_as_they_were_built(
    saved_on_gpu: bool, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    capturable: list[bool] = []

    class Stop:
        @hookimpl
        def after_step(self, run: Any, state: Any) -> None:
            (group,) = state.optimizers["generator"].param_groups
            capturable.append(group["capturable"])
            if state.images == 12 and not run.resumed:
                run.experiment.time_limit = 1e-9

    monkeypatch.setattr(learning_rate_tensors, "uses_rate_tensors", lambda device: saved_on_gpu)
    with pytest.raises(Interrupted):
        train(*ONE_REGION, "schedule.stable_images = 20", run_dir="run", plugins=(Stop(),))
    assert capturable == [saved_on_gpu] * 3
    monkeypatch.setattr(learning_rate_tensors, "uses_rate_tensors", lambda device: not saved_on_gpu)
    resume("run", plugins=[STUB, Stop()])
    assert capturable[3] is not saved_on_gpu


class Drifting(Hinge):
    """A loss that is another one each time it is called, by a number that nobody sees."""

    def __init__(self) -> None:
        super().__init__()
        hidden = iter(range(10**6))
        self.count = lambda: next(hidden)

    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        return {name: (1 + 1e-6 * self.count()) * value for name, value in super().generator(fake, real).items()}


def test_steps_that_do_not_repeat_are_not_captured(train: Callable[..., Any], recorder: ReplayRecorder) -> None:
    train(*TWO_REGIONS, OWN_LOSS, run_dir="captured", plugins=(Own("losses", Drifting),))
    assert read_log("captured").count("differs from one eager step to the next") == 2


def find_last(run: str) -> Path:
    return max((Path(run) / "checkpoints").glob("*.pt"))


def test_graphs_are_forgotten_before_networks_grow_and_after_the_run(
    train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count what is alive as networks grow and after the end, without help from the collector."""
    alive: list[int] = []
    grow = TrainState.grow

    def count_and_grow(state: TrainState, bridged: Any) -> None:
        alive.append(sum(graph() is not None for graph in graphs))
        grow(state, bridged)

    monkeypatch.setattr(TrainState, "grow", count_and_grow)
    graphs: list[weakref.ref[Any]] = []
    loops: list[weakref.ref[Any]] = []
    make_graph = recorder.make_graph

    class NotedLoop(loop.Loop):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            loops.append(weakref.ref(self))

    monkeypatch.setattr(loop, "Loop", NotedLoop)

    def make_and_note() -> Any:
        graph = make_graph()
        recorder.graphs.clear()
        graphs.append(weakref.ref(graph))
        return graph

    recorder.make_graph = make_and_note  # type: ignore[method-assign]
    collects = gc.isenabled()
    gc.disable()
    try:
        train(*FADING)
        graphs_at_end = sum(graph() is not None for graph in graphs)
        loops_at_end = sum(each() is not None for each in loops)
    finally:
        if collects:
            gc.enable()
    assert graphs
    assert loops
    assert alive == [0]
    assert graphs_at_end == 0
    assert loops_at_end == 0
    assert recorder.forgotten == 3


class StubTensor:
    """A tensor in ordinary memory, which notes how it is copied."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def pin_memory(self) -> StubTensor:
        self.calls.append("pin_memory")
        return self

    def to(self, device: torch.device, non_blocking: bool) -> StubTensor:
        self.calls.append((device, non_blocking))
        return self


def test_what_goes_to_a_gpu_goes_from_pinned_memory() -> None:
    tensor: Any = StubTensor()
    gpu = torch.device("cuda", 1)
    copy_to_device(tensor, gpu)
    assert tensor.calls == ["pin_memory", (gpu, True)]


def test_fixed_inputs_are_filled_by_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring tensors of all types and sizes to their places; each is what its draw gave, and stays where it is."""
    clock = [0]

    def draw_numbers(*shape: int) -> list[Tensor]:
        return [torch.full(shape, clock[0], dtype=torch.float32), torch.full((3,), clock[0], dtype=torch.bool)]

    eager = EagerHostWork(torch.device("cpu"))
    eager.bring(functools.partial(draw_numbers, 2, 5))
    eager.bring(lambda: [torch.tensor(clock[0])])
    eager.bring(lambda: [torch.empty(0)])
    block = InputBlock(eager.brought, torch.device("cpu"))
    places = [tensor.data_ptr() for tensors in block.tensors for tensor in tensors]

    for clock[0] in (1, 7):
        block.fill()
        (numbers, flags), (count,), (nothing,) = block.tensors
        assert torch.equal(numbers, torch.full((2, 5), float(clock[0])))
        assert flags.all() and flags.dtype == torch.bool
        assert int(count) == clock[0]
        assert nothing.shape == (0,)
    assert [tensor.data_ptr() for tensors in block.tensors for tensor in tensors] == places
    assert all(place % host_work.ALIGNMENT == 0 for place in places[:3])


def test_an_input_that_changes_its_shape_is_refused() -> None:
    shapes = [(2,), (3,)]
    eager = EagerHostWork(torch.device("cpu"))
    eager.bring(lambda: [torch.zeros(shapes[0])])
    block = InputBlock(eager.brought, torch.device("cpu"))
    shapes[0] = (3,)
    with pytest.raises(UnfitForCaptureError, match="changes its shape"):
        block.fill()


def test_wrong_settings_are_refused(rejected: Callable[..., str]) -> None:
    rejected(r"train\.capture must be 'auto' or 'never', not 'always'", "train.capture = 'always'")


# What may change between steps: each run must end as an eager one does.


class Once:
    """A hook that changes something of a run once, when graphs are trusted already."""

    @hookimpl
    def after_step(self, run: Any, state: Any) -> None:
        if state.images == CHANGED_AT:
            self.change(run, state)

    def change(self, run: Any, state: Any) -> None:
        raise NotImplementedError


class ReplacingBuffers(Once):
    def change(self, run: Any, state: Any) -> None:
        for module in state.discriminator.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.clone())


class ForgettingMoments(Once):
    def change(self, run: Any, state: Any) -> None:
        state.optimizers["generator"].state.clear()


class ScalingLayers(Once):
    def change(self, run: Any, state: Any) -> None:
        for module in state.discriminator.modules():
            if isinstance(getattr(module, "scale", None), float):
                module.scale *= 0.5


class HookingLayers(Once):
    def change(self, run: Any, state: Any) -> None:
        for module in state.discriminator.modules():
            if hasattr(module, "scale"):
                module.register_forward_hook(lambda module, inputs, output: output * 0.5)


class ClippingGradients(Once):
    def change(self, run: Any, state: Any) -> None:
        for param in state.generator.parameters():
            param.register_hook(lambda gradient: gradient.clamp(-1e-4, 1e-4))


class OtherHinge(Hinge):
    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        return {name: value * value for name, value in super().generator(fake, real).items()}


class ReplacingLoss(Once):
    def change(self, run: Any, state: Any) -> None:
        run.experiment.loss = OtherHinge()


class TensorHinge(ScaledHinge):
    """Its number is a tensor, which is replaced by another one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Any = torch.ones(())

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.images == CHANGED_AT:
            self.scale = torch.full((), 0.5)


class WarmingHinge(ScaledHinge):
    """It counts its steps, and jumps at one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        self.scale = 1.0
        terms = super().generator(fake, real)
        return {name: value * (0.5 if self.steps >= 6 else 1.0) for name, value in terms.items()}

    @hookimpl
    def before_run(self) -> None:
        self.steps = 0

    @hookimpl
    def after_step(self, state: Any) -> None:
        self.steps += 1


class EarlyHinge(ScaledHinge):
    """Its number changes before graphs are trusted, and again afterwards."""

    @hookimpl
    def after_step(self, state: Any) -> None:
        self.scale = 1.0 if state.images < 8 else 0.7 if state.images < CHANGED_AT else 0.5


class CollectingHinge(Hinge):
    """It keeps tensors in a dict and in a list, and changes them within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.means = {"fake": torch.zeros(())}
        self.sums = [torch.zeros(())]

    @hookimpl
    def before_run(self) -> None:
        self.means["fake"].zero_()
        self.sums[0].zero_()

    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        mean = fake.score.detach().mean()
        self.means["fake"].lerp_(mean, 0.5)
        self.sums[0].add_(mean)
        factor = 1 + self.means["fake"].tanh() * self.sums[0].tanh()
        return {name: factor * value for name, value in super().generator(fake, real).items()}


class RandomHinge(Hinge):
    """It draws numbers from Python's and numpy's generators."""

    def __init__(self) -> None:
        super().__init__()
        self.own = random.Random(1)
        self.owns = np.random.default_rng(1)

    @hookimpl
    def before_run(self) -> None:
        random.seed(1)
        np.random.seed(1)
        self.own.seed(1)
        self.owns = np.random.default_rng(1)

    def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
        factor = 1 + random.random() + np.random.random() + self.own.random() + self.owns.random()
        return {name: factor * value for name, value in super().generator(fake, real).items()}


class ByImages(Alternating):
    """It looks at the clock itself."""

    def step(self, ctx: Any) -> dict[str, Tensor]:
        scale = 0.5 if ctx.images >= CHANGED_AT else 1.0
        return {name: scale * value for name, value in super().step(ctx).items()}


class ByPosition(Alternating):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        scale = 0.5 if ctx.position.images >= CHANGED_AT else 1.0
        return {name: scale * value for name, value in super().step(ctx).items()}


class CountingSGD(torch.optim.SGD):
    """An optimizer that counts its steps in its groups and in itself."""

    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            group["lr"] = 1e-2 / (group["k"] + self.count)
        return super().step(closure)


class OwnSGD:
    def build(self, params: Any, stage: Any) -> torch.optim.Optimizer:
        return CountingSGD(list(params), lr=1e-2, momentum=0.9)


CHANGES: dict[str, tuple[list[str], list[object]]] = {
    "buffers": (CASES["batch norm and one optimizer"], [ReplacingBuffers()]),
    "moments": ([], [ForgettingMoments()]),
    "numbers of layers": ([], [ScalingLayers()]),
    "hooks on layers": ([], [HookingLayers()]),
    "hooks on weights": ([], [ClippingGradients()]),
    "another loss": ([], [ReplacingLoss()]),
    "a beta that jumps": (
        ["optimizers.Adam.beta1 = @curves.Steps()", f"curves.Steps.values = {{0: 0.0, {CHANGED_AT}: 0.9}}"],
        [],
    ),
    "a tensor that is replaced": ([OWN_LOSS], [Own("losses", TensorHinge)]),
    "a counter with a threshold": ([OWN_LOSS], [Own("losses", WarmingHinge)]),
    "a number that changes early and late": ([OWN_LOSS], [Own("losses", EarlyHinge)]),
    "tensors in collections": ([OWN_LOSS], [Own("losses", CollectingHinge)]),
    "random numbers": ([OWN_LOSS], [Own("losses", RandomHinge)]),
    "the clock": ([OWN_UPDATE], [Own("updates", ByImages)]),
    "the position": ([OWN_UPDATE], [Own("updates", ByPosition)]),
    "counters of optimizers": (
        ["train.generator_optimizer = @optimizers.Own()", "train.discriminator_optimizer = @optimizers.Own()"],
        [Own("optimizers", OwnSGD)],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_not_frozen(
    change: str, train: Callable[..., Any], recorder: ReplayRecorder
) -> None:
    own_lines, plugins = CHANGES[change]
    # Nine steps: the last of them is recorded, where the change makes another kind of step.
    lines, base = bind_lines([*ONE_REGION, "schedule.stable_images = 36", *own_lines])
    ends = []
    for setting in ("never", "auto"):
        watch = Watching()
        train(*lines, f"train.capture = '{setting}'", run_dir=setting, base=base, plugins=(*plugins, watch))
        ends.append(watch)
    eager, captured = ends
    assert [dict(losses) for losses in captured.losses] == [dict(losses) for losses in eager.losses]
    assert_same_runs("never", "auto")
    assert captured.norms == eager.norms
    assert ("not captured" in read_log("auto")) == (change in REFUSED), read_log("auto")


REFUSED = (
    "a counter with a threshold",
    "a number that changes early and late",
    "random numbers",
    "the clock",
    "the position",
)
"""What the steps after it, or all of them, are not captured for."""


class Watching:
    """An observer that keeps all losses, and clears the gradients that it has looked at."""

    def __init__(self) -> None:
        self.losses: list[Any] = []
        self.norms: list[Any] = []

    @hookimpl
    def after_step(self, state: Any, losses: Any) -> None:
        self.losses.append(losses)
        norms = []
        for net in state.networks.values():
            for param in net.parameters():
                norms.append(None if param.grad is None else float(param.grad.norm()))
                param.grad = None
        self.norms.append(norms)
