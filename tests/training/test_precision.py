"""Test `train.precision` and `train.tf32`: what is computed in which type, and the scaling of losses for float16."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pggan_kit import hookimpl
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.system import devices
from pggan_kit.system.devices import prepare_device
from pggan_kit.testing.support import are_equal, copy_weights
from pggan_kit.testing.tiny_runs import load_mid_fade, make_run, make_tiny_experiment, summarize_run, train_tiny
from pggan_kit.testing.toys import ToySampler
from pggan_kit.training.non_finite import Guard, NonFiniteError
from pggan_kit.training.step import UpdateContext
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import WGANGP
from pggan_plugins.optimizers import Adam
from pggan_plugins.penalties import Drift, GradientPenalty
from pggan_plugins.updates import Alternating

HUGE = 2.0**120
"""Scale with which any gradient overflows."""


def choose_components(precision: str = "float16") -> dict[str, Any]:
    return {
        "architecture": PGGAN(channels=4),
        "loss": WGANGP([GradientPenalty(), Drift()]),
        "update": Alternating(),
        "generator_optimizer": Adam(),
        "discriminator_optimizer": Adam(),
        "precision": precision,
    }


def new_state(precision: str = "float16") -> TrainState:
    experiment = make_tiny_experiment(choose_components(precision))
    return TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))


def set_scale(state: TrainState, net: str, scale: float, growth_interval: int = 2000) -> None:
    saved = torch.amp.GradScaler("cpu").state_dict()
    state.scalers[net].load_state_dict({**saved, "scale": scale, "growth_interval": growth_interval})


def step(state: TrainState, guard: Guard | None = None) -> dict[str, Tensor]:
    ctx = UpdateContext(state.experiment, state, state.stage, ToySampler(state.stage), {}, guard)
    losses = state.experiment.update.step(ctx)
    state.images += ctx.drawn
    return losses


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_networks_compute_in_the_chosen_type(precision: str, dtype: torch.dtype | None) -> None:
    state = new_state(precision)
    seen = []
    state.generator.to_image.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    step(state)
    assert set(seen) == {dtype or torch.float32}
    assert all(param.dtype == torch.float32 for param in state.generator.parameters())
    assert [scaler.is_enabled() for scaler in state.scalers.values()] == [precision == "float16"] * 2


@pytest.mark.parametrize("scale", [2.0**4, 2.0**10])
def test_a_step_with_scaled_losses_is_that_of_float32_to_rounding(scale: float) -> None:
    """Compare gradients, no longer scaled: the first steps of Adam would hide a wrong factor."""
    half = new_state()
    full = new_state("float32")
    for net in ("generator", "discriminator"):
        set_scale(half, net, scale)
    losses = step(half)
    for name, value in step(full).items():
        torch.testing.assert_close(losses[name], value, rtol=0.02, atol=0.01)
    for net in ("generator", "discriminator"):
        scaled = flatten_gradients(half.network(net))
        wanted = flatten_gradients(full.network(net))
        assert float((scaled - wanted).norm() / wanted.norm()) < 0.02, net


def flatten_gradients(net: torch.nn.Module) -> Tensor:
    return torch.cat([param.grad.flatten() for param in net.parameters() if param.grad is not None])


@pytest.mark.parametrize("net", ["generator", "discriminator"])
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(net: str) -> None:
    """Check that this is no failure: no weight, no moment and no counter moves, and the run goes on."""
    state = new_state()
    guard = Guard(torch.device("cpu"))
    for name in state.scalers:
        set_scale(state, name, 16.0)
    step(state, guard)
    weights_before = copy_weights(state.network(net))
    moments_before = copy_moments(state.optimizers[net].state_dict())
    set_scale(state, net, HUGE)
    step(state, guard)
    assert are_equal(copy_weights(state.network(net)), weights_before)
    assert are_equal(copy_moments(state.optimizers[net].state_dict()), moments_before)
    assert state.scalers[net].get_scale() == HUGE / 2
    other = "discriminator" if net == "generator" else "generator"
    assert state.scalers[other].get_scale() == 16.0


def copy_moments(saved: dict[str, Any]) -> dict[str, Any]:
    return {"state": {key: {k: v.clone() for k, v in entry.items()} for key, entry in saved["state"].items()}}


def test_the_scale_grows_where_nothing_overflows() -> None:
    state = new_state()
    for net in ("generator", "discriminator"):
        set_scale(state, net, 4.0, growth_interval=2)
    for _ in range(4):
        step(state)
    assert [scaler.get_scale() for scaler in state.scalers.values()] == [16.0, 16.0]


@pytest.mark.parametrize(("scale", "fails"), [(1.0, False), (0.5, True)])
def test_gradients_that_overflow_without_a_scale_are_a_failure(scale: float, fails: bool) -> None:
    state = new_state()
    guard = Guard(torch.device("cpu"))
    set_scale(state, "generator", scale)
    for param in state.generator.parameters():
        param.register_hook(lambda gradient: gradient * math.inf)
    if fails:
        with pytest.raises(NonFiniteError, match=r"^the gradient of the generator's"):
            step(state, guard)
    else:
        step(state, guard)
    assert state.scalers["generator"].get_scale() == scale / 2


def test_a_loss_that_is_nan_is_a_failure_at_any_scale() -> None:
    state = new_state()
    guard = Guard(torch.device("cpu"))
    with torch.no_grad():
        next(state.generator.to_image.parameters()).fill_(math.nan)
    before = copy_weights(state.discriminator)
    with pytest.raises(NonFiniteError, match=r"^the discriminator's"):
        step(state, guard)
    assert are_equal(copy_weights(state.discriminator), before)
    with torch.no_grad():
        next(state.generator.to_image.parameters()).fill_(0.1)
    step(state, guard)  # a step that was dropped leaves nothing behind that forbids the next


class Growing:
    """A hook that lets the scale change every second step, from a beginning of its own."""

    @hookimpl
    def before_run(self, run: Any) -> None:
        if not run.resumed:
            for net in ("generator", "discriminator"):
                set_scale(run.state, net, 32.0, growth_interval=2)


def test_a_resumed_run_keeps_the_scale_bit_for_bit(tmp_path: Path) -> None:
    run = train_tiny(Growing(), "growing", tmp_path, choose_components())
    saved = load_mid_fade(tmp_path)
    assert saved.scalers["generator"]["scale"] > 32.0
    wanted = summarize_run(run)
    scales = [scaler.state_dict() for scaler in run.state.scalers.values()]
    again = train_tiny(Growing(), "growing", tmp_path, choose_components(), saved)
    assert are_equal(summarize_run(again), wanted)
    assert [scaler.state_dict() for scaler in again.state.scalers.values()] == scales


def test_a_checkpoint_without_scales_loads(tmp_path: Path) -> None:
    run = make_run(object(), "nobody", tmp_path, choose_components("float32"))
    content = run.state.take_snapshot().content()
    del content["scalers"]
    new_state("float32").load_snapshot(Snapshot.from_content(content))


def test_float16_needs_an_optimizer_that_can_leave_a_step_out(rejected: Callable[..., str]) -> None:
    rejected(
        r"train\.precision 'float16' needs optimizers that take `found_inf`.* both is a SharedCounterAdam that does",
        "train.update = @updates.JointBatch()",
        "updates.JointBatch.optimizer = @optimizers.SharedAdam()",
        "train.generator_optimizer = None",
        "train.discriminator_optimizer = None",
        "train.precision = 'float16'",
    )


@pytest.fixture
def flags() -> Iterator[None]:
    """Restore the flags of TF32."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    cudnn = torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_set_on_a_gpu_alone(tf32: bool, flags: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not tf32
    prepare_device("cpu", tf32)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (not tf32, not tf32)
    monkeypatch.setattr(devices, "find_device", torch.device)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    prepare_device("cuda:1", tf32)
    assert chosen == [torch.device("cuda", 1)]  # events and captured graphs belong to it
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
