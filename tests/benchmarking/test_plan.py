"""Test `pggan-kit plan`: how it arrives at its times, and what it does where not all can be measured, or fits."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.full_memory import limit_rows
from torch import Tensor

from pggan_kit import Component, hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import train
from pggan_kit.benchmarking import plan as planning
from pggan_kit.benchmarking import stage_cost, stage_rows
from pggan_kit.benchmarking.activations import LiveMemory, count_activations_mib, measure_activations_mib
from pggan_kit.benchmarking.evaluation_time import EvaluationTime
from pggan_kit.benchmarking.plan_table import build_table, format_duration
from pggan_kit.benchmarking.rig import Rig, has_fade
from pggan_kit.benchmarking.storage import count_checkpoints, list_ticks_by_stage
from pggan_kit.data.build_estimate import BuildEstimate
from pggan_kit.growth.networks import Discriminator
from pggan_kit.layers.batches import count_batches
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.training.batch_statistics import count_samples, list_warnings
from pggan_plugins.architectures.minibatch import NeighbourStddev

Cli = Callable[..., Result]


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch, no_fake_tensors: None) -> None:
    """Let each measured stage cost 0.1 s an image in its fade, 0.02 s after it, and at a tick 1 s for a copy of the
    state, 0.25 s for the diversity of images, and a thread's 1.75 s for a checkpoint of 8 MiB, of which 2 MiB are kept;
    and 1 MiB of activations.

    Measuring it takes a second for each GFLOP of a batch.
    """
    monkeypatch.setattr(planning, "LARGE_SHARE", 1.0)
    cost = stage_cost.Cost(0.1, 0.02, 1.0, 1.75, 0.25, 8.0, 2.0)
    monkeypatch.setattr(planning, "count_activations_mib", lambda rig: 1.0)
    monkeypatch.setattr(stage_cost, "computes_bfloat16", lambda device: False)
    monkeypatch.setattr(planning, "measure_stage", lambda prepared, rig, budget, work: budget.spend(work, work) or cost)


def plan_rows(config: str, stub: str) -> list[dict[str, Any]]:
    return planning.plan(config, plugins=[stub])


def test_a_stage_takes_what_its_images_and_ticks_take(tiny: Callable[..., str], stub: str, costs: None) -> None:
    config = tiny("schedule.fade_images = 40", "schedule.stable_images = 100", "train.tick = 20")
    rows = plan_rows(config, stub)
    first, second, last = (row["hours"] * 3600 for row in rows)
    # The loop waits for a checkpoint where writing it takes longer than the steps up to the next tick, 2/5 s and 6/7 s.
    assert first == pytest.approx(2 + 5 * (1 + 0.25 + 1.75 - 2 / 5) + 1.75), "that before the first step is waited for"
    assert second == last == pytest.approx(6 + 7 * (1 + 0.25 + 1.75 - 6 / 7))
    # It never does where the ticks, a few early ones among them, have more than two seconds of steps each.
    (longer,) = plan_rows(tiny("schedule.sizes = (4,)", "schedule.stable_images = 1000", "train.tick = 200"), stub)
    ticks = longer["checkpoints"] - 1
    assert 5 <= ticks <= 9
    assert longer["hours"] * 3600 == pytest.approx(20 + ticks * (1 + 0.25) + 1.75)
    assert [row["measured"] for row in rows] == [True] * 3
    for row in rows:
        rates = [row["fade_images_per_second"], row["images_per_second"]]
        assert rates == pytest.approx([10, 50])


@pytest.mark.parametrize(
    ("total", "wanted"),
    [
        (600, [(0, 160, 40), (40, 120, 40), (40, 240, 70)]),
        (300, [(0, 160, 40), (40, 100, 35), (0, 0, 0)]),
        (180, [(0, 160, 40), (20, 0, 5), (0, 0, 0)]),
        (100, [(0, 100, 25), (0, 0, 0), (0, 0, 0)]),
    ],
)
def test_a_total_cuts_whatever_comes_after_it(
    tiny: Callable[..., str], stub: str, costs: None, total: int, wanted: list[tuple[int, int, int]]
) -> None:
    config = tiny(
        *("schedule.fade_images = 40", "schedule.stable_images = {4: 160, 8: 120, 16: 200}", "schedule.batch_size = 4"),
        f"schedule.total_images = {total}",
    )
    rows = plan_rows(config, stub)
    assert [(row["fade_images"], row["stable_images"], row["steps"]) for row in rows] == wanted


def test_what_is_due_less_often_takes_and_writes_less(
    tiny: Callable[..., str], cli: Cli, stub: str, costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["schedule.fade_images = 40", "schedule.stable_images = 100", "train.tick = 20", "train.keep = 3"]
    lines += ["train.checkpoint_every = {4: 50, 8: 'phase'}", "train.diversity_every = 1_000"]
    lines += ["train.keep_stages = 'average'"]
    monkeypatch.setattr(planning, "LARGE_SHARE", 0.05)
    with pytest.warns(UserWarning, match="outside updates") as caught:
        rows = plan_rows(tiny(*lines), stub)
    assert [str(warning.message) for warning in caught] == [
        "67 % of the time is spent outside updates (checkpoints 64 %, diversity 3.0 %): raise train.checkpoint_every, "
        "train.diversity_every or train.tick"
    ]
    # At 4x4 ticks at 20, ..., 100; at 8x8 at 120, 140 (its fade ends), ..., 240.
    # The first has one from before the first step besides.
    assert [row["checkpoints"] for row in rows] == [3, 2, 2]
    checkpoints = [5 * 1 + 2 * (1.75 - 2 / 5) + 1.75, 7 * 1 + 2 * (1.75 - 6 / 7)]
    for row, seconds, updates, diversity in zip(rows, checkpoints, (2.0, 6.0), (0.25, 0.5), strict=False):
        total = updates + seconds + diversity
        assert row["hours"] * 3600 == pytest.approx(total)
        assert row["outside_share"] == pytest.approx((seconds + diversity) / total)
        assert row["outside"] == pytest.approx(
            {"checkpoints": seconds / total, "diversity": diversity / total, "metrics": 0.0}
        )
    assert [row["written_mib"] for row in rows] == [3 * 8 + 2, 2 * 8 + 2 * 2, 2 * 8 + 2]
    # The end of the run stays whole, and so do the last three before it.
    assert [row["kept_mib"] for row in rows] == [2, 2 * 2 + 2 * 8, 2 + 2 * 8]

    shown = " ".join(cli("plan", tiny(*lines), "--plugin", stub).stdout.split())
    assert "the run's folder: 64 MiB written, 40 MiB kept; 7 checkpoints of up to 8 MiB" in shown
    assert "outside updates: 67 % of the time (checkpoints 64 %, diversity 3.0 %)" in shown
    monkeypatch.setattr(planning, "LARGE_SHARE", 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grids = plan_rows(tiny(*lines, "train.observers = [@observers.Samples(), @observers.Growth()]"), stub)
    # Five grids of 64 gray images at 4x4, and five frames of 16, the file being written again for each.
    files = (5 * 64 + (1 + 2 + 3 + 4 + 5) * 16) * 16 / 2**20
    assert grids[0]["written_mib"] - rows[0]["written_mib"] == pytest.approx(files)
    assert grids[0]["kept_mib"] - rows[0]["kept_mib"] == pytest.approx((5 * 64 + 5 * 16) * 16 / 2**20)


def test_stages_that_take_too_long_are_extrapolated_by_operations(
    tiny: Callable[..., str], cli: Cli, stub: str, costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("schedule.sizes = (4, 8, 16, 32)")
    everything = plan_rows(config, stub)
    work = [row["gflops"] for row in everything]
    assert work == sorted(work)
    monkeypatch.setattr(planning, "MEASURING_SECONDS", 4 * (work[0] + work[1]) * 1.01)
    rows = plan_rows(config, stub)
    assert [row["measured"] for row in rows] == [True, True, False, False]
    for row in rows[2:]:
        more = row["gflops"] / rows[1]["gflops"]
        assert more > 2
        assert row["images_per_second"] == pytest.approx(50 / more)
        assert row["fade_images_per_second"] == pytest.approx(10 / more)
        assert (row["activations_mib"], row["fits"], row["micro_batch"]) == (1.0, True, None)  # counted all the same
    shown = cli("plan", config, "--plugin", stub)
    assert shown.exit_code == 0 and shown.stdout.count("(extrapolated)") == 2


def test_operations_are_those_of_an_image_through_both_networks(tiny: Callable[..., str], stub: str) -> None:
    config = tiny("schedule.sizes = (4,)", "architectures.PGGAN.minibatch = 'none'")
    (row,) = plan_rows(config, stub)
    pixels = 16
    maps = 4
    latents = 8
    generator = latents * maps * pixels + 9 * maps * maps * pixels + maps * pixels
    discriminator = maps * pixels + 9 * maps * maps * pixels + maps * maps * pixels + maps
    assert row["gflops"] == pytest.approx(2 * (generator + discriminator) / 1e9)


def test_a_micro_batch_is_recommended(
    tiny: Callable[..., str], cli: Cli, stub: str, costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = plan_rows(tiny(), stub)[0]["weights_mib"] + 0.6  # of the 1 MiB that the batch of 4 takes
    monkeypatch.setattr(planning, "read_memory_mib", lambda device: need)
    row = plan_rows(tiny("schedule.sizes = (4,)"), stub)[0]
    assert (row["fits"], row["micro_batch"]) == (False, 2)
    assert (row["measured"], row["hours"]) == (False, None)  # it would end in a failure, and there is nothing before it
    shown = " ".join(cli("plan", tiny("schedule.sizes = (4,)"), "--plugin", stub).stdout.split())
    assert "with micro_batch 2" in shown and "about an unknown time" in shown
    assert "memory ends at 4x4 with a batch of 4: bind train.micro_batch = 2" in shown


def test_a_stage_that_runs_out_of_memory_is_a_row_and_not_a_traceback(
    tiny: Callable[..., str], cli: Cli, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(4, 16, monkeypatch)  # D sees reals and fakes at once
    # Or else a tick draws more images at once than a step.
    plain = ("train.collapse_below = 0.0", "schedule.sizes = (8, 16)")
    shown = cli("plan", tiny(*plain), "--plugin", stub, "--json")
    assert shown.exit_code == 0, shown.stderr
    rows = json.loads(shown.stdout)
    assert [(row["fits"], row["measured"], row["micro_batch"]) for row in rows] == [
        (True, True, None),
        (False, False, 2),
    ]
    assert rows[1]["activations_mib"] > rows[0]["activations_mib"] > 0
    assert rows[1]["images_per_second"] < rows[0]["images_per_second"]
    first, last = planning.plan(tiny(*plain, "train.micro_batch = 2"), plugins=[stub])
    assert last["fits"] is True and last["activations_mib"] < rows[1]["activations_mib"]
    assert first["activations_mib"] < rows[0]["activations_mib"]


def test_what_bfloat16_would_save_is_measured_where_it_is_native(
    tiny: Callable[..., str], cli: Cli, stub: str, costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let an image take 4 ms in bfloat16: a fifth of the 20 ms of the others."""
    assert [row["bfloat16_images_per_second"] for row in plan_rows(tiny(), stub)] == [None] * 3
    monkeypatch.setattr(stage_cost, "computes_bfloat16", lambda device: True)
    precisions = []

    def measure(rig: Rig) -> float:
        precisions.append(rig.experiment.precision)
        return 0.004

    monkeypatch.setattr(stage_cost, "measure_seconds_an_image", measure)
    rows = plan_rows(tiny(), stub)
    assert [row["bfloat16_images_per_second"] for row in rows] == [None, None, 250.0]
    shown = " ".join(cli("plan", tiny(), "--plugin", stub).stdout.split())
    hours = format_duration(sum(row["hours"] for row in rows) * 3600 / 5)
    assert f"with train.precision = 'auto' it is 250 img/s instead of 50 at 16x16, and about {hours} in all" in shown
    assert precisions == ["bfloat16"] * 2
    assert plan_rows(tiny("train.precision = 'auto'"), stub)[2]["bfloat16_images_per_second"] is None


