"""Processes that train together on one machine: equal replicas, and the numbers of one process.

`test_torchrun.py` starts them with torchrun, and has what happens to a whole run.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.forks import fork_ranks
from helpers.killing import last

from pggan_kit import Scores
from pggan_kit.errors import RunError, TrainingError
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.system import distributed
from pggan_kit.testing.support import are_equal, draw_noise
from pggan_kit.testing.tiny_runs import load_mid_fade, make_tiny_experiment, summarize_run, train_tiny
from pggan_kit.testing.toys import ToyLoss, ToySampler
from pggan_kit.training.non_finite import Guard, NonFiniteError
from pggan_kit.training.step import UpdateContext
from pggan_plugins.architectures import PGGAN
from pggan_plugins.generator_penalties import ModeSeeking, PathLength
from pggan_plugins.growth import FreezeOld
from pggan_plugins.losses import WGANGP, NonSaturating
from pggan_plugins.optimizers import Adam
from pggan_plugins.penalties import R1, Drift, GradientPenalty
from pggan_plugins.updates import Alternating

BATCH = 16
SHAPES = ((3, 2), (5,), (1,))


def choose_arguments(loss: Any, **architecture: Any) -> dict[str, Any]:
    return {
        "architecture": PGGAN(channels=4, **architecture),
        "schedule": ScheduleSettings((4, 8), 2 * BATCH, 2 * BATCH, BATCH),
        "loss": loss,
        "update": Alternating(),
        "generator_optimizer": Adam(),
        "discriminator_optimizer": Adam(),
        "tick": BATCH,
    }


def trained(folder: Path, saved: dict[str, Any] | None = None) -> dict[str, Any]:
    """The paper's parts in float64, in which two orders of summation agree closely enough for Adam.

    Its statistic over groups of four is among them: each process sees whole groups. Old pieces are frozen for a while.
    """
    torch.set_default_dtype(torch.float64)
    try:
        lengths = PathLength(every=2)
        penalties = [lengths, ModeSeeking(0.1)]
        parts = {**choose_arguments(WGANGP([GradientPenalty(), Drift()])), "generator_penalties": penalties}
        parts["growth"] = FreezeOld(images=BATCH, nets=("generator", "discriminator"))
        run = train_tiny(lengths, "lengths", folder, parts, saved)
        return {**summarize_run(run), "stats": run.files.stats()}
    finally:
        torch.set_default_dtype(torch.float32)


def with_batch_norm(folder: Path) -> dict[str, Any]:
    """Each process normalises by its own samples."""
    return summarize_run(
        train_tiny(object(), "nobody", folder, choose_arguments(NonSaturating([R1()]), generator_norm="batch"))
    )


def refused() -> str:
    """What each process gets of an error on rank 0."""

    def fail() -> None:
        raise RunError(f"the folder of {distributed.rank()} is not empty")

    try:
        distributed.run_on_rank_0(fail)
    except RunError as error:
        return str(error)
    return ""


def broken() -> str:
    """What each process gets of an error on rank 0 that nobody foresaw."""

    def fail() -> None:
        raise KeyError("boom")

    try:
        distributed.run_on_rank_0(fail)
    except (KeyError, TrainingError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


class DyingElsewhere(ToyLoss):
    """A term that is no number on the last rank alone, and has no gradient that would carry it to the others."""

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, torch.Tensor]:
        last_one = distributed.rank() == distributed.world_size() - 1
        return {**super().discriminator(real, fake), "extra": torch.tensor(math.nan if last_one else 0.0)}


def death() -> str:
    """What each process learns of it."""
    experiment = make_tiny_experiment({"loss": DyingElsewhere()})
    state = TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))
    guard = Guard(state.device)
    try:
        experiment.update.step(UpdateContext(experiment, state, state.stage, ToySampler(state.stage), {}, guard))
    except NonFiniteError as error:
        return str(error)
    return ""


def agreed() -> list[int]:
    """What is agreed at four steps, when the last rank wants something at the second."""
    agreement, last_one = distributed.Agreement(), distributed.rank() == distributed.world_size() - 1
    return [agreement.largest(15 if last_one and step == 1 else 0) for step in range(3)]


def rank_main(folder: Path) -> None:
    """What each process does: reports by rank, for the tests to compare."""
    distributed.join_group()
    rank = distributed.rank()
    tensors = [draw_noise(*shape, seed=10 * rank + index) / 3 for index, shape in enumerate(SHAPES)]
    distributed.average(tensors)
    shared: list[Any] = [f"from {rank}", rank]
    distributed.share_from_rank_0(shared)
    distributed.barrier()
    folders = [folder / f"{name}{rank}" for name in ("run", "norm")]
    for own in folders:
        own.mkdir()
    report = {
        "rank": (rank, distributed.world_size()),
        "means": tensors,
        "shared": shared,
        "refused": refused(),
        "broken": broken(),
        "death": death(),
        "agreed": agreed(),
        "trained": trained(folders[0]),
        "norm": with_batch_norm(folders[1]),
        "files": sorted(path.name for path in folders[0].iterdir()),
    }
    torch.save(report, folder / f"report{rank}.pt")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where so many processes left their runs and reports."""
    folder = tmp_path_factory.mktemp("ranks")
    for process in fork_ranks(request.param, lambda: rank_main(folder)):
        assert process.wait() == 0, process.read_errors()
    return folder


