"""Test the state of training: optimizers, average, means, round trips; and the random numbers of steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.defects import SquaredScores

from pggan_kit import Scores, check_at_least, follow_clock, hookimpl
from pggan_kit.errors import ConfigError, PluginError, RunError
from pggan_kit.growth.learning_rates import set_learning_factor
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.runs.tick_means import TickMeans
from pggan_kit.schedule import Position, ScheduleSettings
from pggan_kit.system.seeding import derive, numpy_generator, torch_generator
from pggan_kit.testing.support import are_equal, draw_noise
from pggan_kit.testing.tiny_runs import make_tiny_experiment, summarize_run, train_tiny
from pggan_kit.testing.toys import ToyDataset, ToyLoss, ToyOptimizer, ToySampler
from pggan_kit.training.step import UpdateContext, image_gradients
from pggan_plugins.architectures import PGGAN
from pggan_plugins.averages import Copy, HalfLife, PerUpdate, PowerFunction
from pggan_plugins.growth import Everything, FreezeOld
from pggan_plugins.losses import WGANGP, Hinge
from pggan_plugins.optimizers import Adam
from pggan_plugins.penalties import Drift, GradientPenalty
from pggan_plugins.resampling import Bilinear
from pggan_plugins.switches import Hard, Linear
from pggan_plugins.updates import Alternating

BOTH = {"generator": True, "discriminator": True}


def make_state(**chosen: Any) -> TrainState:
    experiment = make_tiny_experiment(chosen)
    dataset = experiment.dataset
    return TrainState(experiment, experiment.schedule.resolve(16, 1, dataset.classes), torch.device("cpu"))


def make_step(state: TrainState, **alpha: float) -> UpdateContext:
    tensors = {path: torch.tensor(value) for path, value in alpha.items()}
    return UpdateContext(state.experiment, state, state.stage, ToySampler(state.stage), tensors)


def run_step(state: TrainState, **alpha: float) -> None:
    ctx = make_step(state, **alpha)
    state.experiment.update.step(ctx)
    state.images += ctx.drawn
    state.update_averages(ctx.drawn)


class CountedBilinear(Bilinear):
    """A pair that counts its modules."""

    made = 0

    def up(self, channels: int, factor: int) -> Any:
        self.made += 1
        return super().up(channels, factor)

    def down(self, channels: int, factor: int) -> Any:
        self.made += 1
        return super().down(channels, factor)


def test_the_pair_that_fades_reals_is_made_once_for_each_stage_on_the_device() -> None:
    """What a step makes and copies cannot be part of a graph."""
    pair = CountedBilinear()
    state = make_state(image_resampling=pair, schedule=ScheduleSettings((4, 8, 16), 16, 16, 4))
    for made in (2, 4):
        state.grow(dict.fromkeys(BOTH, False))
        pair.made = made - 2
        for _ in range(3):
            make_step(state, reals=0.5).reals()
        assert pair.made == made

    state.device = torch.device("meta")
    modules = state.find_image_pair(replace(state.stage, image_channels=3))
    assert {buffer.device.type for module in modules for buffer in module.buffers()} == {"meta"}


def read_momenta(state: TrainState) -> dict[str, Any]:
    """Return the momentum by parameter name, over both networks."""
    buffers = {}
    for key, net in (("G", state.generator), ("D", state.discriminator)):
        for name, param in net.named_parameters():
            if param in state.optimizers[key].state:
                buffers[f"{key}.{name}"] = state.optimizers[key].state[param]["momentum_buffer"].clone()
    return buffers


def test_optimizer_state_follows_the_parameters_that_stay() -> None:
    state = make_state()
    run_step(state)
    before = read_momenta(state)
    assert len(before) == sum(1 for net in (state.generator, state.discriminator) for _ in net.parameters())

    # Growth: what stays keeps its momentum, also where it is now the old path.
    state.grow(BOTH)
    state.renew_optimizers()
    grown = read_momenta(state)
    for name, momentum in before.items():
        net, _, rest = name.partition(".")
        kept = f"{net}.bridge.old_{rest}" if rest.startswith(("to_image", "from_image")) else name
        assert torch.equal(grown.pop(kept), momentum), name
    assert not grown, "new parameters start without momentum"

    # Within the fade the optimizers hold the bridges, too.
    run_step(state, generator=0.5, discriminator=0.5)
    held = {id(p) for o in state.optimizers.values() for g in o.param_groups for p in g["params"]}
    bridge = [p for net in (state.generator, state.discriminator) for p in net.bridge.parameters()]  # type: ignore[union-attr]
    assert bridge and all(id(param) in held for param in bridge)
    before = read_momenta(state)

    # Its end: the old path leaves.
    state.end_fade()
    state.renew_optimizers()
    after = read_momenta(state)
    assert {name for name in before if ".bridge." in name} == before.keys() - after.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    held = {id(p) for o in state.optimizers.values() for g in o.param_groups for p in g["params"]}
    assert not any(id(param) in held for param in bridge), "the old path's parameters leave the optimizers"
    assert "bridge" not in " ".join(state.ema.state_dict())

    # Parameters that are replaced start without momentum.
    state.renew_optimizers({*state.generator.parameters(), *state.discriminator.parameters()})
    assert not read_momenta(state)


class Witness:
    """An observer that records whether optimizers have state as stages and stable phases begin."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        self.seen.append((state.stage.size, bool(read_momenta(state))))

    @hookimpl
    def after_fade(self, state: TrainState) -> None:
        self.seen.append(("faded", bool(read_momenta(state))))


