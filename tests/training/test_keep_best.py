"""Test `train.keep_best`: the checkpoint that is kept by a metric, through stops, damage and other uses of a run."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from conftest import STUB, TINY
from helpers.forks import fork_ranks
from helpers.gin_text import bind_again
from helpers.killing import StopAt, assert_same_run, rows

import pggan_kit
from pggan_kit import hookimpl
from pggan_kit.ablation.trial import evaluate_run
from pggan_kit.api.evaluate import evaluate
from pggan_kit.api.generator import load_generator
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.testing.support import are_equal
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_kit.training.measures import is_better

LEVEL = """\
from pggan_kit import Component, Quantity, hookimpl

class Level:
    quantities = {"Level": Quantity("higher"), "Depth": Quantity("lower")}

    def describe(self, images):
        return images.double().mean((1, 2, 3))

    def fingerprint(self):
        return "level"

    def compare(self, real, fake):
        return {"Level": float(fake.std()), "Depth": float((fake.mean() - real.mean()).abs())}

class Spread(Level):
    quantities = {"Spread": Quantity("higher")}

    def compare(self, real, fake):
        return {"Spread": float(fake.std())}

@hookimpl
def components():
    return [Component("metrics", cls.__name__, cls) for cls in (Level, Spread)]
"""
"""A plugin with a metric of two values, of which one is better where it is higher, and one where it is lower; and one
with another value."""

LINES = [
    "schedule.sizes = (4, 8)",
    "schedule.stable_images = {4: 24, 8: 40}",
    "train.metrics = [@metrics.Level()]",
    "evaluation.count = 6",
    "evaluation.every = 1",
    "optimizers.Adam.lr = 0.02",
]
"""Ticks at 8, 16 and 24 in 4x4, and at 32 to 72 in 8x8, each with a value."""

Train = Callable[..., Any]


class Remember:
    """A plugin that copies the average at each tick."""

    def __init__(self) -> None:
        self.averages: dict[int, dict[str, torch.Tensor]] = {}

    @hookimpl
    def after_tick(self, state: Any) -> None:
        self.averages[state.images] = {key: value.clone() for key, value in state.ema.state_dict().items()}


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Return a function: `train("train.keep_best = 'Level'", ...)` trains the tiny experiment with `LEVEL`."""
    monkeypatch.chdir(tmp_path)
    Path("level.py").write_text(LEVEL)

    def run(*lines: str, run_dir: str = "run", plugins: tuple[Any, ...] = (), **options: Any) -> Any:
        Path("tiny.gin").write_text(bind_again(TINY, [*LINES, *lines]))
        return pggan_kit.train("tiny.gin", run_dir=run_dir, plugins=[str(STUB), "level.py", *plugins], **options)

    return run


def find_best(run: Path, name: str, lowest: bool) -> tuple[int, float]:
    """Return the clock and the value of the best tick of 8x8 by the rows of `stats.jsonl`; of equal ones the first."""
    values = {row["images"]: row[f"Metrics/{name}"] for row in rows(run) if row["Progress/size"] == 8}
    assert len(set(values.values())) > 3, "nothing to choose from"
    choose = min if lowest else max
    images = choose(values, key=values.__getitem__)
    return images, values[images]


def list_best_files(run: str) -> list[str]:
    return [path.name for path in Path(run, "checkpoints").glob("best-*")]


