"""Test compiled steps: equal to eager ones, only where that pays, and never where they would be wrong.

Recordings are run as they are, so that no C++ compiler is needed; `translate_to_machine_code` has its own, slow test.
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
from helpers.compiled_steps import CPU, NETS, Passes, Steps
from helpers.paths import STUB_PLUGIN
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from pggan_kit import hookimpl, image_gradients
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted
from pggan_kit.experiment import COMPILE
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.system import distributed
from pggan_kit.testing.support import are_equal, copy_weights, make_stages
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_kit.testing.toys import ToyArchitecture, ToyLoss, ToyOptimizer
from pggan_kit.training.compiler import (
    PAYS_FROM_STEPS,
    SeparateOutputs,
    compiling_pays,
    describe_missing_compiler,
    translate_to_machine_code,
)
from pggan_kit.training.recording import Recording
from pggan_kit.training.step import Work
from pggan_plugins.architectures import PGGAN, R3GAN, StyleGAN2
from pggan_plugins.augmentations import ADA, DiffAugment
from pggan_plugins.curves import Linear, WarmUp
from pggan_plugins.losses import WGANGP, Hinge, Relativistic
from pggan_plugins.penalties import R1, Drift, GradientPenalty
from pggan_plugins.updates import Alternating


@pytest.fixture
def float64() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_close(actual: Any, wanted: Any, tolerance: float) -> None:
    for key, value in wanted.items():
        if isinstance(value, Tensor):
            assert (actual[key] - value).abs().max() <= tolerance * (1 + value.abs().max()), key
        else:
            assert_close(actual[key], value, tolerance)


LAZY = functools.partial(WGANGP, [GradientPenalty(every=2), Drift()])
CHOICES: dict[str, Callable[[], dict[str, Any]]] = {
    "the paper": dict,
    "pooled first": lambda: {"architecture": PGGAN(4, pool="before_activation")},
    "lazy penalty": lambda: {"loss": LAZY()},
    "needs reals": lambda: {"architecture": R3GAN(4, group_size=4), "loss": Relativistic([R1()])},
    "noise and random numbers": lambda: {
        "architecture": StyleGAN2(4, style_size=4, mapping_layers=1),
        "augmentation": DiffAugment(),
    },
    "micro-batches": lambda: {"micro_batch": 2},
    "moving weights": lambda: {"loss": WGANGP([R1(Linear(10.0, 1.0)), Drift({4: WarmUp(0.1, 20)})]), "micro_batch": 2},
    "toys": lambda: {"update": make_tiny_experiment({}).update, "loss": ToyLoss([R1(Linear(10.0, 1.0))])},
}


BESIDE = ("the paper", "pooled first", "micro-batches", "toys")
"""Choices of which others have what matters: the paper's loss, another order of layers, slices, terms that move."""


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "choice", [pytest.param(name, marks=[pytest.mark.slow] * (name in BESIDE)) for name in CHOICES]
)
def test_compiled_steps_are_the_eager_ones_in_float64(choice: str) -> None:
    """Take three steps in a fade, with alpha as it moves; compare terms, scores and weights to 1e-12."""
    eager, compiled = (Steps(setting, fading=True, **CHOICES[choice]()) for setting in ("never", "always"))
    for wanted, actual in zip(eager.take(alpha=0.2), compiled.take(alpha=0.2), strict=True):
        assert_close(actual, wanted, 1e-12)
    assert_close(compiled.weights(), eager.weights(), 1e-12)
    assert compiled.compiler.outcome == dict.fromkeys(NETS, "compiled"), compiled.lines
    kinds = 3 if choice == "lazy penalty" else 2  # of steps, however many are taken
    assert len(compiled.list_lines("log")) == len(compiled.list_lines("announce")) == kinds
    assert not eager.lines and not compiled.list_lines("warn")


def test_gradients_have_their_parameters_strides() -> None:
    """Let a compiler lay out its results as it likes: fused optimizers silently misread other strides."""

    def make_contiguous(recording: Any, work: Any) -> Any:
        return lambda *tensors: [output.contiguous() for output in recording.graph(*tensors)]

    plain = {f"{net}_optimizer": ToyOptimizer() for net in NETS}  # which leaves gradients as they are
    steps = Steps("always", fading=True, translate=make_contiguous, loss=Hinge(), **plain)
    steps.take(1, alpha=0.5)
    for net in NETS:
        for name, param in steps.state.network(net).named_parameters():
            assert param.grad is not None and param.grad.stride() == param.stride(), name