@pytest.mark.parametrize("lines", [(), ("losses.Hinge.penalties = [@penalties.R1()]", "train.micro_batch = 2")])
def test_fake_tensors_take_the_memory_that_real_ones_do(
    lines: tuple[str, ...], tiny: Callable[..., str], stub: str
) -> None:
    prepared = prepare(tiny(*lines), plugins=[stub])
    rigs = [Rig(prepared, prepared.schedule(), 1, fading=False, compiles=False) for _ in range(2)]
    counted = count_activations_mib(rigs[0])
    assert counted == measure_activations_mib(rigs[1]) > 0


def test_live_memory_is_what_is_in_use() -> None:
    weight = torch.ones(256)  # 1 KiB, there before
    with LiveMemory(torch.device("cpu")) as memory:
        weight.view(16, 16).add_(1)
        assert memory.live_bytes == 0
        kept = weight + 1
        (kept * 2).sum()
        assert (memory.live_bytes, memory.peak_bytes) == (1024, 2052)
        shorter = kept[:8]
        del kept
        assert memory.live_bytes == 1024  # the view keeps it
        del shorter
        assert memory.live_bytes == 0


def test_compiled_phases_are_shown(tiny: Callable[..., str], cli: Cli, stub: str, costs: None) -> None:
    assert [row["compiled"] for row in plan_rows(tiny(), stub)] == [[], [], []]
    config = tiny("train.compile = 'always'")
    assert [row["compiled"] for row in plan_rows(config, stub)] == [["stable"], ["fade", "stable"], ["fade", "stable"]]
    shown = " ".join(cli("plan", config, "--plugin", stub).stdout.split())
    assert "less, as train.compile compiles 4x4 (stable), 8x8 (fade and stable), 16x16 (fade and stable)" in shown


