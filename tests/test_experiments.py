"""Every file under experiments/ parses, checks, builds, and trains two steps in each phase."""

from __future__ import annotations

import math
import re
import runpy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result
from helpers.experiment_files import EXPERIMENTS, FILES, list_plugins, make_data, make_pictures, name_file
from helpers.outside_updates import estimate_outside_share
from helpers.paths import ROOT
from helpers.syncing import watched

from pggan_kit import hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import train
from pggan_kit.config import gin_files as configs
from pggan_kit.runs.average import list_average_ages
from pggan_kit.schedule import Position
from pggan_kit.training.batch_statistics import list_batch_statistics

GALLERY = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
DRAWING = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts/draw_gallery.py")))
"""The script that draws the gallery, and what it defines."""
SMALL = [
    "schedule.fade_images = '2 steps'",
    "schedule.stable_images = '2 steps'",
    "schedule.total_images = None",
]
SMALL_STEP = ["schedule.batch_size = 8", "train.latent_size = 16"]
"""Bindings that make a step small."""
FEW_IMAGES = {
    "@observers.Samples()": "observers.Samples.count = 4",
    "@observers.Growth()": "observers.Growth.count = 4",
    "@metrics.": "evaluation.count = 8",
    "@datasets.MNIST()": "datasets.MNIST.limit = 64",
    "@architectures.R3GAN()": "architectures.R3GAN.depth = 3",
}
"""Bindings that make what a file names small: pictures, measurements, data, and networks of many blocks."""
FOR_A_GPU = ["schedule.batch_size = 4", "updates.Alternating.n_critic = 1"]
"""Bindings that make a step of a large experiment small."""
WITHOUT_WIDTH = {"Tutorial"}
"""Architectures that have no `channels`."""
FEW_PICTURES = "datasets.StackedMNIST.length = 64"
"""Binding instead of 128,000 pictures of three digits."""


class Phases:
    """Counts the steps of each (stage, phase)."""

    def __init__(self) -> None:
        self.steps: dict[tuple[int, str], int] = {}

    @hookimpl
    def after_step(self, stage: object, state: object) -> None:
        place = (stage.index, state.phase)  # type: ignore[attr-defined]
        self.steps[place] = self.steps.get(place, 0) + 1


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path)


