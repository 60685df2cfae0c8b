"""Test an encoder as a third network: that of BiGAN in `examples/`, whose discriminator reads latents beside images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bigan import BiGAN, Pairs
from click.testing import Result
from conftest import STUB, TINY
from helpers.compiled_steps import Steps
from helpers.forks import fork_ranks
from helpers.gin_text import bind_again
from helpers.killing import StopAt, assert_same_run, last
from helpers.paths import ROOT
from torch import Tensor, nn

import pggan_kit
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, PluginError, RunError, SettingError
from pggan_kit.growth.fade import PATHS
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.state import TrainState
from pggan_kit.system import distributed
from pggan_kit.testing.support import are_equal, copy_weights, perturb
from pggan_kit.testing.tiny_runs import make_tiny_experiment, train_tiny
from pggan_kit.testing.toys import ToyArchitecture, ToyOptimizer, ToySampler
from pggan_kit.training.batch_statistics import list_batch_statistics
from pggan_kit.training.non_finite import Guard, NonFiniteError
from pggan_kit.training.step import UpdateContext
from pggan_plugins.architectures import PGGAN
from pggan_plugins.growth import FreezeOld
from pggan_plugins.losses import NonSaturating
from pggan_plugins.penalties import R1

PLUGIN = ROOT / "examples" / "bigan" / "bigan.py"
PLUGINS = [STUB, PLUGIN]
WITH_ENCODER = [
    "train.discriminator_architecture = @architectures.Pairs()",
    "train.encoder_architecture = @architectures.PGGAN()",
    "architectures.Pairs.channels = 4",
    "architectures.Pairs.latent_size = 8",
    "train.update = @updates.BiGAN()",
    "train.encoder_optimizer = @e/optimizers.Adam()",
]
CPU = torch.device("cpu")
CHOSEN: dict[str, Any] = {
    "architecture": PGGAN(4),
    "discriminator_architecture": Pairs(8, 4),
    "encoder_architecture": PGGAN(4),
    "encoder_optimizer": ToyOptimizer(),
    "update": BiGAN(),
    "loss": NonSaturating([R1()]),
}

Train = Callable[..., Any]


def build_state(**chosen: Any) -> TrainState:
    experiment = make_tiny_experiment({**CHOSEN, **chosen})
    return TrainState(experiment, experiment.schedule.resolve(16, 1, 0), CPU)


def make_context(state: TrainState, alpha: Any = None, guard: Guard | None = None) -> UpdateContext:
    return UpdateContext(state.experiment, state, state.stage, ToySampler(state.stage), alpha or {}, guard)


def take_step(state: TrainState, alpha: dict[str, Tensor] | None = None) -> None:
    ctx = make_context(state, alpha)
    state.experiment.update.step(ctx)
    state.images += ctx.drawn


def test_an_encoder_learns_and_resumes_amid_a_fade(train: Train, cli: Callable[..., Result]) -> None:
    whole = train(*WITH_ENCODER, run_dir="whole", plugins=(PLUGIN,))
    assert len(whole.state.encoder.blocks) == 2 and whole.state.encoder.bridge is None
    assert "Loss/encoder/logistic" in RunDirectory(Path("whole")).stats()[-1]

    with pytest.raises(Interrupted):
        train(*WITH_ENCODER, run_dir="halted", plugins=(PLUGIN, StopAt(12)))
    assert any(name.startswith("bridge.") for name in last(Path("halted"))["encoder"])
    resume("halted", plugins=PLUGINS)
    assert_same_run(Path("halted"), Path("whole"))

    # Those who want the generator alone need not know of the encoder.
    generator = pggan_kit.load_generator("whole", plugins=PLUGINS)
    assert generator(torch.zeros(2, 8)).shape == (2, 1, 16, 16)
    with pytest.raises(RunError, match=r"another architecture \(train\.encoder_architecture: .* there, .* here"):
        resume("halted", ["train.encoder_architecture = @architectures.Pairs()"], plugins=PLUGINS)


def test_two_ranks_train_it_as_one_does(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def train_as_rank() -> None:
        distributed.join_group()
        train_tiny(object(), "nobody", tmp_path / "two", CHOSEN)

    train_tiny(object(), "nobody", tmp_path / "one", CHOSEN)
    for process in fork_ranks(2, train_as_rank):
        assert process.wait() == 0, process.read_errors()
    one, two = (RunDirectory(tmp_path / run).checkpoints().load_last() for run in ("one", "two"))
    for name in ("generator", "discriminator", "encoder"):
        torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=1e-4, atol=1e-5)


def test_compiled_steps_and_slices_of_a_batch_lead_to_the_same_weights() -> None:
    ends = []
    cases: list[dict[str, Any]] = [{}, {"compile": "always"}, {"micro_batch": 2}]
    for case in cases:
        steps = Steps(**{"compile": "never", "fading": True, **CHOSEN, "loss": NonSaturating(), **case})
        steps.take(3, alpha=0.3)
        assert not steps.list_lines("warn")
        ends.append({name: copy_weights(net) for name, net in steps.state.networks.items()})
        if case.get("compile"):
            assert steps.compiler.outcome == dict.fromkeys(("discriminator", "generator", "encoder"), "compiled")
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_it_grows_with_its_function_preserved_and_fades_like_the_discriminator() -> None:
    state = build_state()
    encoder = state.encoder
    assert encoder is not None
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    perturb(encoder, 0, 0.3)
    reduced = state.experiment.image_resampling.down(1, 2)(images)
    before = encoder(reduced)
    assert before.shape == (4, 8) and before.std() > 0.01
    state.grow({"generator": False, "discriminator": True})
    torch.testing.assert_close(encoder(images, torch.zeros(())), before, rtol=1e-5, atol=1e-6)
    state.renew_optimizers()

    # In an update, its alpha is the discriminator's.
    alpha = {path: torch.tensor(0.75 if path == "discriminator" else 0.25) for path in PATHS}
    wanted = encoder(images, torch.tensor(0.75))
    seen: list[Tensor] = []

    def terms(G: Any, D: Any, E: Any, batch: Any) -> Any:
        seen.append(E(batch["images"]))
        return {"size": seen[0].square().mean()}, {}

    with torch.enable_grad():
        make_context(state, alpha).minimise("encoder", "encoder", terms, {"images": images})
    torch.testing.assert_close(seen[0], wanted)

    # Its old path goes as the discriminator's does, and is not there where that one begins without.
    state.end_fade()
    assert encoder.bridge is None
    other = build_state()
    other.grow({"generator": True, "discriminator": False})
    assert other.encoder is not None and other.encoder.bridge is None


def test_only_the_named_network_moves_and_the_guard_names_it() -> None:
    state = build_state()
    ctx = make_context(state, guard=Guard(CPU))
    state.experiment.update.step(ctx)
    batch = {"real": torch.rand(4, 1, 4, 4), "latents": torch.rand(4, 8)}

    # Terms through all three networks.
    def terms(G: Any, D: Any, E: Any, batch: Any) -> Any:
        return {"cycle": D(G(E(batch["real"])), E(batch["real"])).score.mean()}, {}

    for moving in state.networks:
        before = {name: copy_weights(net) for name, net in state.networks.items()}
        ctx.minimise(moving, moving, terms, batch)
        moved = [name for name, net in state.networks.items() if not are_equal(copy_weights(net), before[name])]
        assert moved == [moving]
        for name, net in state.networks.items():
            gradients = [param.grad for param in net.parameters() if param.requires_grad]
            assert bool(gradients) == (name == moving)

    with pytest.raises(NonFiniteError, match="the encoder's nonsense"):
        ctx.minimise("encoder", "encoder", lambda G, D, E, batch: ({"nonsense": E(batch["real"]).sum() / 0}, {}), batch)
    with pytest.raises(ValueError, match=r"the net 'encodr' \(did you mean encoder\?\); there are generator, disc"):
        ctx.minimise("encoder", "encodr", terms, batch)


def test_its_running_statistics_are_averaged_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever network moves."""
    state = build_state(encoder_architecture=PGGAN(4, discriminator_norm="batch"))
    assert state.encoder is not None
    statistics = {id(buffer) for buffer in state.encoder.buffers() if buffer.is_floating_point()}
    averaged: list[set[int]] = []
    monkeypatch.setattr("pggan_kit.system.distributed.world_size", lambda: 2)
    monkeypatch.setattr(
        "pggan_kit.system.distributed.average", lambda tensors: averaged.append({id(each) for each in tensors})
    )
    take_step(state)
    assert statistics and len(averaged) == 3
    assert all(statistics <= each for each in averaged)