def test_settings_that_move_are_shown(tiny: Callable[..., str], cli: Cli, stub: str, costs: None) -> None:
    """At the beginning and the end of each stage; one within another, and one that is shared, count once."""
    config = tiny(
        "g/optimizers.Adam.lr = {4: 1e-3, 8: @curves.WarmUp()}",
        "curves.WarmUp.value = @curves.Linear()",
        "curves.WarmUp.images = 16",
        "curves.Linear.begin = 1.0",
        "curves.Linear.end = 0.0",
        "updates.Alternating.n_critic = @curves.Steps()",
        "curves.Steps.values = {0: 2, 24: 1}",
    )
    rate = "train.generator_optimizer.lr"
    critics = "train.update.n_critic"
    assert [row["moving_settings"] for row in plan_rows(config, stub)] == [
        {rate: [1e-3, 1e-3], critics: [2, 2]},
        {rate: [pytest.approx(0.4), pytest.approx(0.4)], critics: [2, 1]},
        {rate: [pytest.approx(0.4), 0.0], critics: [1, 1]},
    ]
    shown = " ".join(cli("plan", config, "--plugin", stub).stdout.split())
    assert "train.update.n_critic: 2 at 4x4, 2 -> 1 at 8x8, 1 at 16x16" in shown
    assert "train.generator_optimizer.lr: 0.001 at 4x4, 0.4 at 8x8, 0.4 -> 0 at 16x16" in shown
    assert [row["moving_settings"] for row in plan_rows(tiny(), stub)] == [{}, {}, {}]