class BuildsOnce(ToyOptimizer):
    """An optimizer that is built once, and then takes what is new."""

    built: Any = None

    def build(self, params: Any, stage: Any) -> Any:
        params = list(params)
        if self.built is None:
            self.built = super().build(params, stage)
        held = {param for group in self.built.param_groups for param in group["params"]}
        self.built.add_param_group({"params": [param for param in params if param not in held]})
        return self.built


class BuildsForTheFirst(ToyOptimizer):
    def build(self, params: Any, stage: Any) -> Any:
        return super().build(list(params)[:-1], stage)


def test_optimizers_that_do_not_hold_all_weights_are_refused() -> None:
    """Such weights would stay as they are, without a word."""
    with pytest.raises(
        PluginError, match=r"no optimizer holds the generator's weight to_image\.bias, which would never"
    ):
        make_state(generator_optimizer=BuildsForTheFirst())
    with pytest.raises(
        PluginError, match=r"no optimizer holds the discriminator's weight head\.\S+, which would never"
    ):
        make_state(discriminator_optimizer=BuildsForTheFirst())


def test_optimizers_that_were_built_before_are_refused() -> None:
    state = make_state(generator_optimizer=BuildsOnce())
    state.grow(BOTH)
    with pytest.raises(PluginError, match="the optimizer 'G' is the one that was built before"):
        state.renew_optimizers()


@pytest.mark.parametrize(
    ("moments", "kept"),
    [
        ("keep", [False, True, True]),
        ("forget_at_stages", [False, False, True]),
        ("forget_at_phases", [False, False, False]),
    ],
)
def test_when_optimizers_forget(tmp_path: Path, moments: str, kept: list[bool]) -> None:
    witness = Witness()
    train_tiny(witness, "witness", tmp_path, {"growth": Everything(moments)})
    assert witness.seen == list(zip(["4x4", "8x8", "faded"], kept, strict=True))