def test_a_growth_policy_decides_over_its_pieces_too(rejected: Callable[..., str], tiny: Callable[..., str]) -> None:
    state = build_state(growth=FreezeOld(nets=["encoder"]))
    state.grow(dict.fromkeys(("generator", "discriminator"), True))
    state.renew_optimizers()
    encoder = state.encoder
    assert encoder is not None
    frozen = {piece.name for piece in encoder.frozen}
    assert frozen == {"head"}
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    take_step(state, {path: torch.tensor(0.5) for path in PATHS})
    same = {name for name, value in encoder.state_dict().items() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith("head.")}

    # A policy that freezes all of it is refused before anything is trained.
    Path("still.py").write_text(STILL)
    rejected(
        r"train\.growth freezes the whole encoder at images \d+ \(stage 8x8",
        *WITH_ENCODER,
        "train.growth = @growth.Still()",
        args=["--plugin", str(PLUGIN), "--plugin", "still.py"],
    )


STILL = """\
from pggan_kit import Component, hookimpl

class Still:
    moments = "keep"

    def factor(self, piece, position):
        return 0.0 if piece.net == "encoder" and position.stage.index == 1 else 1.0

@hookimpl
def components():
    return [Component("growth", "Still", Still)]
"""


def test_plan_counts_its_weights_and_bench_against_others_needs_two_networks(
    tiny: Callable[..., str], cli: Callable[..., Result]
) -> None:
    result = cli("plan", tiny(*WITH_ENCODER, "schedule.sizes = (4,)"), "--plugin", STUB, "--plugin", PLUGIN, "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)[0]
    encoder = build_state().encoder
    assert encoder is not None
    own = sum(param.numel() for param in encoder.parameters())
    assert row["encoder_parameters"] == own
    # Weights, gradients and two moments of each network, and one average of G.
    copies = 5 * row["generator_parameters"] + 4 * (row["discriminator_parameters"] + own)
    assert row["weights_mib"] == pytest.approx(copies * 4 / 2**20)

    Path("theirs.py").write_text("def make(size, alpha, width, batch, colours): ...\n")
    lines = [*WITH_ENCODER[1:2], "train.update = @updates.BiGAN()", WITH_ENCODER[-1]]
    against = ("--plugin", STUB, "--plugin", PLUGIN, "--against", "theirs.py:make")
    result = cli("bench", tiny(*lines), *against)
    assert result.exit_code == 2
    assert "needs an update of two networks: leave train.encoder_architecture out" in result.stderr


REFUSED = {
    "no architecture": (
        r"train\.update trains an encoder, and there is none: bind train\.encoder_architecture",
        ["train.encoder_architecture = None"],
    ),
    "no update": (
        r"train\.encoder_architecture is bound, and train\.update \(Alternating\) trains no encoder",
        ["train.update = @updates.Alternating()"],
    ),
    "no optimizer": (r"updates\.BiGAN needs train\.encoder_optimizer: bind it", ["train.encoder_optimizer = None"]),
    "no head": (
        r"train\.encoder_architecture needs a method encoder_head\(stage, latent_size\): ResNet has none",
        ["train.encoder_architecture = @architectures.ResNet()"],
    ),
    "another kind": (
        r"train\.encoder_architecture must be a component, as @architectures\.NAME\(\)",
        ["train.encoder_architecture = @datasets.Stub()"],
    ),
    "another kind of optimizer": (
        r"train\.encoder_optimizer must be a component, as @optimizers\.NAME\(\)",
        ["train.encoder_optimizer = @datasets.Stub()"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused_before_training(case: str, rejected: Callable[..., str]) -> None:
    pattern, lines = REFUSED[case]
    rejected(pattern, *WITH_ENCODER, *lines, args=["--plugin", str(PLUGIN)])


def test_its_batch_norm_is_checked_and_warned_of_like_the_discriminators(
    rejected: Callable[..., str], tiny: Callable[..., str]
) -> None:
    own = [
        "train.encoder_architecture = @e/architectures.PGGAN()",
        "e/architectures.PGGAN.discriminator_norm = 'batch'",
    ]
    alone = [*WITH_ENCODER, *own, "train.micro_batch = 1"]
    message = r"at 4x4 discriminator_norm = 'batch' needs at least 2 samples in a call: .*; change schedule\.batch_size"
    rejected(message, *alone, args=["--plugin", str(PLUGIN)])

    prepared = prepare(tiny(*WITH_ENCODER, *own, "train.micro_batch = 2"), plugins=PLUGINS)
    stage = prepared.schedule().stages[0]
    listed = list_batch_statistics(prepared.built.experiment, stage, 4)
    assert ("encoder", "batch norm", 2) in [statistic[:3] for statistic in listed]


def test_an_optimizer_without_an_encoder_is_refused() -> None:
    with pytest.raises(SettingError, match="encoder_optimizer is bound, and there is no encoder"):
        make_tiny_experiment({"encoder_optimizer": ToyOptimizer()})


class SameName(BiGAN):
    def encoder_optimizers(self, experiment: Any, stage: Any, encoder: nn.Module) -> Any:
        return {"generator": super().encoder_optimizers(experiment, stage, encoder)["encoder"]}


class NoOptimizers(BiGAN):
    def encoder_optimizers(self, experiment: Any, stage: Any, encoder: nn.Module) -> Any:
        return None


def test_wrong_optimizers_and_codes_are_named() -> None:
    with pytest.raises(PluginError, match=r"both returned an optimizer 'generator': rename one of them"):
        build_state(update=SameName())
    with pytest.raises(PluginError, match=r"encoder_optimizers\(\) returned None, and must return a dict"):
        build_state(update=NoOptimizers())
    for make_head, pattern in (
        (lambda: nn.Flatten(0), r"the encoder's head returned a tensor \(.*\), and must return \(4, K\)"),
        (lambda: Pair(), r"the encoder's head returned a tuple, and must return a tensor \(N, K\)"),
    ):
        state = build_state()
        assert state.encoder is not None
        state.encoder.head = make_head()
        with pytest.raises(TypeError, match=pattern):
            state.encoder(torch.zeros(4, 1, 4, 4))


class Pair(nn.Module):
    def forward(self, features: Tensor) -> Any:
        return features, features


def test_checkpoints_with_and_without_an_encoder_do_not_mix(train: Train) -> None:
    """What their noted settings say is compared first; without these, the weights themselves tell."""
    train(*WITH_ENCODER, "schedule.sizes = (4,)", run_dir="with", plugins=(PLUGIN,))
    train("schedule.sizes = (4,)", run_dir="without")
    later = ["schedule.sizes = (4, 8)"]
    with pytest.raises(RunError, match=r"--from: train\.\w+ is .* there, and .* in this config: bind it"):
        start_from([*WITH_ENCODER, *later], start_from="without")

    saved = RunDirectory(Path("with")).checkpoints().load_last()
    state = build_state(architecture=PGGAN(4))
    with pytest.raises(RunError, match="the checkpoint has no encoder, and this config has one"):
        state.load_snapshot(replace(saved, encoder={}))
    with pytest.raises(RunError, match="the checkpoint has no encoder, and this config has one"):
        state.replace_pieces(replace(saved, encoder={}))
    plain = make_tiny_experiment({"architecture": ToyArchitecture()})
    with pytest.raises(RunError, match="the checkpoint has an encoder, and this config has none"):
        TrainState(plain, plain.schedule.resolve(16, 1, 0), CPU).load_snapshot(saved)

    # A stem's encoder comes along.
    run = start_from([*WITH_ENCODER, *later, "schedule.stable_images = {4: 0, 8: 4}"], stem="with")
    assert run.state.encoder is not None


def start_from(lines: list[str], **origin: str) -> Any:
    """Train the tiny experiment from another run."""
    Path("later.gin").write_text(bind_again(TINY, lines))
    return pggan_kit.train("later.gin", plugins=PLUGINS, run_dir="later", **origin)
