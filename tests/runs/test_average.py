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
from pggan_kit.experiment import Experiment
from pggan_kit.runs import average as averaging
from pggan_kit.runs.average import compute_decay, draw_calibration_labels, list_average_ages
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Schedule, ScheduleSettings
from pggan_kit.system.seeding import torch_generator
from pggan_kit.testing.support import are_equal
from pggan_kit.testing.tiny_runs import load_mid_fade, make_run, make_tiny_experiment, train_tiny
from pggan_kit.testing.toys import ToyDataset
from pggan_plugins.architectures import PGGAN, ResNet, StyleGAN2, Tutorial
from pggan_plugins.datasets import MNIST
from pggan_plugins.features import Digits
from pggan_plugins.metrics import FrechetDistance
from pggan_plugins.switches import Linear

EXPERIMENTS = ROOT / "experiments"
GROWING = ScheduleSettings((4, 8, 16), fade_images=24, stable_images=24, batch_size={4: 4, 8: 2, 16: 8})


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
    chosen = {"schedule": GROWING, "ema_half_life": half_life, "ema_ramp_up": ramp_up, "collapse_below": 0.0}
    run = train_tiny(recorder, "recorder", tmp_path, chosen)
    assert run.state.starts == [0, 24, 72] and run.state.images == 120
    # Parameters at each of the updates: at 4x4, in the fade to 8x8, after it, and so on.
    assert recorder.compared == 6 * 4 + 12 * 8 + 12 * 6 + 3 * 10 + 3 * 8
    assert set(recorder.births.values()) == {0, 24, 72}


def test_decays_by_hand() -> None:
    schedule = GROWING.resolve(16, 1, 0)
    small, middle = schedule.stages[:2]
    plain = make_tiny_experiment({"ema_half_life": {4: 100, 8: 50}, "ema_ramp_up": None})
    assert compute_decay(plain, small, 0, 100) == 0.5 and compute_decay(plain, middle, 0, 100) == 0.25
    ramped = make_tiny_experiment({"ema_half_life": 1000, "ema_ramp_up": 0.5})
    assert [compute_decay(ramped, small, age, 50) for age in (0, 100, 200)] == [0.0, 0.5, 2**-0.5]
    assert compute_decay(ramped, small, 10**9, 1000) == 0.5
    per_update = make_tiny_experiment({"ema_decay": 0.75})
    assert compute_decay(per_update, small, 0, 1) == compute_decay(per_update, small, 900, 64) == 0.75
    assert compute_decay(make_tiny_experiment({}), small, 10**9, 10_000) == 0.5, "the default: 10,000 images"
    assert compute_decay(make_tiny_experiment({}), small, 20, 1) == 0.5, "and a twentieth of the age"
    assert compute_decay(make_tiny_experiment({"ema_half_life": 0}), small, 10**9, 1) == 0.0


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


@pytest.mark.parametrize(
    "architecture",
    [PGGAN(channels=4), ResNet(channels=4), StyleGAN2(channels=4), Tutorial(bridge="image")],
    ids=lambda part: type(part).__name__,
)
def test_a_fade_begins_with_the_averaged_images_of_the_stage_before(tmp_path: Path, architecture: Any) -> None:
    sizes = (7, 14, 28) if isinstance(architecture, Tutorial) else (4, 8, 16)
    schedule = ScheduleSettings(sizes, fade_images=24, stable_images=24, batch_size={sizes[0]: 8, sizes[1]: 4})
    seam = Seam()
    train_tiny(seam, "seam", tmp_path, {"architecture": architecture, "schedule": schedule, "ema_ramp_up": 0.5})
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


def list_ages(schedule: Schedule, **settings: Any) -> list[averaging.AverageAge]:
    return list_average_ages(make_tiny_experiment(settings), schedule, [0])


def test_the_age_of_an_average_by_hand() -> None:
    # The demo's first stages as they were once shipped: 0.999 an update of 32 images.
    settings = ScheduleSettings((4, 8), fade_images=3200, stable_images={4: 9600, 8: 9600}, batch_size=32)
    schedule = settings.resolve(1000, 1, 0)
    first, second = list_ages(schedule, ema_decay=0.999)
    assert first.before_stage == pytest.approx(0.999**300) and first.before_fade_end is None
    assert second.before_stage == pytest.approx(0.999**400) and second.before_fade_end == pytest.approx(0.999**300)
    first, second = list_ages(schedule, ema_half_life=3200, ema_ramp_up=None)
    assert (first.before_stage, second.before_stage) == pytest.approx((2**-3, 2**-4))
    assert second.before_fade_end == pytest.approx(2**-3)
    # With the ramp-up nothing is left of the random start, and of an age's last fourth little is older.
    first, second = list_ages(schedule, ema_half_life=10**9, ema_ramp_up=0.5)
    exponent = sum(32 / (0.5 * images) for images in range(9600, 9600 + 12800, 32))
    assert first.before_stage == 0.0 and second.before_stage == pytest.approx(0.5**exponent)