def test_ema_against_its_formula() -> None:
    state = make_state(averages=[PerUpdate({4: 0.8, 8: 0.5})])
    averages = [param.detach().double().numpy() for param in state.ema.parameters()]
    for _ in range(3):
        run_step(state)
        currents = [param.detach().double().numpy() for param in state.generator.parameters()]
        averages = [0.8 * old + 0.2 * new for old, new in zip(averages, currents, strict=True)]
        for average, wanted in zip(state.ema.parameters(), averages, strict=True):
            np.testing.assert_allclose(average.detach().numpy(), wanted, rtol=1e-5, atol=1e-7)
    lived = {name: value.clone() for name, value in state.ema.named_parameters()}
    state.grow(BOTH)
    for name, value in lived.items():
        kept = f"bridge.old_{name}" if name.startswith("to_image") else name
        assert torch.equal(dict(state.ema.named_parameters())[kept], value), "the average lives through growth"
    for name, param in state.ema.blocks.named_parameters():
        assert torch.equal(param, dict(state.generator.blocks.named_parameters())[name]), "new pieces start as G's"
    assert not any(param.requires_grad for param in state.ema.parameters())
    before = [param.detach().clone() for param in state.ema.parameters()]
    with torch.no_grad():
        for param in state.generator.parameters():
            param += 1.0
    state.update_averages(4)
    for old, average, current in zip(before, state.ema.parameters(), state.generator.parameters(), strict=True):
        torch.testing.assert_close(average, (old + current.detach()) / 2)


CHOICES: dict[str, dict[str, Any]] = {
    "paper": {
        "architecture": PGGAN(channels=4),
        "loss": WGANGP([GradientPenalty(), Drift()]),
        "update": Alternating(),
        "generator_optimizer": Adam(),
        "discriminator_optimizer": Adam(lr={4: 1e-3, 8: 2e-3}),
        "growth": FreezeOld(images=4),
    },
    "hinge, hard, reset": {"loss": Hinge(), "switch": Hard(), "growth": Everything("forget_at_phases")},
    "batch norm, slow average": {
        "architecture": PGGAN(channels=4, generator_norm="batch"),
        "averages": [HalfLife({4: 7, 8: 30}, 0.5), PerUpdate(0.9), PowerFunction(), Copy()],
    },
}


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize("choice", CHOICES)
def test_going_on_from_any_stage_and_phase_is_exact(tmp_path: Path, choice: str) -> None:
    schedule = ScheduleSettings((4, 8, 16), fade_images=8, stable_images=8, batch_size=4)
    chosen = {"switch": Linear(), **CHOICES[choice], "schedule": schedule, "tick": 4, "seed": 3}
    switch = chosen["switch"]
    (tmp_path / "whole").mkdir()
    run = train_tiny(switch, "switch", tmp_path / "whole", chosen)
    checkpoints = run.checkpoints
    saved = [checkpoints.load(entry) for entry in checkpoints.read_entries()]
    places = {(len(snapshot.starts), snapshot.phase): snapshot for snapshot in saved}
    assert set(places) == {(1, "stable"), (2, "fade"), (2, "stable"), (3, "fade"), (3, "stable")}
    if choice == "batch norm, slow average":  # the dearest one: within stages alone
        places = {place: places[place] for place in ((1, "stable"), (2, "fade"), (3, "stable"))}
    for index, snapshot in enumerate(places.values()):
        folder = tmp_path / str(index)
        folder.mkdir()
        again = train_tiny(switch, "switch", folder, chosen, snapshot)
        assert are_equal(summarize_run(again), summarize_run(run))
        assert are_equal(again.state.take_snapshot().content(), run.state.take_snapshot().content())


def test_round_trip_of_the_state_in_every_phase() -> None:
    """What is loaded equals what was saved bit for bit, optimizers and running means included."""
    state = make_state(update=Alternating(), generator_optimizer=Adam(), discriminator_optimizer=Adam())

    def check() -> None:
        buffer = io.BytesIO()
        torch.save(state.take_snapshot().content(), buffer)
        buffer.seek(0)
        other = make_state(update=Alternating(), generator_optimizer=Adam(), discriminator_optimizer=Adam(), seed=9)
        other.load_snapshot(Snapshot.from_content(torch.load(buffer, weights_only=True)))
        assert are_equal(other.take_snapshot().content(), state.take_snapshot().content())
        assert other.stage == state.stage and other.fading == state.fading

    for bridged in (None, {"generator": True}, {"discriminator": True}, {}):
        if bridged is None or state.stage.index == 1:
            state = make_state(update=Alternating(), generator_optimizer=Adam(), discriminator_optimizer=Adam())
        if bridged is not None:
            state.grow(bridged)
            state.renew_optimizers()
        faded = {name: 0.5 for name in bridged or {}}
        state.means.add({"Loss/a": torch.tensor(1.25)})
        check()
        run_step(state, **faded)
        check()