def fix_strides(recording: Recording, work: Work) -> Callable[..., Any]:
    """Return a recording that accepts the strides of the example alone, as machine code of inductor does."""
    wanted = [tensor.stride() for tensor in recording.list_inputs(work)]

    def run(*tensors: Tensor) -> Any:
        assert [tensor.stride() for tensor in tensors] == wanted
        return recording.graph(*tensors)

    return run


class Shortened(Alternating):
    """An update whose reals are a view of every second row of a batch."""

    def step(self, ctx: Any) -> dict[str, Tensor]:
        minimise = ctx.minimise

        def minimise_half(optimizer: str, net: str, terms: Any, batch: Any) -> Any:
            half = {name: None if rows is None else rows[::2] for name, rows in batch.items()}
            return minimise(optimizer, net, terms, half)

        ctx.minimise = minimise_half
        return super().step(ctx)


@pytest.mark.parametrize("views", ["slices", "rows of a rank", "an update's own"])
def test_what_is_compiled_for_views_accepts_the_batches_that_it_is_checked_on(
    views: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: dict[str, Any] = {"loss": Hinge()}
    if views == "slices":
        chosen = {"micro_batch": 2}
    elif views == "rows of a rank":
        monkeypatch.setattr(distributed, "world_size", lambda: 2)
        monkeypatch.setattr(distributed, "average", lambda tensors: None)
    else:
        chosen["update"] = Shortened()
    eager, compiled = (Steps(setting, translate=fix_strides, **chosen) for setting in ("never", "always"))
    for wanted, actual in zip(eager.take(2), compiled.take(2), strict=True):
        assert_close(actual, wanted, 1e-6)
    assert compiled.compiler.outcome == dict.fromkeys(NETS, "compiled"), compiled.lines


class TwoBiases(nn.Module):
    """A layer with two biases that are added to each other, whose gradients are one tensor."""

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.inner = inner
        self.base = nn.Parameter(torch.zeros(channels))
        self.delta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) + (self.base + self.delta).view(-1, 1, 1)


class Sums(PGGAN):
    """An architecture with two biases in each layer to images."""

    def to_image(self, stage: Any) -> nn.Module:
        return TwoBiases(super().to_image(stage), stage.image_channels)


@pytest.mark.parametrize("chosen", [{"precision": "float16"}, {"micro_batch": 2}], ids=["scaled", "slices"])
def test_parameters_do_not_share_the_memory_of_one_gradient(chosen: dict[str, Any]) -> None:
    """What is done in place would be done to it once for each: the division by a loss's scale, the sum over slices."""
    eager, compiled = (Steps(setting, architecture=Sums(4), loss=Hinge(), **chosen) for setting in ("never", "always"))
    biases = []
    for steps in (eager, compiled):
        steps.take(1)
        named = dict(steps.state.generator.named_parameters())
        biases.append([named["to_image.base"], named["to_image.delta"]])
    assert compiled.compiler.outcome == dict.fromkeys(NETS, "compiled"), compiled.lines
    for wanted, actual in zip(*biases, strict=True):
        assert wanted.grad is not None and actual.grad is not None and wanted.grad.abs() > 0.1
        torch.testing.assert_close(actual.grad, wanted.grad, rtol=1e-3, atol=0)