@pytest.fixture(scope="module")
def reports(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("report*.pt"))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same run in one process."""
    return trained(tmp_path_factory.mktemp("alone"))


def test_ranks_find_each_other(reports: list[dict[str, Any]]) -> None:
    assert [tuple(report["rank"]) for report in reports] == [(rank, len(reports)) for rank in range(len(reports))]


def test_tensors_become_their_mean_with_the_same_bits(reports: list[dict[str, Any]]) -> None:
    world = len(reports)
    for index, shape in enumerate(SHAPES):
        mean = sum(draw_noise(*shape, seed=10 * rank + index).double() / 3 for rank in range(world)) / world
        for report in reports:
            assert torch.equal(report["means"][index], reports[0]["means"][index])
        torch.testing.assert_close(reports[0]["means"][index].double(), mean, rtol=1e-6, atol=1e-7)


def test_rank_0_shares_what_it_has_and_what_it_may_not(reports: list[dict[str, Any]]) -> None:
    assert all(report["shared"] == ["from 0", 0] for report in reports)
    assert all(report["refused"] == "the folder of 0 is not empty" for report in reports)
    others = ["TrainingError: process 0 failed: KeyError: 'boom'"] * (len(reports) - 1)
    assert [report["broken"] for report in reports] == ["KeyError: 'boom'", *others]


def test_what_one_rank_wants_is_agreed_one_step_later(reports: list[dict[str, Any]]) -> None:
    assert all(report["agreed"] == [0, 0, 15] for report in reports)


def test_numbers_that_die_on_one_rank_stop_all(reports: list[dict[str, Any]]) -> None:
    assert all(report["death"] == "the discriminator's extra" for report in reports)


@pytest.mark.parametrize("run", ["trained", "norm"])
def test_replicas_stay_equal_through_growth_and_fade(run: str, reports: list[dict[str, Any]]) -> None:
    """Running statistics too, though each process normalises by its own samples."""
    for report in reports[1:]:
        assert report[run]["images"] == reports[0][run]["images"] and report[run]["starts"] == reports[0][run]["starts"]
        for net in ("generator", "discriminator", "average half_life"):
            for name, value in reports[0][run][net].items():
                assert torch.equal(value, report[run][net][name]), f"{net} {name}"
    assert run == "trained" or any("running_mean" in name for name in reports[0][run]["generator"])


def assert_close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["images"] == wanted["images"]
    for net in ("generator", "discriminator", "average half_life"):
        for name, value in wanted[net].items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(found[net][name], value, rtol=1e-7, atol=1e-9)


def test_ranks_train_as_one_with_the_same_global_batch(reports: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert_close(reports[0]["trained"], alone)


def test_what_is_logged_is_of_all_ranks(reports: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for ours, theirs in zip(reports[0]["trained"]["stats"], alone["stats"], strict=True):
        tags = [tag for tag in theirs if tag.startswith(("Loss/", "Scores/"))]
        assert {"Loss/generator/wasserstein", "Scores/real", "Scores/real_sign"} <= set(tags)
        assert {"Loss/generator/PathLength", "Loss/generator/ModeSeeking"} & set(tags)
        for tag in tags:
            assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5, abs=1e-7), tag


def test_another_number_of_ranks_goes_on(folder: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    """One process, from what several saved amid the fade."""
    assert_close(trained(tmp_path, load_mid_fade(folder / "run0")), alone)


def test_rank_0_alone_writes(reports: list[dict[str, Any]], folder: Path) -> None:
    assert reports[0]["files"] == ["checkpoints", "log.txt", "stats.jsonl"]
    assert all(report["files"] == [] for report in reports[1:])
    assert are_equal(dict(last(folder / "run0")["generator"]), reports[0]["trained"]["generator"])


def test_one_process_needs_no_group() -> None:
    ones = torch.ones(2)
    distributed.average([ones])
    values = [1]
    distributed.share_from_rank_0(values)
    distributed.barrier()
    assert (distributed.rank(), distributed.world_size(), values, ones.tolist()) == (0, 1, [1], [1.0, 1.0])
    assert distributed.run_on_rank_0(lambda: 7) == 7
    assert [distributed.Agreement().largest(wanted) for wanted in (0, 15)] == [0, 15]
