"""Compiled steps: equal to eager ones, only where that pays, and never where they would be wrong.

Recordings are run as they are, so that no C++ compiler is needed; `machine_code` has its own, slow test.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.paths import STUB_PLUGIN
from torch import Tensor
from torch._subclasses import FakeTensor

from pggan_kit import hookimpl, image_gradients
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted
from pggan_kit.experiment import COMPILE
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE, ScheduleSettings
from pggan_kit.testing.support import equal, make_stages, weights
from pggan_kit.testing.tiny_runs import tiny_experiment
from pggan_kit.testing.toys import ToyLoss, ToyOptimizer, ToySampler
from pggan_kit.training import loop as training
from pggan_kit.training.compiler import (
    PAYS_FROM_STEPS,
    Compiler,
    as_recorded,
    machine_code,
    missing_compiler,
    pays,
    replays_graphs,
    steps_of,
)
from pggan_kit.training.parity import differing
from pggan_kit.training.step import TrainingStep
from pggan_plugins.architectures import PGGAN, StyleGAN2
from pggan_plugins.augmentations import ADA, DiffAugment
from pggan_plugins.losses import WGANGP, Relativistic
from pggan_plugins.optimizers import Adam
from pggan_plugins.penalties import R1, Drift, GradientPenalty
from pggan_plugins.resampling import Nearest
from pggan_plugins.updates import Alternating

NETS = ("generator", "discriminator")
CPU = torch.device("cpu")


class Steps:
    """Training steps of a tiny experiment, compiled or not.

    Attributes:
        said: what was logged, warned and announced, as (kind, text).
    """

    def __init__(self, compile: str, fading: bool = False, translate: Any = as_recorded, **chosen: Any) -> None:
        parts: dict[str, Any] = {
            "architecture": PGGAN(4),
            "resampling": Nearest(),
            "update": Alternating(),
            "loss": WGANGP([GradientPenalty(), Drift()]),
            "generator_optimizer": Adam(),
            "discriminator_optimizer": Adam(),
        }
        self.experiment = tiny_experiment({**parts, **chosen, "compile": compile})
        self.state = TrainState(self.experiment, self.experiment.schedule.resolve(16, 1, 0), CPU)
        if fading:
            self.state.grow(dict.fromkeys(NETS, True))
            self.state.renew_optimizers(reset=True)
        self.said: list[tuple[str, str]] = []
        log, warn, announce = (self._note(kind) for kind in ("log", "warn", "announce"))
        self.compiler = Compiler(self.experiment, CPU, log, warn, announce, translate)
        self.compiler.enter(self.state, self.state.schedule)

    def _note(self, kind: str) -> Callable[[str], None]:
        return lambda text: self.said.append((kind, text))

    def take(self, count: int = 3, alpha: float | None = None) -> list[dict[str, Tensor]]:
        """Steps at an alpha that moves; what each returned."""
        returned = []
        for number in range(count):
            torch.manual_seed(number)
            paths = ("generator", "discriminator", "reals") if alpha is not None else ()
            alphas = {path: torch.tensor((alpha or 0.0) + 0.1 * number) for path in paths}
            sampler = ToySampler(self.state.stage)
            ctx = TrainingStep(self.experiment, self.state, self.state.stage, sampler, alphas, compiler=self.compiler)
            returned.append(self.experiment.update.step(ctx))
            self.state.images += ctx.drawn
            self.state.follow(ctx.drawn)
        return returned

    def weights(self) -> dict[str, dict[str, Tensor]]:
        return {net: weights(self.state.network(net)) for net in NETS}

    def told(self, kind: str) -> list[str]:
        return [text for found, text in self.said if found == kind]


@pytest.fixture
def float64() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_close(found: Any, wanted: Any, tolerance: float) -> None:
    for key, value in wanted.items():
        if isinstance(value, Tensor):
            assert (found[key] - value).abs().max() <= tolerance * (1 + value.abs().max()), key
        else:
            assert_close(found[key], value, tolerance)


LAZY = functools.partial(WGANGP, [R1(every=2), Drift()])
CHOICES: dict[str, Callable[[], dict[str, Any]]] = {
    "the paper": dict,
    "pooled first": lambda: {"architecture": PGGAN(4, pool="before_activation")},
    "lazy penalty": lambda: {"loss": LAZY()},
    "needs reals": lambda: {"loss": Relativistic([R1()])},
    "noise and random numbers": lambda: {"architecture": StyleGAN2(4), "augmentation": DiffAugment()},
    "micro-batches": lambda: {"micro_batch": 2},
    "toys": lambda: {"update": tiny_experiment({}).update, "loss": ToyLoss([R1()])},
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("choice", CHOICES)
def test_compiled_steps_are_the_eager_ones_in_float64(choice: str) -> None:
    """Three steps in a fade, with alpha as it moves: terms, scores and weights, to 1e-12."""
    eager, compiled = (Steps(setting, fading=True, **CHOICES[choice]()) for setting in ("never", "always"))
    for wanted, found in zip(eager.take(alpha=0.2), compiled.take(alpha=0.2), strict=True):
        assert_close(found, wanted, 1e-12)
    assert_close(compiled.weights(), eager.weights(), 1e-12)
    assert compiled.compiler.outcome == dict.fromkeys(NETS, "compiled"), compiled.said
    kinds = 3 if choice == "lazy penalty" else 2  # of steps, however many are taken
    assert len(compiled.told("log")) == len(compiled.told("announce")) == kinds
    assert not eager.said and not compiled.told("warn")


def test_gradients_have_their_parameters_strides() -> None:
    """Fused optimizers misread others without a word; 4-dimensional weights are channels_last. A compiler lays out its
    results as it likes."""

    def otherwise(recording: Any, work: Any, graphs: bool) -> Any:
        return lambda *tensors: [output.contiguous() for output in recording.graph(*tensors)]

    plain = {f"{net}_optimizer": ToyOptimizer() for net in NETS}  # which leaves gradients as they are
    steps = Steps("always", fading=True, translate=otherwise, **plain)
    steps.take(1, alpha=0.5)
    for net in NETS:
        for name, param in steps.state.network(net).named_parameters():
            assert param.grad is not None and param.grad.stride() == param.stride(), name


class Forgetful(R1):
    """A penalty whose gradient is lost where it is recorded, as it is where D is compiled by itself."""

    def __call__(self, critic: Any, real: Tensor, *others: Any) -> Tensor:
        gradient = image_gradients(critic, real)
        if isinstance(real, FakeTensor):
            gradient = gradient.detach()
        return gradient.square().sum((1, 2, 3)).mean()


class Counting(R1):
    """A penalty that grows with each call."""

    calls = 0

    def __call__(self, *args: Any) -> Tensor:
        self.calls = self.calls + 1
        return super().__call__(*args) * self.calls


class Annealed(R1):
    """A penalty whose strength someone else changes."""


class Asking(R1):
    """A penalty that decides by a number on the device."""

    def __call__(self, critic: Any, real: Tensor, *others: Any) -> Tensor:
        return image_gradients(critic, real).square().mean() * (1.0 if real.mean() > 0 else 2.0)


def penalised(penalty: Any) -> dict[str, Any]:
    return {"loss": WGANGP([penalty])}


IMPURE = {
    "batch norm": (lambda: {"architecture": PGGAN(4, generator_norm="batch")}, "log", "running_mean|num_batches"),
    "spectral norm": (lambda: {"architecture": PGGAN(4, discriminator_norm="spectral")}, "log", "changes .*_u|_v"),
    "adaptive augmentation": (lambda: {"augmentation": ADA(p=0.5)}, "log", r"reads a tensor of shape \(\)"),
    "a lost gradient": (lambda: penalised(Forgetful()), "warn", "gradient of .* differs.*WGANGP, Forgetful"),
    "a part that changes itself": (lambda: penalised(Counting()), "log", "changes when it is called.*Counting"),
    "a decision by numbers": (lambda: penalised(Asking()), "log", "eager: .*Asking"),
}


@pytest.mark.parametrize("case", IMPURE)
def test_what_cannot_be_compiled_runs_eagerly_and_is_told_once(case: str) -> None:
    chosen, kind, text = IMPURE[case]
    eager, compiled = (Steps(setting, **chosen()) for setting in ("never", "always"))
    if case != "a part that changes itself":  # its calls are counted also where the two are compared
        for wanted, found in zip(eager.take(), compiled.take(), strict=True):
            assert_close(found, wanted, 1e-6)
        assert_close(compiled.weights(), eager.weights(), 1e-6)
    else:
        compiled.take()
    (line,) = [line for line in compiled.told(kind) if "not compiled but eager" in line and "discriminator's" in line]
    assert re.search(text, line), line
    assert compiled.compiler.outcome["discriminator"] == "eager"


def test_a_setting_that_changes_between_steps_ends_compiling() -> None:
    """A weight is a constant in the recording: once it has changed, the recording is wrong."""
    penalty = Annealed(weight=1.0)
    steps, eager = Steps("always", **penalised(penalty)), Steps("never", **penalised(Annealed(weight=1.0)))
    for loss in (steps, eager):
        loss.take(2)
        loss.experiment.loss.penalties[0].weight = 100.0
        loss.take(1)
    assert_close(steps.weights(), eager.weights(), 1e-6)
    assert steps.compiler.outcome == {"generator": "eager", "discriminator": "eager"}
    assert any("changes from step to step" in line for line in steps.told("log"))


class Restless(Alternating):
    """Terms that differ at each step, as those that hold one of the step's own objects do."""

    def step(self, ctx: Any) -> dict[str, Tensor]:
        minimise = ctx.minimise

        def wrapped(optimizer: str, net: str, terms: Any, part: Any) -> Any:
            return minimise(optimizer, net, functools.partial(lambda new, *args: terms(*args), object()), part)

        ctx.minimise = wrapped
        return super().step(ctx)


