"""Test averages of any width: against sums over all weights, against ema-pytorch, and in a run's folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import Result
from ema_pytorch import PostHocEMA
from ema_pytorch.post_hoc_ema import p_dot_p, sigma_rel_to_gamma, solve_weights
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN
from scipy.optimize import brentq
from torch import Tensor

import pggan_kit
from pggan_kit import hookimpl, load_generator
from pggan_kit.api import evaluate as evaluation
from pggan_kit.api.average import write_average
from pggan_kit.errors import RunError, SettingError, TrainingError
from pggan_kit.runs.post_hoc import PieceFit, make_average
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.system.seeding import torch_generator
from pggan_kit.testing.support import are_equal
from pggan_kit.testing.tiny_runs import load_mid_fade, load_snapshots, train_tiny
from pggan_plugins.architectures import PGGAN, ResNet
from pggan_plugins.averages import HalfLife, PowerFunction
from pggan_plugins.switches import Linear

GROWING = ScheduleSettings((4, 8, 16), fade_images=24, stable_images=24, batch_size={4: 4, 8: 2, 16: 8})


def make(run: Run, saved: Snapshot, width: float) -> tuple[dict[str, Tensor], list[PieceFit]]:
    made, fits = make_average(run.experiment, run.schedule, saved, run.files.average_snapshots(), width)
    (weights,) = made.averages.values()
    return dict(weights), fits


@torch.no_grad()
def walk(state: TrainState) -> None:
    """Move the weights of G by as much as they are large within a few steps, more than any training does."""
    generator = torch_generator(3, "walk", state.steps)
    for param in state.generator.parameters():
        param += 0.2 * torch.randn(param.shape, generator=generator)


def test_an_average_that_is_made_carries_nothing_else(grown: tuple[Run, History]) -> None:
    run, _ = grown
    before = load_at(run, 24, "stable")
    saved = replace(load_at(run, 48, "fade"), return_point=before)
    made, _ = make_average(run.experiment, run.schedule, saved, run.files.average_snapshots(), 0.1)
    assert made.holds == "average"
    assert made.return_point is None
    empty = [made.generator, made.discriminator, made.optimizers, made.components, made.means.sums]
    assert not any(empty)


# Against a sum over all weights that a growing generator has had


class History:
    """A switch that fades linearly, and records each weight of G after each update, with the images that it spent."""

    def __init__(self) -> None:
        self.images = 0
        self.births: dict[Tensor, int] = {}
        self.values: dict[Tensor, list[tuple[int, int, np.ndarray]]] = {}
        self.places: dict[int, dict[str, Tensor]] = {}

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return progress

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        for param in state.generator.parameters():
            self.births.setdefault(param, state.images)

    @hookimpl
    def after_step(self, state: TrainState) -> None:
        for param in state.generator.parameters():
            value = param.detach().double().numpy().copy()
            self.values.setdefault(param, []).append((self.images, state.images, value))
        self.images = state.images
        walk(state)

    @hookimpl
    def after_tick(self, state: TrainState) -> None:
        self.places[state.images] = dict(state.generator.named_parameters())

    def sum_profile(self, param: Tensor, clock: int, exponent: float) -> np.ndarray:
        """Return the integral of the profile since the parameter's birth, over the weights of each update."""
        birth = self.births[param]
        total = np.zeros(param.shape)
        for begin, end, value in self.values[param]:
            if end <= clock:
                shares = (np.array([begin, end]) - birth) / (clock - birth)
                total += np.diff(shares ** (exponent + 1))[0] * value
        return total

    def bound_error(self, param: Tensor, clock: int, exponent: float, error: float) -> np.ndarray:
        """Return how far a sum may be off by the inequality of Cauchy and Schwarz, where its profile is by `error`."""
        length = clock - self.births[param]
        squares = sum((end - begin) * value**2 for begin, end, value in self.values[param] if end <= clock)
        norm = (exponent + 1) / np.sqrt((2 * exponent + 1) * length)
        return np.asarray(error * norm * np.sqrt(squares))


def find_exponent(width: float) -> float:
    return float(brentq(lambda g: (g + 1) / ((g + 2) ** 2 * (g + 3)) - width**2, 0, 1e6))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, History]:
    history = History()
    chosen = {"architecture": PGGAN(channels=4), "schedule": GROWING, "tick": 8}
    chosen["averages"] = [HalfLife(), PowerFunction(snapshots=60)]
    return train_tiny(history, "history", tmp_path_factory.mktemp("grown"), chosen), history