@pytest.fixture
def given(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """Return a function that makes the data that a file asks for, and returns the bindings that name them."""
    return lambda path: make_data(path, tmp_path, pictures, monkeypatch)


def shrink(path: Path) -> list[str]:
    """Return bindings that make an experiment small: narrow networks, small batches, and of a large one few stages."""
    small = list(SMALL_STEP)
    if "Needs a GPU" in path.read_text() or uses_a_folder(path):
        small = list(FOR_A_GPU)
    if uses_a_folder(path):
        small.append("schedule.sizes = (4, 8, 16)")
    elif "FIELDS" in path.read_text():
        small.append("schedule.sizes = (8, 16, 32)")
    text = configs.read_config(path).text()
    small += [line for part, line in FEW_IMAGES.items() if part in text]
    architectures = set(re.findall(r"@(?:\w+/)?architectures\.(\w+)\(\)", text))
    assert architectures, path
    return [*small, *(f"architectures.{name}.channels = 8" for name in architectures - WITHOUT_WIDTH)]


def mark_variant(path: Path) -> Sequence[pytest.MarkDecorator]:
    """Return the mark of a file that differs from its neighbour in a few numbers, whose tests are slow ones."""
    if path.stem.endswith("_ungrown") or (path.parent.name == "table1" and path.stem not in ("a", "h")):
        return (pytest.mark.slow,)
    return ()


CASES = [pytest.param(path, marks=mark_variant(path)) for path in FILES]

TRAINED_ELSEWHERE = {"tutorial_mnist", "tutorial_mnist_mended"}
"""Files that `tests/plugins/architectures/test_tutorial_recipe.py` trains, and looks at more closely."""

NEAR_OTHERS = {"mnist", "mnist_hard", "mnist_wgan_gp", "celebahq_paper", "celebahq_released", "lsun_256"}
NEAR_OTHERS |= {"arrays", "ct", "r3gan_stacked_mnist"}
"""Files of whose parts each is trained by the test of another file: slow tests train them."""

TRAINED = [
    pytest.param(
        path, marks=(pytest.mark.slow,) if path.stem in TRAINED_ELSEWHERE | NEAR_OTHERS else mark_variant(path)
    )
    for path in FILES
]


def test_there_are_experiments() -> None:
    assert {"mnist.gin", "stacked_mnist.gin", "tutorial_mnist.gin", "celebahq_paper.gin", "table1/h.gin"} <= set(
        map(name_file, FILES)
    )


def flatten(value: object) -> list[object]:
    """Return the numbers and texts of what JSON holds, in order."""
    if isinstance(value, dict):
        return [item for key, each in value.items() for item in (key, *flatten(each))]
    if isinstance(value, list):
        return [item for each in value for item in flatten(each)]
    return [value]


def check_picture(picture: Path, now: dict[str, object]) -> None:
    """Check that a picture of the gallery was drawn from what its file says now.

    Args:
        picture: The picture.
        now: What the script would draw it from.
    """
    assert picture.exists(), "a picture is missing: make gallery"
    drawn = DRAWING.read_record(picture)
    assert len(flatten(drawn)) == len(flatten(now)), "a picture is stale: make gallery"
    # Numbers of another machine's library may differ in their last digit.
    for before, value in zip(flatten(drawn), flatten(now), strict=True):
        expected = pytest.approx(value, rel=2e-3) if isinstance(value, float) else value
        assert before == expected, "a picture is stale: make gallery"
    assert picture.read_text(encoding="utf-8") == DRAWING.draw(drawn), "the drawing is another: make gallery"


@pytest.mark.parametrize("path", CASES, ids=name_file)
def test_it_checks_as_it_is(path: Path, given: Callable[[Path], list[str]]) -> None:
    prepared = prepare(path, given(path), list_plugins(path))
    schedule = prepared.schedule()
    assert schedule.total >= schedule.stages[-1].batch_size
    shows, *cells = DRAWING.split_cells(DRAWING.find_row(GALLERY, name_file(path)))
    operations = float(re.findall(r"<br>([\d,.]+) TFLOP", cells[-1])[0].replace(",", "")) * 1e12
    assert cells == DRAWING.list_cells(name_file(path), schedule, operations), "a row is stale: make gallery"
    check_picture(DRAWING.locate_picture(name_file(path)), DRAWING.describe(prepared, schedule))
    assert ("needs a GPU" in shows) == ("Needs a GPU" in path.read_text())
    assert prepared.list_warnings(schedule) == [], "a statistic of a batch is computed over one sample"
    assert prepared.hooks().list_implementations("after_tick")
    # At each stage's end, the averaged generator must be one of this stage.
    ages = list_average_ages(prepared.built.experiment, schedule, [0])
    assert ages and all(age.before_stage <= 0.05 for age in ages), "; ".join(age.text for age in ages)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem == "demo" else (pytest.mark.slow,)) for path in FILES],
    ids=name_file,
)
def test_the_gallery_says_how_many_operations_it_takes(path: Path, given: Callable[[Path], list[str]]) -> None:
    prepared = prepare(path, [*given(path), "train.device = 'cpu'"], list_plugins(path))
    operations = DRAWING.count_operations(prepared, prepared.schedule())
    row = DRAWING.find_row(GALLERY, name_file(path))
    assert f"<br>{DRAWING.format_operations(operations)} TFLOP |" in row, "make gallery"


def test_the_gallery_has_no_file_that_is_gone() -> None:
    names = {name_file(path) for path in FILES}
    assert set(re.findall(r"^\| `(.+?)`<br>", GALLERY, re.MULTILINE)) == names
    assert set(DRAWING.PICTURES.iterdir()) == {DRAWING.locate_picture(name) for name in names}


def test_what_the_drawing_script_refuses() -> None:
    with pytest.raises(SystemExit, match=r"has no nowhere\.gin: name a file as mnist\.gin"):
        DRAWING.main(["mnist.gin", "nowhere.gin"])
    with pytest.raises(SystemExit, match=r"has 0 rows of `new\.gin`<br>: write one"):
        DRAWING.find_row(GALLERY, "new.gin")


@pytest.mark.parametrize(("operations", "text"), [(0.5e12, "0.50"), (3.449e12, "3.4"), (1.25e17, "120,000")])
def test_operations_have_two_digits(operations: float, text: str) -> None:
    assert DRAWING.format_operations(operations) == text


FAST = {"demo", "tutorial_mnist", "random_fields"}
"""Files whose networks are counted in every run of the tests; those of the others take seconds each."""

LOOSE = {"coherence", "curves", "r3gan_mnist", "resnet_mnist", "stylegan2_mnist", "transition_shock"}
"""Files whose updates take several times as long as their operations say, so that little follows from the bound.

`benchmarks/test_scale.py` measures them.
"""