def test_a_checkpoint_of_something_else_is_refused_by_name() -> None:
    state = make_state(architecture=PGGAN(channels=4))
    with pytest.raises(RunError, match=r"generator is of another architecture: stem\.\S+ is .* there and .* in this"):
        make_state(architecture=PGGAN(channels=5)).load_snapshot(state.take_snapshot())
    with pytest.raises(RunError, match="of another architecture"):
        make_state().load_snapshot(state.take_snapshot())
    with pytest.raises(RunError, match="stage 2 of a schedule of 2"):
        make_state().load_snapshot(replace(make_state().take_snapshot(), starts=(0, 8, 28)))


def average_over_ranks(ranks: Sequence[TickMeans]) -> None:
    """Do what `TickMeans.gather` does on all ranks at once."""
    for name in ranks[0].sums:
        mean = sum(rank.sums[name] for rank in ranks) / len(ranks)
        for rank in ranks:
            rank.sums[name] = torch.as_tensor(mean).clone()


def test_ranks_that_are_stopped_within_a_tick_log_what_they_log_without_a_stop() -> None:
    """Three ranks, whose sums are replaced by their mean where a checkpoint is written between two ticks."""
    values = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    logged = []
    for stop in range(0, 60, 3):
        ranks = [TickMeans() for _ in range(3)]
        for step, of_each in enumerate(values):
            for rank, value in zip(ranks, of_each, strict=True):
                rank.add({"Loss/a": value})
            if step == stop:
                average_over_ranks(ranks)
        average_over_ranks(ranks)
        logged.append(ranks[0].read())
    assert logged == [logged[0]] * len(logged)
    assert logged[0]["Loss/a"] == pytest.approx(float(values.double().mean()), rel=1e-6)


def test_tick_means() -> None:
    means = TickMeans()
    value = torch.tensor(1.0)
    means.add({"a": value, "b": torch.tensor(5.0)})
    value += 100.0
    means.add({"a": torch.tensor(2.0)})
    means.add({"a": torch.tensor(6.0, dtype=torch.float64), "c": torch.tensor(float("inf"))})
    assert means.read() == {"a": 3.0, "b": 5.0, "c": float("inf")}
    assert means.read() == {}
    means.add({"a": torch.tensor(4.0)})
    assert means.read() == {"a": 4.0}
    means.add({"a": torch.tensor([1.0, 2.0, 6.0]), "b": torch.tensor([5.0])})
    means.add({"a": torch.tensor(11.0), "b": torch.tensor([7.0, 9.0])})
    means.add({"b": torch.zeros(0), "c": torch.zeros(0)})
    assert means.read() == {"a": 5.0, "b": 7.0}, "a step's values count one by one"


def test_tick_means_have_one_order_whichever_step_comes_first() -> None:
    """A lazy penalty may be due in the first step of a tick, in a later one, or in none."""
    value = torch.tensor(1.0)
    loss = {f"Loss/{tag}": value for tag in ("discriminator/real", "discriminator/fake", "generator/fake")}
    lazy = [{f"Loss/discriminator/{name}": value} for name in ("R1", "Other")]
    wanted = ["discriminator/fake", "discriminator/real", "discriminator/Other", "discriminator/R1", "generator/fake"]
    for steps in ([loss, *lazy], [{**lazy[0], **loss}, lazy[1]], [loss, lazy[1], lazy[0]]):
        means = TickMeans()
        for step in steps:
            means.add(step)
        assert list(means.read()) == [f"Loss/{tag}" for tag in wanted]