def load_at(run: Run, images: int, phase: str) -> Snapshot:
    snapshots = load_snapshots(run.directory)
    return next(each for each in snapshots if each.images == images and each.phase == phase)


PLACES = [(24, "stable"), (48, "fade"), (72, "stable"), (88, "fade"), (120, "stable")]
"""Clocks at the end of the base size, within and at the end of fades, and at the end of other stages."""


@pytest.mark.parametrize(("clock", "phase"), PLACES)
def test_followed_widths_are_the_sum_over_all_weights(grown: tuple[Run, History], clock: int, phase: str) -> None:
    run, history = grown
    saved = load_at(run, clock, phase)
    assert saved.bridged["generator"] == (phase == "fade")
    for width in (0.05, 0.1):
        made, fits = make(run, saved, width)
        assert are_equal(made, dict(saved.averages[f"power_{width:g}"])), "it was followed, and is itself"
        assert all(fit.error < 1e-6 for fit in fits)
        for name, param in history.places[clock].items():
            wanted = history.sum_profile(param, clock, find_exponent(width))
            np.testing.assert_allclose(made[name].double().numpy(), wanted, rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("clock", "phase", "width"),
    [(88, "fade", 0.02), (88, "fade", 0.12), (120, "stable", 0.02), (120, "stable", 0.07), (120, "stable", 0.2)],
)
def test_other_widths_are_as_near_to_the_sum_as_is_said(
    grown: tuple[Run, History], clock: int, phase: str, width: float
) -> None:
    run, history = grown
    saved = load_at(run, clock, phase)
    made, fits = make(run, saved, width)
    exponent = find_exponent(width)
    errors = {run.state.starts[index]: fit.error for index, fit in enumerate(fits)}
    assert [fit.size for fit in fits] == ["4x4", "8x8", "16x16"]
    for name, param in history.places[clock].items():
        wanted = history.sum_profile(param, clock, exponent)
        error = errors[history.births[param]]
        bound = history.bound_error(param, clock, exponent, error) + 1e-5
        distance = np.abs(made[name].double().numpy() - wanted)
        assert (distance <= bound).all(), f"{name}: {distance.max()} above {bound.min()}"
        # Between the two that were followed it is much nearer than either of them.
        if width == 0.07 and clock == 120 and history.births[param] < 72:
            followed = saved.averages["power_0.05"][name].double().numpy()
            assert distance.max() < 0.1 * np.abs(followed - wanted).max()


def test_pieces_have_profiles_of_their_own_ages(grown: tuple[Run, History]) -> None:
    """Kept averages count for a piece only from its birth on: the number of them tells."""
    run, _ = grown
    _, fits = make(run, load_at(run, 120, "stable"), 0.07)
    # Kept after every step, since 2 images lie between two places; the last is that of the checkpoint.
    assert [(fit.size, fit.count) for fit in fits] == [("4x4", 2 * 36), ("8x8", 2 * 30), ("16x16", 2 * 6)]
    assert [fit.error for fit in fits] == sorted(fit.error for fit in fits)


def test_a_piece_that_is_just_born_is_a_copy(tmp_path: Path) -> None:
    schedule = ScheduleSettings((4, 8), 4, {4: 24, 8: 4}, 4)
    chosen = {"architecture": PGGAN(channels=4), "schedule": schedule, "averages": [PowerFunction(snapshots=10)]}
    run = train_tiny(Linear(), "switch", tmp_path, chosen)
    ended = next(each for each in load_snapshots(tmp_path) if each.stage_over and each.stage == 0)
    run.state = TrainState(run.experiment, run.schedule, torch.device("cpu"))
    run.state.load_snapshot(ended)
    run.state.grow({"generator": True, "discriminator": True})
    saved = run.state.take_snapshot()
    made, fits = make(run, saved, 0.02)
    assert fits[1] == PieceFit("8x8", 1, 0.0)
    born = [name for name in made if name.startswith(("to_image", "blocks.1"))]
    assert len(born) >= 6 and all(torch.equal(made[name], saved.generator[name]) for name in born)