def test_terms_that_are_new_at_each_step_are_given_up() -> None:
    steps = Steps("always", update=Restless())
    steps.take(6)
    assert steps.compiler.outcome == dict.fromkeys(NETS, "eager")
    assert sum("of more than 4 kinds" in line for line in steps.told("log")) == 2
    assert len(steps.told("announce")) == 8


def test_comparing_finds_what_rounding_does_not_explain() -> None:
    one = {"a": torch.ones(3), "b": torch.full((2,), 1e-6)}
    assert differing(({}, one), ({}, {"a": one["a"] * 1.0005, "b": one["b"] * 2}), 1e-3) is None
    assert "gradient of a differs" in str(differing(({}, one), ({}, {**one, "a": one["a"] * 1.002}), 1e-3))
    assert "gradient of b differs" in str(differing(({}, one), ({}, {**one, "b": torch.ones(2)}), 1e-3))
    assert "a differs" in str(differing((one, {}), ({**one, "a": torch.full((3,), float("nan"))}, {}), 1e-3))
    low = {**one, "a": torch.full((3,), 1.01)}  # a hundredth from the exact ones
    assert differing(({}, low), ({}, {**one, "a": one["a"] * 0.985}), 1e-3, ({}, one)) is None
    assert differing(({}, low), ({}, {**one, "a": one["a"] * 0.97}), 1e-3, ({}, one)) is not None
    assert "b get other gradients" in str(differing(({}, one), ({}, {"a": one["a"]}), 1e-3))