def test_reals_become_images_and_move_the_clock() -> None:
    state = make_state(dataset=ToyDataset(classes=3))
    ctx = make_step(state)
    first = ctx.reals()
    second = ctx.reals()
    assert (ctx.images, ctx.drawn) == (8, 8)
    for start, real in ((0, first), (4, second)):
        raw, labels = ToySampler(state.stage).batch(start, 4)
        np.testing.assert_allclose(real.images.numpy(), raw.numpy() / 127.5 - 1, atol=1e-6)
        assert real.labels is not None and labels is not None and torch.equal(real.labels, labels)
    assert first.images.min() >= -1 and first.images.max() <= 1


def test_reals_fade_with_the_networks() -> None:
    state = make_state()
    state.grow(BOTH)
    raw = ToySampler(state.stage).batch(0, 4)[0].double().numpy() / 127.5 - 1
    coarse = raw.reshape(4, 1, 4, 2, 4, 2).mean((3, 5)).repeat(2, 2).repeat(2, 3)
    np.testing.assert_allclose(make_step(state, reals=0.25).reals().images, 0.75 * coarse + 0.25 * raw, atol=1e-6)
    np.testing.assert_allclose(make_step(state).reals().images, raw, atol=1e-6)


def test_latents_depend_on_seed_stream_and_clock_alone() -> None:
    state = make_state()
    other = make_state(loss=Hinge())
    seeded = make_state(seed=1)
    one = make_step(state).latents("generator")
    torch.manual_seed(123)
    assert torch.equal(make_step(state).latents("generator"), one)
    assert torch.equal(make_step(other).latents("generator"), one), "two variants see the same latents"
    assert not torch.equal(make_step(seeded).latents("generator"), one)
    assert not torch.equal(make_step(state).latents("discriminator"), one)
    ctx = make_step(state)
    ctx.reals()
    assert not torch.equal(ctx.latents("generator"), one)
    assert one.shape == (4, 8)
    mix = make_step(state).uniform("mix")
    assert mix.shape == (4,) and float(mix.min()) >= 0 and float(mix.max()) < 1


def test_latents_are_standard_normal_and_streams_independent() -> None:
    state = make_state(schedule=ScheduleSettings((4,), 0, 8, 2000), latent_size=10)
    ctx = make_step(state)
    draws = [ctx.latents(stream).flatten() for stream in ("generator", "discriminator")]
    ctx.reals()
    draws.append(ctx.latents("generator").flatten())
    for draw in draws:
        assert float(draw.mean()) == pytest.approx(0, abs=0.04)
        assert float(draw.std()) == pytest.approx(1, abs=0.03)
    correlation = np.corrcoef(torch.stack(draws).numpy())
    assert np.abs(correlation - np.eye(3)).max() < 0.04


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_out_the_global_batch(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    state = make_state(schedule=ScheduleSettings((4,), 0, 24, 12))
    whole = make_step(state)
    wanted = {"reals": whole.reals().images, "latents": whole.latents("x"), "uniform": whole.uniform("x")}
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name in wanted}
    for rank in range(world):
        monkeypatch.setattr("pggan_kit.system.distributed.world_size", lambda: world)
        monkeypatch.setattr("pggan_kit.system.distributed.rank", lambda rank=rank: rank)
        ctx = make_step(state)
        assert ctx.local_batch == 12 // world
        own = {"reals": ctx.reals().images, "latents": ctx.latents("x"), "uniform": ctx.uniform("x")}
        for name, value in own.items():
            assert len(value) == 12 // world
            drawn[name].append(value)
        assert ctx.drawn == 12, "the clock counts the reals of all ranks"
    for name, shares in drawn.items():
        together = torch.cat(shares)
        rows = {tuple(row.flatten().tolist()) for row in together}
        assert rows == {tuple(row.flatten().tolist()) for row in wanted[name]}, name


