"""Test G's moving average: against sums over recorded weights, at growth, its age, its batch normalisation."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from helpers.paths import ROOT
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import pggan_kit
from pggan_kit import hookimpl, load_generator
from pggan_kit.components import Average
from pggan_kit.errors import RunError, SettingError, TrainingError
from pggan_kit.experiment import Experiment
from pggan_kit.runs import average as averaging
from pggan_kit.runs.average import (
    compute_shares,
    compute_shares_from_before,
    draw_calibration_labels,
    list_average_ages,
)
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Position, Schedule, ScheduleSettings, Stage
from pggan_kit.system.seeding import torch_generator
from pggan_kit.testing.support import are_equal
from pggan_kit.testing.tiny_runs import load_mid_fade, make_run, make_tiny_experiment, train_tiny
from pggan_kit.testing.toys import ToyDataset
from pggan_plugins.architectures import PGGAN, ResNet, StyleGAN2, Tutorial
from pggan_plugins.averages import Copy, HalfLife, PerUpdate, PowerFunction
from pggan_plugins.curves import Steps
from pggan_plugins.datasets import MNIST
from pggan_plugins.features import Digits
from pggan_plugins.metrics import FrechetDistance
from pggan_plugins.switches import Linear
from pggan_plugins.updates import Alternating

EXPERIMENTS = ROOT / "experiments"
GROWING = ScheduleSettings((4, 8, 16), fade_images=24, stable_images=24, batch_size={4: 4, 8: 2, 16: 8})
SHORT = ScheduleSettings((4, 8, 16), fade_images=8, stable_images=8, batch_size=4)


# The average against an independent sum over all weights that the generator has had


class Recorder:
    """Records each parameter of G, in float64, at its birth and after each update; then compares the average.

    Births are derived from names: `blocks.2` came with stage 2, and the old layer to the image with the stage before.
    """

    def __init__(self, half_life: dict[int, float], ramp_up: float | None) -> None:
        self.half_life = half_life
        self.ramp_up = ramp_up
        self.images = 0
        # Keyed by the parameters themselves: the id of one that growth dropped may be another's later.
        self.history: dict[Tensor, list[np.ndarray]] = {}
        self.decays: dict[Tensor, list[float]] = {}
        self.births: dict[Tensor, int] = {}
        self.compared = 0

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        for name, param in state.generator.named_parameters():
            if param not in self.history:
                self.history[param] = [to_double(param)]
                self.decays[param] = []
                self.births[param] = state.starts[find_birth(name, state.stage.index)]

    @hookimpl
    def after_step(self, state: TrainState) -> None:
        drawn = state.images - self.images
        for param in state.generator.parameters():
            half_life = self.half_life[state.stage.height]
            if self.ramp_up is not None:
                half_life = min(half_life, self.ramp_up * (self.images - self.births[param]))
            self.decays[param].append(2.0 ** (-drawn / half_life) if half_life else 0.0)
            self.history[param].append(to_double(param))
        self.images = state.images

        for param, average in zip(state.generator.parameters(), state.ema.parameters(), strict=True):
            assert average.isfinite().all()
            np.testing.assert_allclose(to_double(average), self.sum_history(param), rtol=2e-5, atol=1e-6)
            self.compared += 1

    def sum_history(self, param: Tensor) -> np.ndarray:
        """Return the sum over all values: the k-th weighs what its update gave it, times all decays since."""
        decays = self.decays[param]
        shares = [1.0, *(1.0 - decay for decay in decays)]
        weights = [share * math.prod(decays[index:]) for index, share in enumerate(shares)]
        assert sum(weights) == pytest.approx(1)
        total: np.ndarray = sum(w * value for w, value in zip(weights, self.history[param], strict=True))  # type: ignore[assignment]
        return total


def to_double(param: Tensor) -> np.ndarray:
    return param.detach().double().numpy().copy()


def find_birth(name: str, now: int) -> int:
    """Return the stage with which a parameter of this name came, where the networks are in stage `now`."""
    if name.startswith("blocks."):
        return int(name.split(".")[1])
    return {"stem": 0, "to_image": now, "bridge": now - 1}[name.split(".")[0]]


@pytest.mark.parametrize("ramp_up", [None, 0.25])
def test_the_average_is_the_sum_that_half_lives_ask_for(tmp_path: Path, ramp_up: float | None) -> None:
    half_life = {4: 6.0, 8: 30.0, 16: 11.5}
    recorder = Recorder(half_life, ramp_up)
    chosen = {"schedule": GROWING, "averages": [HalfLife(half_life, ramp_up)], "collapse_below": 0.0}
    run = train_tiny(recorder, "recorder", tmp_path, chosen)
    assert run.state.starts == [0, 24, 72] and run.state.images == 120
    # Parameters at each of the updates: at 4x4, in the fade to 8x8, after it, and so on.
    assert recorder.compared == 6 * 4 + 12 * 8 + 12 * 6 + 3 * 10 + 3 * 8
    assert set(recorder.births.values()) == {0, 24, 72}


def follow(average: Average, stage: Stage, age: int, images: int) -> float:
    position = Position(stage, "stable", 0.0, age, 0, 10**10, 10**10)
    (share,) = compute_shares(average, position, age, images)
    return share


def test_shares_by_hand() -> None:
    small, middle = GROWING.resolve(16, 1, 0).stages[:2]
    plain = HalfLife({4: 100, 8: 50}, None)
    assert follow(plain, small, 0, 100) == 0.5 and follow(plain, middle, 0, 100) == 0.75
    ramped = HalfLife(1000, 0.5)
    assert [follow(ramped, small, age, 50) for age in (0, 100, 200)] == [1.0, 0.5, 1 - 2**-0.5]
    assert follow(ramped, small, 10**9, 1000) == 0.5
    per_update = PerUpdate(0.75)
    assert follow(per_update, small, 0, 1) == follow(per_update, small, 900, 64) == 0.25
    (default,) = make_tiny_experiment({}).averages
    assert follow(default, small, 10**9, 10_000) == 0.5, "the default: 10,000 images"
    assert follow(default, small, 20, 1) == 0.5, "and a twentieth of the age"
    assert follow(HalfLife(0), small, 10**9, 1) == follow(Copy(), small, 10**9, 1) == 1.0
    # The share of a power function's weight in the last third of its age, in each of which the density is 3 s^2.
    power = PowerFunction([0.1])
    power.exponents = [2.0]
    assert follow(power, small, 20, 10) == pytest.approx(1 - (2 / 3) ** 3)


class Halving:
    """A curve: 100 images at the start, and half as many with each thousand."""

    def at(self, position: Position) -> float:
        return float(100 * 0.5 ** (position.images / 1000))


def test_a_half_life_may_be_a_curve() -> None:
    small, middle = GROWING.resolve(16, 1, 0).stages[:2]
    assert follow(HalfLife(Halving(), None), small, 1000, 50) == 0.5
    assert follow(HalfLife({4: 50, 8: Halving()}, None), middle, 2000, 50) == 0.75
    with pytest.raises(SettingError, match="half_life must be at least 0, and is -1"):
        HalfLife({4: Halving(), 8: -1})


def test_an_average_that_gives_no_list_of_shares_is_refused_by_name(tmp_path: Path) -> None:
    class Forgets(Copy):
        def compute_shares(self, position: Position, age: int, images: int) -> Any:
            return None

    says = r"^averages\.Forgets\.compute_shares\(\) returned None, and must return a list of numbers in "
    with pytest.raises(TrainingError, match=says):
        make_run(Forgets(), "average", tmp_path, {"averages": [Forgets()]})


@pytest.mark.parametrize("shares", [(), (0.5, 0.5), (1.5,), (-0.1,), ("half",), (math.nan,)])
def test_shares_that_are_none_are_refused_with_the_averages_name(shares: tuple[Any, ...], tmp_path: Path) -> None:
    class Odd(Copy):
        def compute_shares(self, position: Position, age: int, images: int) -> Any:
            return shares

    run = make_run(Copy(), "average", tmp_path, {})
    run.state.experiment.averages = [Odd()]
    run.state.images = 4
    with pytest.raises(
        TrainingError, match=r"averages\.Odd gives the shares .* there must be one in .* for each of copy"
    ):
        run.state.update_averages(4)


# Growth


class Seam:
    """Records images of the average at each stage's end, and when the next stage has begun."""

    def __init__(self) -> None:
        self.seams: list[tuple[Tensor, Tensor]] = []
        self.last: Tensor | None = None

    @hookimpl
    def after_stage(self, run: Any) -> None:
        self.last = run.generate(run.fixed_latents(8))

    @hookimpl
    def before_stage(self, run: Any) -> None:
        if self.last is not None:
            assert run.alpha["generator"] == 0.0
            self.seams.append((self.last, run.generate(run.fixed_latents(8))))


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize(
    "architecture",
    [
        PGGAN(channels=4),
        ResNet(channels=4),
        StyleGAN2(channels=4, style_size=8, mapping_layers=2),
        Tutorial(generator_channels=4, discriminator_channels=4, bridge="image"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_fade_begins_with_the_averaged_images_of_the_stage_before(tmp_path: Path, architecture: Any) -> None:
    sizes = (7, 14, 28) if isinstance(architecture, Tutorial) else (4, 8, 16)
    # The last stage need only begin.
    images = {sizes[0]: 24, sizes[2]: 8}
    schedule = ScheduleSettings(sizes, fade_images=images, stable_images=images, batch_size={sizes[0]: 8, sizes[1]: 4})
    seam = Seam()
    train_tiny(
        seam,
        "seam",
        tmp_path,
        {"architecture": architecture, "schedule": schedule, "averages": [HalfLife(ramp_up=0.5)]},
    )
    assert len(seam.seams) == 2
    for before, after in seam.seams:
        assert before.std() > 0.01
        torch.testing.assert_close(after, before.repeat_interleave(2, 2).repeat_interleave(2, 3), rtol=1e-4, atol=1e-5)


class Judge:
    """Measures how far the averaged images are from the digits: at the first stage's end, and in the fade after it.

    Both are seen at the first stage's size, 7x7, by its classifier: so the images of a fade are not better for being
    sharper, and a growth alone changes nothing.
    """

    def __init__(self) -> None:
        self.distances: list[float] = []
        self.features = Digits()
        self.distance = FrechetDistance(self.features)
        digits = MNIST(limit=1_000)
        pixels = torch.stack([torch.from_numpy(digits.image(i)[..., 0].copy()) for i in range(len(digits))])
        self.reals = self.features(F.avg_pool2d(pixels[:, None] / 127.5 - 1.0, 4))

    def measure(self, run: Any) -> None:
        images = run.generate(run.fixed_latents(1_000))
        fakes = self.features(F.avg_pool2d(images, images.shape[-1] // 7))
        self.distances.append(self.distance.compare(self.reals, fakes)["FID"])

    @hookimpl
    def after_stage(self, run: Any, stage: Any) -> None:
        if stage.index == 0:
            self.measure(run)

    @hookimpl
    def after_step(self, run: Any, stage: Any, state: Any) -> None:
        if stage.index == 1 and state.steps % 10 == 0:
            self.measure(run)


@pytest.mark.slow
def test_through_a_fade_the_averaged_images_stay_digits(tmp_path: Path) -> None:
    """The demo, smaller. At first the new layers disturb the network itself, by a fifth here; then images improve.

    With new blocks averaged from their random start (0.998 an update) the distance grows until the fade ends, by 80 %.
    """
    judge = Judge()
    bindings = [
        "SIZES = (7, 14)",
        "schedule.fade_images = 3_200",
        "schedule.stable_images = {7: 3_200, 14: 0}",
        "architectures.PGGAN.channels = {7: 32, 14: 16}",
        "optimizers.Adam.lr = {7: 16e-3, 14: 8e-3}",
        "penalties.R1.weight = 1.0",
        "train.precision = 'float32'",
        "datasets.MNIST.limit = 2_000",
        "train.observers = []",
        "train.device = 'cpu'",
    ]
    pggan_kit.train(EXPERIMENTS / "mnist.gin", bindings, run_dir=tmp_path / "run", plugins=[judge])
    begin, *during = judge.distances
    assert len(during) == 10
    assert max(during) < 1.5 * begin, judge.distances
    assert max(during[-3:]) < begin, judge.distances


# Its age


def list_ages(schedule: Schedule, *averages: Average) -> list[averaging.AverageAge]:
    return list_average_ages(make_tiny_experiment({"averages": averages}), schedule, [0])


def test_the_age_of_an_average_by_hand() -> None:
    # The demo's first stages as they were once shipped: 0.999 an update of 32 images.
    settings = ScheduleSettings((4, 8), fade_images=3200, stable_images={4: 9600, 8: 9600}, batch_size=32)
    schedule = settings.resolve(1000, 1, 0)
    first, second = list_ages(schedule, PerUpdate(0.999))
    assert first.before_stage == pytest.approx(0.999**300) and first.before_fade_end is None
    assert second.before_stage == pytest.approx(0.999**400) and second.before_fade_end == pytest.approx(0.999**300)
    first, second = list_ages(schedule, HalfLife(3200, None))
    assert (first.before_stage, second.before_stage) == pytest.approx((2**-3, 2**-4))
    assert second.before_fade_end == pytest.approx(2**-3)
    # With the ramp-up nothing is left of the random start, and of an age's last fourth little is older.
    first, second = list_ages(schedule, HalfLife(10**9, 0.5))
    exponent = sum(32 / (0.5 * images) for images in range(9600, 9600 + 12800, 32))
    assert first.before_stage == 0.0 and second.before_stage == pytest.approx(0.5**exponent)


def test_each_of_several_averages_has_an_age() -> None:
    schedule = ScheduleSettings((4, 8), fade_images=3200, stable_images=9600, batch_size=32).resolve(1000, 1, 0)
    ages = list_ages(schedule, Copy(), PowerFunction((0.05, 0.287675)), PerUpdate(0.999))
    names = ["copy", "power_0.05", "power_0.287675", "per_update"]
    assert [(age.stage.height, age.name) for age in ages] == [(size, name) for size in (4, 8) for name in names]
    copied, narrow, wide, per_update = [age.before_stage for age in ages[4:]]
    assert copied == 0.0 and per_update == pytest.approx(0.999**400)
    # The last 12,800 of 22,400 images: the width 0.05 has the exponent 16.97, and the widest weighs nearly all alike.
    assert narrow == pytest.approx((3 / 7) ** 17.97, rel=1e-2) and wide == pytest.approx(3 / 7, abs=0.02)
    assert [age.name for age in ages if age.warning is not None] == ["per_update", "power_0.287675", "per_update"]


def test_the_age_of_an_average_counts_updates_that_draw_several_batches_once() -> None:
    schedule = ScheduleSettings((4, 8), fade_images=3200, stable_images=9600, batch_size=32).resolve(1000, 1, 0)

    def list_shares(average: Average, n_critic: Any) -> list[float]:
        experiment = make_tiny_experiment({"averages": [average], "update": Alternating(n_critic)})
        return [age.before_stage for age in list_average_ages(experiment, schedule, [0])]

    assert list_shares(PerUpdate(0.999), 5) == pytest.approx([0.999**60, 0.999**80])
    assert list_shares(PerUpdate(0.999), {4: 1, 8: 4}) == pytest.approx([0.999**300, 0.999**100])
    # A half-life is one of images, whatever an update draws.
    assert list_shares(HalfLife(3200, None), 5) == pytest.approx([2**-3, 2**-4])
    # 2 at the first half of the schedule, at 11,200, and 1 from there on.
    halved = Steps({0: 2, 11_200: 1})
    assert list_shares(PerUpdate(0.999), halved) == pytest.approx([0.999**150, 0.999 ** (25 + 350)])


def test_stages_without_images_and_those_past_the_total_have_no_age() -> None:
    settings = ScheduleSettings((4, 8, 16, 32), 0, {4: 0, 8: 320, 16: 320, 32: 320}, 32, total_images=480)
    found_ages = list_ages(settings.resolve(1000, 1, 0), HalfLife(160, None))
    assert {age.stage.height: age.before_stage for age in found_ages} == pytest.approx({8: 0.25, 16: 0.5})
    experiment = make_tiny_experiment({"averages": [HalfLife(160, None)]})
    (rest,) = list_average_ages(experiment, settings.resolve(1000, 1, 0), [0, 0, 160])
    assert (rest.stage.height, rest.before_stage) == (16, pytest.approx(0.25))  # as of a branch


@pytest.mark.parametrize("average", [PerUpdate(0.995), HalfLife(5000, None)], ids=["per update", "half-life"])
def test_an_average_that_is_too_old_is_warned_of_with_what_would_do(average: Average) -> None:
    schedule = ScheduleSettings((4,), 0, 12_800, 32).resolve(1000, 1, 0)
    (age,) = list_ages(schedule, average)
    assert age.before_stage > 0.05 and age.warning is not None
    assert "at the end of stage 4x4" in age.warning and f"{100 * age.before_stage:.0f} %" in age.warning
    assert f"averages.HalfLife.half_life = {age.fitting_half_life} " in age.warning
    (fitting,) = list_ages(schedule, HalfLife(age.fitting_half_life, None))
    assert 0.045 < fitting.before_stage <= 0.05 and fitting.warning is None


TOO_OLD = (
    "train.averages = [@averages.HalfLife()]",
    "averages.HalfLife.half_life = 100",
    "averages.HalfLife.ramp_up = None",
)


def test_training_logs_the_age_and_warns_once(train: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match="of the generator's average") as caught:
        run = train(*TOO_OLD)
    log = (run.directory / "log.txt").read_text()
    for size, share, half_life in (("4x4", 2 ** -(8 / 100), 1), ("8x8", 2 ** -(16 / 100), 3)):
        assert (
            log.count(f"warning: at the end of stage {size}, {100 * share:.0f} % of the generator's average half_life")
            == 1
        )
        assert f"averages.HalfLife.half_life = {half_life} " in log
    assert len([w for w in caught if "average" in str(w.message)]) == 3
    shares = f"{100 * 2**-0.16:.0f} % from before the stage, {100 * 2**-0.08:.0f} % from before its fade's end"
    assert f"8x8: {shares}" in log


def test_a_young_average_is_not_warned_of(train: Callable[..., Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = train()
    assert "4x4: 0.0 % random weights; 8x8: 0.0 % from before the stage" in (run.directory / "log.txt").read_text()


# Batch normalisation


class Double(nn.Module):
    """Batch normalisation written out in float64 numpy-like steps; records each batch's mean and unbiased variance."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.norm = norm
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        rows = x.transpose(0, 1).reshape(channels, -1)
        mean = rows.sum(1) / rows.shape[1]
        squares = (rows - mean[:, None]).square().sum(1)
        self.means.append(mean)
        self.variances.append(squares / (rows.shape[1] - 1))
        shape = (1, channels, *[1] * (x.dim() - 2))
        scale = (squares / rows.shape[1] + self.norm.eps).rsqrt()
        out = (x - mean.view(shape)) * scale.view(shape)
        if self.norm.affine:
            out = out * self.norm.weight.view(shape) + self.norm.bias.view(shape)
        return out


def replace_norms(module: nn.Module, path: str = "") -> dict[str, Double]:
    replaced = {}
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            replaced[path + name] = Double(child)
            setattr(module, name, replaced[path + name])
        else:
            replaced |= replace_norms(child, f"{path}{name}.")
    return replaced


class Moment:
    """Copies the average in the middle of the last fade, first without reading it and then by `ema`."""

    def __init__(self) -> None:
        self.pair: tuple[nn.Module, nn.Module] | None = None

    @hookimpl
    def after_step(self, state: TrainState) -> None:
        if state.stage.height == 16 and state.generator.bridge is not None and self.pair is None:
            self.pair = copy.deepcopy(state._averages["half_life"]), copy.deepcopy(state.ema)


NORMED = [
    {"architecture": ResNet(channels=4)},
    {"architecture": ResNet(channels=4, conditioning="projection"), "dataset": ToyDataset(classes=3)},
    {"architecture": PGGAN(channels=4, generator_norm="batch")},
]


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize("chosen", NORMED, ids=["ResNet", "conditional", "PGGAN"])
def test_statistics_are_those_of_the_averages_own_features(tmp_path: Path, chosen: dict[str, Any]) -> None:
    moment = Moment()
    run = train_tiny(moment, "moment", tmp_path, {**chosen, "schedule": SHORT, "averages": [HalfLife(200)], "seed": 5})
    assert moment.pair is not None

    # The features of the average, by the latents and labels of the calibration.
    net, calibrated_net = moment.pair
    net.double().eval()
    norms = replace_norms(net)
    count = averaging.CALIBRATION_BATCHES
    size = averaging.CALIBRATION_BATCH_SIZE
    latents = torch.randn(count * size, 8, generator=torch_generator(5, "calibration latents")).double()
    labels = draw_calibration_labels(run.experiment, run.state.stage)
    assert (labels is None) == (chosen.get("dataset") is None)
    with torch.no_grad():
        for start in range(0, count * size, size):
            rows = slice(start, start + size)
            net(latents[rows], None if labels is None else labels[rows], torch.tensor(0.5))

    # Their means over the batches are the statistics.
    calibrated = {name: module for name, module in calibrated_net.named_modules() if isinstance(module, _BatchNorm)}
    assert set(calibrated) == set(norms) and len(norms) >= 5
    for name, norm in norms.items():
        assert len(norm.means) == count
        own = calibrated[name]
        assert own.running_mean is not None and own.running_var is not None and own.momentum == 0.1
        torch.testing.assert_close(own.running_mean.double(), torch.stack(norm.means).mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.running_var.double(), torch.stack(norm.variances).mean(0), rtol=1e-4, atol=1e-6)


class Asker:
    """Draws from the average after each step; keeps the last grid at each tick."""

    def __init__(self, asks: bool) -> None:
        self.asks = asks
        self.grids: list[Tensor] = []

    @hookimpl
    def after_step(self, run: Any, state: TrainState) -> None:
        if self.asks and state.steps % 2:
            run.generate(run.fixed_latents(3))
            run.generator()

    @hookimpl
    def after_tick(self, run: Any) -> None:
        self.grids.append(run.generate(run.fixed_latents(4)))


NORM = {"architecture": ResNet(channels=4), "schedule": SHORT, "switch": Linear(), "tick": 4}


@pytest.mark.usefixtures("few_calibrations")
def test_asking_for_the_average_changes_nothing(tmp_path: Path) -> None:
    askers = {name: Asker(name == "often") for name in ("often", "seldom")}
    runs = {}
    for name, asker in askers.items():
        (tmp_path / name).mkdir()
        runs[name] = train_tiny(asker, "asker", tmp_path / name, NORM)
    assert are_equal(runs["often"].state.take_snapshot().content(), runs["seldom"].state.take_snapshot().content())
    assert len(askers["often"].grids) > 5 and are_equal(askers["often"].grids, askers["seldom"].grids)
    for path in (tmp_path / "often" / "checkpoints").glob("*.pt"):
        other = torch.load(tmp_path / "seldom" / "checkpoints" / path.name, weights_only=True)
        assert are_equal(torch.load(path, weights_only=True)["averages"], other["averages"])


@pytest.mark.usefixtures("few_calibrations")
def test_a_resumed_run_draws_the_same_grids(tmp_path: Path) -> None:
    for name in ("whole", "rest"):
        (tmp_path / name).mkdir()
    whole = Asker(asks=False)
    rest = Asker(asks=False)
    run = train_tiny(whole, "asker", tmp_path / "whole", NORM)
    again = train_tiny(rest, "asker", tmp_path / "rest", NORM, load_mid_fade(tmp_path / "whole"))
    assert 2 < len(rest.grids) < len(whole.grids) and are_equal(rest.grids, whole.grids[-len(rest.grids) :])
    assert are_equal(again.state.take_snapshot().content(), run.state.take_snapshot().content())


@pytest.mark.usefixtures("few_calibrations")
def test_all_who_use_the_average_use_its_own_statistics(tiny: Callable[..., str], stub: str) -> None:
    lines = (
        "train.averages = [@averages.HalfLife(), @averages.PerUpdate()]",
        "averages.HalfLife.half_life = 100",
        "averages.HalfLife.ramp_up = 0.9",
        "averages.PerUpdate.decay = 0.5",
    )
    config = tiny(*lines, base=TINY.replace("PGGAN", "ResNet"))
    run = pggan_kit.train(config, plugins=[stub])
    average = run.state.ema.state_dict()
    live = run.state.generator.state_dict()
    running = [name for name in average if name.endswith(("running_mean", "running_var"))]
    assert len(running) >= 8 and not any(torch.equal(average[name], live[name]) for name in running)
    other = run.state.read_average("per_update").state_dict()
    assert not any(torch.equal(average[name], other[name]) for name in running)
    latents = run.fixed_latents(6)
    for name, weights in ((None, average), ("half_life", average), ("per_update", other)):
        drawn = run.generate(latents, average=name or True)
        for generator in (run.generator(name), load_generator(run, plugins=[stub], average=name)):
            assert are_equal(generator.generator.state_dict(), dict(weights))
            torch.testing.assert_close(generator(latents), drawn, rtol=0, atol=0)


def test_an_average_that_is_not_there_is_named_with_the_nearest(train: Callable[..., Any], stub: str) -> None:
    run = train()
    for ask in (run.generator, lambda name: run.generate(run.fixed_latents(1), average=name)):
        with pytest.raises(
            RunError, match=r"train\.averages has no average half_live \(did you mean half_life\?\); it has"
        ):
            ask("half_live")
    with pytest.raises(
        RunError, match=r"--average half_live: the checkpoint at images 40 has no average half_live .did"
    ):
        load_generator(run, plugins=[stub], average="half_live")


@pytest.mark.parametrize("average", [HalfLife(0), PerUpdate(0.0), Copy()], ids=lambda part: type(part).__name__)
def test_a_copy_has_the_generators_statistics(tmp_path: Path, average: Average) -> None:
    run = train_tiny(Asker(asks=True), "asker", tmp_path, {**NORM, "averages": [average]})
    average = run.state.ema.state_dict()
    live = run.state.generator.state_dict()
    assert any(name.endswith("running_var") for name in live) and are_equal(average, live)
    latents = run.fixed_latents(4)
    assert torch.equal(run.generate(latents), run.generate(latents, average=False))


def test_networks_without_batch_norm_pay_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averaging, "torch_generator", None)
    train_tiny(Asker(asks=True), "asker", tmp_path, {"architecture": PGGAN(channels=4)})


def test_statistics_are_made_once_for_a_place_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(Asker(asks=True), "asker", tmp_path, {"architecture": ResNet(channels=4)})
    calls: list[int] = []
    monkeypatch.setattr("pggan_kit.runs.state.calibrate_batch_norm", lambda *_: calls.append(run.state.images))
    for images in (0, 4, 4):
        run.state.images += images
        if images:
            run.state.update_averages(images)
        for _ in range(3):
            run.generate(run.fixed_latents(2))
        run.state.take_snapshot()
    assert calls == [0, 4, 8]


class Skewed(ToyDataset):
    """A data set with three of four images of class 1."""

    def label(self, i: int) -> int:
        return int(i % 4 != 0)


def test_labels_are_as_frequent_as_in_training() -> None:
    conditional = {"architecture": PGGAN(channels=4, conditioning="projection"), "dataset": Skewed(classes=2)}
    experiment: Experiment = make_tiny_experiment(conditional)
    stage = experiment.schedule.resolve(16, 1, 2).stages[0]
    labels = draw_calibration_labels(experiment, stage)
    assert labels is not None and labels.dtype == torch.int64 and len(labels) == 1024
    assert labels.float().mean() == pytest.approx(0.75, abs=0.05)
    assert are_equal(labels, draw_calibration_labels(experiment, stage))
    plain = make_tiny_experiment({**conditional, "architecture": PGGAN(channels=4)})
    assert draw_calibration_labels(plain, stage) is None


def test_the_age_of_an_average_over_a_million_updates_is_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few updates are looked at, each for its neighbours too; with a constant half-life the product is the same."""
    looks: list[int] = []
    half_life = HalfLife(2_000_000, ramp_up=None)
    compute = half_life.compute_shares
    monkeypatch.setattr(half_life, "compute_shares", lambda *place: looks.append(1) or compute(*place))
    schedule = ScheduleSettings((4,), 0, 16_000_000, 16).resolve(100, 1, 0)
    (share,) = compute_shares_from_before(half_life, Alternating(), schedule, [0], 0, 16_000_000)
    assert share == pytest.approx(0.5**8, rel=1e-9)
    assert len(looks) <= 2_000
