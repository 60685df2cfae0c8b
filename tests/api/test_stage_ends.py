"""Metrics of a run: what `evaluate` and ablations give them, and what is said where they have no value."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.ablation_plugin import SWITCH
from helpers.killing import StopAt
from helpers.paths import STUB_PLUGIN, TESTS
from PIL import Image
from torch import Tensor

import pggan_kit
from pggan_kit import Component, Quantity, hookimpl
from pggan_kit.components import StageEnd
from pggan_kit.errors import ConfigError, Interrupted, PluginError, TrainingError
from pggan_kit.layers.tensors import images_from_uint8, images_to_uint8
from pggan_kit.plugin_host.contracts import require_protocol

STUB = str(STUB_PLUGIN)
LATENTS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


class Ends:
    """A metric of a run that records what it was given.

    Args:
        name: Name of its value.
    """

    quantities = MappingProxyType({"Ends": Quantity("higher", (0.0, math.inf))})

    def __init__(self, name: str = "Ends") -> None:
        self.name = name

    def measure_run(self, ends: Sequence[StageEnd]) -> dict[str, float]:
        Ends.given = list(ends)
        Ends.images = [end.generate(LATENTS, None) for end in ends]
        if not ends:
            raise ZeroDivisionError("no stage")
        return {self.name: float(len(ends)), f"{self.name} of them": float(torch.rand(1))}

    given: Sequence[StageEnd] = ()
    images: Sequence[Tensor] = ()


class Parts:
    """The plugin of this metric."""

    @hookimpl
    def components(self) -> list[Component]:
        return [Component("metrics", "Ends", Ends)]


PARTS = Parts()


def evaluate(run: Any, *bindings: str, **options: Any) -> dict[str, dict[str, Any]]:
    rows = pggan_kit.evaluate(run, metrics=["Ends"], bindings=bindings, plugins=[STUB, PARTS], **options)
    return {row["metric"]: row for row in rows}


def test_a_metric_is_given_the_ends_of_stages(train: Callable[..., Any]) -> None:
    """Averaged generators as `load_generator` gives them, rounded to 8 bits; up to the stage that is asked for."""
    run = train(run_dir="run")
    rows = evaluate("run")
    assert rows["Ends"] == {
        "metric": "Ends",
        "value": 3.0,
        "floor": None,
        "count": None,
        "floor_count": None,
        "size": "16x16",
        "stage": 2,
        "images": 40,
        "average": None,
    }
    assert [(end.stage.size, end.images, end.latent_size, end.classes) for end in Ends.given] == [
        ("4x4", 8, 8, 0),
        ("8x8", 24, 8, 0),
        ("16x16", 40, 8, 0),
    ]
    for end, images in zip(Ends.given, Ends.images, strict=True):
        drawn = pggan_kit.load_generator(run, stage=end.stage.size)(LATENTS)
        assert torch.equal(images, images_from_uint8(images_to_uint8(drawn)))

    # What it draws from torch's generator is the same whenever it is measured.
    torch.rand(3)
    assert evaluate("run") == rows
    assert evaluate("run", stage="8x8")["Ends"]["value"] == 2.0


def test_it_has_no_value_at_ticks(train: Callable[..., Any], tmp_path: Path) -> None:
    """Beside a metric of images, which has; and evaluated with one, both have rows."""
    few = ("schedule.sizes = (8, 16)", "evaluation.count = 4")
    run = train(
        *few, "train.metrics = [@metrics.Ends(), @metrics.SlicedWasserstein()]", plugins=(PARTS,), run_dir="run"
    )
    tags = {tag for row in run.files.stats() for tag in row if tag.startswith("Metrics/")}
    assert "Metrics/SWD" in tags and not any("Ends" in tag for tag in tags)
    metrics = [row["metric"] for row in pggan_kit.evaluate("run", plugins=[STUB, PARTS])]
    assert "Ends" in metrics and "SWD" in metrics

    alone = train("schedule.sizes = (4,)", "train.metrics = [@metrics.Ends()]", plugins=(PARTS,), run_dir="alone")
    assert alone.evaluator is None


def test_stages_of_the_runs_before(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    """A branch of a branch has the ends of all; where a run is not there any more, that is said."""
    train(run_dir="first")
    hard = tiny("train.switch = @switches.Hard()")
    pggan_kit.train(hard, run_dir="second", start_from="first@0", plugins=[STUB])
    pggan_kit.train(hard, run_dir="third", start_from="second@1", plugins=[STUB])
    evaluate("third")
    for stage, run in enumerate(("first", "second", "third")):
        drawn = pggan_kit.load_generator(run, stage=stage)(LATENTS)
        assert torch.equal(Ends.images[stage], images_from_uint8(images_to_uint8(drawn)))

    # What the first run did after the branch is not on the way to this one, nor is a fade's end the end of a stage.
    assert [end.images for end in Ends.given] == [8, 24, 40]
    lines = ("architectures.PGGAN.channels = {4: 4, 16: 6}", "schedule.stable_images = {4: 8, 8: 40, 16: 8}")
    with pytest.raises(Interrupted):
        pggan_kit.train(tiny(*lines), run_dir="long", start_from="first@0", plugins=[STUB, StopAt(28)])
    evaluate("long")
    assert [end.images for end in Ends.given] == [8]
    shutil.rmtree("first")
    with pytest.warns(UserWarning, match="second: the run that it began from is not there any more"):
        assert evaluate("third")["Ends"]["value"] == 2.0


def test_stages_in_other_units_are_left_out(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    short = "schedule.sizes = (4, 8)"
    train(short, run_dir="first")
    dark = tiny(short, "data.value_range = (0, 300)")
    with pytest.warns(UserWarning, match="stands for"):
        pggan_kit.train(dark, run_dir="second", start_from="first@0", plugins=[STUB])
    with pytest.warns(UserWarning, match=r"first: its images are in other units \(uint8 \(0, 255\), and here uint8"):
        evaluate("second")
    assert [end.stage.index for end in Ends.given] == [1]


def test_stages_without_images_have_no_end(train: Callable[..., Any]) -> None:
    train("schedule.stable_images = {4: 0, 8: 8}", "schedule.fade_images = {4: 0, 8: 0, 16: 8}", run_dir="run")
    assert evaluate("run")["Ends"]["value"] == 2.0
    assert [end.stage.size for end in Ends.given] == ["8x8", "16x16"]


def test_what_a_metric_of_a_run_does_wrong(train: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted):
        train(plugins=(StopAt(4),), run_dir="young")
    with pytest.raises(TrainingError, match=r"metrics.Ends failed on the ends of the stages none: ZeroDivisionError"):
        evaluate("young")
    with pytest.raises(ConfigError, match=r"none of metrics.Coherence is defined at 4x4; .* several stages"):
        pggan_kit.evaluate("young", metrics=["Coherence"], plugins=[STUB])

    train("schedule.sizes = (4,)", run_dir="run")
    with pytest.raises(ConfigError, match=r"gives a value Other and states nothing about it: .* names Ends"):
        evaluate("run", "metrics.Ends.name = 'Other'")


def test_folders_have_no_stages(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / f"{number}.png")
    with pytest.raises(ConfigError, match=r"metrics.Coherence measures a run by the ends of its stages, and folders"):
        pggan_kit.evaluate(tmp_path / "one", tmp_path / "other", metrics=["Coherence"])


def test_a_metric_of_images_or_of_a_run() -> None:
    """A component keeps one of the two contracts; the message is about the one that it nearly keeps."""
    require_protocol(Ends(), "metrics", "metrics.Ends")

    class Neither:
        quantities = Ends.quantities

    class NearlyOfRuns(Neither):
        def measure_run(self) -> dict[str, float]:
            return {}

    class NearlyOfImages(Neither):
        def describe(self, images: Tensor) -> Tensor:
            return images

        def fingerprint(self) -> str:
            return "nearly"

    for cls, message in (
        (Neither, "it has no describe"),
        (NearlyOfRuns, "measure_run.. must take ends"),
        (NearlyOfImages, "it has no compare"),
    ):
        with pytest.raises(PluginError, match=f"metrics.Mine is not a valid Metric: {message}"):
            require_protocol(cls(), "metrics", "metrics.Mine")


@pytest.mark.slow
def test_an_ablation_compares_runs_by_it(tiny: Callable[..., str], cli: Callable[..., Any]) -> None:
    """As the primary and beside it; variants begin from a trunk, whose stage counts; one with other stages has none."""
    tiny("train.metrics = []")
    plan = (
        SWITCH.replace("'gap'", "'Coherence 4x4-16x16'")
        .replace(
            "'hard': [",
            "'alone': ['schedule.stable_images = {4: 0, 8: 0, 16: 8}', 'schedule.fade_images = 0'], 'hard': [",
        )
        .replace("[('hard', 'linear')]", "[('hard', 'linear'), ('alone', 'linear')]")
        .replace("@metrics.Gap()]", "@metrics.Gap(), @metrics.Coherence()]', 'metrics.Coherence.count = 8")
    )
    assert plan.count("Coherence") == 3
    plan = plan.replace("(0, 1)", "(0,)") + "ablate.controls = {'hard': 1, 'alone': 1}\n"
    # The control without earlier stages has no value of the primary, which is refused with a sentence.
    Path("plan.gin").write_text(plan)
    plugin = TESTS / "helpers" / "ablation_plugin.py"
    options = ("--plugin", STUB, "--plugin", plugin)
    result = cli("ablate", "plan.gin", "--out", "out", *options)
    assert "ablate.primary is 'Coherence 4x4-16x16', and the evaluation gives gap, signed" in result.output + "".join(
        path.read_text() for path in Path("out/logs").glob("alone*")
    )

    Path("plan.gin").write_text(plan.replace("'Coherence 4x4-16x16'", "'gap'"))
    result = cli("ablate", "plan.gin", "--out", "second", *options)
    assert result.exit_code == 0, result.output
    with open("second/results.csv") as file:
        rows = list(csv.DictReader(file))
    values = {(row["variant"], row["seed"], row["metric"]): float(row["value"]) for row in rows}
    for variant in ("linear", "hard"):
        measured = pggan_kit.evaluate(
            f"second/runs/{variant}/0",
            metrics=["Coherence"],
            bindings=["metrics.Coherence.count = 8"],
            plugins=[STUB],
        )
        assert len(measured) == 4
        for row in measured:
            assert values[variant, "0", row["metric"]] == row["value"]
    assert not any(variant == "alone" and "Coherence" in metric for variant, _, metric in values)

    # Compared where both variants have a value, and not counted as failures where one has no such stages.
    analysis = json.loads(Path("second/analysis.json").read_text())
    pairs = {(e["metric"], e["variant"], e["n"]) for e in analysis["secondary"] if e["metric"].startswith("Coherence")}
    names = ("Coherence", "Coherence 4x4-8x8", "Coherence 4x4-16x16", "Coherence 8x8-16x16")
    assert pairs == {(name, "hard", 1) for name in names}
    assert "Coherence 4x4-16x16: hard - linear" in Path("second/table.txt").read_text()