class Following(ToyOptimizer):
    """Follows the clock with a rate, and with nothing else.

    Args:
        rate: The rate after so many images.
    """

    def __init__(self, rate: Callable[[int], float]) -> None:
        self.rate = rate

    def build(self, params: Any, stage: Any) -> torch.optim.Optimizer:
        return follow_clock(super().build(params, stage), lambda position: {"lr": self.rate(position.images)})


def test_a_users_optimizer_follows_the_clock_without_hooks() -> None:
    """Each of two runs that share the component has its own clock, and a growth policy's factor stays."""
    shared = Following(lambda images: 0.1 / (1 + images))
    first, second = (make_state(generator_optimizer=shared) for _ in range(2))
    set_learning_factor(first.optimizers["G"].param_groups[0], 0.5)
    run_step(first)
    run_step(first)
    run_step(second)
    rates = [state.optimizers["G"].param_groups[0]["lr"] for state in (first, second)]
    assert rates == pytest.approx([0.5 * 0.1 / 5, 0.1])
    assert first.optimizers["D"].param_groups[0]["lr"] == 0.05


def test_a_rate_that_moved_leaves_nothing_behind_where_settings_are_new() -> None:
    moving = make_state(generator_optimizer=Following(lambda images: 0.1))
    set_learning_factor(moving.optimizers["G"].param_groups[0], 0.5)
    run_step(moving)
    plain = make_state()
    plain.load_snapshot(moving.take_snapshot(), own_settings=True)
    (group,) = plain.optimizers["G"].param_groups
    assert group["lr"] == 0.05 and not {"rate", "learning_factor"} & set(group)
    assert plain.optimizers["G"].state


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            lambda: {"loss": ToyLoss([SquaredScores(Falling())])},
            "the weight of SquaredScores must be finite and",
        ),
        (
            lambda: {"generator_optimizer": Refusing()},
            r"^the optimizer G: lr must be at least 0, and is -\S+, at images 21 \(8x8, stable\)$",
        ),
    ],
)
def test_what_leaves_its_range_somewhere_in_the_schedule_is_found_at_once(chosen: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_state(**chosen())


class Falling:
    """A curve that falls below 0 after 20 images."""

    def at(self, position: Position) -> float:
        return 20 - position.images


class Refusing(ToyOptimizer):
    """Checks its rate itself."""

    def build(self, params: Any, stage: Any) -> torch.optim.Optimizer:
        def settings_at(position: Position) -> dict[str, float]:
            rate = Falling().at(position)
            check_at_least("lr", rate, 0)
            return {"lr": rate}

        return follow_clock(super().build(params, stage), settings_at)


class Due:
    """A penalty that is due but never computed."""

    weight = 1.0

    def __init__(self, every: int) -> None:
        self.every = every


def score(G: Any, D: Any, part: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return terms of D, and nothing to log."""
    return {"score": D(part["real"]).score.mean()}, {}


def take_turns(state: TrainState, steps: int, updates: int, draws: int) -> list[list[int]]:
    """Take steps of some updates of D, which draw some batches each; return the penalties due in each update."""
    penalties = [Due(1), Due(3), Due(4)]
    due = []
    for _ in range(steps):
        ctx = make_step(state)
        for _ in range(updates):
            reals = [ctx.reals() for _ in range(draws)]
            due.append([each.penalty.every for each in ctx.due(penalties)])  # type: ignore[arg-type]
            ctx.minimise("D", "discriminator", score, {"real": reals[0].images})
        state.images += ctx.drawn
    return due


@pytest.mark.parametrize("chosen", [{}, {"micro_batch": 1}])
@pytest.mark.parametrize(("updates", "draws"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_lazy_penalties_are_due_at_every_kth_update_of_each_stage(
    updates: int, draws: int, chosen: dict[str, int]
) -> None:
    """What counts is updates of D: not iterations, nor the batches that an update draws, nor micro-batches."""
    schedule = ScheduleSettings((4, 8), 12, 20, {4: 4, 8: 2})
    state = make_state(schedule=schedule, **chosen)
    wanted = [[every for every in (1, 3, 4) if update % every == 0] for update in range(12)]
    assert take_turns(state, 12 // updates, updates, draws) == wanted
    state.grow(BOTH)
    state.renew_optimizers()
    assert take_turns(state, 4 // updates, updates, draws) == wanted[:4], "the count starts again with the stage"
    resumed = make_state(schedule=schedule, **chosen)
    resumed.load_snapshot(state.take_snapshot())
    assert take_turns(resumed, 8 // updates, updates, draws) == wanted[4:], "a resumed run goes on counting"


def test_lazy_penalties_are_rescaled() -> None:
    """One update at which a penalty with every=k is due equals one with k times the weight. The log has the weight,
    and not k, which stands for the updates that leave the penalty out."""
    ends = []
    for penalty in (Drift(weight=0.6), Drift(weight=0.2, every=3)):
        state = make_state(loss=ToyLoss([penalty]), update=Alternating(), architecture=PGGAN(channels=4))
        ctx = make_step(state)
        state.optimizers = {
            name: torch.optim.SGD(state.network(name).parameters(), lr=0.1) for name in ("generator", "discriminator")
        }
        terms = state.experiment.update.step(ctx)
        ends.append((terms["Loss/discriminator/Drift"], state.discriminator.state_dict()))
    torch.testing.assert_close(ends[0][0], 3 * ends[1][0], rtol=1e-6, atol=0)
    for name, value in ends[0][1].items():
        torch.testing.assert_close(ends[1][1][name], value, rtol=1e-6, atol=1e-7)


def test_variants_share_initial_weights_and_batches(tmp_path: Path) -> None:
    """Hard against linear: the same pieces start equal, and the first stage is equal bit for bit."""

    class Pieces:
        @hookimpl
        def before_stage(self, state: TrainState) -> None:
            values = {f"G.{k}": v.clone() for k, v in state.generator.state_dict().items()}
            values |= {f"D.{k}": v.clone() for k, v in state.discriminator.state_dict().items()}
            self.last = values

    initial = []
    for name, switch in (("soft", Linear()), ("hard", Hard())):
        (tmp_path / name).mkdir()
        pieces = Pieces()
        train_tiny(pieces, "pieces", tmp_path / name, {"switch": switch, "architecture": PGGAN(channels=4)})
        initial.append({key: value for key, value in pieces.last.items() if ".bridge." not in key})
    assert are_equal(*initial)


def test_seeds_are_stable_and_apart() -> None:
    assert derive(0, "latents", "generator", 12_800) == derive(0, "latents", "generator", 12_800)
    many = {derive(seed, name, n) for seed in range(3) for name in ("a", "b", "ab") for n in range(50)}
    assert len(many) == 450
    assert all(0 <= seed < 2**63 for seed in many)
    assert derive(0, "a", "b") != derive(0, "ab") != derive(0, "a'", "b")
    assert derive(1, 2) != derive(12)
    assert torch.equal(
        torch.rand(3, generator=torch_generator(1, "x")), torch.rand(3, generator=torch_generator(1, "x"))
    )
    assert numpy_generator(1, "x").random() == numpy_generator(1, "x").random() != numpy_generator(1, "y").random()


def test_image_gradients_are_each_samples_own_and_differentiable() -> None:
    """D(x) = sum of w x^3: the gradient is 3 w x^2, and its derivative to w is 3 x^2."""
    weight = draw_noise(1, 2, 3, dtype=torch.float64).requires_grad_(True)
    images = draw_noise(4, 1, 2, 3, seed=1, dtype=torch.float64)
    gradients = image_gradients(lambda x: Scores((weight * x**3).sum((1, 2, 3))), images)
    torch.testing.assert_close(gradients, 3 * weight * images**2)
    (slope,) = torch.autograd.grad(gradients.sum(), weight)
    torch.testing.assert_close(slope, (3 * images**2).sum(0))
    assert not images.requires_grad