def test_what_shares_memory_is_copied_in_each_call() -> None:
    """Also what is the memory of an input, or of something that is no gradient, and what does not begin there."""

    def share(x: Tensor, y: Tensor) -> list[Tensor]:
        own = x + y
        return [own, own, x, own[1:], own * 2, y.view(2, 1)]

    separate = SeparateOutputs(share, first=1)
    for _ in range(2):
        inputs = (torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        outputs = separate(*inputs)
        wanted = share(*inputs)
        assert all(torch.equal(output, value) for output, value in zip(outputs, wanted, strict=True))
        places = [tensor.untyped_storage().data_ptr() for tensor in (*inputs, *outputs)]
        assert len(set(places)) == len(places)


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


class Calls:
    """A number in a slot, which no `__dict__` has."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class CountingInASlot(R1):
    """A penalty that grows from call to call, by a number that an object of its own counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()

    def __call__(self, *args: Any) -> Tensor:
        self.calls.count += 1
        return super().__call__(*args) * self.calls.count


class Annealed(R1):
    """A penalty whose weight is changed from outside."""


class Asking(R1):
    """A penalty that decides by a number on the device."""

    def __call__(self, critic: Any, real: Tensor, *others: Any) -> Tensor:
        return image_gradients(critic, real).square().mean() * (1.0 if real.mean() > 0 else 2.0)


def choose_penalty(penalty: Any) -> dict[str, Any]:
    return {"loss": WGANGP([penalty]), "architecture": ToyArchitecture()}


def choose_architecture(**arguments: Any) -> dict[str, Any]:
    return {"architecture": PGGAN(4, **arguments), "loss": Hinge()}


IMPURE = {
    "batch norm": (lambda: choose_architecture(generator_norm="batch"), "log", "running_mean|num_batches"),
    "spectral norm": (lambda: choose_architecture(discriminator_norm="spectral"), "log", "changes .*_u|_v"),
    "adaptive augmentation": (
        lambda: {"augmentation": ADA(p=0.5), "loss": Hinge()},
        "log",
        r"reads a tensor of shape \(\)",
    ),
    "a lost gradient": (lambda: choose_penalty(Forgetful()), "warn", "gradient of .* differs.*WGANGP, Forgetful"),
    "a component that changes itself": (
        lambda: choose_penalty(Counting()),
        "log",
        "changes when it is called.*Counting",
    ),
    "a component that changes a slot": (
        lambda: choose_penalty(CountingInASlot()),
        "log",
        "changes when it is called.*CountingInASlot",
    ),
    "a decision by numbers": (lambda: choose_penalty(Asking()), "log", "eager: .*Asking"),
}


@pytest.mark.parametrize("case", IMPURE)
def test_what_cannot_be_compiled_runs_eagerly_and_is_reported_once(case: str) -> None:
    choose, kind, text = IMPURE[case]
    eager, compiled = (Steps(setting, **choose()) for setting in ("never", "always"))
    for wanted, actual in zip(eager.take(), compiled.take(), strict=True):
        assert_close(actual, wanted, 1e-6)
    assert_close(compiled.weights(), eager.weights(), 1e-6)
    (line,) = [
        line for line in compiled.list_lines(kind) if "not compiled but eager" in line and "discriminator's" in line
    ]
    assert re.search(text, line), line
    assert compiled.compiler.outcome["discriminator"] == "eager"


def test_a_setting_that_changes_between_steps_ends_compiling() -> None:
    """Change a penalty's weight, which is a constant in the recording."""
    steps = Steps("always", **choose_penalty(Annealed(weight=1.0)))
    eager = Steps("never", **choose_penalty(Annealed(weight=1.0)))
    for each in (steps, eager):
        each.take(2)
        each.experiment.loss.penalties[0].weight = 100.0
        each.take(1)
    assert_close(steps.weights(), eager.weights(), 1e-6)
    assert steps.compiler.outcome == {"generator": "eager", "discriminator": "eager"}
    assert any("changes from step to step" in line for line in steps.list_lines("log"))


class Restless(Alternating):
    """An update whose terms differ in each step, as those that hold one of the step's own objects do."""

    def step(self, ctx: Any) -> dict[str, Tensor]:
        minimise = ctx.minimise

        def minimise_new_terms(optimizer: str, net: str, terms: Any, batch: Any) -> Any:
            new_terms = functools.partial(lambda new, *args: terms(*args), object())
            return minimise(optimizer, net, new_terms, batch)

        ctx.minimise = minimise_new_terms
        return super().step(ctx)


@pytest.mark.parametrize("number", [0, 1], ids=NETS[::-1])
def test_compiling_that_raises_within_a_backward_pass_leaves_the_gradients_of_earlier_slices(number: int) -> None:
    """Let memory end in the middle of a backward pass of the comparison, when half of the gradients are there."""
    passes = Passes(fading=False)
    work = passes.works[number]
    parameters = list(passes.state.network(work.net).parameters())
    for net in NETS:
        passes.state.network(net).requires_grad_(net == work.net)
    for param in parameters:
        param.grad = torch.ones_like(param)  # of the slices before
    passes._eager[number](work)
    wanted = [param.grad for param in parameters]

    calls = 0

    def run_out_of_memory(gradient: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    middle = parameters[len(parameters) // 2]
    middle.register_hook(run_out_of_memory)
    for param in parameters:
        param.grad = torch.ones_like(param)
    passes.compiler(work, passes._eager[number])
    assert calls == 3 and passes.compiler.outcome == {work.net: "eager"}
    for param, gradient in zip(parameters, wanted, strict=True):
        assert param.grad is not None and gradient is not None and torch.equal(param.grad, gradient)


@pytest.mark.slow
def test_terms_that_are_new_at_each_step_are_given_up() -> None:
    steps = Steps("always", update=Restless())
    steps.take(6)
    assert steps.compiler.outcome == dict.fromkeys(NETS, "eager")
    assert sum("of more than 4 kinds" in line for line in steps.list_lines("log")) == 2
    assert len(steps.list_lines("announce")) == 8


def test_where_compiling_pays() -> None:
    enough = PAYS_FROM_STEPS
    (stage,) = make_stages((4,), fade_images=0, stable_images=8)
    cpu = torch.device("cpu")
    assert [compiling_pays(setting, enough, stage, cpu) for setting in COMPILE] == [False, True, True]
    assert [compiling_pays(setting, enough - 1, stage, cpu) for setting in COMPILE] == [False, False, True]

    # Small stages are captured on a GPU, and gain less there.
    gpu = torch.device("cuda")
    for size, factor in ((32, 4), (128, 1), (512, 1), ((16, 64), 4)):
        (other,) = make_stages((size,), fade_images=0, stable_images=8)
        assert [compiling_pays("auto", factor * enough - less, other, gpu) for less in (0, 1)] == [True, False]
    assert [compiling_pays(setting, 31 * enough, stage, gpu) for setting in COMPILE] == [False, False, True]
    assert [compiling_pays(setting, 32 * enough, stage, gpu) for setting in COMPILE] == [False, True, True]


def test_auto_compiles_the_long_phases_alone() -> None:
    short = {"schedule": ScheduleSettings((4, 8), 4 * PAYS_FROM_STEPS - 4, 8, 4)}
    long = {"schedule": ScheduleSettings((4, 8), 4 * PAYS_FROM_STEPS, 8, 4)}
    for chosen, outcome in ((short, {}), (long, dict.fromkeys(NETS, "compiled"))):
        steps = Steps("auto", fading=True, loss=Hinge(), **chosen)
        steps.take(1, alpha=0.5)
        assert steps.compiler.outcome == outcome


def test_a_wrong_choice_is_refused(rejected: Callable[..., str]) -> None:
    rejected(r"train\.compile must be 'never', 'auto' or 'always', not 'yes'", "train.compile = 'yes'")


def test_without_a_compiler(
    rejected: Callable[..., str], train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that `always` is refused before anything is trained, and that `auto` warns and runs eagerly."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    rejected(
        r"train\.compile = 'always' is not possible here: .*there is no no-such-compiler.*CXX",
        "train.compile = 'always'",
    )
    with pytest.warns(UserWarning, match=r"train\.compile: compiling needs a C\+\+ compiler.*all steps run eagerly"):
        train("train.compile = 'auto'", "schedule.sizes = (4,)", run_dir="auto")


RUN = ["schedule.sizes = (4, 8)", "train.compile = 'always'"]


class Compiling:
    """A hook that notes what is compiled, and may stop the run at a clock."""

    def __init__(self, stop: int = -1) -> None:
        self.stop = stop
        self.calls: list[tuple[str, str, int]] = []

    @hookimpl
    def before_compile(self, run: Any, stage: Any, state: Any, net: str) -> None:
        assert state is run.state and stage is state.stage
        self.calls.append((net, stage.size, state.images))

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.images == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("no_compiler_needed")
def test_a_run_compiles_each_phase_once_and_resumes_bit_for_bit(train: Callable[..., Any]) -> None:
    watch = Compiling()
    lines = [*RUN, "train.tick = 4", "train.keep = 100"]
    whole = train(*lines, plugins=(watch,), run_dir="whole")
    places = [("4x4", 0), ("8x8", 8), ("8x8", 16)]  # the base, the fade, and what follows it
    assert watch.calls == [(net, *place) for place in places for net in ("discriminator", "generator")]
    log = Path("whole/log.txt").read_text()
    assert log.count("compiled the") == 6
    assert re.search(
        r"compiled the discriminator's step at 8x8 \(fade\) in \d+ s: it takes [\d.,]+ ms, and .* eagerly", log
    )
    # Each region's account is closed, the last one's at the end of the run.
    for region in ("4x4 (stable)", "8x8 (fade)", "8x8 (stable)"):
        assert f"compiling at {region} did not pay for itself in 8 images" in log

    # As a process leaves it that is killed after its checkpoint amid the fade.
    shutil.copytree("whole", "run")
    for checkpoint in Path("run/checkpoints").glob("*.pt"):
        if int(checkpoint.name.partition("-")[0]) > 12:
            checkpoint.unlink()
    saved = torch.load(sorted(Path("run/checkpoints").glob("*.pt"))[-1], weights_only=True)
    assert (saved["images"], saved["compiled"]) == (12, dict.fromkeys(NETS, "compiled"))
    watch = Compiling()
    resumed = resume("run", plugins=[str(STUB_PLUGIN), watch])
    assert watch.calls[0] == ("discriminator", "8x8", 12)
    eager = train(*lines, "train.compile = 'never'", run_dir="eager")
    for net in (*NETS, "ema"):
        wanted = copy_weights(getattr(whole.state, net))
        assert are_equal(wanted, copy_weights(getattr(resumed.state, net)))
        assert_close(wanted, copy_weights(getattr(eager.state, net)), 1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler_needed")
def test_a_run_compiles_again_where_other_pieces_are_frozen(train: Callable[..., Any]) -> None:
    """Also amid a fade, and where it is resumed just there."""
    frozen = [*RUN, "train.growth = @growth.FreezeOld()", "growth.FreezeOld.images = 4"]
    watch = Compiling()
    whole = train(*frozen, plugins=(watch,), run_dir="whole")
    places = [("4x4", 0), ("8x8", 8), ("8x8", 12), ("8x8", 16)]
    assert watch.calls == [(net, *place) for place in places for net in ("discriminator", "generator")]
    with pytest.raises(Interrupted):
        train(*frozen, plugins=(Compiling(stop=12),), run_dir="run")
    resumed = resume("run", plugins=[str(STUB_PLUGIN), Compiling()])
    eager = train(*frozen, "train.compile = 'never'", run_dir="eager")
    for net in (*NETS, "ema"):
        wanted = copy_weights(getattr(whole.state, net))
        assert are_equal(wanted, copy_weights(getattr(resumed.state, net)))
        assert_close(wanted, copy_weights(getattr(eager.state, net)), 1e-6)


def test_a_resumed_region_recalls_its_outcome() -> None:
    """Check that eager steps stay eager, and that compiled ones which cannot be compiled again are warned of."""
    steps = Steps("always", loss=Hinge())
    steps.compiler._weights = []
    steps.compiler.enter_region(steps.state, steps.state.schedule, {"generator": "eager", "discriminator": "compiled"})
    steps.take(1)
    assert steps.compiler.outcome == {"generator": "eager", "discriminator": "compiled"}
    assert steps.list_lines("announce") == ["discriminator"]
    steps = Steps("always", **choose_penalty(Asking()))
    steps.compiler._weights = []
    steps.compiler.enter_region(steps.state, steps.state.schedule, {"discriminator": "compiled"})
    steps.take(1)
    assert any("It was compiled until now" in line for line in steps.list_lines("warn"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("precision", "micro_batch", "tolerance"),
    [("float32", None, 1e-4), ("bfloat16", None, 3e-2), ("float32", 2, 1e-4)],
    ids=["float32", "bfloat16", "slices"],
)
def test_machine_code_is_the_eager_step(precision: str, micro_batch: int | None, tolerance: float) -> None:
    assert describe_missing_compiler(CPU) is None
    chosen = {"augmentation": DiffAugment(), "precision": precision, "micro_batch": micro_batch}
    eager, compiled = (Steps(setting, True, translate_to_machine_code, **chosen) for setting in ("never", "always"))
    for wanted, actual in zip(eager.take(2, alpha=0.2), compiled.take(2, alpha=0.2), strict=True):
        assert_close(actual, wanted, 10 * tolerance)
    assert compiled.compiler.outcome == dict.fromkeys(NETS, "compiled"), compiled.lines
    assert_close(compiled.weights(), eager.weights(), tolerance)
