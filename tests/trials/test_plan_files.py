"""Test the file of a plan, which ablations and sweeps share."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.made_up_ablation import make_plan

from pggan_kit.ablation import plan as ablation_plans
from pggan_kit.errors import RunError
from pggan_kit.sweeps import plan as sweep_plans
from pggan_kit.sweeps.plan import SweepPlan
from pggan_kit.trials.plan_files import describe_change, require_planned_config

SWEEP = SweepPlan(
    name="adam",
    config="train.seed = 0\n",
    parameters={"train.latent_size": ["choice", [4, 8]]},
    trials=3,
    seeds={"0": ["train.seed = 0"]},
    metric="FID",
    evaluation=[],
    average=None,
    direction="lower",
    scale="log",
    stages=[0],
    sizes=["4x4"],
    search="random",
    startup=10,
    pruner=None,
    search_seed=0,
    plugins={},
)


def test_a_plan_is_what_was_written(tmp_path: Path) -> None:
    sweep_plans.write_plan(SWEEP, tmp_path)
    assert sweep_plans.load_plan(tmp_path) == SWEEP
    ablation_plans.write_plan(make_plan(), tmp_path)
    assert ablation_plans.load_plan(tmp_path) == make_plan()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": [], "parameters": []}, "is damaged|was changed by hand"),
        ({"margin": float("nan"), "startup": float("nan")}, "is damaged: ValueError"),
        ({"plugins": []}, "is damaged: TypeError: `plugins` is not a mapping|was changed by hand"),
        ({"later": 1}, r"of another version of pggan_kit, or damaged: it has `later`\. Its .* can be read without"),
    ],
)
def test_a_file_that_is_no_plan_is_said_to_be_none(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    for plans, plan in ((ablation_plans, make_plan()), (sweep_plans, SWEEP)):
        known = {field.name for field in dataclasses.fields(plan)} | {"later"}
        plans.write_plan(plan, tmp_path)
        path = tmp_path / plans.PLAN
        own_changes = {name: value for name, value in changes.items() if name in known}
        path.write_text(json.dumps({**json.loads(path.read_text()), **own_changes}))
        with pytest.raises(RunError, match=message):
            plans.load_plan(tmp_path)


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    for plans, noun in ((ablation_plans, "ablation"), (sweep_plans, "sweep")):
        with pytest.raises(RunError, match=rf"holds no {noun} \(it has no {plans.PLAN}\)"):
            plans.load_plan(tmp_path)
        for content in (b"[", b"[]", b"\xff", b"[" * 100_000):
            (tmp_path / plans.PLAN).write_bytes(content)
            with pytest.raises(RunError, match=f"{plans.PLAN} is damaged: "):
                plans.load_plan(tmp_path)


def test_a_config_that_is_not_the_planned_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "base.gin"
    with pytest.raises(RunError, match=r"cannot read .*base\.gin: No such file"):
        require_planned_config(path, SWEEP.config, "sweep.json")
    path.write_text(SWEEP.config)
    require_planned_config(path, SWEEP.config, "sweep.json")
    path.write_text(SWEEP.config.replace("0", "1"))
    with pytest.raises(RunError, match=r"base\.gin is not what sweep\.json holds: .* same command writes it again"):
        require_planned_config(path, SWEEP.config, "sweep.json")


def test_a_changed_config_is_described_by_its_first_changed_line() -> None:
    old = "train.seed = 0\ntrain.latent_size = 4\n"
    assert describe_change(old, old.replace("4", "8")) == "was train.latent_size = 4 and is train.latent_size = 8"
    assert describe_change(old, "train.seed = 0\n") == "was train.latent_size = 4 and is not there"
    assert describe_change(old, "train.latent_size = 4\ntrain.seed = 0\n") == (
        "has its lines in another order: where it had `train.seed = 0`, it has `train.latent_size = 4`"
    )
    assert describe_change(old, old.replace("\n", "\r\n")) == describe_change(old, old[:-1]) == "has other line ends"
    assert describe_change("a\na\nb\n", "a\nb\nb\n") == "was a and is b"
    assert describe_change("a\n\nb\n", "a\nb\n") == "was empty and is not there"