FOR_METRICS = {"transition_shock"}
"""Files that are for what their metrics measure, and say how much of the time that takes."""


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in FAST else (pytest.mark.slow,)) for path in FILES],
    ids=name_file,
)
def test_less_than_a_fiftieth_of_the_time_is_spent_outside_updates(
    path: Path, given: Callable[[Path], list[str]]
) -> None:
    """By counts of what is done and bounds of its cost."""
    # The data made here are few, and the recipe's own number of fakes is what costs.
    bindings = [line for line in given(path) if not line.startswith("evaluation.")]
    if path.stem in FOR_METRICS:
        assert "of its time" in path.read_text()
        bindings.append("train.metrics = []")
    share = estimate_outside_share(prepare(path, [*bindings, "train.device = 'cpu'"], list_plugins(path)))
    assert 0.0001 < share < (0.06 if path.stem in LOOSE else 0.02)


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize("path", TRAINED, ids=name_file)
def test_it_trains_two_steps_in_each_phase_and_no_step_waits(
    path: Path, given: Callable[[Path], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = watched(monkeypatch)
    phases = Phases()
    bindings = [*SMALL, *given(path), *shrink(path)]
    if stacks_digits(path):
        bindings.append(FEW_PICTURES)
    run = train(path, bindings, run_dir=tmp_path / "run", plugins=[phases, *list_plugins(path)])
    stages = len(run.schedule.stages)
    grown = {(stage, phase): 2 for stage in range(1, stages) for phase in ("fade", "stable")}
    assert phases.steps == {(0, "stable"): 2, **grown}
    assert (run.directory / "growth.gif").stat().st_size > 0
    assert waits == []
    assert len(run.files.stats()) >= 2 * stages - 1


def uses_a_folder(path: Path) -> bool:
    return any(binding.name == "FOLDER" for binding in configs.read_config(path).bindings)


def stacks_digits(path: Path) -> bool:
    return "@datasets.StackedMNIST()" in configs.read_config(path).text()


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("celebahq_paper.gin", [16] * 6 + [14, 6, 3]),
        ("celebahq_released.gin", [4] * 9),
        ("lsun_256.gin", [16] * 7),
        ("cifar10.gin", [16] * 4),
        ("table1/h.gin", [16] * 6),
        ("my_images.gin", [4] * 6),
    ],
)
def test_the_minibatch_stddev_is_computed_over_the_groups_of_its_source(
    name: str, groups: list[int], pictures: Path
) -> None:
    """The whole batch, as in the released code for Theano; groups of 4, as in that for TensorFlow."""
    prepared = prepare(EXPERIMENTS / name, [f"FOLDER = {str(pictures)!r}"])
    experiment = prepared.built.experiment
    found = [list_batch_statistics(experiment, stage, stage.batch_size) for stage in prepared.schedule().stages]
    assert [[(statistic.name, statistic.group) for statistic in each] for each in found] == [
        [("minibatch stddev", group)] for group in groups
    ]


@pytest.mark.parametrize("images", [1_000_000, 5_000_000, 20_000_000, 100_000_000])
def test_r3gan_averages_as_its_code_does(images: int, pictures: Path) -> None:
    """Half a cosine from 0 to 5 million over the first 20 million images; grown, at most a tenth of the age."""
    published = 5e6 * (1 - math.cos(math.pi * min(images / 20e6, 1))) / 2
    for name, wanted in (("r3gan_cifar10_ungrown", published), ("r3gan_cifar10", min(published, images / 2 / 10))):
        prepared = prepare(EXPERIMENTS / f"{name}.gin", [f"FOLDER = {str(pictures)!r}"])
        (average,) = prepared.built.experiment.averages
        stage = prepared.schedule().stages[-1]
        position = Position(stage, "stable", 0.5, images, 0, 250_000_000, 250_000_000)
        age = images if name.endswith("ungrown") else images // 2
        (share,) = average.compute_shares(position, age, 512)
        assert -512 * math.log(2) / math.log1p(-share) == pytest.approx(wanted, rel=1e-6)


def test_orders_of_layers_are_those_of_the_code_that_a_file_follows(pictures: Path) -> None:
    """The code for TensorFlow averages before D's activation, and that for Theano applies G's tanh behind the blend."""
    wanted = {
        "celebahq_paper": ("linear", False),
        "celebahq_released": ("linear", True),
        "table1/a": ("tanh_after_fade", False),
        "table1/c": ("tanh_after_fade", False),
        "table1/d": ("linear", False),
    }
    for name, orders in wanted.items():
        prepared = prepare(EXPERIMENTS / f"{name}.gin", [f"FOLDER = {str(pictures)!r}"])
        architecture = prepared.built.experiment.architecture
        assert (architecture.output, architecture.pool_first) == orders, name


def test_the_template_for_own_pictures_works_as_a_copy(pictures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.gin"
    shutil.copy(EXPERIMENTS / "my_images.gin", copy)
    experiment = prepare(
        copy, [f"FOLDER = {str(pictures)!r}", "train.augmentation = @augmentations.ADA()"]
    ).built.experiment
    # ADA's signal means nothing with a critic whose scores may drift anywhere.
    assert type(experiment.loss).__name__ == "NonSaturating"


def test_a_config_can_be_shown_as_one_file(cli: Callable[..., Result], tmp_path: Path) -> None:
    original = EXPERIMENTS / "mnist_hard.gin"
    (tmp_path / "mine.gin").write_text(cli("config", "show", original).output)
    assert prepare(tmp_path / "mine.gin").built.operative == prepare(original).built.operative


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "base").glob("*.gin")), ids=name_file)
def test_base_files_only_bind(path: Path) -> None:
    assert configs.read_config(path).bindings