def test_stages_without_images_and_those_past_the_total_have_no_age() -> None:
    settings = ScheduleSettings((4, 8, 16, 32), 0, {4: 0, 8: 320, 16: 320, 32: 320}, 32, total_images=480)
    found_ages = list_ages(settings.resolve(1000, 1, 0), ema_half_life=160, ema_ramp_up=None)
    assert {age.stage.height: age.before_stage for age in found_ages} == pytest.approx({8: 0.25, 16: 0.5})
    experiment = make_tiny_experiment({"ema_half_life": 160, "ema_ramp_up": None})
    (rest,) = list_average_ages(experiment, settings.resolve(1000, 1, 0), [0, 0, 160])
    assert (rest.stage.height, rest.before_stage) == (16, pytest.approx(0.25))  # as of a branch


@pytest.mark.parametrize("settings", [{"ema_decay": 0.995}, {"ema_half_life": 5000, "ema_ramp_up": None}])
def test_an_average_that_is_too_old_is_warned_of_with_what_would_do(settings: dict[str, Any]) -> None:
    schedule = ScheduleSettings((4,), 0, 12_800, 32).resolve(1000, 1, 0)
    (age,) = list_ages(schedule, **settings)
    assert age.before_stage > 0.05 and age.warning is not None
    assert "at the end of stage 4x4" in age.warning and f"{100 * age.before_stage:.0f} %" in age.warning
    assert f"train.ema_half_life = {age.fitting_half_life} " in age.warning
    (fitting,) = list_ages(schedule, ema_half_life=age.fitting_half_life, ema_ramp_up=None)
    assert 0.045 < fitting.before_stage <= 0.05 and fitting.warning is None


TOO_OLD = ("train.ema_half_life = 100", "train.ema_ramp_up = None")


def test_training_logs_the_age_and_warns_once(train: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match="of the generator's average") as caught:
        run = train(*TOO_OLD)
    log = (run.directory / "log.txt").read_text()
    for size, share, half_life in (("4x4", 2 ** -(8 / 100), 1), ("8x8", 2 ** -(16 / 100), 3)):
        assert log.count(f"warning: at the end of stage {size}, {100 * share:.0f} % of the generator's average") == 1
        assert f"train.ema_half_life = {half_life} " in log
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
    """Copies the average in the middle of the last fade, first without reading `ema` and then by it."""

    def __init__(self) -> None:
        self.pair: tuple[nn.Module, nn.Module] | None = None

    @hookimpl
    def after_step(self, state: TrainState) -> None:
        if state.stage.height == 16 and state.generator.bridge is not None and self.pair is None:
            self.pair = copy.deepcopy(state._average), copy.deepcopy(state.ema)


NORMED = [
    {"architecture": ResNet(channels=4)},
    {"architecture": ResNet(channels=4, conditioning="projection"), "dataset": ToyDataset(classes=3)},
    {"architecture": PGGAN(channels=4, generator_norm="batch")},
]


@pytest.mark.parametrize("chosen", NORMED, ids=["ResNet", "conditional", "PGGAN"])
def test_statistics_are_those_of_the_averages_own_features(tmp_path: Path, chosen: dict[str, Any]) -> None:
    moment = Moment()
    run = train_tiny(moment, "moment", tmp_path, {**chosen, "schedule": GROWING, "ema_half_life": 200, "seed": 5})
    assert moment.pair is not None
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


NORM = {"architecture": ResNet(channels=4), "schedule": GROWING, "switch": Linear(), "tick": 16}


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
        assert are_equal(torch.load(path, weights_only=True)["ema"], other["ema"])


def test_a_resumed_run_draws_the_same_grids(tmp_path: Path) -> None:
    for name in ("whole", "rest"):
        (tmp_path / name).mkdir()
    whole = Asker(asks=False)
    rest = Asker(asks=False)
    run = train_tiny(whole, "asker", tmp_path / "whole", NORM)
    again = train_tiny(rest, "asker", tmp_path / "rest", NORM, load_mid_fade(tmp_path / "whole"))
    assert 2 < len(rest.grids) < len(whole.grids) and are_equal(rest.grids, whole.grids[-len(rest.grids) :])
    assert are_equal(again.state.take_snapshot().content(), run.state.take_snapshot().content())


def test_all_who_use_the_average_use_its_own_statistics(tiny: Callable[..., str], stub: str) -> None:
    config = tiny("train.ema_half_life = 100", "train.ema_ramp_up = 0.9", base=TINY.replace("PGGAN", "ResNet"))
    run = pggan_kit.train(config, plugins=[stub])
    average = run.state.ema.state_dict()
    live = run.state.generator.state_dict()
    running = [name for name in average if name.endswith(("running_mean", "running_var"))]
    assert len(running) >= 8 and not any(torch.equal(average[name], live[name]) for name in running)
    latents = run.fixed_latents(6)
    drawn = run.generate(latents)
    for generator in (run.generator(), load_generator(run, plugins=[stub])):
        assert are_equal(generator.generator.state_dict(), dict(average))
        torch.testing.assert_close(generator(latents), drawn, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"ema_half_life": 0}, {"ema_decay": 0.0}])
def test_a_copy_has_the_generators_statistics(tmp_path: Path, settings: dict[str, Any]) -> None:
    run = train_tiny(Asker(asks=True), "asker", tmp_path, {**NORM, **settings})
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
            run.state.update_average(images)
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