@pytest.mark.parametrize(("name", "lowest"), [("Level", False), ("Depth", True)])
def test_the_best_of_a_stage_is_kept_and_is_the_same_after_stops_and_damage(
    name: str, lowest: bool, train: Train
) -> None:
    lines = [f"train.keep_best = {name!r}", "train.keep = 2"]
    remember = Remember()
    train(*lines, run_dir="whole", plugins=(remember,))
    images, value = find_best(Path("whole"), name, lowest)
    label = {"metric": name, "value": value, "images": images, "stage": 1, "size": "8x8"}

    best = RunDirectory(Path("whole")).checkpoints().load_best()
    assert best.best == label and best.images == images
    assert are_equal(dict(best.averages["half_life"]), remember.averages[images])
    files = list_best_files("whole")
    assert any(file.startswith(f"best-{images:012d}-") for file in files)
    kept = [entry.images for entry in RunDirectory(Path("whole")).checkpoints().read_entries()]
    assert kept[-1] == 72 and f"best {name} at 8x8 so far" in Path("whole/log.txt").read_text()

    # Stopped between two ticks, its last tick damaged, and resumed from the one before.
    with pytest.raises(Interrupted):
        train(*lines, run_dir="halted", plugins=(StopAt(60),))
    damaged = [path for path in Path("halted/checkpoints").glob("0*.pt") if int(path.name[:12]) in (56, 60)]
    assert len(damaged) == 2
    for path in damaged:
        path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="Using the one before: images 48"):
        resume("halted", plugins=[STUB, "level.py"])
    assert_same_run(Path("halted"), Path("whole"))
    again = RunDirectory(Path("halted")).checkpoints().load_best()
    assert are_equal(again.content(), best.content())
    assert list_best_files("halted") == files


def test_it_is_used_by_name_and_says_what_it_was_chosen_by(train: Train, cli: Callable[..., Result]) -> None:
    # The best must not be the last, nor may another file take its place.
    train("train.keep_best = 'Level'", "train.keep = 1", "train.switch = @switches.Hard()")
    images, value = find_best(Path("run"), "Level", lowest=False)
    assert images < 72, "the best is the last: this test shows nothing"
    generator = load_generator("run", checkpoint="best", plugins=[STUB, "level.py"])
    assert generator.images == images and generator.chosen["value"] == value
    assert load_generator("run", plugins=[STUB, "level.py"]).chosen == {}

    # Measured again, it has its value; and another metric need not be the one that it was chosen by.
    plugins = ["--plugin", STUB, "--plugin", "level.py"]
    measured = {row["metric"]: row for row in evaluate("run", checkpoint="best", plugins=[STUB, "level.py"])}
    assert measured["Level"]["value"] == value and measured["Level"]["images"] == images
    assert measured["Depth"]["chosen"] == generator.chosen
    shown = cli("evaluate", "run", "--checkpoint", "best", "--metric", "Spread", *plugins)
    assert "chosen by Level = " in shown.stderr and "its own Level is no fair estimate" in " ".join(
        shown.stderr.split()
    )
    drawn = cli("sample", "run", "--checkpoint", "best", "--count", 2, "--out", "best.npz", *plugins)
    assert drawn.exit_code == 0, drawn.output
    assert f"chosen by Level = {value:.4g} at 8x8, images {images}" in " ".join(drawn.stderr.split())

    # An ablation measures the last.
    level = ["train.metrics = [@metrics.Level()]"]
    plan: Any = SimpleNamespace(evaluation=level, primary="Depth", average=None, averages=[], curves=[])
    endpoint = evaluate_run(plan, Path("run"), [STUB, "level.py"])
    assert [(row["images"], "chosen" in row) for row in endpoint] == [(72, False)] * 2

    # Where it is asked for in vain.
    refused = cli("sample", "run", "--checkpoint", "best", "--stage", "0", "--out", "x.npz", *plugins)
    assert refused.exit_code == 2 and "stage 0 and the best checkpoint are two places" in refused.stderr
    with pytest.raises(RunError, match=r"checkpoint must be .*not 'besst'"):
        load_generator("run", checkpoint="besst", plugins=[STUB, "level.py"])
    branch = train("schedule.total_images = 76", run_dir="branch", start_from="run")
    assert branch.state.best == {} and list_best_files("branch") == []
    with pytest.raises(RunError, match=r"holds no best checkpoint: it is kept where train\.keep_best names a value"):
        load_generator("branch", checkpoint="best", plugins=[STUB, "level.py"])
    (file,) = [path for path in Path("run/checkpoints").glob("best-*") if int(path.name[5:17]) == images]
    file.write_bytes(b"damaged")
    with pytest.raises(RunError, match=rf"the best checkpoint, that of images {images}, cannot be read: .*is damaged"):
        load_generator("run", checkpoint="best", plugins=[STUB, "level.py"])


