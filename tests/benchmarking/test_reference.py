"""Test that the yardstick under benchmarks/ computes the same mathematics as the project's PGGAN with WGAN-GP."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.modules import load_module
from helpers.paths import ROOT
from torch import Tensor, nn

from pggan_kit import DuePenalty
from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.benchmarking.ceiling import find_main_dtype
from pggan_kit.benchmarking.flops import count_kinds
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import ScheduleSettings
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import WGANGP
from pggan_plugins.penalties import Drift, GradientPenalty
from pggan_plugins.resampling import Nearest
from pggan_plugins.updates.alternating import discriminator_terms, generator_terms

FILE = ROOT / "benchmarks" / "reference.py"
WIDTH = {4: 6, 8: 5, 16: 4}
BATCH = 8


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return load_module(FILE)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build_own_networks(fading: bool) -> tuple[Generator, Discriminator]:
    schedule = ScheduleSettings(tuple(WIDTH), 8, 8, BATCH).resolve(100, 3, 0)
    common: tuple[Any, ...] = (PGGAN(channels=WIDTH), Nearest(), Area(), 0)
    G = Generator(*common, WIDTH[4], schedule.stages[0])
    D = Discriminator(*common, schedule.stages[0])
    for stage in schedule.stages[1:]:
        for net in (G, D):
            net.grow(stage, fading and stage is schedule.stages[-1])
    with torch.no_grad():
        for net in (G, D):
            for param in net.parameters():
                param.normal_()
    return G, D


def reorder_as_theirs(values: Tensor, like: Tensor) -> Tensor:
    """Return our weights, or their gradient, in the reference's order.

    D's full-size layer reads features pixel by pixel in ours, map by map in theirs.
    """
    if like.shape != (WIDTH[4], WIDTH[4] * 16):
        return values
    return values.view(WIDTH[4], 4, 4, WIDTH[4]).permute(0, 3, 1, 2).flatten(1)


def pair_parameters(theirs: nn.Module, ours: Generator | Discriminator) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Return the same parameters of both, ours copied into theirs."""
    convs = lambda block: [m for m in block.modules() if getattr(m, "weight", None) is not None]  # noqa: E731
    blocks = list(ours.blocks.values())
    if isinstance(ours, Generator):
        first = [ours.stem.dense, ours.stem.conv]
        own = [theirs.dense, theirs.conv]
        own_ends, ends = (
            [theirs.to_image, theirs.old_to_image],
            [ours.to_image, getattr(ours.bridge, "old_to_image", 0)],
        )
    else:
        first = [ours.head.conv, ours.head.dense, ours.head.score]
        own = [theirs.conv, theirs.dense, theirs.score]
        blocks = blocks[::-1]
        own_ends = [theirs.from_image, theirs.old_from_image]
        ends = [ours.from_image, getattr(ours.bridge, "old_from_image", 0)]
    layers = list(zip(own, first, strict=True))
    for mine, yours in zip(theirs.blocks, blocks, strict=True):
        layers += zip(mine, convs(yours), strict=True)
    layers += [(mine, convs(yours)[0]) for mine, yours in zip(own_ends, ends, strict=True) if mine is not None]
    pairs = [(a.weight, b.weight) for a, b in layers] + [(a.bias, b.bias) for a, b in layers if a.bias is not None]
    if isinstance(ours, Generator):
        pairs.append((theirs.bias, ours.stem.bias))
    assert len(pairs) == len(list(theirs.parameters())) == len(list(ours.parameters()))
    with torch.no_grad():
        for mine, yours in pairs:
            mine.copy_(reorder_as_theirs(yours, mine))
    return pairs