JOINT = (
    "train.update = @updates.JointBatch()",
    "updates.JointBatch.optimizer = @optimizers.SharedAdam()",
    "train.generator_optimizer = None",
    "train.discriminator_optimizer = None",
)

GROUPS = {5: 1, 14: 2, 16: 4}
"""Size of the groups by batch size: its largest divisor that is not above 4."""


@pytest.mark.parametrize("batch", GROUPS)
def test_the_groups_of_a_batch_are_shown(
    tiny: Callable[..., str], cli: Cli, stub: str, costs: None, batch: int
) -> None:
    config = tiny(f"schedule.batch_size = {{4: 4, 8: {batch}}}")
    rows = plan_rows(config, stub)
    groups = [row["batch_statistics"] for row in rows]
    assert groups == [{"the discriminator's minibatch stddev": n} for n in (4, GROUPS[batch], GROUPS[batch])]
    shown = cli("plan", config, "--plugin", stub)
    text = " ".join(shown.stdout.split())
    if GROUPS[batch] == 4:
        assert "the discriminator's minibatch stddev compares 4 samples (4x4, 8x8, 16x16)" in text
    else:
        assert f"minibatch stddev compares 4 samples (4x4), {GROUPS[batch]} (8x8, 16x16)" in text
    warned = " ".join(shown.stderr.split())
    if GROUPS[batch] == 1:
        assert "warning: at 8x8, 16x16 the discriminator's minibatch stddev is a constant" in warned
        assert f"each sample of the {batch} in a call is a group of its own" in warned
        assert "4x4" not in warned
    else:
        assert warned == ""


