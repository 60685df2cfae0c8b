"""Test runs whose generator and discriminator come from two architectures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from conftest import STUB
from helpers.killing import StopAt, assert_same_run

import pggan_kit
from pggan_kit.api.generator import load_generator
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.training.batch_statistics import list_batch_statistics

TWO = [
    "train.discriminator_architecture = @architectures.ResNet()",
    "architectures.ResNet.channels = 6",
    "architectures.ResNet.discriminator_norm = 'none'",
]
"""G from `PGGAN`, with 4 maps; D from `ResNet`, with 6."""


def test_each_network_comes_from_its_own_architecture_and_resumes_amid_a_fade(train: Callable[..., Any]) -> None:
    whole = train(*TWO, run_dir="whole")
    made = {type(net.architecture).__name__: net for net in (whole.state.generator, whole.state.discriminator)}
    assert made == {"PGGAN": whole.state.generator, "ResNet": whole.state.discriminator}
    assert whole.state.generator.to_image(torch.zeros(1, 4, 16, 16)).shape == (1, 1, 16, 16)
    assert whole.state.discriminator.from_image(torch.zeros(1, 1, 16, 16)).shape == (1, 6, 16, 16)

    with pytest.raises(Interrupted):
        train(*TWO, run_dir="halted", plugins=(StopAt(12),))
    resume("halted", plugins=[STUB])
    assert_same_run(Path("halted"), Path("whole"))

    # The generator is there for those who have neither data nor D in mind.
    generator = load_generator("halted", plugins=[STUB])
    assert generator(torch.zeros(2, 8)).shape == (2, 1, 16, 16)
    assert whole.identity["architecture"]["architectures.ResNet.channels"] == "6"


def test_what_decides_the_discriminator_cannot_change(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    with pytest.raises(Interrupted):
        train(*TWO, run_dir="run", plugins=(StopAt(12),))
    with pytest.raises(RunError, match=r"another architecture \(architectures\.ResNet\.channels: 6 there, 5 here\)"):
        resume("run", ["architectures.ResNet.channels = 5"], plugins=[STUB])
    with pytest.raises(RunError, match=r"train\.discriminator_architecture is @architectures\.ResNet\(\) there, and"):
        pggan_kit.train(tiny(), run_dir="branch", plugins=[STUB], start_from="run")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["train.discriminator_architecture = @architectures.ResNet()"], []),
        (
            [
                "train.architecture = @architectures.ResNet()",
                "train.discriminator_architecture = @architectures.PGGAN()",
            ],
            [("generator", "batch norm"), ("discriminator", "minibatch stddev")],
        ),
    ],
)
def test_statistics_of_a_batch_are_asked_of_each_networks_own(
    lines: list[str], names: list[tuple[str, str]], tiny: Callable[..., str]
) -> None:
    """`PGGAN` compares samples in D, `ResNet` with its defaults in G."""
    prepared = prepare(tiny(*lines), plugins=[STUB])
    stage = prepared.schedule().stages[0]
    listed = list_batch_statistics(prepared.built.experiment, stage, 4)
    assert [(statistic.net, statistic.name) for statistic in listed] == names


def test_the_generator_alone_decides_whether_it_is_asked_for_classes(train: Callable[..., Any]) -> None:
    labels = ["datasets.Stub.classes = 3", "schedule.sizes = (4, 8)", "schedule.stable_images = 4"]
    told = train(*TWO, *labels, "architectures.PGGAN.conditioning = 'projection'", run_dir="told")
    assert told.fixed_labels(4) is not None and told.generator().classes == 3
    blind = train(*TWO, *labels, "architectures.ResNet.conditioning = 'projection'", run_dir="blind")
    assert blind.fixed_labels(4) is None and blind.generator().classes == 0


def test_batches_are_kept_apart_as_the_discriminators_architecture_says(train: Callable[..., Any]) -> None:
    """`PGGAN` with minibatch discrimination cannot keep them apart; `ResNet` can."""
    lines = ["schedule.sizes = (4,)", "architectures.PGGAN.minibatch = 'discrimination'"]
    assert train(*TWO, *lines, run_dir="two").state.discriminator.separates_batches()
    assert not train(*lines, run_dir="one").state.discriminator.separates_batches()


def test_plan_counts_both_and_bench_against_others_needs_one(
    tiny: Callable[..., str], cli: Callable[..., Result]
) -> None:
    result = cli("plan", tiny(*TWO, "schedule.sizes = (4,)"), "--plugin", STUB, "--json")
    prepared = prepare("tiny.gin", plugins=[STUB])
    discriminator = prepared.state(prepared.schedule()).discriminator
    row = json.loads(result.stdout)[0]
    assert row["discriminator_parameters"] == sum(param.numel() for param in discriminator.parameters())
    Path("theirs.py").write_text("def make(size, alpha, width, batch, colours): ...\n")
    result = cli("bench", "tiny.gin", "--plugin", STUB, "--against", "theirs.py:make")
    assert result.exit_code == 2
    assert "needs one architecture for both networks: leave train.discriminator_architecture out" in result.stderr


def test_another_kind_of_component_is_refused(rejected: Callable[..., str]) -> None:
    rejected(
        r"train\.discriminator_architecture must be a component, as @architectures\.NAME\(\)",
        "train.discriminator_architecture = @datasets.Stub()",
    )
