"""Test metrics at ticks and by `evaluate`: what is compared with what, the floor, and unchanged training."""

from __future__ import annotations

import json
import math
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from conftest import TINY
from helpers.gin_text import bind_again
from helpers.killing import StopAt, assert_same_run
from helpers.paths import STUB_PLUGIN
from PIL import Image
from torch import Tensor

import pggan_kit
from pggan_kit import Component, Quantity, hookimpl
from pggan_kit.api import prepare as api
from pggan_kit.api.image_folders import read_comparable_images, read_images
from pggan_kit.api.train import resume
from pggan_kit.errors import ConfigError, DataError, Interrupted, RunError, TrainingError
from pggan_kit.evaluation.description_cache import DescriptionCache
from pggan_kit.evaluation.evaluator import Evaluator, RealSet
from pggan_kit.evaluation.settings import EvaluationSettings
from pggan_kit.system.seeding import derive, numpy_generator, torch_generator
from pggan_kit.training import measures

STUB = str(STUB_PLUGIN)


class Pixels:
    """A metric that describes images by themselves; its value is the distance of their means. Records its input.

    Args:
        suffix: the end of the value's name.
        smallest: the height below which it is not defined.
    """

    described = 0

    def __init__(self, suffix: str = "", smallest: int = 0) -> None:
        self.suffix = suffix
        self.quantities = {f"Pixels{suffix}": Quantity("lower", (0.0, 2.0))}
        self.smallest = smallest
        self.compared: list[tuple[Tensor, Tensor]] = []

    def describe(self, images: Tensor) -> Tensor | None:
        Pixels.described += len(images)
        return images.clone() if images.shape[2] >= self.smallest else None

    def fingerprint(self) -> str:
        return f"pixels from {self.smallest}"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        self.compared.append((real, fake))
        return {f"Pixels{self.suffix}": float((real.double().mean() - fake.double().mean()).abs())}


class Draws:
    """A metric that draws from torch's generator wherever it can."""

    quantities = MappingProxyType({"Draws": Quantity("lower")})

    def describe(self, images: Tensor) -> Tensor:
        return torch.rand(len(images))

    def fingerprint(self) -> str:
        return "draws"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return {"Draws": float((real.mean() - fake.mean()).abs() + torch.rand(1))}


class Breaks(Pixels):
    """A metric that fails on images of 8 pixels."""

    def describe(self, images: Tensor) -> Tensor | None:
        if images.shape[2] == 8:
            raise ZeroDivisionError("eight")
        return super().describe(images)

    def fingerprint(self) -> str:
        return "breaks"


class Parts:
    """The plugin of these metrics."""

    @hookimpl
    def components(self) -> list[Component]:
        return [Component("metrics", cls.__name__, cls) for cls in (Pixels, Draws, Breaks)]