# Against another implementation, where nothing grows


class Reference:
    """Follows G with ema-pytorch, whose first update has the age 2 unless its counter is set back by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ema: PostHocEMA | None = None

    @hookimpl
    def after_step(self, state: TrainState) -> None:
        if self.ema is None:
            options: dict[str, Any] = {"update_every": 1, "checkpoint_every_num_steps": "manual"}
            options |= {"checkpoint_folder": str(self.folder), "checkpoint_dtype": torch.float32}
            self.ema = PostHocEMA(state.generator, sigma_rels=WIDTHS, **options)
            self.move_clock(-1)
        self.ema.update()
        if state.steps % 4 == 0:
            self.move_clock(1)
            self.ema.checkpoint()
            self.move_clock(-1)
        walk(state)

    def move_clock(self, steps: int) -> None:
        assert self.ema is not None
        for each in self.ema.ema_models:
            each.step += steps

    def sum_checkpoints(self, width: float, name: str) -> np.ndarray:
        """Return the sum of all checkpoints by its solver, whose factors add up to 1."""
        files = [(*map(int, path.stem.split(".")), path) for path in self.folder.iterdir()]
        times = torch.tensor([step for _, step, _ in files], dtype=torch.float64)
        powers = torch.tensor([sigma_rel_to_gamma(WIDTHS[index]) for index, _, _ in files], dtype=torch.float64)
        end = torch.tensor([24.0], dtype=torch.float64)
        exponent = torch.tensor([sigma_rel_to_gamma(width)], dtype=torch.float64)
        factors = solve_weights(times, powers, end, exponent)[:, 0].numpy()

        # What is missing to 1 goes where it adds least to the square of the sum's distance.
        products = p_dot_p(times[:, None], powers[:, None], times[None], powers[None]).numpy()
        along = np.linalg.solve(products, np.ones(len(files)))
        factors += along * (1 - factors.sum()) / along.sum()
        kept = [torch.load(path, weights_only=True)[f"ema_model.{name}"].double().numpy() for *_, path in files]
        total: np.ndarray = np.tensordot(factors, np.stack(kept), 1)
        return total


WIDTHS = (0.05, 0.1)


def test_averages_are_those_of_ema_pytorch(tmp_path: Path) -> None:
    reference = Reference(tmp_path / "reference")
    schedule = ScheduleSettings((4,), 0, 96, 4)
    chosen = {"architecture": PGGAN(channels=4), "schedule": schedule, "averages": [PowerFunction(snapshots=6)]}
    (tmp_path / "run").mkdir()
    run = train_tiny(reference, "reference", tmp_path / "run", chosen)
    saved = run.checkpoints.load_last()
    assert reference.ema is not None and len(list(reference.folder.iterdir())) == 12
    for name, followed in zip(("power_0.05", "power_0.1"), reference.ema.ema_models, strict=True):
        for key, wanted in followed.ema_model.named_parameters():
            torch.testing.assert_close(saved.averages[name][key], wanted.data, rtol=1e-5, atol=1e-6)

    for width in (0.03, 0.07, 0.15):
        made, _ = make(run, saved, width)
        theirs = dict(reference.ema.synthesize_ema_model(sigma_rel=width, step=24).ema_model.named_parameters())
        for key in theirs:
            exact = reference.sum_checkpoints(width, key)
            np.testing.assert_allclose(made[key].double().numpy(), exact, rtol=1e-4, atol=1e-4)
        # Their own sum is shorter by what is missing to 1.
        ours = torch.cat([made[key].flatten() for key in theirs])
        wanted = torch.cat([value.data.flatten() for value in theirs.values()])
        assert float((ours - wanted).norm()) < 0.03 * float(wanted.norm())


# In a run's folder

KEEPING = {
    "architecture": PGGAN(channels=4),
    "schedule": ScheduleSettings((4, 8, 16), fade_images=24, stable_images=24, batch_size={4: 4, 16: 8}),
    "tick": 16,
    "averages": [PowerFunction(snapshots=10)],
}


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "averages").iterdir())


def test_a_resumed_run_keeps_the_same_and_logs_what_it_removes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    train_tiny(Linear(), "switch", whole, {**KEEPING, "keep": 100})
    names = list_names(whole)
    assert [int(name[:12]) for name in names] == [12, 24, 36, 48, 60, 72, 88, 96, 112, 120]
    saved = load_mid_fade(whole)
    assert saved.images == 32

    rest = tmp_path / "rest"
    shutil.copytree(whole, rest)
    # A file that a resumed run could not make again, as after a return to a checkpoint with other latents.
    shutil.copyfile(rest / "averages" / names[-1], rest / "averages" / "000000000119-00000000.pt")
    train_tiny(Linear(), "switch", rest, {**KEEPING, "keep": 100}, saved)
    assert list_names(rest) == names, "each name carries the hash of its content"
    assert "removed 9 snapshots of averages past images 32: 000000000036-" in (rest / "log.txt").read_text()


def test_averages_are_kept_before_a_checkpoint_of_the_same_place(tmp_path: Path) -> None:
    class Watch(Linear):
        seen: ClassVar[list[tuple[int, list[int]]]] = []

        @hookimpl
        def save_state(self, run: Run) -> dict[str, Any]:
            kept = [clock for clock, _ in run.files.average_snapshots().list_files()]
            self.seen.append((run.state.images, kept[-1:]))
            return {}

        @hookimpl
        def load_state(self) -> None:
            pass

    train_tiny(Watch(), "watch", tmp_path, KEEPING)
    last_kept = {clock: kept for clock, kept in Watch.seen}
    assert last_kept[24] == [24] and last_kept[72] == [72] and last_kept[32] == [24]


@pytest.mark.usefixtures("few_calibrations")
def test_batch_normalisation_fits_the_average_that_was_made(tmp_path: Path) -> None:
    schedule = ScheduleSettings((4, 8), 8, 8, 4)
    chosen = {**KEEPING, "architecture": ResNet(channels=4), "schedule": schedule}
    run = train_tiny(Linear(), "switch", tmp_path, chosen)
    saved = run.checkpoints.load_last()
    own, _ = make(run, saved, 0.05)
    assert are_equal(own, dict(saved.averages["power_0.05"])), "calibrated as when it was saved"
    other, _ = make(run, saved, 0.08)
    running = [name for name in own if name.endswith("running_var")]
    assert running and not any(torch.equal(own[name], other[name]) for name in running)


POWER = ("train.averages = [@averages.HalfLife(), @averages.PowerFunction()]", "averages.PowerFunction.snapshots = 5")


@pytest.mark.filterwarnings("ignore:the average of width", "ignore:metrics.SlicedWasserstein")
def test_commands_take_names_widths_and_files(
    train: Callable[..., Run], cli: Callable[..., Result], stub: str, refused: Callable[[Result, str], str]
) -> None:
    run = train(*POWER, "train.metrics = [@metrics.SlicedWasserstein()]", "evaluation.count = 4", run_dir="run")
    result = cli("average", "run", "--width", "0.07", "--out", "narrow.pt", "--plugin", stub)
    assert result.exit_code == 0, result.output
    assert "wrote narrow.pt" in result.stderr
    assert [line.split()[1] for line in result.stdout.splitlines() if "x" in line and "%" in line] == [
        "4x4",
        "8x8",
        "16x16",
    ]

    # The file, the width and the Python API give one generator.
    latents = run.fixed_latents(3)
    images = {}
    for average in (None, "half_life", "power_0.1", "0.07", 0.07, "narrow.pt", Path("narrow.pt"), "0.1"):
        images[average] = load_generator("run", plugins=[stub], average=average)(latents)
    assert torch.equal(images[None], images["half_life"]) and torch.equal(images["power_0.1"], images["0.1"])
    for same in (0.07, "narrow.pt", Path("narrow.pt")):
        assert torch.equal(images[same], images["0.07"])
    assert not torch.equal(images["0.07"], images["half_life"]) and not torch.equal(images["0.07"], images["0.1"])

    # Commands
    for average in ("power_0.05", "0.07", "narrow.pt"):
        drawn = cli("sample", "run", "--average", average, "--count", 4, "--out", f"{average}.npz", "--plugin", stub)
        assert drawn.exit_code == 0, drawn.output
    with np.load("0.07.npz") as width, np.load("narrow.pt.npz") as file, np.load("power_0.05.npz") as followed:
        assert (width["images"] == file["images"]).all() and (width["images"] != followed["images"]).any()
    (own,) = pggan_kit.evaluate("run", plugins=[stub])[:1]
    (row,) = pggan_kit.evaluate("run", plugins=[stub], average="0.07")[:1]
    assert (own["average"], row["average"]) == ("half_life", "width_0.07") and own["value"] != row["value"]
    assert (
        '"average": "power_0.1"' in cli("evaluate", "run", "--average", "power_0.1", "--json", "--plugin", stub).stdout
    )
    ended = load_generator("run", plugins=[stub], average=0.07, stage="8x8")
    assert ended(latents).shape[-1] == 8 and ended.images == 24


WRONG = {
    (
        "sample",
        "--average",
        "power_0.2",
    ): r"--average power_0\.2: the checkpoint at images 40 has no average power_0\.2 .*"
    r"has half_life, power_0\.05, power_0\.1",
    ("sample", "--average", "0.4"): r"--average 0\.4: a width must be in \(0, 0\.288\], and is 0\.4",
    ("sample", "--average", "nan"): r"--average nan: a width must be in",
    ("sample", "--average", "none.pt"): r"--average none\.pt: cannot be read \(No such file",
    ("sample", "--average", "tiny.gin.pt"): r"--average tiny\.gin\.pt: it is no file of an average",
    (
        "sample",
        "--average",
        "x.pt",
        "--stage",
        "0",
    ): r"--average x\.pt: the file is of one checkpoint; leave --stage and --checkpoint out",
    ("average", "--width", "0"): r"--width 0: a width must be in \(0,",
    ("average", "--width", "0.1", "--stage", "7"): r"no such stage has ended",
    ("average", "--width", "0.1", "--out", "x.png"): r"--out x\.png: name a \.pt file",
    ("average", "--width", "0.1", "--out", "run/checkpoints/x.pt"): r"would replace what the run .* needs",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    from conftest import TINY
    from helpers.gin_text import bind_again

    (folder / "tiny.gin").write_text(bind_again(TINY, POWER))
    pggan_kit.train(folder / "tiny.gin", plugins=[str(STUB_PLUGIN)], run_dir=folder / "run")
    return folder / "run"


@pytest.mark.parametrize("options", WRONG, ids=lambda options: " ".join(options))
def test_a_wrong_average_is_refused(
    options: tuple[str, ...], kept: Path, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    Path("tiny.gin.pt").write_text("train.seed = 1")
    if not Path("run").exists():
        Path("run").symlink_to(kept)
    command, *rest = options
    if command == "sample":
        rest += ["--out", "x.npz"]
    refused(cli(command, "run", *rest, "--plugin", STUB_PLUGIN), WRONG[options])
    assert not Path("x.npz").exists() and not Path("x.png").exists()


@pytest.mark.parametrize("noted", ["content", "values"])
def test_a_file_of_a_run_of_other_data_is_refused(kept: Path, tmp_path: Path, stub: str, noted: str) -> None:
    """It would be drawn in the units and with the class names of this run."""
    path = tmp_path / "average.pt"
    write_average(kept, 0.07, path, plugins=[stub])
    load_generator(kept, plugins=[stub], average=path)
    content = torch.load(path, weights_only=True)
    content["identity"]["dataset"][noted] = "uint16 (0, 65535)"
    torch.save(content, path)
    with pytest.raises(RunError, match=rf"--average .*average\.pt is of another run, .*{noted}: uint16 .* there"):
        load_generator(kept, plugins=[stub], average=path)


def test_a_run_without_power_functions_says_how_to_train_with_them(train: Callable[..., Run], stub: str) -> None:
    train(run_dir="run")
    with pytest.raises(
        RunError, match=r"needs power functions, and the run has half_life: train with train\.averages = "
    ):
        load_generator("run", plugins=[stub], average=0.05)


def test_a_width_out_of_range_is_a_setting_error(grown: tuple[Run, History]) -> None:
    run, _ = grown
    with pytest.raises(SettingError, match="width must be in"):
        make(run, run.checkpoints.load_last(), 0.3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the average of width")
def test_the_best_width_is_chosen_on_tuning_data(
    kept: Path, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    options = ["--metric", "Gap", "--count", 6, "--plugin", STUB_PLUGIN, "--plugin", ABLATION_PLUGIN]
    plugins = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]
    values = {}
    for width in evaluation.WIDTHS:
        rows = pggan_kit.evaluate(kept, metrics=["Gap"], count=4, average=width, plugins=plugins)
        assert rows[0]["metric"] == "gap"
        values[width] = rows[0]["value"]
    best = min(values, key=values.__getitem__)
    assert len(set(values.values())) == len(evaluation.WIDTHS)

    result = cli("evaluate", kept, "--average", "best", "--tuning", "evaluation.count = 4", "--json", *options)
    rows = json.loads(result.stdout)
    assert f"the average of width {best:g}, which was the best of 8 under --tuning" in result.stderr
    assert {row["average"] for row in rows} == {f"width_{best:g}"} and {row["count"] for row in rows} == {6}
    alone = pggan_kit.evaluate(kept, metrics=["Gap"], count=6, average=best, plugins=plugins)
    assert rows == alone
    for half in (["--average", "best"], ["--tuning", "evaluation.count = 4"]):
        refused(cli("evaluate", kept, *half, *options), "--average best chooses a width on images of")


@pytest.mark.parametrize("values", [[math.nan, 3.0, 2.0, math.nan], [math.nan] * 4])
def test_a_width_without_a_finite_value_is_not_the_best(
    values: list[float], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = (0.05, 0.1, 0.15, 0.2)
    measured = iter(values)
    monkeypatch.setattr(evaluation, "WIDTHS", widths)
    monkeypatch.setattr(evaluation, "_evaluate_run", lambda *_: [{"metric": "gap", "value": next(measured)}])
    plugins = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]
    arguments = (kept, ["train.metrics = [@metrics.Gap()]"], [], plugins, None, None, "last")
    if math.isfinite(values[1]):
        assert evaluation._choose_width(*arguments) == 0.15
    else:
        with pytest.raises(TrainingError, match="--average best: gap is not finite with any"):
            evaluation._choose_width(*arguments)


def test_damaged_files_are_left_out_and_said(kept: Path, tmp_path: Path, stub: str) -> None:
    shutil.copytree(kept, tmp_path / "run")
    first, second, *_ = sorted((tmp_path / "run" / "averages").iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    second.rename(second.with_name(f"{second.name[:13]}00000000.pt"))
    with pytest.warns(UserWarning, match="is damaged") as caught:
        load_generator(tmp_path / "run", plugins=[stub], average=0.05)
    said = [str(warning.message) for warning in caught]
    for path in (first, second):
        (line,) = {each for each in said if path.name[:12] in each}
        assert line.endswith("is damaged: its content is not what was written. The average is made without it")


def test_an_average_that_is_far_from_its_profile_is_warned_of(kept: Path, stub: str) -> None:
    with pytest.warns(UserWarning, match=r"the average of width 0\.01 at images 40 is far .* with 4x4 \(\d+ %\), 8x8"):
        load_generator(kept, plugins=[stub], average=0.01)


def test_a_branch_goes_on_from_the_averages_of_its_trunk(
    kept: Path, tiny: Callable[..., str], stub: str, refused: Callable[[Result, str], str], cli: Callable[..., Result]
) -> None:
    """A branch with the same settings is the run itself; one that lacks power functions cannot begin them later."""
    config = tiny(*POWER)
    branch = pggan_kit.train(config, plugins=[stub], run_dir="branch", start_from=f"{kept}@8x8")
    assert list_names(branch.directory) == list_names(kept)
    assert f"copied 3 snapshots of averages from {kept}" in (branch.directory / "log.txt").read_text()

    plain = tiny("train.averages = [@averages.PerUpdate(), @b/averages.PerUpdate()]", "b/averages.PerUpdate.name = 'b'")
    with pytest.warns(UserWarning, match=r"the average b goes on from half_life"):
        run = pggan_kit.train(plain, plugins=[stub], run_dir="plain", start_from=f"{kept}@8x8")
    assert list(run.checkpoints.load_last().averages) == ["per_update", "b"]
    result = cli("train", tiny(*POWER), "--from", "plain@8x8", "--plugin", stub)
    assert result.exit_code == 2
    result = cli("train", tiny(*POWER, "schedule.total_images = 60"), "--from", "plain", "--plugin", stub)
    assert (
        result.exit_code == 2
        and "the checkpoint has no average power_0.05, and a power function needs" in result.stderr
    )