def test_where_compiling_pays() -> None:
    enough = PAYS_FROM_STEPS
    assert [pays(setting, enough) for setting in COMPILE] == [False, True, True, True]
    assert [pays(setting, enough - 1) for setting in COMPILE] == [False, False, True, False]
    (stage,) = make_stages((4,), fade_images=0, stable_images=8)
    assert (steps_of(stage, FADE, 10), steps_of(stage, STABLE, 10)) == (0, 3)
    stage = make_stages((4, 8), fade_images=12, stable_images=8, batch_size=4)[1]
    assert (steps_of(stage, FADE, 20), steps_of(stage, STABLE, 20)) == (3, 2)
    assert (steps_of(stage, FADE, 6), steps_of(stage, STABLE, 6)) == (2, 0)


def test_auto_compiles_the_long_phases_alone() -> None:
    short = {"schedule": ScheduleSettings((4, 8), 4 * PAYS_FROM_STEPS - 4, 8, 4)}
    long = {"schedule": ScheduleSettings((4, 8), 4 * PAYS_FROM_STEPS, 8, 4)}
    for chosen, outcome in ((short, {}), (long, dict.fromkeys(NETS, "compiled"))):
        steps = Steps("auto", fading=True, **chosen)
        steps.take(1, alpha=0.5)
        assert steps.compiler.outcome == outcome


def test_cuda_graphs_are_for_small_stages_of_a_gpu() -> None:
    small, large = make_stages((32, 64))
    gpu = torch.device("cuda")
    assert replays_graphs("graphs", gpu, small)
    assert not replays_graphs("graphs", gpu, large)
    assert not replays_graphs("graphs", CPU, small)
    assert not replays_graphs("always", gpu, small)


