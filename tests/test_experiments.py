"""Every file under experiments/ parses, checks, builds, and trains two steps in each phase."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from helpers.hugging_face import Rows, install_library
from helpers.outside_updates import estimate_outside_share
from helpers.paths import ROOT
from helpers.syncing import watched
from PIL import Image

from pggan_kit import hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import train
from pggan_kit.config import gin_files as configs
from pggan_kit.runs.average import list_average_ages
from pggan_kit.training.batch_statistics import list_batch_statistics

EXPERIMENTS = ROOT / "experiments"
FILES = sorted(
    path
    for path in EXPERIMENTS.rglob("*.gin")
    if not {"base", "base.gin", "ablations", "sweeps"} & set(path.relative_to(EXPERIMENTS).parts)
)
GALLERY = (ROOT / "docs/gallery.md").read_text()
SMALL = [
    "schedule.fade_images = '2 steps'",
    "schedule.stable_images = '2 steps'",
    "schedule.total_images = None",
]
SMALL_STEP = ["schedule.batch_size = 8", "train.latent_size = 16"]
"""Bindings that make a step small."""
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
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def named(path: Path) -> str:
    return str(path.relative_to(EXPERIMENTS))


@pytest.fixture
def given(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """Return a function that makes the data that a file asks for, and returns the bindings that name them."""

    def make_data(path: Path) -> list[str]:
        macros = {binding.name for binding in configs.read_config(path).bindings}
        bindings = []
        if "FOLDER" in macros and not {"SLICES", "TILES"} & macros:
            bindings.append(f"FOLDER = {str(pictures)!r}")
        if "FILE" in macros:
            file = tmp_path / "digits.npy"
            np.save(file, np.random.default_rng(0).integers(0, 255, (40, 28, 28, 1), dtype=np.uint8))
            bindings.append(f"FILE = {str(file)!r}")
        noise = np.random.default_rng(0).random((12, 2, 32, 64), np.float32)
        if "TONES" in macros:
            np.save(tmp_path / "tones.npy", noise)
            bindings.append(f"TONES = {str(tmp_path / 'tones.npy')!r}")
        if "FIELDS" in macros:
            np.save(tmp_path / "fields.npy", noise[:, 0, :, :32].repeat(2, axis=1).repeat(2, axis=2))
            bindings += [f"FIELDS = {str(tmp_path / 'fields.npy')!r}", "evaluation.count = 4"]
        for name in sorted({"SLICES", "TILES"} & macros):
            folder = tmp_path / name
            folder.mkdir()
            channels = 5 if name == "TILES" else 1
            for number in range(6):
                np.save(folder / f"{number}.npy", (2000 * noise[number, :1].repeat(channels, axis=0)).astype(np.int16))
            bindings.append(f"{name} = {str(folder)!r}")
        if "DATA_SET" in macros:
            pngs = [picture.read_bytes() for picture in sorted(pictures.iterdir())]
            rows = Rows([{"bytes": png} for png in pngs], list(range(len(pngs))))
            install_library(monkeypatch, {"digits": rows})
        return bindings

    return make_data


def list_plugins(path: Path) -> list[str]:
    """Return the plugin that lies beside a file, as its first lines say."""
    plugin = path.with_suffix(".py")
    return [str(plugin)] if plugin.exists() else []


def shrink(path: Path) -> list[str]:
    """Return bindings that make an experiment small: narrow networks, small batches, and of a large one few stages."""
    small = list(SMALL_STEP)
    if "Needs a GPU" in path.read_text() or uses_a_folder(path):
        small = list(FOR_A_GPU)
    if uses_a_folder(path):
        small.append("schedule.sizes = (4, 8, 16)")
    architectures = set(re.findall(r"@(?:\w+/)?architectures\.(\w+)\(\)", configs.read_config(path).text()))
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
TRAINED = [
    pytest.param(path, marks=(pytest.mark.slow,) if path.stem in TRAINED_ELSEWHERE else mark_variant(path))
    for path in FILES
]


def test_there_are_experiments() -> None:
    assert {"mnist.gin", "stacked_mnist.gin", "tutorial_mnist.gin", "celebahq_paper.gin", "table1/h.gin"} <= set(
        map(named, FILES)
    )


@pytest.mark.parametrize("path", CASES, ids=named)
def test_it_checks_as_it_is(path: Path, given: Callable[[Path], list[str]]) -> None:
    prepared = prepare(path, given(path), list_plugins(path))
    schedule = prepared.schedule()
    assert schedule.total >= schedule.stages[-1].batch_size
    sizes = [stage.size for stage in schedule.stages]
    cost = f"| {len(sizes)}: {sizes[0]} to {sizes[-1]} | {schedule.total:,} |\n"
    (row,) = re.findall(rf"^\| `experiments/{named(path)}` \|.*\n", GALLERY, re.MULTILINE)
    assert row.endswith(cost), "docs/gallery.md says what each file costs"
    assert ("needs a GPU" in row) == ("Needs a GPU" in path.read_text())
    assert prepared.list_warnings(schedule) == [], "a statistic of a batch is computed over one sample"
    assert prepared.hooks().list_implementations("after_tick")
    # At each stage's end, the averaged generator must be one of this stage.
    ages = list_average_ages(prepared.built.experiment, schedule, [0])
    assert ages and all(age.before_stage <= 0.05 for age in ages), "; ".join(age.text for age in ages)


FAST = {"demo", "cifar10", "tutorial_mnist", "random_fields"}
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
    ids=named,
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
    assert 0.001 < share < (0.06 if path.stem in LOOSE else 0.02)


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize("path", TRAINED, ids=named)
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


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "base").glob("*.gin")), ids=named)
def test_base_files_only_bind(path: Path) -> None:
    assert configs.read_config(path).bindings
