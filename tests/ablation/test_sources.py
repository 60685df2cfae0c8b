"""What varies between the trials of a variant (`ablate.resample`), and what then is the same in all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.killing import last
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit.ablation import plan_reading
from pggan_kit.ablation.sources import bind_sources, require_free_sources
from pggan_kit.ablation.tuning import _bind_tuning_seed
from pggan_kit.api.prepare import prepare
from pggan_kit.errors import ConfigError, RunError

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]


def draw(config: str, bindings: list[str]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the images of the first two epochs of an experiment, and the generator's initial weights."""
    prepared = prepare(config, ["data.mirror = True", *bindings], PLUGINS)
    schedule = prepared.schedule()
    images, _ = prepared.data(schedule).sampler(schedule.stages[0]).batch(0, 24)
    return images, prepared.state(schedule).networks["generator"].state_dict()


@pytest.mark.parametrize(
    ("binding", "same"),
    [
        ("train.network_seed = {seed}", ["images"]),
        ("data.seed = {seed}", ["weights"]),
        ("train.seed = {seed}", []),
    ],
)
def test_two_seeds_share_what_does_not_vary(binding: str, same: list[str], tiny: Callable[..., str]) -> None:
    file = tiny()
    drawn = [draw(file, bind_sources({"source": binding}, seed)) for seed in (3, 4, 3)]
    (images, weights), (other_images, other_weights), (again, weights_again) = drawn
    assert torch.equal(images, again) and all(torch.equal(weights[name], weights_again[name]) for name in weights)
    assert torch.equal(images, other_images) == ("images" in same)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights) == ("weights" in same)


def test_trials_vary_in_the_named_sources_alone(ablate: Callable[..., dict[str, Any]]) -> None:
    """And the ablation's files say in which."""
    sources = {"networks": "train.network_seed = {seed}"}
    analysis = ablate(f"ablate.resample = {sources}", "ablate.seeds = (5,)")
    for name in ("linear", "hard"):
        settings = last(Path(f"out/runs/{name}/5"))["identity"]["settings"]
        assert (settings["train.seed"], settings["train.network_seed"]) == ("0", "5")
    assert json.loads(Path("out/plan.json").read_text())["resample"] == sources == analysis["resample"]
    assert "a variant: networks (train.network_seed = {seed})." in Path("out/table.txt").read_text()
    plan, _ = plan_reading.read_plan("switch.gin", (), PLUGINS)
    assert plan.resample == {"everything": "train.seed = {seed}"} and "resample" not in plan.fixed_fields
    with pytest.raises(RunError, match=r"another plan \(resample: networks was train\.network_seed = \{seed\}"):
        ablate("ablate.seeds = (5,)")


WRONG = {
    "ablate.resample = {}": r"ablate\.resample must name at least one source of variation",
    "ablate.resample = 'networks'": r"ablate\.resample must be a dict",
    "ablate.resample = {'order': 'data.seed = 3'}": r"ablate\.resample must give 'order' a binding to \{seed\}, as 'da",
    "ablate.resample = {'order': 'data.seed'}": r"ablate\.resample must give 'order' a binding to \{seed\}",
    "ablate.resample = {'order': 'data.sede = {seed}'}": r"ablate\.resample, in variant linear: .*did you mean seed",
    "ablate.resample = {'split': 'datasets.MNIST.split_seed = {seed}'}": r"resample, in variant linear: .*nothing in",
    "ablate.resample = {'a': 'data.seed = {seed}', 'b': 'data.seed = {seed}'}": r"ablate\.resample.*bound twice",
    "ablate.resample = {'a': 'data.seed = {seed}', 'w': 'data.workers = 1{seed}'}": r"ablate\.resample: 'w' \(data\.wor"
    r"kers = 1\{seed\}\) has no effect in variant linear: data\.workers changes nothing .*It needs a setting that is a",
}


def test_what_the_seeds_draw_is_found_in_whatever_binds_it() -> None:
    sources = {"all": "train.seed = {seed}\ndata.seed = {seed}"}
    for text in ("train.keep = 2\ndata.seed = 3", "data:\n  seed = 3", "data.seed=3"):
        with pytest.raises(ConfigError, match=r"^it binds data\.seed; bind ablate\.seeds instead"):
            require_free_sources(sources, [text], "it binds")
    require_free_sources(sources, ["x/data.seed = 3"], "it binds")
    assert _bind_tuning_seed(sources, 5) == ["train.seed = 5\ndata.seed = 5"]
    assert _bind_tuning_seed({"data": "data.seed = {seed}"}, 5) == ["data.seed = 5", "train.seed = 5"]


@pytest.mark.parametrize("binding", WRONG)
def test_wrong_sources_are_refused(
    binding: str,
    ablate: Callable[..., dict[str, Any]],
    cli: Callable[..., Result],
    refused: Callable[[Result, str], str],
) -> None:
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    refused(cli("ablate", "switch.gin", "-b", binding, *options), WRONG[binding])


def test_a_source_without_effect_is_refused(ablate: Callable[..., dict[str, Any]]) -> None:
    """A seed of the data that leaves them the same, and a measure that the plan's own evaluation takes back."""
    digits = ["train.dataset = @datasets.MNIST()", "datasets.MNIST.pad = 2", "schedule.sizes = (8, 16, 32)"]
    sources = {"networks": "train.network_seed = {seed}", "split": "datasets.MNIST.split_seed = {seed}"}
    refusal = r"^ablate\.resample: '{}' \({}\) has no effect in variant linear: {}"
    data = refusal.format(
        "split", r"datasets\.MNIST\.split_seed = \{seed\}", "the data are the same with seed 0 and with "
    )
    with pytest.raises(ConfigError, match=data):
        plan_reading.read_plan("switch.gin", [f"ablate.resample = {sources}", *digits], PLUGINS)

    measured = ["ablate.resample = {'count': 'evaluation.count = {seed}'}", "ablate.seeds = (4, 8)"]
    with pytest.raises(ConfigError, match=refusal.format("count", r".*", r"evaluation\.count changes nothing of what")):
        plan_reading.read_plan("switch.gin", measured, PLUGINS)
    plan_reading.read_plan(
        "switch.gin", [*measured, "ablate.evaluation = ['train.metrics = [@metrics.Gap()]']"], PLUGINS
    )
    plan_reading.read_plan("switch.gin", ["ablate.resample = {'n': 'datasets.Stub.n = {seed}'}", measured[1]], PLUGINS)


def test_what_is_drawn_from_the_seeds_may_not_be_bound(
    ablate: Callable[..., dict[str, Any]], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    options = [option for plugin in PLUGINS for option in ("--plugin", plugin)]
    options += ["-b", "ablate.resample = {'order': 'data.seed = {seed}'}"]
    shared = r"^error: the bindings of all variants hold data\.seed; bind ablate\.seeds instead$"
    refused(cli("ablate", "switch.gin", *options, "-b", "data.seed = 3"), shared)
    own = "ablate.variants = {'linear': [], 'hard': ['data.seed = 3']}"
    refused(cli("ablate", "switch.gin", *options, "-b", own), r"variant hard .* binds data\.seed; bind ablate\.seeds")