def test_a_wrong_choice_is_refused(rejected: Callable[..., str]) -> None:
    rejected(r"train\.compile must be 'never', 'auto', 'always' or 'graphs', not 'yes'", "train.compile = 'yes'")


def test_without_a_compiler(
    rejected: Callable[..., str], train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`always` is refused before anything is trained; `auto` warns, and the run is the eager one."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    rejected(r"train\.compile 'always'.*there is no no-such-compiler.*CXX", "train.compile = 'always'")
    with pytest.warns(UserWarning, match=r"train\.compile: it needs a C\+\+ compiler.*all steps run eagerly"):
        train("train.compile = 'auto'", "schedule.sizes = (4,)", run_dir="auto")


RUN = ["schedule.sizes = (4, 8)", "train.compile = 'always'", "train.loss = @losses.WGANGP()"]


class Compiling:
    """Notes what is compiled; may stop the run at a clock."""

    def __init__(self, stop: int = -1) -> None:
        self.stop = stop
        self.heard: list[tuple[str, str, int]] = []

    @hookimpl
    def before_compile(self, run: Any, stage: Any, state: Any, net: str) -> None:
        assert state is run.state and stage is state.stage
        self.heard.append((net, stage.size, state.images))

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.images == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs compile without a compiler."""
    monkeypatch.setattr(training, "Compiler", functools.partial(Compiler, translate=as_recorded))


@pytest.mark.usefixtures("recorded")
def test_a_run_compiles_each_phase_once_and_resumes_to_the_bit(train: Callable[..., Any]) -> None:
    watch = Compiling()
    whole = train(*RUN, plugins=(watch,), run_dir="whole")
    places = [("4x4", 0), ("8x8", 8), ("8x8", 16)]  # the base, the fade, and what follows it
    assert watch.heard == [(net, *place) for place in places for net in ("discriminator", "generator")]
    log = Path("whole/log.txt").read_text()
    assert log.count("compiled the") == 6 and "compiled the discriminator's step at 8x8 (fade) in" in log

    with pytest.raises(Interrupted):
        train(*RUN, plugins=(Compiling(stop=12),), run_dir="run")
    saved = torch.load(sorted(Path("run/checkpoints").glob("*.pt"))[-1], weights_only=True)
    assert (saved["images"], saved["compiled"]) == (12, dict.fromkeys(NETS, "compiled"))
    watch = Compiling()
    resumed = resume("run", plugins=[str(STUB_PLUGIN), watch])
    assert watch.heard[0] == ("discriminator", "8x8", 12)
    eager = train(*RUN, "train.compile = 'never'", run_dir="eager")
    for net in (*NETS, "ema"):
        found = [weights(getattr(run.state, net)) for run in (whole, resumed)]
        assert equal(*found)
        assert_close(found[0], weights(getattr(eager.state, net)), 1e-6)


def test_what_a_checkpoint_tells_of_its_region_holds_after_it() -> None:
    """Eager steps stay eager, and where compiled ones cannot be compiled again that is a warning."""
    steps = Steps("always")
    steps.compiler._weights = []
    steps.compiler.enter(steps.state, steps.state.schedule, {"generator": "eager", "discriminator": "compiled"})
    steps.take(1)
    assert steps.compiler.outcome == {"generator": "eager", "discriminator": "compiled"}
    assert steps.told("announce") == ["discriminator"]
    steps = Steps("always", **penalised(Asking()))
    steps.compiler._weights = []
    steps.compiler.enter(steps.state, steps.state.schedule, {"discriminator": "compiled"})
    steps.take(1)
    assert any("It was compiled until now" in line for line in steps.told("warn"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_machine_code_is_the_eager_step(precision: str, tolerance: float) -> None:
    assert missing_compiler(CPU) is None
    chosen = {"augmentation": DiffAugment(), "precision": precision}
    eager, compiled = (Steps(setting, True, machine_code, **chosen) for setting in ("never", "always"))
    for wanted, found in zip(eager.take(2, alpha=0.2), compiled.take(2, alpha=0.2), strict=True):
        assert_close(found, wanted, 10 * tolerance)
    assert compiled.compiler.outcome == dict.fromkeys(NETS, "compiled"), compiled.said
    assert_close(compiled.weights(), eager.weights(), tolerance)