def test_what_does_not_learn_is_shown(tiny: Callable[..., str], cli: Cli, stub: str, costs: None) -> None:
    """Frozen weights need neither gradients nor moments: of the generator, two tensors of five."""
    everything = plan_rows(tiny(), stub)
    assert all(row["growth"] == [] for row in everything)
    config = tiny("train.growth = @growth.FreezeOld()")
    rows = plan_rows(config, stub)
    assert [row["growth"] for row in rows] == [
        [{"images": 0, "text": ""}],
        [{"images": 8, "text": "generator's stem of 4x4 frozen"}],
        [{"images": 24, "text": "generator's stem of 4x4, generator's block of 8x8 frozen"}],
    ]
    saved = [before["weights_mib"] - row["weights_mib"] for before, row in zip(everything, rows, strict=True)]
    prepared = prepare(config, plugins=[stub])
    stem = prepared.built.experiment.architecture.generator_stem(8, prepared.schedule().stages[0])
    numbers = sum(param.numel() for param in stem.parameters())
    assert saved[0] == 0 and saved[1] == pytest.approx(3 * 4 * numbers / 2**20) and saved[2] > saved[1]

    text = " ".join(cli("plan", config, "--plugin", stub).stdout.split())
    assert "learning at 8x8: generator's stem of 4x4 frozen from images 8" in text
    assert "learning at" not in " ".join(cli("plan", tiny(), "--plugin", stub).stdout.split())


def test_it_counts_the_samples_of_a_call_and_not_of_the_batch(tiny: Callable[..., str], stub: str, costs: None) -> None:
    """Count fewer in a micro-batch, and more where an update shows reals and fakes to D as one batch."""
    config = tiny("schedule.batch_size = {4: 14, 8: 16}", "train.micro_batch = {4: 7, 8: 2}")
    groups = [list(row["batch_statistics"].values()) for row in plan_rows(config, stub)]
    assert groups == [[1], [2], [2]]
    joint = tiny(*JOINT, "schedule.batch_size = 7")
    assert [list(row["batch_statistics"].values()) for row in plan_rows(joint, stub)] == [[2]] * 3


def test_stages_that_are_only_passed_through_are_left_out(tiny: Callable[..., str], stub: str, costs: None) -> None:
    config = tiny(
        "schedule.batch_size = {4: 5, 16: 8}", "schedule.fade_images = 0", "schedule.stable_images = {4: 0, 16: 8}"
    )
    assert [row["batch_statistics"] for row in plan_rows(config, stub)] == [
        {},
        {},
        {"the discriminator's minibatch stddev": 4},
    ]


