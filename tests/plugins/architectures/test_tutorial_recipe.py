"""Tests of the tutorial's recipe against a second, plain transcription of it.

Its components are tested one by one in `test_tutorial.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.paths import ROOT
from PIL import Image
from torch import Tensor, nn

from pggan_kit import Component, hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import resume, train
from pggan_kit.errors import ConfigError
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.system.seeding import derive
from pggan_kit.training.step import UpdateContext

EXPERIMENTS = ROOT / "experiments"
STAGES = (7, 14, 28)
FADE = 2  # steps of a fade
COUNT = 100  # images of the data set
BATCH = 32  # reals of a step

Tensors = dict[str, Tensor]


class Noise:
    """A data set of 100 images of noise, each in a class of its own, so that labels show which images a batch holds."""

    classes = COUNT
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 28, 28, 1), np.uint8)

    def __len__(self) -> int:
        return COUNT

    def image(self, i: int) -> np.ndarray:
        return self.pixels[i]

    def label(self, i: int) -> int:
        return i

    def fingerprint(self) -> str:
        return "noise"


class Transcription:
    """The tutorial's recipe as functions on dicts of tensors. Names: network and size, layer, tensor."""

    def __init__(self) -> None:
        self.weights: Tensors = {}
        self.running: Tensors = {}
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.updates = 0

    def norm(self, x: Tensor, name: str, training: bool) -> Tensor:
        dims = (0,) if x.dim() == 2 else (0, 2, 3)
        shape = (1, -1) if x.dim() == 2 else (1, -1, 1, 1)
        mean = self.running[f"{name}.running_mean"]
        var = self.running[f"{name}.running_var"]
        if training:
            n = x.numel() / x.shape[1]
            mean = x.mean(dims)
            var = ((x - x.mean(dims, keepdim=True)) ** 2).mean(dims)
            for key, new in (("mean", mean), ("var", var * n / (n - 1))):
                old = self.running[f"{name}.running_{key}"]
                self.running[f"{name}.running_{key}"] = 0.99 * old + 0.01 * new.detach()
        x = (x - mean.view(shape)) / (var.view(shape) + 1e-3) ** 0.5
        return x * self.weights[f"{name}.weight"].view(shape) + self.weights[f"{name}.bias"].view(shape)

    def one(self, x: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.weight"][:, :, 0, 0]
        return torch.einsum("nchw,dc->ndhw", x, weight) + self.weights[f"{name}.bias"].view(1, -1, 1, 1)

    def generator(self, z: Tensor, size: int, alpha: float | None, training: bool) -> Tensor:
        w = self.weights
        x = z @ w["g7.dense.weight"].T + w["g7.dense.bias"]
        x = before = self.norm(x, "g7.norm", training).clamp(min=0).reshape(-1, 128, 7, 7)
        for s in (14, 28)[: STAGES.index(size)]:
            before = x
            x = F.conv_transpose2d(x, w[f"g{s}.conv.weight"], w[f"g{s}.conv.bias"], stride=2, padding=1)
            x = self.norm(x, f"g{s}.norm", training).clamp(min=0)
        image = torch.tanh(self.one(x, f"g{size}.rgb"))
        if alpha is None:
            return image
        old = self.one(before.repeat_interleave(2, 2).repeat_interleave(2, 3), f"g{size}.project")
        return alpha * image + (1 - alpha) * torch.tanh(self.one(old, f"g{size}.rgb"))

    def discriminator(self, x: Tensor, size: int, alpha: float | None, training: bool) -> Tensor:
        w = self.weights
        x = torch.tanh(self.one(x, f"d{size}.rgb"))
        for s in (28, 14)[2 - STAGES.index(size) :]:
            seen = x
            x = F.conv2d(F.pad(x, (1, 1, 1, 1)), w[f"d{s}.conv.weight"], w[f"d{s}.conv.bias"], stride=2)
            x = self.norm(x, f"d{s}.norm", training)
            x = torch.where(x > 0, x, 0.3 * x)
            if training:
                x = x * draw_mask(x, 0.7) / 0.7
            if s == size and alpha is not None:
                pooled = F.avg_pool2d(seen, 4, 2, padding=1, count_include_pad=False)
                x = alpha * x + (1 - alpha) * self.one(pooled, f"d{s}.project")
        return x.flatten(1) @ w["d7.dense.weight"].T[:, 0] + w["d7.dense.bias"]

    def adam(self, loss: Tensor, net: str) -> None:
        names = [name for name in self.weights if name.startswith(net)]
        grads = torch.autograd.grad(loss, [self.weights[name] for name in names], allow_unused=True)
        self.updates += 1
        rate = 2e-4 * math.sqrt(1 - 0.999**self.updates) / (1 - 0.5**self.updates)
        for name, grad in zip(names, grads, strict=True):
            if grad is None:
                continue
            m, v = self.moments.get(name, (torch.zeros_like(grad), torch.zeros_like(grad)))
            m = 0.5 * m + 0.5 * grad
            v = 0.999 * v + 0.001 * grad**2
            self.moments[name] = m, v
            self.weights[name] = (self.weights[name] - rate * m / (v.sqrt() + 1e-7)).detach().requires_grad_(True)

    def step(self, real: Tensor, z: Tensor, size: int, alpha: float | None) -> tuple[Tensor, Tensor]:
        fake = self.generator(z, size, alpha, training=True)
        g_loss = -F.logsigmoid(self.discriminator(fake, size, alpha, training=False)).mean()
        self.adam(g_loss, "g")
        scores = self.discriminator(torch.cat([real, fake[:32].detach()]), size, alpha, training=True)
        is_real = torch.cat([torch.ones(32), torch.zeros(32)])
        d_loss = -(is_real * F.logsigmoid(scores) + (1 - is_real) * F.logsigmoid(-scores)).mean()
        self.adam(d_loss, "d")
        return g_loss, d_loss


def draw_mask(x: Tensor, share: float) -> Tensor:
    """Draw a mask in the order of the elements' indices, whatever the memory layout.

    torch's own order is that of the memory.
    """
    return torch.empty(x.shape, device=x.device).bernoulli_(share)


def name_layers(state: Any) -> dict[str, nn.Module]:
    """Return the framework's layers by the transcription's names."""
    g = state.generator
    d = state.discriminator
    size = state.stage.height
    named = {"g7.dense": g.stem.dense, "g7.norm": g.stem.norm, f"g{size}.rgb": g.to_image[0]}
    named |= {"d7.dense": d.head.dense, f"d{size}.rgb": d.from_image[0]}
    for net, name in ((g, "g"), (d, "d")):
        for index, block in net.blocks.items():
            named |= {f"{name}{STAGES[int(index)]}.conv": block[0], f"{name}{STAGES[int(index)]}.norm": block[1]}
        if net.bridge is not None:
            named[f"{name}{size}.project"] = net.bridge.project
    return named


def copy_tensors(state: Any) -> Tensors:
    """Return the weights and running statistics by the transcription's names."""
    copies = {}
    for layer_name, layer in name_layers(state).items():
        for key, tensor in layer.state_dict().items():
            if "num_batches" not in key:
                copies[f"{layer_name}.{key}"] = tensor.clone()
    return copies


class Shadow:
    """An observer that trains the transcription beside a run, and compares them after every step."""

    def __init__(self) -> None:
        self.plain = Transcription()
        self.drawn: list[Any] = []
        self.compared: list[tuple[int, float | None]] = []

    @hookimpl
    def before_stage(self, state: Any) -> None:
        self.begun = state.steps
        for name, tensor in copy_tensors(state).items():
            place = self.plain.running if "running" in name else self.plain.weights
            place.setdefault(name, tensor.requires_grad_("running" not in name))

    @hookimpl
    def after_step(self, run: Any, state: Any, losses: Tensors) -> None:
        size = state.stage.height
        done = state.steps - 1 - self.begun
        alpha = done / FADE if size > 7 and done < FADE else None
        (images, labels), z = self.drawn
        self.drawn.clear()

        # The reals are those of the labels, every second or fourth pixel of them.
        pixels = Noise.pixels[labels, :, :, 0][:, 14 // size :: 28 // size, 14 // size :: 28 // size]
        real = torch.from_numpy(pixels)[:, None] / 255.0 * 2 - 1
        assert_close(images, real, "reals")

        # The same step, with the same random numbers for dropout.
        torch.manual_seed(derive(0, "step", state.images - BATCH, 0))
        g_loss, d_loss = self.plain.step(real.double(), z, size, alpha)
        assert_close(losses["Loss/generator/cross_entropy"], g_loss.detach(), "G's loss")
        assert_close(losses["Loss/discriminator/cross_entropy"], d_loss.detach(), "D's loss")
        for name, tensor in copy_tensors(state).items():
            assert_close(tensor, {**self.plain.weights, **self.plain.running}[name].detach(), name)
        generated = run.generate(z[:3])
        assert_close(generated, self.plain.generator(z[:3], size, alpha, training=False).float(), "images", 1e-6)
        self.compared.append((size, alpha))


def assert_close(actual: Tensor, wanted: Tensor, what: str, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        actual, wanted.to(actual.dtype), rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
    )


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The recipe on noise: 2 steps at 7, 2 + 1 at 14, 2 + 1 at 28."""
    file = tmp_path / "short.gin"
    file.write_text(
        f"include '{EXPERIMENTS / 'tutorial_mnist.gin'}'\n"
        "train.dataset = @datasets.Noise()\ntrain.observers = []\ntrain.device = 'cpu'\ntrain.tick = 96_000\n"
        f"data.cache = '{tmp_path / 'cache'}'\nschedule.fade_images = '{FADE} steps'\n"
        "schedule.stable_images = {7: '2 steps', 14: '1 steps', 28: '1 steps'}\n"
    )
    return file


NOISE = Component("datasets", "Noise", Noise)


@pytest.mark.usefixtures("few_calibrations")
def test_recipe_is_followed_step_by_step(
    config: Path, tmp_path: Path, double: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The shadow takes each step from the same reals, latents and masks of dropout.
    shadow = Shadow()
    dropout = lambda x, p, training, inplace: x * draw_mask(x, 1 - p) / (1 - p) if training else x  # noqa: E731
    monkeypatch.setattr(F, "dropout", dropout)
    for name in ("reals", "latents"):
        drawn = getattr(UpdateContext, name)

        def record(ctx: UpdateContext, *args: Any, drawn: Any = drawn) -> Any:
            shadow.drawn.append(drawn(ctx, *args))
            return shadow.drawn[-1]

        monkeypatch.setattr(UpdateContext, name, record)

    # D infers for G, and then learns from one joint batch.
    calls: list[tuple[str, bool, int]] = []
    for net in (Generator, Discriminator):
        forward = net.forward

        def spy(self: Any, x: Tensor, *args: Any, forward: Any = forward) -> Any:
            calls.append((self.kind, self.training, len(x)))
            return forward(self, x, *args)

        monkeypatch.setattr(net, "forward", spy)
    run = train(config, run_dir=tmp_path / "run", plugins=[NOISE, shadow])
    once = [("generator", True, 64), ("discriminator", False, 64), ("discriminator", True, 64)]
    # For the shadow and at ticks a generator draws images in inference mode.
    assert [call for call in calls if call[:2] != ("generator", False)] == once * 8
    assert run.state.discriminator.training and run.state.discriminator.blocks.training

    # It was compared at each size and phase, and ends with the same moments.
    grown = [(size, alpha) for size in (14, 28) for alpha in (0.0, 0.5, None)]
    assert shadow.compared == [(7, None)] * 2 + grown
    optimizer = run.state.optimizers["both"]
    assert {state["step"] for state in optimizer.state.values()} == {2 * run.state.steps}
    moments = {name: shadow.plain.moments[name] for name in copy_tensors(run.state) if name in shadow.plain.moments}
    for name, (first, second) in moments.items():
        layer, _, kind = name.rpartition(".")
        state = optimizer.state[getattr(name_layers(run.state)[layer], kind)]
        assert_close(state["exp_avg"], first, name)
        assert_close(state["exp_avg_sq"], second, name)
    assert len(moments) == len(optimizer.state) == len(list(optimizer.param_groups[0]["params"]))


class Breaks:
    """A hook that fails in the middle of the last fade, past a checkpoint."""

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.steps == 9:
            raise RuntimeError("the plug was pulled")


def shorten(tmp_path: Path, fade: int) -> list[str]:
    """Return overrides: few digits, narrow networks, fades of `fade` steps, two in other phases, a tick every four."""
    return [
        f"schedule.fade_images = '{fade} steps'", "schedule.stable_images = '2 steps'", "train.tick = 128",
        "datasets.MNIST.limit = 64", f"data.cache = '{tmp_path / 'cache'}'", "train.device = 'cpu'",
        "observers.Samples.count = 1", "observers.Growth.count = 1", "observers.TensorBoard.count = 1",
        "architectures.Tutorial.generator_channels = 8", "architectures.Tutorial.discriminator_channels = 8",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("few_calibrations")
def test_resumed_run_ends_equal_bit_for_bit_with_the_same_counter(tmp_path: Path) -> None:
    recipe = EXPERIMENTS / "tutorial_mnist.gin"
    short = shorten(tmp_path, fade=3)
    whole = train(recipe, short, run_dir=tmp_path / "whole")
    with pytest.raises(Exception, match="plug was pulled"):
        train(recipe, short, run_dir=tmp_path / "run", plugins=[Breaks()])
    saved = Checkpoints(tmp_path / "run" / "checkpoints").load_last()
    assert saved.phase == "fade" and saved.bridged["generator"] and saved.steps == 8
    assert {state["step"] for state in saved.optimizers["both"]["state"].values()} == {16}
    resumed = resume(tmp_path / "run")
    assert {state["step"] for state in resumed.state.optimizers["both"].state.values()} == {2 * 12}
    left = whole.state.take_snapshot()
    right = resumed.state.take_snapshot()
    for name in ("generator", "discriminator", "averages", "optimizers", "steps", "starts"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name), rtol=0, atol=0)


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize("name", ["tutorial_mnist", "tutorial_mnist_mended"])
def test_experiment_trains_two_steps_in_each_phase(name: str, tmp_path: Path) -> None:
    run = train(EXPERIMENTS / f"{name}.gin", shorten(tmp_path, fade=2), run_dir=tmp_path / "run")
    assert (run.state.steps, run.state.images, run.state.starts) == (10, 320, [0, 64, 192])
    with Image.open(tmp_path / "run" / "growth.gif") as gif:
        assert gif.n_frames == 5 and gif.info["duration"] == 400
    grids = sorted((tmp_path / "run" / "samples").glob("[0-9]*.png"))
    assert [grid.stem.partition("-")[2] for grid in grids] == ["7x7", "14x14", "14x14", "28x28", "28x28"]
    own, average = (next(net.parameters()) for net in (run.state.generator, run.state.ema))
    mended = name == "tutorial_mnist_mended"
    assert torch.equal(own, average) != mended
    assert (run.experiment.architecture.preserves_function, run.experiment.fade_reals) == (mended, mended)


def test_budgets_and_alpha_are_the_tutorials() -> None:
    schedule = prepare(EXPERIMENTS / "tutorial_mnist.gin").schedule()
    starts = schedule.planned_starts()
    assert [start / BATCH for start in starts] == [0, 3000, 6000] and schedule.total == 15_000 * BATCH == 8 * 60_000
    for index, size in enumerate(STAGES):
        for step in range(9000 if size == 28 else 3000):
            position = schedule.at(starts[index] + step * BATCH, starts[: index + 1])
            alpha = position.progress if position.phase == "fade" else 1.0
            assert alpha == (min(1.0, step / 2000) if index else 1.0)


def test_optimizer_of_one_network_is_refused(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bind train\.generator_optimizer = None"):
        train(config, ["train.generator_optimizer = @optimizers.Adam()"], run_dir=tmp_path / "run", plugins=[NOISE])