def test_what_is_later_than_the_checkpoint_that_a_changed_run_resumes_from_is_no_best(train: Train) -> None:
    """Its steps are taken in another way: the run's best is one of the run as it is now."""
    with pytest.raises(Interrupted):
        train("train.keep_best = 'Level'", plugins=(StopAt(60),))
    for path in Path("run/checkpoints").glob("0*.pt"):
        if int(path.name[:12]) in (56, 60):
            path.write_bytes(b"damaged")
    remember = Remember()
    with pytest.warns(UserWarning, match="Using the one before"):
        resume("run", ["optimizers.Adam.lr = 0.001"], plugins=[STUB, "level.py", remember])
    best = RunDirectory(Path("run")).checkpoints().load_best()
    images, value = find_best(Path("run"), "Level", lowest=False)
    assert (best.images, best.best["value"]) == (images, value)
    if images > 48:
        assert are_equal(dict(best.averages["half_life"]), remember.averages[images])
    assert len({name[:17] for name in list_best_files("run")}) == len(list_best_files("run"))


def test_two_ranks_keep_what_one_keeps(train: Train) -> None:
    """With a discriminator that is a stage ahead, whose images each rank resizes for itself."""
    lines = [
        "train.keep_best = 'Level'",
        "architectures.PGGAN.minibatch = 'none'",
        "schedule.discriminator_height = 8",
        "schedule.stable_images = {4: 8, 8: 16}",
        "optimizers.Adam.lr = 0.001",
    ]
    train(*lines, run_dir="one")
    for process in fork_ranks(2, lambda: train(*lines, run_dir="two")):
        assert process.wait() == 0, process.read_errors()
    one, two = (RunDirectory(Path(run)).checkpoints() for run in ("one", "two"))
    for found, wanted in ((two.load_last(), one.load_last()), (two.load_best(), one.load_best())):
        assert found.best["images"] == wanted.best["images"]
        for name in ("generator", "averages", "discriminator"):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-3, atol=1e-4)


def test_nan_is_never_better_and_other_stages_and_metrics_do_not_compare() -> None:
    metric: Any = SimpleNamespace(
        quantities={"up": pggan_kit.Quantity("higher"), "down": pggan_kit.Quantity("lower")},
        describe=lambda images: images,
        fingerprint=lambda: "",
        compare=lambda real, fake: {},
    )
    experiment = make_tiny_experiment({"metrics": [metric], "keep_best": "down"})
    stage: Any = SimpleNamespace(index=1)
    best = {"metric": "down", "value": 2.0, "images": 8, "stage": 1, "size": "8x8"}
    assert not is_better(experiment, math.nan, {}, stage)
    assert not is_better(experiment, 2.0, best, stage), "of equal ones the first"
    assert is_better(experiment, 1.5, best, stage) and not is_better(experiment, 2.5, best, stage)
    assert is_better(experiment, 2.5, {**best, "stage": 0}, stage)
    assert is_better(experiment, 2.5, {**best, "metric": "up"}, stage)


@pytest.mark.parametrize(
    ("lines", "pattern"),
    [
        (
            ["train.keep_best = 'Levl'"],
            r"keep_best must be a value of train\.metrics \(Level, Depth\), not 'Levl' \(did",
        ),
        (["train.keep_best = 'Level'", "train.metrics = []"], r"keep_best is 'Level', and no metric is measured: bind"),
        (["train.keep_best = 3"], r"keep_best must be "),
    ],
)
def test_a_wrong_name_is_refused_before_training(lines: list[str], pattern: str, rejected: Callable[..., str]) -> None:
    Path("level.py").write_text(LEVEL)
    bound = {line.partition(" = ")[0] for line in lines}
    rejected(
        pattern,
        *[line for line in LINES if line.partition(" = ")[0] not in bound],
        *lines,
        args=["--plugin", "level.py"],
    )