def test_training_warns_once_in_log_and_terminal(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    config = tiny("schedule.batch_size = {4: 4, 8: 5, 16: 7}")
    done = cli("train", config, "--plugin", stub, "--run-dir", "run")
    assert done.exit_code == 0, done.stderr
    for place in (done.stderr, Path("run/log.txt").read_text()):
        text = " ".join(place.split())
        assert text.count("warning: at 8x8 the discriminator's minibatch stddev is a constant") == 1
        assert text.count("warning: at 16x16 the discriminator's minibatch stddev is a constant") == 1
        assert "at 4x4 the" not in text


def test_processes_share_a_batch(tiny: Callable[..., str], stub: str) -> None:
    prepared = prepare(tiny("schedule.batch_size = {4: 16, 8: 14}"), plugins=[stub])
    stages = prepared.schedule().stages
    assert list_warnings(prepared.built.experiment, stages, 1) == []
    (line,) = list_warnings(prepared.built.experiment, stages, 2)
    assert line.startswith("at 8x8, 16x16 ") and "of the 7 in a call" in line
    (line,) = list_warnings(prepared.built.experiment, stages[:1], 16)
    assert line.startswith("at 4x4 ") and "of the 1 in a call" in line


@pytest.mark.parametrize(("slices", "processes"), [(1, 2), (2, 1), (2, 2)])
def test_parts_of_a_batch_take_neighbours_apart(
    tiny: Callable[..., str], stub: str, slices: int, processes: int
) -> None:
    """Also where the group of 4 divides the rows of each part, whose groups the paper's statistic keeps."""

    def list_lines(minibatch: str, size: int, processes: int) -> list[str]:
        config = tiny(
            "schedule.batch_size = 16", f"train.micro_batch = {size}", f"architectures.PGGAN.minibatch = '{minibatch}'"
        )
        prepared = prepare(config, plugins=[stub])
        return list_warnings(prepared.built.experiment, prepared.schedule().stages, processes)

    parts = slices * processes
    (line,) = list_lines("neighbour_stddev", 16 // parts, processes)
    assert line.startswith(
        "at 4x4, 8x8, 16x16 the discriminator's minibatch stddev of neighbours is computed over other"
    )
    assert f"each of the {parts} parts of a batch takes every {parts}th row" in line
    assert list_lines("stddev", 16 // parts, processes) == list_lines("neighbour_stddev", 16, 1) == []

    # Features (16, 1, 1, 1): the samples of a slice, by the formula, against those of the whole batch.
    x = torch.arange(16.0).square().view(16, 1, 1, 1)
    whole = x.view(4, 4).var(1).add(1e-8).sqrt().repeat_interleave(4)
    torch.testing.assert_close(NeighbourStddev(4)(x)[:, 1].flatten(), whole)
    assert not torch.allclose(NeighbourStddev(4)(x[::parts])[:, 1].flatten(), whole[::parts])


@pytest.mark.parametrize(("penalty", "samples"), [("@penalties.Drift()", 6), ("@penalties.R1()", 3)])
def test_a_joint_batch_is_counted_as_discriminators_see_it(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch, penalty: str, samples: int
) -> None:
    """A penalty that runs D shows it one batch, whatever the update shows it."""
    seen: set[int] = set()
    forward = Discriminator.forward

    def note_samples(self: Discriminator, images: Tensor, *rest: Any, **named: Any) -> Any:
        seen.add(len(images) // count_batches())
        return forward(self, images, *rest, **named)

    monkeypatch.setattr(Discriminator, "forward", note_samples)
    config = tiny(
        *JOINT,
        f"losses.Hinge.penalties = [{penalty}]",
        "schedule.batch_size = 6",
        "train.micro_batch = 3",
        "train.collapse_below = 0",
    )
    prepared = prepare(config, plugins=[stub])
    train(config, plugins=[stub])
    counts = {
        count_samples(prepared.built.experiment, stage, 6, "discriminator") for stage in prepared.schedule().stages
    }
    assert counts == {samples} and seen == {samples, 6}


def test_too_few_samples_to_train_are_refused(rejected: Callable[..., str]) -> None:
    alone = ["schedule.batch_size = {4: 4, 8: 1}", "architectures.PGGAN.discriminator_norm = 'batch'"]
    rejected(
        "at 8x8 discriminator_norm = 'batch' needs at least 2 samples in a call: .*; change schedule.batch_size", *alone
    )
    micro = ["schedule.batch_size = 4", "train.micro_batch = 1", "architectures.PGGAN.discriminator_norm = 'batch'"]
    rejected("at 4x4 discriminator_norm = 'batch' needs at least 2 samples", *micro)


def test_too_few_samples_of_a_penalty_are_refused(rejected: Callable[..., str]) -> None:
    joint = [*JOINT, "schedule.batch_size = 1", "architectures.PGGAN.discriminator_norm = 'batch'"]
    penalty = "losses.Hinge.penalties = [@penalties.GradientPenalty()]"
    rejected("at 4x4 discriminator_norm = 'batch' needs at least 2 samples in a call: ", *joint, penalty)


def test_the_resized_copies_are_shown(
    tiny: Callable[..., str], cli: Cli, stub: str, costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = BuildEstimate({(4, 4): 2**20, (8, 8): 3 * 2**20, (16, 16): 12 * 2**20}, 1800.0)
    asked = []
    monkeypatch.setattr(stage_rows, "estimate_build", lambda *arguments: asked.append(arguments) or estimate)
    config = tiny()
    rows = plan_rows(config, stub)
    assert [row["copies_mib"] for row in rows] == [1, 3, 12]
    assert [row["copies_hours"] for row in rows] == pytest.approx([0.5 / 16, 0.5 * 3 / 16, 0.5 * 12 / 16])
    assert asked[0][2] == [(4, 4), (8, 8), (16, 16)]
    shown = " ".join(cli("plan", config, "--plugin", stub).output.split())
    assert "resized copies of the data: 16 MiB on disk; making them, where they are not there yet, takes 30 m" in shown


def test_the_age_of_the_average_is_shown(tiny: Callable[..., str], cli: Cli, stub: str, costs: None) -> None:
    rows = plan_rows(tiny(), stub)
    assert [row["average_before_stage"] for row in rows] == pytest.approx([0.0, 0.0, 0.0], abs=1e-3)
    # Stages of 8, 8 + 8 and 8 + 8 images.
    kept = "train.averages = [@averages.HalfLife(), @averages.PowerFunction()]"
    slow = ("averages.HalfLife.half_life = {4: 2, 16: 8}", "averages.HalfLife.ramp_up = None")
    config = tiny(kept, *slow, "averages.PowerFunction.snapshots = 4")
    old = "at the end of stage 4x4, 6.2 % of the generator's average half_life is its"
    with pytest.warns(UserWarning, match=old) as caught:
        rows = plan_rows(config, stub)
    assert [row["average_before_stage"] for row in rows] == pytest.approx([2**-4, 2**-8, 2**-2])
    assert [row["average_before_fade_end"] for row in rows] == [None, pytest.approx(2**-4), pytest.approx(2**-1)]
    messages = [str(warning.message) for warning in caught if "half_life stems" in str(warning.message)]
    assert len(messages) == 1 and "at the end of stage 16x16, 25 % of" in messages[0]
    # The power function of age that covers the last 16 of 40 images, of the width 0.1.
    shares = [row["averages_before_stage"]["power_0.1"] for row in rows]
    assert shares == pytest.approx([0.0, (8 / 24) ** 7.94, (24 / 40) ** 7.94], rel=1e-2)
    # Kept every 10 images: once at 8x8, and twice of four at 16x16.
    mib = [2 * row["generator_parameters"] * 4 / 2**20 for row in rows]
    assert [row["snapshots_mib"] for row in rows] == pytest.approx([0.0, 2 * mib[1], 2 * mib[2]])
    result = cli("plan", config, "--plugin", stub)
    assert (
        "half_life, at the stage's end, from before the stage: 6.2 % at 4x4, 0.4 % at 8x8, 25 % at 16x16"
        in " ".join(result.stdout.split())
    )
    assert "snapshots of averages for other widths: " in result.stdout
    assert (
        result.stderr.count("warning: at the end of stage") == 2
        and "averages.HalfLife.half_life = 1 (" in result.stderr
    )


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("train.keep = 10",),
        ("train.keep = 3", "train.checkpoint_every = 'phase'"),
        ("train.keep_stages = 'average'", "train.switch = @switches.Hard()"),
        ("train.keep_stages = 'nothing'", "train.keep = 1", "train.tick = 4", "train.checkpoint_every = 12"),
        ("schedule.stable_images = {4: 0, 8: 16}", "train.tick = 4"),
    ],
)
def test_the_checkpoints_of_a_plan_are_those_of_the_run(
    lines: tuple[str, ...], train: Callable[..., Any], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is counted in the run, and what is left is what its folder holds."""
    written: Counter[tuple[int, bool]] = Counter()
    save = Checkpoints.save

    def count_and_save(checkpoints: Checkpoints, snapshot: Any, *options: Any, **named: Any) -> Path:
        written[len(snapshot.starts) - 1, snapshot.holds == "state"] += 1
        return save(checkpoints, snapshot, *options, **named)

    monkeypatch.setattr(Checkpoints, "save", count_and_save)
    run = train(*lines)
    prepared = prepare("tiny.gin", plugins=[stub])
    schedule = prepared.schedule()
    ticks = list_ticks_by_stage(schedule, prepared.built.experiment.tick)
    fading = {stage.index for stage in schedule.stages if has_fade(prepared, schedule, stage)}
    counts = count_checkpoints(prepared.built.experiment, ticks, fading)
    assert [count.written for count in counts] == [written[stage.index, True] for stage in schedule.stages]
    assert [count.parts for count in counts] == [written[stage.index, False] for stage in schedule.stages]

    left: Counter[int] = Counter()
    for entry in run.checkpoints.read_entries():
        if entry.holds == "state":
            left[len(run.checkpoints.load(entry).starts) - 1] += 1
    assert [count.left for count in counts] == [left[stage.index] for stage in schedule.stages]


@pytest.mark.parametrize("keep", [1, 2, 20])
def test_no_more_is_kept_than_written(tiny: Callable[..., str], stub: str, costs: None, keep: int) -> None:
    for every in ("'phase'", "1"):
        for row in plan_rows(tiny(f"train.keep = {keep}", f"train.checkpoint_every = {every}"), stub):
            assert 0 < row["kept_mib"] <= row["written_mib"] or (keep, row["kept_mib"]) == (1, 0)


class Slow:
    """An observer that takes 30 ms where it is due, and 10 ms at other ticks."""

    def __init__(self, every: int | str = 16) -> None:
        self.every = every
        self.is_open = False

    @hookimpl
    def before_run(self, run: Any) -> None:
        assert run.directory.is_dir()
        self.is_open = True

    @hookimpl
    def after_tick(self, stats: Any, tick: Any) -> None:
        assert self.is_open and all(isinstance(value, float) for value in stats.values())
        assert stats.keys() >= {"Loss/discriminator/hinge"}
        time.sleep(0.03 if tick.is_due(self.every) else 0.01)

    @hookimpl
    def after_run(self) -> None:
        self.is_open = False

    def estimate_bytes(self, ticks: Any) -> tuple[int, int]:
        return 0, 0


class Shown:
    """An observer that may show something elsewhere than in the run's folder."""

    @hookimpl
    def before_run(self) -> None:
        raise AssertionError("it is not called")


@pytest.mark.usefixtures("no_memory_count", "no_fake_tensors")
def test_the_time_of_observers_is_measured_where_they_write_files_alone(
    tiny: Callable[..., str], cli: Cli, stub: str
) -> None:
    observers = [Slow(), Shown()]
    components = [Component("observers", type(each).__name__, lambda each=each: each) for each in observers]
    lines = ("schedule.sizes = (4, 8)", "schedule.stable_images = 48", "train.collapse_below = 0")
    shipped = "@observers.TensorBoard(), @observers.Samples(), @observers.Growth(), @observers.Progress()"
    config = tiny(*lines, f"train.observers = [@observers.Slow(), @observers.Shown(), {shipped}]")
    with pytest.warns(UserWarning, match=r"of the time is spent outside updates \(.*Slow .*observers\.Slow\.every"):
        rows = planning.plan(config, plugins=[stub, *components])
    assert not observers[0].is_open
    files = {"checkpoints", "TensorBoard", "Samples", "Growth"}
    # Ticks at 8, 16, ..., 48 and, until the fade ends, at 56; then until 104.
    for row, due, idle in zip(rows, (3, 4), (3, 3), strict=True):
        assert row["outside"].keys() == {*files, "diversity", "metrics", "Slow"}
        assert row["outside"]["Slow"] * row["hours"] * 3600 >= due * 0.03 + idle * 0.01
        assert all(row["outside"][name] > 0 for name in files)
        assert row["outside_share"] == pytest.approx(sum(row["outside"].values()))
        assert row["unmeasured"] == ["Shown", "Progress"]
    assert not Path("runs").exists()
    caption = " ".join(str(build_table(rows).caption).split())
    assert "outside updates: " in caption and "; not measured: Shown, Progress" in caption


def test_metrics_are_a_part_of_the_time(
    tiny: Callable[..., str], stub: str, costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing fakes takes longer where the networks have more to do, and describing them does not."""
    monkeypatch.setattr(planning, "measure_evaluation", lambda *arguments: EvaluationTime(1.0, 2.0))
    config = tiny("evaluation.every = 'phase'")
    work = [row["gflops"] for row in planning.plan(config, plugins=[stub], with_metrics=False)]
    monkeypatch.setattr(planning, "MEASURING_SECONDS", 4 * (work[0] + work[1]) * 1.01)
    for counted in (True, False):
        rows = planning.plan(config, plugins=[stub], with_metrics=counted)
        seconds = [row["outside"]["metrics"] * row["hours"] * 3600 for row in rows]
        assert seconds == pytest.approx([3.0 * counted, 6.0 * counted, 2 * (work[2] / work[1] + 2.0) * counted])