PARTS = Parts()
METRICS = ["train.metrics = [@metrics.Pixels(), @metrics.Draws()]", "evaluation.count = 5", "evaluation.batch_size = 3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Any:
    """Return a finished run with two metrics, beside its `tiny.gin`. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.gin").write_text(bind_again(TINY, METRICS))
    return pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[STUB, PARTS])


def read_metrics(run: Any) -> dict[int, dict[str, float]]:
    rows = {row["images"]: {k: v for k, v in row.items() if k.startswith("Metrics/")} for row in run.files.stats()}
    return {images: row for images, row in rows.items() if row}


def measure(settings: EvaluationSettings, reals: RealSet, fakes: Sequence[Tensor], metric: Any, **keep: Any) -> Any:
    evaluator = Evaluator([metric], settings, lambda size: reals, keep.get("keeper"), torch.device("cpu"))
    return evaluator.measure((4, 4), fakes)


def make_grays(*levels: int) -> np.ndarray:
    """Return 4x4 images, each of one gray."""
    return np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 4, 4), np.uint8)


@pytest.mark.parametrize(("held", "floor_count"), [(40, 6), (12, 6), (9, 4), (5, 2)])
def test_what_is_compared_with_what(held: int, floor_count: int) -> None:
    """Fakes with as many reals; the floor between two halves of twice as many, where the data has enough."""
    metric = Pixels()
    fakes = [torch.full((4, 1, 4, 4), -1.0), torch.full((2, 1, 4, 4), 3.0)]
    (value,) = measure(
        EvaluationSettings(count=6, batch_size=4), RealSet(make_grays(*range(held)), None, None), fakes, metric
    )
    (one, other), (real, fake) = metric.compared
    assert (value.name, value.floor_count, len(one), len(other)) == ("Pixels", floor_count, floor_count, floor_count)
    assert len(real) == min(held, 6)
    halves = torch.cat([one, other])  # of an odd number the last is in none
    both = min(len(real), len(halves))
    assert torch.equal(real[:both], halves[:both])
    levels = ((torch.cat([one, other])[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    assert len(set(levels)) == 2 * floor_count and max(levels) < held
    assert fake[:, 0, 0, 0].tolist() == [-1.0] * 4 + [1.0] * 2  # clipped, as 8 bits are
    assert value.floor == pytest.approx(float((one.mean() - other.mean()).abs()), abs=1e-6)
    assert value.value == pytest.approx(float((real.mean() - fake.mean()).abs()), abs=1e-6)


def test_fakes_are_rounded_to_8_bits() -> None:
    metric = Pixels()
    fakes = torch.linspace(-1, 1, 96).view(6, 1, 4, 4)
    measure(EvaluationSettings(count=6), RealSet(make_grays(*range(12)), None, None), [fakes], metric)
    bytes_ = (metric.compared[1][1] + 1) * 127.5
    assert torch.allclose(bytes_, bytes_.round(), atol=1e-4)
    assert torch.allclose(bytes_, (fakes + 1) * 127.5, atol=0.51)


def test_too_few_reals() -> None:
    with pytest.raises(DataError, match="needs at least 4 real images, and there are 3"):
        measure(EvaluationSettings(count=6), RealSet(make_grays(1, 2, 3), None, None), [], Pixels())


def test_fakes_that_are_not_finite() -> None:
    with pytest.raises(TrainingError, match="the generator's images are not finite"):
        measure(
            EvaluationSettings(count=2),
            RealSet(make_grays(1, 2, 3, 4), None, None),
            [torch.full((2, 1, 4, 4), torch.nan)],
            Pixels(),
        )


def test_descriptions_of_reals_are_kept_and_mended(tmp_path: Path) -> None:
    settings = EvaluationSettings(count=3)
    reals = RealSet(make_grays(*range(9)), None, "nine grays")
    fakes = [torch.zeros(3, 1, 4, 4)]

    def measure_again(reals: RealSet = reals, settings: EvaluationSettings = settings, metric: Any = None) -> int:
        before = Pixels.described
        measured = measure(settings, reals, fakes, metric or Pixels(), keeper=DescriptionCache(tmp_path / "kept"))
        if not values:
            values.extend(measured)
        elif reals.name == "nine grays":
            assert measured == values
        return Pixels.described - before - 3

    values: list[Any] = []
    assert measure_again() == 6
    assert measure_again() == 0

    # A damaged file is measured and written again.
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:40], whole[:-1], whole.replace(whole[-60:-50], b"0123456789")):
        file.write_bytes(damaged)
        assert measure_again() == 6
        assert file.read_bytes() == whole

    # Other reals, settings or features are others' descriptions.
    assert measure_again(RealSet(make_grays(*range(9)), None, "other grays")) == 6
    assert measure_again(settings=EvaluationSettings(count=3, batch_size=2)) == 6
    assert measure_again(metric=Pixels(smallest=1)) == 6
    assert len(list((tmp_path / "kept").iterdir())) == 4


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reals = RealSet(make_grays(*range(9)), None, "nine grays")
    values = measure(
        EvaluationSettings(count=3),
        reals,
        [torch.zeros(3, 1, 4, 4)],
        Pixels(),
        keeper=DescriptionCache(tmp_path / "file" / "kept"),
    )
    assert len(values) == 1


def test_metrics_at_ticks(run: Any) -> None:
    """At each tick here; passed to hooks, and equal to what `evaluate` returns for the last checkpoint."""
    rows_at_ticks = read_metrics(run)
    assert list(rows_at_ticks) == [8, 16, 24, 32, 40]
    names = {"Metrics/Pixels", "Metrics/Pixels_floor", "Metrics/Draws", "Metrics/Draws_floor"}
    assert all(row.keys() == names for row in rows_at_ticks.values())
    rows = pggan_kit.evaluate(run, plugins=[STUB, PARTS])
    assert {f"Metrics/{row['metric']}": row["value"] for row in rows} | {
        f"Metrics/{row['metric']}_floor": row["floor"] for row in rows
    } == rows_at_ticks[40]
    common = {"count": 5, "floor_count": 5, "size": "16x16", "stage": 2, "images": 40}
    assert all(row.items() >= common.items() for row in rows)


def test_value_by_hand(run: Any) -> None:
    """The mean of the generator's images of the documented latents, against that of the reals at that size."""
    generator = pggan_kit.load_generator(run, plugins=[STUB, PARTS])
    reals = (
        api.prepare(run.directory.parent / "tiny.gin", plugins=[STUB, PARTS]).data(run.schedule).level((16, 16)).images
    )

    latents = torch.randn(5, 8, generator=torch_generator(0, "evaluation latents"))
    fakes = ((generator(latents) + 1) * 127.5).round().clamp(0, 255).double().mean()
    rows = numpy_generator(0, "evaluation").permutation(12)[:5]
    wanted = abs(float(fakes) - reals[rows].astype(np.float64).mean()) / 127.5
    assert read_metrics(run)[40]["Metrics/Pixels"] == pytest.approx(wanted, abs=1e-6)


class Looker:
    """A switch by a plugin, which fades fast at first; its observer compares the two ways in which a run draws."""

    def __init__(self) -> None:
        self.differences: list[float] = []

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return math.sqrt(progress)

    @hookimpl
    def after_tick(self, run: pggan_kit.Run) -> None:
        latents = run.fixed_latents(3)
        self.differences.append(float((run.generator()(latents) - run.generate(latents)).abs().max()))


class StopAtOnce:
    """A plugin that asks the run to stop before its next step."""

    @hookimpl
    def before_stage(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


SWITCHES = {
    "stairs": (["train.switch = @switches.Staircase()", "switches.Staircase.steps = 2"], 0.0, 0.5),
    "plugin": (["train.switch = None"], 0.5, math.sqrt(0.75)),
}
"""Lines of a switch, and its alphas in the second and in the last of a fade's four steps."""


@pytest.mark.parametrize("case", SWITCHES)
def test_a_checkpoint_within_a_fade_is_what_its_tick_measured(case: str, train: Callable[..., Any]) -> None:
    """Within the fade, and at its end, both have the alpha of the last step."""
    lines, within, last = SWITCHES[case]
    looker = Looker()
    plugins = [STUB, PARTS]
    if case == "plugin":
        plugins.append(looker)
    every = ["schedule.sizes = (4, 8)", "schedule.fade_images = 16", "train.tick = 4", "evaluation.every = 4"]

    # A run that is stopped before it has taken a step saves what it had.
    with pytest.raises(Interrupted):
        train(*METRICS, *every, *lines, plugins=(*plugins[1:], StopAt(16)), run_dir="run")
    alphas = [pggan_kit.load_generator("run", plugins=plugins).alpha]
    with pytest.raises(Interrupted):
        resume("run", plugins=[*plugins, StopAtOnce()])
    alphas.append(pggan_kit.load_generator("run", plugins=plugins).alpha)
    assert alphas == [torch.tensor(within)] * 2
    compare_last_row(plugins, "last")

    # At the end of the fade the old path is there.
    run = resume("run", plugins=plugins)
    assert pggan_kit.load_generator("run", checkpoint="fade", plugins=plugins).alpha == torch.tensor(last)
    compare_last_row(plugins, "fade")
    assert looker.differences == pytest.approx([0.0] * len(looker.differences), abs=1e-6)
    assert len(looker.differences) == (0 if case != "plugin" else len(run.stats))


def compare_last_row(plugins: Sequence[Any], checkpoint: str) -> None:
    """Check that a checkpoint gives the values of its tick's row."""
    values = pggan_kit.evaluate("run", checkpoint=checkpoint, plugins=plugins)
    rows = {row["images"]: row for row in map(json.loads, Path("run/stats.jsonl").read_text().splitlines())}
    for value in values:
        if value["metric"] == "Pixels":
            assert value["value"] == pytest.approx(rows[value["images"]]["Metrics/Pixels"], abs=1e-6)


def test_reals_are_not_faded(train: Callable[..., Any]) -> None:
    """Mid-fade the fakes are at alpha and the reals are whole: their floor is the same from the fade's start on."""
    run = train(*METRICS, "train.tick = 4", "evaluation.every = 4", plugins=(PARTS,))
    floors = {images: row["Metrics/Pixels_floor"] for images, row in read_metrics(run).items()}
    assert floors[12] == floors[16] == floors[20] != floors[28]


@pytest.mark.parametrize(
    ("every", "at"),
    [("'phase'", [8, 16, 24]), (12, [8, 12, 16, 24]), (None, [4, 8, 12, 16, 20, 24])],
)
def test_how_often(every: object, at: list[int], train: Callable[..., Any]) -> None:
    """At ticks past each multiple of `every`, and at the end of each fade and stage."""
    lines = ["schedule.sizes = (4, 8)", "train.tick = 4", f"evaluation.every = {every}"]
    run = train(*METRICS, *lines, plugins=(PARTS,))
    assert list(read_metrics(run)) == at


def test_seldom_within_a_long_stage(train: Callable[..., Any]) -> None:
    lines = ["schedule.sizes = (4,)", "schedule.stable_images = 60", "train.tick = 8", "evaluation.every = 24"]
    assert list(read_metrics(train(*METRICS, *lines, plugins=(PARTS,)))) == [24, 48, 60]


def test_training_does_not_notice(run: Any, train: Callable[..., Any]) -> None:
    plain = train(run_dir="plain")
    for name, value in plain.state.generator.state_dict().items():
        assert torch.equal(value, run.state.generator.state_dict()[name]), name


@pytest.mark.parametrize("images", [12, 20])
def test_a_resumed_run_writes_the_same(images: int, run: Any, train: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted):
        train(*METRICS, plugins=(PARTS, StopAt(images)), run_dir="stopped")
    resume("stopped", plugins=[STUB, PARTS])
    assert_same_run(Path("stopped"), run.directory)
    assert read_metrics(run) == {
        row["images"]: {k: v for k, v in row.items() if k.startswith("Metrics/")}
        for row in map(json.loads, Path("stopped/stats.jsonl").read_text().splitlines())
    }


def test_a_data_driven_switch_sees_metrics(train: Callable[..., Any]) -> None:
    switch = [
        "train.switch = @switches.Plateau()",
        "switches.Plateau.watch = 'Metrics/Pixels'",
        "switches.Plateau.window = 16",
        "switches.Plateau.tolerance = 1000.0",
        "schedule.sizes = (4, 8)",
        "schedule.stable_images = 60",
        "evaluation.every = 8",
    ]
    run = train(*METRICS, *switch, plugins=(PARTS,))
    assert run.state.starts[1] < 60


def test_held_out_images(train: Callable[..., Any]) -> None:
    held = ["evaluation.dataset = @held/datasets.Stub()", "held/datasets.Stub.n = 30", "held/datasets.Stub.width = 20"]
    run = train(*METRICS, *held, plugins=(PARTS,), run_dir="run")
    rows = pggan_kit.evaluate("run", plugins=[STUB, PARTS], count=14)
    assert {row["floor_count"] for row in rows} == {14}
    own = pggan_kit.evaluate("run", plugins=[STUB, PARTS], bindings=["evaluation.dataset = None"], count=14)
    assert {row["floor_count"] for row in own} == {6}
    assert own[0]["value"] != rows[0]["value"]
    assert read_metrics(run)[40]["Metrics/Pixels"] == pggan_kit.evaluate("run", plugins=[STUB, PARTS])[0]["value"]


class ListeningDataset:
    """A data set with a hook."""

    classes = 0
    calls = 0

    def __len__(self) -> int:
        return 8

    def image(self, i: int) -> np.ndarray:
        return np.full((16, 16, 1), 10 * i, np.uint8)

    def label(self, i: int) -> int:
        return 0

    def fingerprint(self) -> str:
        return "hears"

    @hookimpl
    def before_run(self) -> None:
        ListeningDataset.calls += 1


def test_a_held_out_data_set_hears_hooks(train: Callable[..., Any]) -> None:
    train(
        *METRICS,
        "evaluation.dataset = @datasets.Hears()",
        plugins=(PARTS, Component("datasets", "Hears", ListeningDataset)),
    )
    assert ListeningDataset.calls == 1


def test_held_out_images_of_another_kind(rejected: Callable[..., str], tmp_path: Path) -> None:
    plugin = tmp_path / "pixels.py"
    plugin.write_text(
        "from pggan_kit import Component, Quantity, hookimpl\n"
        "class Mean:\n"
        "    quantities = {'Mean': Quantity('lower')}\n"
        "    def describe(self, images): return images.mean((1, 2, 3))\n"
        "    def fingerprint(self): return 'mean'\n"
        "    def compare(self, real, fake): return {'Mean': 0.0}\n"
        "@hookimpl\n"
        "def components(): return [Component('metrics', 'Mean', Mean)]\n"
    )
    rejected(
        r"evaluation\.dataset has images of 3 channels, and the training data of 1",
        "train.metrics = [@metrics.Mean()]",
        "evaluation.dataset = @held/datasets.Stub()",
        "held/datasets.Stub.channels = 3",
        args=["--plugin", plugin],
    )


class NamedClasses:
    """A data set whose classes have names; image i is of class i modulo their number."""

    def __init__(self, names: Sequence[str]) -> None:
        self.class_names = list(names)
        self.classes = len(names)

    def __len__(self) -> int:
        return 12

    def image(self, i: int) -> np.ndarray:
        return np.full((16, 16, 1), 10 * i, np.uint8)

    def label(self, i: int) -> int:
        return i % self.classes

    def fingerprint(self) -> str:
        return f"named {self.class_names}"


def prepare_named(tiny: Callable[..., str], names: Sequence[str]) -> api.Prepared:
    """Return an experiment with the classes cat, dog and fish, which is evaluated on data with other ones."""
    lines = [
        "train.dataset = @datasets.Named()",
        "datasets.Named.names = ('cat', 'dog', 'fish')",
        "evaluation.dataset = @held/datasets.Named()",
        f"held/datasets.Named.names = {names!r}",
        "architectures.PGGAN.conditioning = 'projection'",
        "schedule.sizes = (4,)",
    ]
    return api.prepare(tiny(*METRICS, *lines), plugins=[STUB, PARTS, Component("datasets", "Named", NamedClasses)])


def test_labels_of_held_out_images_are_classes_of_the_training_data(tiny: Callable[..., str]) -> None:
    prepared = prepare_named(tiny, ("cat", "fish"))
    stage = prepared.schedule().stages[0]
    evaluator = prepared.evaluator([stage], torch.device("cpu"))
    assert evaluator is not None
    labels = evaluator.labels((4, 4))
    rows = np.random.Generator(np.random.PCG64(derive(0, "evaluation"))).permutation(12)[:5]
    assert labels is not None and labels.tolist() == [(0, 2)[row % 2] for row in rows]


@pytest.mark.parametrize("names", [(), ("ant", "cat")])
def test_held_out_images_of_other_classes_are_refused_by_every_command(
    names: Sequence[str], tiny: Callable[..., str]
) -> None:
    with pytest.raises(DataError, match=r"evaluation\.dataset has (no labels|a class 'ant')"):
        prepare_named(tiny, names).schedule()


def test_conditional_fakes_have_the_labels_of_the_reals(train: Callable[..., Any], monkeypatch: Any) -> None:
    asked: list[Tensor] = []
    original = measures.draw_images

    def draw_and_note(net: Any, latents: Tensor, labels: Tensor, *rest: Any) -> Tensor:
        if len(latents) in (3, 2):  # the evaluation's batches
            asked.append(labels)
        return original(net, latents, labels, *rest)

    monkeypatch.setattr(measures, "draw_images", draw_and_note)
    lines = ["datasets.Stub.classes = 3", "architectures.PGGAN.conditioning = 'projection'", "schedule.sizes = (4,)"]
    train(*METRICS, *lines, plugins=(PARTS,))
    rows = np.random.Generator(np.random.PCG64(derive(0, "evaluation"))).permutation(12)[:5]
    assert torch.cat(asked[:2]).tolist() == [row % 3 for row in rows]


def test_a_metric_that_is_not_defined_is_told_of_once(train: Callable[..., Any]) -> None:
    with pytest.warns(
        UserWarning, match=r"metrics.Pixels is not defined at 4x4, and gives no value where it is"
    ) as caught:
        run = train(*METRICS, "metrics.Pixels.smallest = 16", plugins=(PARTS,))
    assert len([warning for warning in caught if "not defined" in str(warning.message)]) == 1
    assert {images for images, row in read_metrics(run).items() if "Metrics/Pixels" in row} == {32, 40}


def test_a_metric_that_fails_is_named(train: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match=r"metrics.Breaks failed on \(3, 1, 8, 8\): ZeroDivisionError: eight"):
        train(*METRICS, "train.metrics = [@metrics.Breaks()]", plugins=(PARTS,))


def test_a_value_without_a_statement_is_refused() -> None:
    metric = Pixels()
    metric.quantities = {"Pixel": Quantity("lower")}
    with pytest.raises(ConfigError, match=r"metrics\.Pixels gives a value Pixels and states nothing about it:"):
        measure(
            EvaluationSettings(count=2), RealSet(make_grays(1, 2, 3, 4), None, None), [torch.zeros(2, 1, 4, 4)], metric
        )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("down",), "direction must be 'lower' or 'higher', not 'down'"),
        (("lower", (0.0, 1.0), "logarithmic"), "scale must be 'log' or 'plain', not 'logarithmic'"),
        (("lower", (1.0, 0.0)), r"range must be \(smallest, largest\), not \(1\.0, 0\.0\)"),
        (("lower", (math.nan, 1.0)), r"range must be \(smallest, largest\), not \(nan, 1\.0\)"),
        (
            ("lower", (-1.0, 1.0), "log"),
            r"scale 'log' needs a range from 0 or above, not \(-1\.0, 1\.0\): take 'plain'",
        ),
    ],
)
def test_bad_statements(arguments: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        Quantity(*arguments)


def test_two_values_of_one_name_are_refused(train: Callable[..., Any]) -> None:
    lines = [*METRICS, "schedule.sizes = (4,)", "train.metrics = [@metrics.Pixels(), @b/metrics.Pixels()]"]
    with pytest.raises(ConfigError, match=r"train.metrics: two metrics give a value Pixels; .* a `suffix`"):
        train(*lines, plugins=(PARTS,))
    run = train(*lines, "b/metrics.Pixels.suffix = '_b'", plugins=(PARTS,))
    last = read_metrics(run)[8]
    assert last["Metrics/Pixels"] == last["Metrics/Pixels_b"]


def test_metrics_of_one_fingerprint_share_descriptions(train: Callable[..., Any]) -> None:
    before = Pixels.described
    one = ["schedule.sizes = (4,)", "train.seed = 5", "evaluation.dataset = @held/datasets.Stub()"]
    train(*METRICS, *one, "held/datasets.Stub.n = 31", "train.metrics = [@metrics.Pixels()]", plugins=(PARTS,))
    alone = Pixels.described - before
    two = ["train.metrics = [@metrics.Pixels(), @b/metrics.Pixels()]", "b/metrics.Pixels.suffix = '_b'"]
    train(*METRICS, *one, "held/datasets.Stub.n = 32", *two, plugins=(PARTS,))
    assert Pixels.described - before == 2 * alone


@pytest.mark.parametrize(
    ("bindings", "complaint"),
    [
        (["SEED = 1", "train.seed = %SEED"], r"-b 'SEED = 1': an evaluation may bind train\.metrics, and settings of"),
        (["train.seed = 1"], r"-b 'train.seed = 1': an evaluation may bind train.metrics, and settings of metrics\.\*"),
        (["datasets.Stub.n = 11"], r"train.dataset is not what the run was trained on: .* scope of their own"),
        (
            ["train.metrics = []"],
            r"there is nothing to measure: bind train.metrics, or name .*`--metric \w+ -b 'metrics\.\w+\.features = @",
        ),
        (["evaluation.count = 1"], r"evaluation.count must be at least 2, and is 1"),
        (["train.metrics = [@metrics.Pixel()]"], r"unknown component metrics.Pixel \(did you mean metrics.Pixels\?\)"),
    ],
)
def test_bad_bindings(bindings: list[str], complaint: str, run: Any) -> None:
    with pytest.raises(ConfigError, match=complaint):
        pggan_kit.evaluate(run, bindings=bindings, plugins=[STUB, PARTS])


def test_of_an_earlier_stage(run: Any) -> None:
    rows = pggan_kit.evaluate(run, metrics=["Pixels"], stage="8x8", plugins=[STUB, PARTS])
    assert [(row["metric"], row["size"], row["stage"], row["images"]) for row in rows] == [("Pixels", "8x8", 1, 24)]
    assert rows[0]["value"] == read_metrics(run)[24]["Metrics/Pixels"]
    with pytest.raises(RunError, match=r"no such stage has .* that have ended: 0 \(4x4\), 1 \(8x8\), 2 \(16x16\)"):
        pggan_kit.evaluate(run, stage="32x32", plugins=[STUB, PARTS])


def test_a_metric_is_named_with_or_without_its_kind(run: Any) -> None:
    short, long = (
        pggan_kit.evaluate(run, metrics=[name], plugins=[STUB, PARTS]) for name in ("Pixels", "metrics.Pixels")
    )
    assert short == long


def test_no_run() -> None:
    with pytest.raises(RunError, match="nowhere holds no run"):
        pggan_kit.evaluate("nowhere")


def write_folder(images: np.ndarray, path: Path) -> Path:
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(path / f"{index}.png")
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder of six gray 8x8 images, and an .npz file of nine."""
    rng = np.random.default_rng(0)
    fakes, reals = (rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8) for n in (6, 9))
    np.savez(tmp_path / "reals.npz", images=reals)
    return write_folder(fakes, tmp_path / "fakes"), tmp_path / "reals.npz"


def test_two_folders(folders: tuple[Path, Path]) -> None:
    fakes, reals = folders
    (row,) = pggan_kit.evaluate(fakes, reals, metrics=["Pixels"], plugins=[PARTS])
    pixels = np.stack([np.asarray(Image.open(file)) for file in sorted(fakes.iterdir())]).astype(float)
    order = np.random.Generator(np.random.PCG64(derive(0, "evaluation"))).permutation(9)
    real = np.load(reals)["images"][order].astype(float)
    assert row["value"] == pytest.approx(abs(real[:6].mean() - pixels.mean()) / 127.5, abs=1e-6)
    assert row["floor"] == pytest.approx(abs(real[:4].mean() - real[4:8].mean()) / 127.5, abs=1e-6)
    wanted = {"metric": "Pixels", "count": 6, "floor_count": 4, "size": "8x8", "stage": None, "images": None}
    assert row.items() >= wanted.items()
    (few,) = pggan_kit.evaluate(fakes, reals, metrics=["Pixels"], plugins=[PARTS], count=2)
    assert (few["count"], few["floor_count"]) == (2, 2)


class FirstPixel(Pixels):
    """A metric of first pixels, by which a test recognises the images that were compared."""

    def describe(self, images: Tensor) -> Tensor:
        return ((images[:, 0, 0, 0] + 1) * 127.5).round()


def test_fewer_fakes_than_a_folder_holds_are_drawn(tmp_path: Path) -> None:
    """Folders are often sorted by class, so that the first files are of few classes. The draw is always the same."""
    images = make_grays(*range(200)).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "fakes.npz", images=images)
    np.savez(tmp_path / "reals.npz", images=images)
    metric = FirstPixel()
    seen = []
    plugin = Component("metrics", "FirstPixel", lambda: metric)
    for count in (40, 40, 200, 500):
        metric.compared.clear()
        pggan_kit.evaluate(
            tmp_path / "fakes.npz", tmp_path / "reals.npz", metrics=["FirstPixel"], plugins=[plugin], count=count
        )
        seen.append(metric.compared[-1][1].int().tolist())
    assert seen[0] == seen[1] and len(set(seen[0])) == 40
    assert 70 < sum(seen[0]) / 40 < 130, "about as many of each part of the file"
    assert sorted(seen[2]) == sorted(seen[3]) == list(range(200))
    assert seen[2] != sorted(seen[2]), "metrics of neighbours (MSSSIM) see no order either"
    real = metric.compared[-1][0].int().tolist()
    assert real[:40] != seen[2][:40], "a folder against itself compares other images"


def test_a_run_is_not_taken_for_a_folder_of_images(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Its grids would be measured."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").touch()
    for pair in ((run, folders[1]), (folders[0], run)):
        with pytest.raises(RunError, match=rf"{run} is a run, and not a folder of images"):
            pggan_kit.evaluate(*pair, metrics=["FrechetDistance"])


def test_folders_of_numbers(tmp_path: Path) -> None:
    """.npy files, and TIFFs with bands that no photograph has, are measured by the range of the reals."""
    images = np.random.default_rng(3).integers(0, 4096, (6, 8, 9, 5)).astype(np.uint16)
    for kind in ("npy", "tif"):
        (tmp_path / kind).mkdir()
    for number, image in enumerate(images):
        np.save(tmp_path / "npy" / f"{number}.npy", image)
        tifffile.imwrite(tmp_path / "tif" / f"{number}.tif", image, photometric="minisblack", planarconfig="contig")
    np.save(tmp_path / "all.npy", images // 2)

    def measure(one: str, other: str) -> float:
        rows = pggan_kit.evaluate(tmp_path / one, tmp_path / other, metrics=["Pixels"], plugins=[PARTS])
        return float(rows[0]["value"])

    assert measure("npy", "tif") == pytest.approx(0, abs=1e-6)
    low, high = images.min((0, 1, 2)).astype(float), images.max((0, 1, 2)).astype(float)
    scaled = [(np.clip(numbers, low, high) - low) / (high - low) * 2 - 1 for numbers in (images, images // 2)]
    assert measure("all.npy", "tif") == pytest.approx(scaled[0].mean() - scaled[1].mean(), abs=1e-5)
    np.save(tmp_path / "npy" / "9.npy", images[0, :, :8])
    with pytest.raises(DataError, match=r"9\.npy has 8x8 pixels in 5 channels of uint16, and those before it have 8x9"):
        measure("npy", "tif")


def test_fakes_beyond_the_range_of_the_reals_are_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    reals, fakes = rng.random((2, 16, 8, 8, 1)).astype(np.float32)
    np.save(tmp_path / "reals.npy", reals)
    np.save(tmp_path / "same.npy", reals[::-1])
    fakes[3, :4] = 1e6
    np.save(tmp_path / "hot.npy", fakes)
    np.save(tmp_path / "flat.npy", np.full_like(reals, 7))
    measure = partial(pggan_kit.evaluate, metrics=["Pixels"], plugins=[PARTS])
    with pytest.warns(
        UserWarning, match=r"the range of the real images cuts off .* % of channel 0, .*50\.00 % of it in"
    ):
        measure(tmp_path / "hot.npy", tmp_path / "reals.npy")
    with pytest.warns(UserWarning, match=r"cuts off 100\.00 % of channel 0, which has numbers from 7 to 7"):
        measure(tmp_path / "flat.npy", tmp_path / "reals.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(tmp_path / "same.npy", tmp_path / "reals.npy")


def test_arrays_of_other_axes_and_bytes(tmp_path: Path) -> None:
    """Channels first in both files, and numbers whose bytes are in the order of another machine."""
    images = np.random.default_rng(4).integers(0, 4096, (6, 8, 9, 3)).astype(np.uint16)
    np.save(tmp_path / "last.npy", images)
    np.save(tmp_path / "first.npy", images.transpose(0, 3, 1, 2))
    np.save(tmp_path / "foreign.npy", images.astype(">u2"))
    np.save(tmp_path / "foreign_floats.npy", images.astype(">f4"))
    np.save(tmp_path / "floats.npy", images.astype(np.float32))
    for name in ("last.npy", "first.npy", "foreign.npy"):
        np.testing.assert_array_equal(read_images(tmp_path / name), images.transpose(0, 3, 1, 2))
    for pair in (("first.npy", "first.npy"), ("last.npy", "foreign.npy"), ("foreign_floats.npy", "floats.npy")):
        rows = pggan_kit.evaluate(*(tmp_path / name for name in pair), metrics=["Pixels"], plugins=[PARTS])
        assert rows[0]["value"] == pytest.approx(0, abs=1e-6) and rows[0]["size"] == "8x9"


def test_gray_pictures_are_compared_with_colour_in_colour(tmp_path: Path) -> None:
    gray = np.random.default_rng(2).integers(0, 256, (5, 8, 8), np.uint8)
    write_folder(gray, tmp_path / "gray")
    write_folder(np.stack([gray] * 2 + [255 - gray], axis=-1), tmp_path / "colour")
    with pytest.warns(UserWarning, match=r"gray is gray and .*colour in colour"):
        fakes, reals = read_comparable_images(tmp_path / "colour", tmp_path / "gray")
    np.testing.assert_array_equal(reals, np.stack([gray] * 3, axis=1))
    np.testing.assert_array_equal(fakes[:, 2], 255 - gray)
    with pytest.warns(UserWarning, match=r"gray is gray and .*colour in colour"):
        assert read_comparable_images(tmp_path / "gray", tmp_path / "colour")[0].shape == (5, 3, 8, 8)


def test_bad_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    fakes, reals = folders

    def refused(one: Path, other: Path, complaint: str, error: type[Exception] = DataError, **more: Any) -> None:
        with pytest.raises(error, match=complaint):
            pggan_kit.evaluate(one, other, **{"metrics": ["Pixels"], "plugins": [PARTS], **more})

    # Folders that are missing, or differ from each other or in themselves.
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, reals, "empty holds 0 images")
    refused(fakes, tmp_path / "nowhere", "no folder .*nowhere")
    wide = write_folder(np.zeros((3, 8, 9, 1), np.uint8), tmp_path / "wide")
    refused(fakes, wide, "8x8 in 1 channels of uint8, .*wide of 8x9 in 1 channels of uint8: make them alike first")
    colour = write_folder(np.zeros((3, 8, 8, 3), np.uint8), tmp_path / "colour")
    refused(colour, reals, "in 3 channels of uint8, .* in 1 channels")
    Image.new("L", (3, 3)).save(wide / "z.png")
    refused(fakes, wide, "z.png has 3x3 pixels in 1 channels of uint8, and those before it have 8x9 pixels")
    (colour / "0.png").write_bytes(b"no picture")
    refused(fakes, colour, "0.png: cannot be read as an image")

    # Arrays that are none, or hold no images.
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    refused(fakes, tmp_path / "bad.npz", "bad.npz cannot be read as .* or as an .npz file with an array `images`")
    np.savez(tmp_path / "floats.npz", images=np.zeros((3, 8, 8, 1)))
    refused(fakes, tmp_path / "floats.npz", "of uint8, .*floats.npz of 8x8 in 1 channels of float32: make them alike")
    np.savez(tmp_path / "flat.npz", images=np.zeros((3, 8)))
    refused(fakes, tmp_path / "flat.npz", r"images must be \(N, h, w\), .* or \(N, C, h, w\), and are float64 \(3, 8\)")
    np.save(tmp_path / "cube.npy", np.zeros((3, 5, 5, 5), np.uint8))
    refused(fakes, tmp_path / "cube.npy", r"shape \(3, 5, 5, 5\) does not tell which axis holds the channels")
    np.save(tmp_path / "whole.npy", np.zeros((3, 8, 8, 1), np.int64))
    refused(fakes, tmp_path / "whole.npy", "images must be uint8, uint16, int16 or float32, and are int64")
    np.save(tmp_path / "nan.npy", np.full((3, 8, 8, 1), np.nan))
    refused(fakes, tmp_path / "nan.npy", "nan.npy has numbers that are NaN or infinite")
    refused(tmp_path / "floats.npz", tmp_path / "floats.npz", "channel 0 has the one number 0 in all real images")

    # Settings that folders have no use for.
    refused(fakes, reals, "there is nothing to measure", ConfigError, metrics=[])
    refused(fakes, reals, "no run, stage, checkpoint or average", RunError, stage="8x8")
    small = ["metrics.Pixels.smallest = 16"]
    with pytest.warns(UserWarning, match="not defined"):
        refused(fakes, reals, "none of metrics.Pixels is defined at 8x8", ConfigError, bindings=small)
    held = ["evaluation.dataset = @datasets.MNIST()"]
    refused(fakes, reals, "evaluation.dataset has no use where two folders", ConfigError, bindings=held)


def test_the_command(run: Any, cli: Callable[..., Any], tmp_path: Path, stub: str) -> None:
    command = ["evaluate", run.directory, "--metric", "Pixels", "--count", "4", "--stage", "0"]
    result = cli(*command, "--json", "--plugin", stub, "--plugin", write_plugin(tmp_path))
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert (row["metric"], row["count"], row["size"]) == ("Pixels", 4, "4x4")
    shown = cli(*command, "--plugin", stub, "--plugin", write_plugin(tmp_path))
    assert "noise floor" in shown.stdout and "Pixels" in shown.stdout and "4x4" in shown.stdout
    undefined = [*command, "-b", "metrics.Pixels.smallest = 8", "--plugin", stub, "--plugin", write_plugin(tmp_path)]
    refused_at_4 = cli(*undefined)
    assert refused_at_4.exit_code == 2 and not refused_at_4.stdout
    assert "error: train.metrics: none of metrics.Pixels is defined at 4x4; choose others" in refused_at_4.stderr
    wrong = cli("evaluate", "nowhere")
    assert (wrong.exit_code, wrong.stderr.strip()) == (2, "error: nowhere holds no run (it has no run.json)")


def write_plugin(folder: Path) -> Path:
    """Write a plugin file with this module's metrics."""
    path = folder / "parts.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pggan_kit import hookimpl\nfrom test_evaluate import PARTS\n\n"
        "@hookimpl\ndef components():\n    return PARTS.components()\n"
    )
    return path