def require_equal_gradients(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> None:
    for mine, yours in pairs:
        torch.testing.assert_close(mine.grad, reorder_as_theirs(yours.grad, mine), rtol=1e-9, atol=1e-11)
        assert mine.grad.abs().max() > 0


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_same_losses_and_gradients(reference: ModuleType, alpha: float | None) -> None:
    torch.manual_seed(0)
    G, D = build_own_networks(alpha is not None)
    theirs = [net(list(WIDTH.values()), 3, alpha is not None) for net in (reference.Generator, reference.Discriminator)]
    g_pairs = pair_parameters(theirs[0], G)
    d_pairs = pair_parameters(theirs[1], D)
    share = None if alpha is None else torch.tensor(alpha)
    batch = {
        "real": torch.rand(BATCH, 3, 16, 16) * 2 - 1,
        "latents": torch.randn(BATCH, WIDTH[4]),
        "mix": torch.rand(BATCH),
        "labels": None,
    }
    loss = WGANGP([GradientPenalty(), Drift()])
    calls: Any = (lambda z, y=None: G(z, y, share), lambda x, y=None: D(x, y, share), batch)

    due = [DuePenalty(penalty, number, 16, moves=False) for number, penalty in enumerate(loss.penalties)]
    expected = sum(discriminator_terms(*calls, loss, due)[0].values())
    fake: Tensor = theirs[0](batch["latents"], alpha).detach()
    actual = reference.critic_loss(theirs[1], batch["real"], fake, batch["mix"], alpha)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    expected.backward()
    actual.backward()
    require_equal_gradients([pair for pair in d_pairs if pair[1] is not D.head.score.bias])
    # The score's bias moves only the drift: its gradient is small, and all of it.
    torch.testing.assert_close(theirs[1].score.bias.grad, D.head.score.bias.grad)

    expected = sum(generator_terms(*calls, loss)[0].values())
    actual = -theirs[1](theirs[0](batch["latents"], alpha), alpha).mean()
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    expected.backward()
    actual.backward()
    require_equal_gradients(g_pairs)


@pytest.mark.parametrize(("function", "alpha"), [("make", 0.5), ("make_bfloat16", 0.5), ("make_bfloat16", None)])
def test_an_iteration_moves_both_networks(reference: ModuleType, function: str, alpha: float | None) -> None:
    torch.set_default_dtype(torch.float32)
    step, g_params, d_params = getattr(reference, function)(8, alpha, WIDTH, 4, 3)
    params = [*g_params, *d_params]
    if function == "make_bfloat16":
        params.pop()  # the bias of the score, which only the small drift moves: bfloat16 may round that away
    before = [p.detach().clone() for p in params]
    step()
    moved = [not torch.equal(p, old) for p, old in zip(params, before, strict=True)]
    assert all(moved)


def test_precisions_of_the_yardstick_are_what_their_names_say(reference: ModuleType) -> None:
    torch.set_default_dtype(torch.float32)
    for function, convolutions in (("make", torch.float32), ("make_bfloat16", torch.bfloat16)):
        step, g_params, d_params = getattr(reference, function)(8, 0.5, WIDTH, 4, 3)
        counts = count_kinds([(1.0, step)])
        assert find_main_dtype(counts.calls) == convolutions
        assert {param.dtype for param in (*g_params, *d_params)} == {torch.float32}


def test_only_the_step_in_tf32_allows_it(reference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    allowed: list[bool] = []
    loss = reference.critic_loss

    def note_tf32(*args: Any) -> Tensor:
        allowed.append(torch.backends.cudnn.allow_tf32)
        return loss(*args)

    monkeypatch.setattr(reference, "critic_loss", note_tf32)
    for function in ("make", "make_tf32"):
        step, _, _ = getattr(reference, function)(8, None, WIDTH, 4, 3)
        step()
    assert allowed == [False, True]
    assert torch.backends.cudnn.allow_tf32 is False


def test_the_ladder_fits_the_yardstick(reference: ModuleType) -> None:
    torch.set_default_dtype(torch.float32)
    prepared = prepare(FILE.with_name("ladder.gin"), plugins=[str(FILE.with_name("noise.py"))])
    schedule, experiment = prepared.schedule(), prepared.built.experiment
    width = {stage.height: experiment.architecture.width(stage) for stage in schedule.stages}
    assert list(width.values()) == [64, 64, 64, 64, 32, 16] and experiment.latent_size == width[4]
    assert {stage.batch_size for stage in schedule.stages} == {16}
    assert [(type(penalty).__name__, penalty.every) for penalty in experiment.loss.penalties] == [
        ("GradientPenalty", 1),
        ("Drift", 1),
    ]
    require_equal_sizes(reference, prepared, width, 16)


def require_equal_sizes(reference: ModuleType, prepared: Prepared, width: dict[int, int], batch: int) -> None:
    """Check that both have as many parameters at the second stage."""
    _, *networks = reference.make(8, None, width, batch, 3)
    state = prepared.state(prepared.schedule())
    state.grow({})
    for theirs, ours in zip(networks, (state.generator, state.discriminator), strict=True):
        assert sum(p.numel() for p in theirs) == sum(p.numel() for p in ours.parameters())


def test_what_is_measured_on_a_gpu_is_the_paper_s(reference: ModuleType) -> None:
    torch.set_default_dtype(torch.float32)
    prepared = prepare(FILE.with_name("paper.gin"), plugins=[str(FILE.with_name("noise.py"))])
    stages = prepared.schedule().stages
    width = {stage.height: prepared.built.experiment.architecture.width(stage) for stage in stages}
    assert width == {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
    assert [stage.batch_size for stage in stages] == [16, 16, 16, 16, 16, 16, 14, 6, 3]
    assert [(type(each).__name__, each.every) for each in prepared.built.experiment.loss.penalties] == [
        ("GradientPenalty", 1),
        ("Drift", 1),
    ]
    require_equal_sizes(reference, prepared, width, 16)
