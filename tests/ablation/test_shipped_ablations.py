"""Every ablation under experiments/ablations/ can be read, and each of its variants trains a step in each phase."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.modules import load_module
from helpers.paths import ROOT
from PIL import Image

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import plan_reading
from pggan_kit.api import prepare as api
from pggan_kit.api.train import train
from pggan_kit.growth import learning
from pggan_kit.runs import average
from pggan_kit.runs.average import list_average_ages

save_file = pytest.importorskip("safetensors.torch").save_file

FOLDER = ROOT / "experiments" / "ablations"
EMOJI_PLUGIN = ROOT / "experiments" / "emoji" / "features.py"
FILES = sorted(path for path in FOLDER.glob("*.gin") if path.stem not in ("base", "common", "demo_base"))
SMALL = ["schedule.batch_size = 4", "train.latent_size = 8", "train.device = 'cpu'"]
SHORT = [
    "schedule.fade_images = '1 steps'",
    "schedule.stable_images = '1 steps'",
    "schedule.total_images = None",
    "train.observers = []",
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the names of the original files, with a few images of noise."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    for name in ("train", "t10k"):
        images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, *images.shape) + images.tobytes())
        labels = np.arange(40, dtype=np.uint8) % 10
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, 40) + labels.tobytes())
    return folder


def test_there_are_ablations() -> None:
    wanted = {
        "table1",
        "switch",
        "fade_length",
        "fade_paths",
        "growing",
        "optimizer_reset",
        "loss",
        "resampling",
        "preserving",
    }
    assert wanted <= {path.stem for path in FILES}


DEMO = {"switch_demo", "preserving_demo"}
"""Ablations of the demo's recipe, whose widths are its own."""

OF_THE_DEMO = ["train.metrics = []", "evaluation.dataset = None"]
"""What makes them small: nothing is measured on the way."""

RECIPES = {"tutorial", "stacked_mnist", "emoji", "emoji_rates", "small"}
"""Ablations of recipes with settings and half-lives of their own, whose averages are young at the end of the run."""


@pytest.fixture(autouse=True)
def _few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages of averages and parts of stages are looked for at a tenth of the places, half of the time of a plan."""
    monkeypatch.setattr(average, "LOOKED_AT", 200)
    monkeypatch.setattr(learning, "LOOKED_AT", 20)


def check_resets(plan: plans.Plan) -> None:
    """Check that variants reset their optimizers alike, except those of `optimizer_reset`.

    Resets at the ends of fades would differ with the fades, which are what the variants are about: a second difference
    beside the one that they name. The demo's are those of `growth.Everything`, which binds nothing.
    """
    if plan.name in DEMO | RECIPES:
        assert not any("growth." in text for text in plan.configs.values())
        return
    resets = {}
    for name, text in plan.configs.items():
        (resets[name],) = re.findall(r"^growth\.Everything\.moments = '(\w+)'$", text, re.MULTILINE)
    if plan.name == "optimizer_reset":
        assert resets == {"phase": "forget_at_phases", "stage": "forget_at_stages", "never": "keep"}
    else:
        assert set(resets.values()) == {"forget_at_stages"}


APART = {
    "growing": {"growing", "whole_equal_compute", "whole_equal_images"},
    "preserving": {"hard_preserving", "skip_linear"},
    "switch": {"hard_preserving", "no_growing"},
    "switch_demo": {"no_growing"},
    "stacked_mnist": {"no_growing"},
    "emoji": {"whole"},
    "emoji_rates": {"linear", "whole"},
}
"""Variants that are trained from scratch; of `loss` and `table1` all are."""

MORE_IMAGES_OR_FEWER = {"no_growing", "whole_equal_compute", "whole"}


def make_small(name: str, digits: Path, folder: Path) -> list[str]:
    """Return the bindings with which an ablation is small and has data; its other files are written to a folder."""
    if name.startswith("emoji"):
        (folder / "emoji" / "pictures").mkdir(parents=True)
        for number in range(8):
            image = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / "emoji" / "pictures" / f"{number}.png")
        for variant in ("a", "b"):
            weights = load_module(EMOJI_PLUGIN).Classifier(variant, 5).state_dict()
            save_file(weights, folder / "emoji" / f"{variant}.safetensors", {"variant": variant})
        return ["WIDTH = 4"]
    if name == "stacked_mnist":
        return [f"datasets.StackedMNIST.folder = {str(digits)!r}", "datasets.StackedMNIST.length = 64"]
    of_digits = [f"datasets.MNIST.folder = {str(digits)!r}"]
    if name in ("tutorial", "small"):
        return of_digits
    return [*of_digits, *(OF_THE_DEMO if name in DEMO else ["WIDTH = 4"])]


ALIKE = {
    "fade_length",
    "fade_paths",
    "growing",
    "loss",
    "optimizer_reset",
    "preserving",
    "preserving_demo",
    "resampling",
    "switch_demo",
    "table1",
    "emoji_rates",
}
"""Ablations whose variants differ from those of others in parts that have tests of their own: slow tests train them."""


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in ALIKE], ids=lambda path: path.stem)
def test_a_plan(path: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_ablation(path, digits, tmp_path, monkeypatch, trains=False)


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=(pytest.mark.slow,) if path.stem in ALIKE else ()) for path in FILES],
    ids=lambda path: path.stem,
)
def test_an_ablation(path: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_ablation(path, digits, tmp_path, monkeypatch, trains=True)


def check_ablation(path: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains: bool) -> None:
    """Check that each variant trains, on equally many images except those listed.

    Variants that differ only later share a trunk, and all reset their optimizers alike.
    """
    monkeypatch.chdir(tmp_path)
    plugins = [EMOJI_PLUGIN] if path.stem.startswith("emoji") else []
    # The plan of small batches has many more steps to look at.
    small = SMALL if trains else SMALL[1:]
    plan = plan_reading.read_plan(path, [*small, *make_small(path.stem, digits, tmp_path)], plugins)[0]
    assert plan.primary == ("ModesCovered" if path.stem == "stacked_mnist" else "FID") and plan.confirmatory
    check_resets(plan)
    apart = set(plan.variants) if path.stem in ("loss", "table1", "tutorial") else APART.get(path.stem, set())
    assert set(plan.variants) - set(plan.shared) == apart
    totals = set()
    for name, text in plan.configs.items():
        config = tmp_path / f"{name}.gin"
        config.write_text(text)
        prepared = api.prepare(config, ["schedule.batch_size = 32"], plugins)
        schedule = prepared.schedule()
        if name not in MORE_IMAGES_OR_FEWER:
            totals.add(schedule.total)
        # The averaged generator at a stage's end must be one of this stage, in each variant.
        ages = list_average_ages(prepared.built.experiment, schedule, [0])
        if path.stem in RECIPES:
            ages = [age for age in ages if age.stage is schedule.stages[-1] and age.name == plan.average]
        assert ages and all(age.before_stage <= 0.05 for age in ages), f"{name}: {'; '.join(a.text for a in ages)}"
        if not trains:
            continue
        run = train(config, SHORT, run_dir=tmp_path / name, plugins=plugins)
        phases = 2 * len(run.schedule.stages) - 1
        assert run.schedule.total == phases * run.schedule.stages[-1].batch_size, "a step in each phase"
        # A step with several updates of D draws several batches, and may pass the end.
        if "updates.Alternating.n_critic = 5" in text:
            assert run.state.images >= run.schedule.total
        else:
            assert run.state.images == run.schedule.total
    assert len(totals) == 1
