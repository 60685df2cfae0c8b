"""Test `pggan-kit bench`: what it measures, counts, compares and refuses."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from helpers.full_memory import limit_rows

from pggan_kit import Component, hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking import breakdown, ceiling, tables, timing
from pggan_kit.benchmarking import flops as counting
from pggan_kit.benchmarking.bench import bench, measure_matrix_products
from pggan_kit.benchmarking.breakdown import PIECES, measure_loop_overhead, measure_shares
from pggan_kit.benchmarking.contenders import Foreign, load_foreign, load_variants, parse_variant
from pggan_kit.benchmarking.rig import Rig, has_fade
from pggan_kit.training.step import UpdateContext

benching = importlib.import_module("pggan_kit.benchmarking.bench")  # the package has a function of this name
casing = importlib.import_module("pggan_kit.benchmarking.cases")

Cli = Callable[..., Result]
Refused = Callable[[Result, str], str]

CONTENDER = """\
import torch

def make(size, alpha, width, batch, colours):
    assert width == {s: 4 for s in (4, 8, 16) if s <= size} and batch == 4 and colours == 1
    assert alpha in (None, 0.5)
    weight = torch.zeros(7)
    return (lambda: torch.ones(64, 64) @ torch.ones(64, 64)), [weight], [weight, weight]
"""

SQUARE = ("train.latent_size = 4",)
"""As many latents as maps at the base, as contenders have them."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, no_fake_tensors: None) -> None:
    """Run one iteration a turn, multiply small matrices, and take bfloat16 for native."""
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(casing, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(ceiling, "SIDE", {"cpu": 64})
    monkeypatch.setattr(ceiling, "computes_bfloat16", lambda device: True)


@pytest.fixture
def contender(tmp_path: Path) -> str:
    (tmp_path / "theirs.py").write_text(CONTENDER)
    return "theirs.py:make"


@pytest.fixture
def rig(tiny: Callable[..., str], stub: str) -> Callable[..., Rig]:
    """Return a function that builds a tiny rig: `rig("binding", ..., index=1, fading=True)`."""

    def build(*lines: str, index: int = 0, fading: bool = False) -> Rig:
        prepared = prepare(tiny(*lines), plugins=[stub])
        return Rig(prepared, prepared.schedule(), index, fading)

    return build


@pytest.mark.usefixtures("quick")
def test_it_measures_each_stage_and_phase_of_each_contender(
    tiny: Callable[..., str], cli: Cli, stub: str, contender: str, tmp_path: Path
) -> None:
    variant = "hinge=train.seed = 3; train.precision = 'bfloat16'"
    options = ("--against", contender, "--variant", variant, "--stages", "8x8,0", "--json", "report.json")
    result = cli("bench", tiny("losses.Hinge.penalties = [@penalties.R1()]", *SQUARE), "--plugin", stub, *options)
    assert result.exit_code == 0, result.output
    assert "8x8" in result.stdout and "theirs" in result.stdout
    rows = json.loads(Path("report.json").read_text())["rows"]
    cases = [("4x4", "steady"), ("8x8", "steady"), ("8x8", "fading")]
    assert [(row["size"], row["phase"], row["contender"]) for row in rows] == [
        (*case, name) for case in cases for name in ("tiny", "hinge", "theirs")
    ]
    for row in rows:
        assert 0 < row["p10"] <= row["images_per_second"] <= row["p90"]
        assert 0 < row["ratio_p10"] <= row["ratio"] <= row["ratio_p90"]
        assert row["first_call_seconds"] >= 0
        assert row["peak_memory_mib"] > 10
        if row["contender"] == "theirs":
            assert row["ratio"] == 1.0 and row["parameters"] == 21
        else:
            assert row["ratio"] < 1  # it does next to nothing
            assert list(row["shares"]) == list(PIECES)
            assert sum(row["shares"].values()) == pytest.approx(1.0)
            assert row["gflops_per_image"] > 0
            assert set(row["alone_images_per_second"]) == {"float32", "bfloat16"}
            own = row["alone_images_per_second"]["bfloat16" if row["contender"] == "hinge" else "float32"]
            assert row["of_ceiling"] == pytest.approx(row["images_per_second"] / own)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("quick")
def test_where_memory_ends_the_others_are_measured(
    tiny: Callable[..., str], cli: Cli, stub: str, contender: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(4, 8, monkeypatch)  # D sees reals and fakes at once
    options = ("--against", contender, "--variant", "slices=train.micro_batch = 2", "--stages", "8x8")
    result = cli("bench", tiny(*SQUARE), "--plugin", stub, *options, "--json", "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads(Path("report.json").read_text())
    # Who reads it later has nothing but the file.
    assert {"date", "revision", "command", "configuration", "machine"} <= set(report)
    assert "train.architecture = " in report["configuration"]["tiny"]
    assert all(row["out_of_memory"] and "traceback" not in row for row in report["failures"])
    full = [("tiny", "8x8", phase, 4) for phase in ("steady", "fading")]
    assert [(row["contender"], row["size"], row["phase"], row["batch"]) for row in report["failures"]] == full
    assert [row["contender"] for row in report["rows"]] == ["slices", "theirs"] * 2
    assert "memory ends for tiny at 8x8 (steady) with a batch of 4" in " ".join(result.stdout.split())


@pytest.mark.usefixtures("quick")
def test_a_hard_switch_has_no_fade_to_measure(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    config = tiny("train.switch = @switches.Hard()")
    result = cli("bench", "--stages", "1", config, "--plugin", stub)
    assert result.exit_code == 0, result.output
    assert "steady" in result.stdout and "fading" not in result.stdout


def test_its_help_shows_the_options_of_a_measurement_and_the_comparison(cli: Cli) -> None:
    text = cli("bench", "--help").stdout
    assert "bench CONFIG [OPTIONS]" in text
    assert "--stages SIZES" in text and "--rounds" in text and "compare" in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=x=1; y = 2 ;", ("x=1", "y = 2")),
        ("a=x='1;2'; y=\"a';b\"", ("x='1;2'", 'y="a\';b"')),
        (r"a=x='it\'s; so'", (r"x='it\'s; so'",)),
        ("a=x='1", ("x='1",)),
    ],
)
def test_bindings_of_a_variant_end_at_semicolons_outside_of_quotes(text: str, wanted: tuple[str, ...]) -> None:
    assert parse_variant(text) == ("a", wanted)


def test_a_contender_may_have_neighbours_and_data_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_contender.py").write_text("WIDTH = 7\n")
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport beside_contender\n"
        "@dataclass\nclass Net:\n    width: int = beside_contender.WIDTH\n"
        "def make(size, alpha, width, batch, colours):\n    return Net().width\n"
    )
    foreign = load_foreign(f"{tmp_path / 'mine.py'}:make")
    assert foreign.make(size=4, alpha=None, width={}, batch=1, colours=1) == 7


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the machine or an iteration is measured."""

    def refuse(*args: Any) -> float:
        raise AssertionError("this must be refused before anything is measured")

    monkeypatch.setattr(ceiling, "measure_matrix_product", refuse)
    monkeypatch.setattr(Rig, "step", refuse)


@pytest.mark.usefixtures("nothing_measured")
def test_wrong_options_are_refused(tiny: Callable[..., str], cli: Cli, stub: str, refused: Refused) -> None:
    Path("broken.py").write_text("1 / 0")
    Path("leaves.py").write_text("raise SystemExit(3)")
    Path("other.py").write_text("def make(size): ...\nnumber = 1\n")
    config = tiny(*SQUARE)
    for options, pattern in (
        (["--stages", "8x8,9"], r"--stages 9: there is no such stage; the stages are 4x4, 8x8, 16x16"),
        (["--phases", "fade"], "--phases fade: there is no such phase; the phases are steady and fading"),
        (["--phases", "fading", "--stages", "0"], "--phases fading: none of the chosen stages fades"),
        (["--rounds", "5"], "--rounds must be at least 6, and is 5"),
        (["--json", "no/such.json"], r"--json no/such\.json: there is no folder no"),
        (["--against", "other.py"], r"--against 'other\.py': write FILE\.py:FUNCTION"),
        (["--against", "none.py:make"], r"--against: there is no file none\.py"),
        (["--against", "broken.py:make"], r"broken\.py cannot be loaded: ZeroDivisionError"),
        (["--against", "leaves.py:make"], r"leaves\.py cannot be loaded: SystemExit"),
        (["--against", "other.py:number"], "has no function number"),
        (["--against", "other.py:make"], "make must take size, alpha, width, batch, colours"),
        (["--variant", "x"], r"--variant 'x': write NAME=BINDING\[;BINDING\]"),
        (["--variant", "x= ;"], "--variant 'x= ;': write NAME"),
        (["--variant", "x=train.seed=1", "--variant", "x=train.seed=2"], "two have the same name"),
        (["--variant", "tiny=train.seed=1"], "contenders need different names, and these are tiny, tiny"),
        (["--variant", "x=schedule.batch_size=8"], "--variant x: it must have the stages, batch sizes and colours"),
        (["--variant", "x=train.tf32=True"], "--variant x: train.tf32 is one for all"),
        (["--variant", "x=train.sed=1"], "train has no parameter sed"),
    ):
        refused(cli("bench", config, "--plugin", stub, *options), pattern)
    refused(cli("bench", "none.gin"), r"none\.gin")


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("as many latents as maps at the base, and train.latent_size is 8, not 4", []),
        ("needs square images that double in size", ["schedule.sizes = (4, 12)", *SQUARE]),
        ("needs square images that double in size", ["schedule.sizes = ((4, 8), (8, 16))", *SQUARE]),
    ],
)
def test_an_experiment_must_fit_contenders(
    pattern: str,
    lines: list[str],
    tiny: Callable[..., str],
    cli: Cli,
    stub: str,
    contender: str,
    nothing_measured: None,
) -> None:
    result = cli("bench", tiny(*lines), "--plugin", stub, "--against", contender, "--stages", "1")
    assert result.exit_code == 2
    assert pattern in result.stderr and "Traceback" not in result.stderr


@pytest.mark.usefixtures("nothing_measured")
def test_a_missing_compiler_is_refused_before_anything_is_measured(
    tiny: Callable[..., str], cli: Cli, stub: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = cli("bench", tiny(), "--plugin", stub, "--variant", "x=train.compile='always'")
    refused(result, r"train\.compile = 'always' is not possible here: .*no-such-compiler")


@pytest.mark.usefixtures("quick")
def test_a_type_that_is_not_native_is_not_measured(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor emulates it a thousand times slower: the report says that it was left out."""
    monkeypatch.setattr(ceiling, "computes_bfloat16", lambda device: False)
    measured: list[torch.dtype] = []
    measure = ceiling.measure_alone

    def note_type(calls: Any, dtype: torch.dtype, device: torch.device, known: Any) -> float | None:
        measured.append(dtype)
        return measure(calls, dtype, device, known)

    monkeypatch.setattr(ceiling, "measure_alone", note_type)
    lines: list[str] = []
    variants = {"low": ["train.precision = 'bfloat16'"]}
    report = bench(tiny(), plugins=[stub], stages=["0"], others=variants, progress=lines.append)

    assert set(measured) == {torch.float32}
    assert set(report["machine"]["matrix_product"]) == {"float32"}
    full, low = report["rows"]
    assert set(full["alone_images_per_second"]) == set(low["alone_images_per_second"]) == {"float32"}
    assert full["of_ceiling"] > 0
    assert "of_ceiling" not in low
    assert low["notes"] == ["no ceiling in bfloat16, in which this computes: the device does not do so natively"]
    assert "the machine: bfloat16 is not measured, as this device does not compute natively in it" in lines
    assert "bfloat16 is not native here, and not measured" in tables.describe_measured_machine(report)


@pytest.mark.usefixtures("quick")
def test_each_step_is_announced(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    result = cli("bench", tiny(), "--plugin", stub, "--stages", "1")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert lines[0] == "the machine: a large matrix product in float32"
    for case in ("8x8 steady (1 of 2)", "8x8 fading (2 of 2)"):
        steps = [line.removeprefix(f"{case}: ") for line in lines if line.startswith(f"{case}: ")]
        assert steps == [
            "first iteration of tiny",
            "6 rounds of iterations",
            "convolutions and matrix products of tiny alone",
            "where the time of tiny goes",
        ]


def test_a_matrix_product_grows_only_as_far_as_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def take_long(work: Any, device: torch.device, repeats: int = 1) -> float:
        sides.append(len(work.args[0]))
        return ceiling.PROBE_SECONDS * (sides[-1] / 1024) ** 3

    monkeypatch.setattr(ceiling, "time_calls", take_long)
    gflops = ceiling.measure_matrix_product(torch.float32, torch.device("cpu"))
    # Sides of 256 take a 64th of the time that there is, once: 512, four times, take half of it; 1024 take too long.
    assert list(dict.fromkeys(sides)) == [256, 512]
    assert gflops == pytest.approx(2 * 1024**3 / ceiling.PROBE_SECONDS / 1e9)


@pytest.mark.parametrize(("least", "side"), [(1024, 512), (512, 256), (256, None)])
def test_a_matrix_product_grows_only_as_far_as_there_is_memory(
    least: int, side: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(rows: int, columns: int, device: torch.device) -> torch.Tensor:
        if rows >= least:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(rows, columns)

    monkeypatch.setattr(torch, "randn", draw)
    monkeypatch.setattr(ceiling, "time_calls", lambda work, device, repeats=1: repeats * len(work.args[0]) / 1e5)
    lines: list[str] = []
    products = measure_matrix_products(torch.device("cpu"), lines.append)
    if side is None:
        assert products == {}
        machine = {"device": "a card", "threads": 1, "torch": "2.13", "native_bfloat16": True}
        text = tables.describe_measured_machine({"machine": machine | {"matrix_product": products}})
        assert "no memory to measure one" in text
        assert "the machine: float32 is not measured, as there is no memory left" in lines
    else:
        assert products["float32"] == pytest.approx(2 * side**2 * 1e5 / 1e9)


def test_operations_alone_are_measured_within_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {counting.Call(lambda number: None, (number,), 1, torch.float32): 1.0 for number in range(3)}
    assert ceiling.measure_alone(calls, torch.float32, torch.device("cpu")) is not None
    monkeypatch.setattr(ceiling, "PROBE_SECONDS", 0.0)
    assert ceiling.measure_alone(calls, torch.float32, torch.device("cpu")) is None


def test_a_slow_call_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []

    def take(work: Any, device: torch.device) -> float:
        taken.append(ceiling.PROBE_SECONDS)
        return ceiling.PROBE_SECONDS

    monkeypatch.setattr(ceiling, "time_calls", take)
    call = counting.Call(lambda: None, (), 1, torch.float32)
    assert ceiling.measure_alone({call: 2.0}, torch.float32, torch.device("cpu")) == 2 * ceiling.PROBE_SECONDS
    assert len(taken) == 1


def test_short_calls_are_timed_in_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pair of events wait 20 microseconds around calls of 5: alone, a call seems to take 25."""
    bursts: list[int] = []

    def time_with_gap(work: Any, device: torch.device, repeats: int = 1) -> float:
        bursts.append(repeats)
        return (20e-6 + repeats * 5e-6) / repeats

    monkeypatch.setattr(ceiling, "time_calls", time_with_gap)
    call = counting.Call(lambda: None, (), 1, torch.float32)
    measured = ceiling.measure_alone({call: 1.0}, torch.float32, torch.device("cpu"))
    assert measured == pytest.approx(5e-6, rel=0.06)
    assert bursts == [1, 1, 80, 80, 80]  # 2 ms, as far as a single call tells


def test_memory_of_a_contender_is_its_own(tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a GPU hold 300 MiB of the others, of 500 at the peak."""
    monkeypatch.setattr(casing, "read_allocated_mib", lambda device: 300.0)
    monkeypatch.setattr(casing, "peak_mib", lambda device: 500.0)
    (variant,) = load_variants(tiny(), [], [stub], {})
    device = torch.device("cpu")
    contender = casing.build_own_contender(variant, variant.schedule.stages[0], False, device)
    foreign = Foreign("theirs", lambda **arguments: (lambda: None, [], []))
    monkeypatch.setattr(variant.prepared.built.experiment, "latent_size", 4)
    theirs = casing.build_foreign_contender(foreign, variant, variant.schedule.stages[0], False, device)
    assert (contender.peak_mib, theirs.peak_mib) == (200.0, 200.0)


def test_operations_are_counted_through_a_second_backward_pass() -> None:
    n, channels, outputs, size = 2, 3, 5, 8
    once = 2 * n * outputs * channels * 9 * size * size
    x = torch.randn(n, channels, size, size, requires_grad=True)
    weight = torch.randn(outputs, channels, 3, 3, requires_grad=True)
    with counting.Operations() as operations:
        y = F.conv2d(x, weight, padding=1)
        assert counting.sum_flops(operations.calls) == once
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        assert counting.sum_flops(operations.calls) == 2 * once
        gradient.square().sum().backward()
    # The gradient of x is a convolution of (y, weight): twice as much again. y's own gradient is one of (x, weight).
    assert counting.sum_flops(operations.calls) == 6 * once


@pytest.mark.parametrize("transposed", [False, True])
def test_a_grouped_convolution_counts_as_much_for_each_gradient_as_forward(transposed: bool) -> None:
    """Count multiplications: 4 groups of 3 inputs and 5 outputs, 9 weights, on 6x6 pixels of 2 samples."""
    once = 2 * 4 * 3 * 5 * 9 * 6 * 6 * 2
    x = torch.randn(2, 12, 6, 6, requires_grad=True)
    sizes = (12, 5, 3, 3) if transposed else (20, 3, 3, 3)
    weight = torch.randn(sizes, requires_grad=True)
    convolve = F.conv_transpose2d if transposed else F.conv2d
    with counting.Operations() as forward:
        y = convolve(x, weight, padding=1, groups=4)
    assert y.shape == (2, 20, 6, 6) and counting.sum_flops(forward.calls) == once
    for inputs in ((x,), (weight,), (x, weight)):
        with counting.Operations() as backward:
            torch.autograd.grad(y.sum(), inputs, retain_graph=True)
        assert counting.sum_flops(backward.calls) == len(inputs) * once


def test_bytes_and_operators_are_counted_where_something_is_computed() -> None:
    with counting.Operations() as operations:
        x = torch.ones(4, 8)  # written
        y = x.view(8, 4).t()
        row = torch.empty(8).expand(4, 8)
        z = x * row  # both read, and the product written: the row has 8 elements in memory
        z.add_(1)  # read and written
        x @ x.t()  # a call of its own
    assert x.device == y.device == z.device
    assert operations.operators == 4
    assert operations.other_bytes == 4 * (32 + (32 + 8 + 32) + 2 * 32)
    assert sum(operations.calls.values()) == 1


@pytest.mark.parametrize("fading", [False, True])
def test_fake_tensors_count_what_real_ones_do(rig: Callable[..., Rig], fading: bool) -> None:
    lines = ("losses.Hinge.penalties = [@penalties.R1()]", "penalties.R1.every = 2")
    fake = counting.count_mean_calls(lambda: rig(*lines, index=2, fading=fading))
    real: dict[counting.Call, float] = {}
    for share, update in ((0.5, 0), (0.5, 1)):
        with counting.Operations() as operations:
            rig(*lines, index=2, fading=fading).step(update)
        for call, count in operations.calls.items():
            real[call] = real.get(call, 0) + share * count
    assert counting.sum_flops(fake.calls) == pytest.approx(counting.sum_flops(real))
    assert fake.calls == pytest.approx(real)


def test_what_a_penalty_remembers_of_fake_tensors_is_forgotten(rig: Callable[..., Rig]) -> None:
    """Let a penalty keep a mean: a fake one would make all that is measured after it fake, and fast."""
    lines = ("train.generator_penalties = [@generator_penalties.PathLength()]",)
    measured = rig(*lines)
    measured.step()
    (penalty,) = measured.experiment.generator_penalties
    before = dict(vars(penalty))
    assert any(isinstance(value, torch.Tensor) for value in before.values())
    counting.count_mean_calls(lambda: measured)
    assert vars(penalty) == before


def test_counting_uses_real_tensors_where_fake_ones_fail(rig: Callable[..., Rig]) -> None:
    def make_rig_that_reads_values() -> Rig:
        one = rig()
        loss = one.experiment.loss
        compute_terms = type(loss).generator

        def read_scores(*scores: Any) -> dict[str, torch.Tensor]:
            factor = float(scores[0].score.mean().item() > -9)
            return {"x": compute_terms(loss, *scores)["hinge"] * factor}

        loss.generator = read_scores
        return one

    real = counting.count_mean_calls(make_rig_that_reads_values)
    fake = counting.count_mean_calls(rig)
    assert counting.sum_flops(real.calls) == counting.sum_flops(fake.calls)


@pytest.mark.parametrize(("every", "critics"), [(1, 1), (4, 1), (3, 2), (4, 2), (2, 3)])
def test_lazy_penalties_make_kinds_of_iterations(rig: Callable[..., Rig], every: int, critics: int) -> None:
    lines = ("losses.Hinge.penalties = [@penalties.R1(), @penalties.Drift()]", f"penalties.R1.every = {every}")
    one = rig(*lines, f"updates.Alternating.n_critic = {critics}")
    seen: list[int] = []

    class Noting(UpdateContext):
        def due(self, penalties: Any) -> Any:
            seen.append(len(super().due(penalties)))
            return ()

    def due(update: int) -> tuple[int, ...]:
        seen.clear()
        one.set_clock(update)
        one.experiment.update.step(Noting(one.experiment, one.state, one.stage, one.sampler, {}))
        return tuple(seen)

    one.step()
    kinds = {due(update): share for share, update in one.list_kinds()}
    iterations = [due(critics * iteration) for iteration in range(every)]
    assert len(kinds) == len(one.list_kinds())
    assert kinds == pytest.approx({each: iterations.count(each) / every for each in iterations})


def test_intervals_with_a_long_common_period_make_kinds_too(rig: Callable[..., Rig]) -> None:
    """Two million iterations pass before both penalties are due in one again."""
    lines = ("losses.Hinge.penalties = [@penalties.R1(), @penalties.Drift()]", "penalties.R1.every = 2_000_001")
    one = rig(*lines, "penalties.Drift.every = 4")
    one.step()
    shares = {update: share for share, update in one.list_kinds()}
    assert sorted(shares) == [0, 1, 4]
    assert [shares[update] for update in (0, 1, 4)] == pytest.approx([1e-4, 0.75, 0.2499])


@pytest.mark.parametrize(("every", "own", "critics"), [(1, 2, 1), (4, 3, 1), (4, 2, 2), (3, 4, 2)])
def test_lazy_generator_penalties_make_kinds_too(rig: Callable[..., Rig], every: int, own: int, critics: int) -> None:
    """They are due by updates of G, of which an iteration has one."""
    lines = ("losses.Hinge.penalties = [@penalties.R1()]", f"penalties.R1.every = {every}")
    penalty = ("train.generator_penalties = [@generator_penalties.ModeSeeking()]",
               f"generator_penalties.ModeSeeking.every = {own}")  # fmt: skip
    one = rig(*lines, *penalty, f"updates.Alternating.n_critic = {critics}")
    one.step()
    kinds = {}
    for share, update in one.list_kinds():
        one.step(update)
        due = ["Loss/discriminator/R1" in one.losses, "Loss/generator/ModeSeeking" in one.losses]
        counted = 0 if not due[0] else one.losses["Loss/discriminator/R1"].numel()
        kinds[counted, due[1], update] = share
    assert sum(kinds.values()) == pytest.approx(1)
    assert sum(share for (_, due, _), share in kinds.items() if due) == pytest.approx(1 / own)
    assert sum(share * count for (count, _, _), share in kinds.items()) == pytest.approx(critics / every)


def test_a_rig_is_in_the_middle_of_its_fade(rig: Callable[..., Rig]) -> None:
    soft = rig(index=1, fading=True)
    assert {path: float(alpha) for path, alpha in soft.alphas.items()} == dict.fromkeys(
        ("generator", "discriminator", "reals"), 0.5
    )
    assert soft.state.generator.bridge is not None and soft.state.discriminator.bridge is not None
    first = rig("train.switch = @switches.GeneratorFirst()", index=1, fading=True)
    assert first.alphas["discriminator"] == 0 and "generator" not in first.alphas
    steady = rig(index=2)
    assert steady.alphas == {} and not steady.state.fading and steady.state.stage.height == 16
    before = [p.clone() for p in steady.state.ema.parameters()]
    steady.step()
    assert steady.batch == 4
    assert not all(torch.equal(p, old) for p, old in zip(steady.state.ema.parameters(), before, strict=True))


def test_only_soft_switches_have_a_fade(tiny: Callable[..., str], stub: str) -> None:
    for switch, expected in (
        ("Linear", [False, True, True]),
        ("Hard", [False] * 3),
        ("GeneratorFirst", [False, True, True]),
    ):
        prepared = prepare(tiny(f"train.switch = @switches.{switch}()"), plugins=[stub])
        schedule = prepared.schedule()
        assert [has_fade(prepared, schedule, stage) for stage in schedule.stages] == expected


class ByTheClock:
    """A switch that reads the clock: alpha is 1 before the second stage, then 0, and 0.25 from mid-fade on.

    In the tiny experiment the second stage begins at 8 images, and its fade takes 8.
    """

    @hookimpl
    def fade_alpha(self, images: int) -> float:
        if images < 8:
            return 1.0
        return 0.25 if images >= 12 else 0.0


def test_a_switch_is_asked_by_the_clock(tiny: Callable[..., str], stub: str) -> None:
    config = tiny("train.switch = @switches.ByTheClock()")
    prepared = prepare(config, plugins=[stub, Component("switches", "ByTheClock", ByTheClock)])
    schedule = prepared.schedule()
    assert [has_fade(prepared, schedule, stage) for stage in schedule.stages] == [False, True, True]

    middle = Rig(prepared, schedule, 1, fading=True)
    assert middle.state.generator.bridge is not None and middle.state.discriminator.bridge is not None
    paths = ("generator", "discriminator", "reals")
    assert {path: float(alpha) for path, alpha in middle.alphas.items()} == dict.fromkeys(paths, 0.25)


def test_alpha_around_a_step_is_asked_by_the_clock(tiny: Callable[..., str], stub: str) -> None:
    asked: list[tuple[float, int]] = []

    class Noted:
        @hookimpl
        def fade_alpha(self, progress: float, images: int) -> float:
            asked.append((progress, images))
            return progress

    config = tiny("train.switch = @switches.Noted()")
    prepared = prepare(config, plugins=[stub, Component("switches", "Noted", Noted)])
    middle = Rig(prepared, prepared.schedule(), 1, fading=True)
    middle.step(1)
    asked.clear()
    measure_loop_overhead(middle)
    assert set(asked) == {(0.5, 12)}


def test_shares_sum_to_one(rig: Callable[..., Rig]) -> None:
    plain = rig()
    penalised = rig("losses.Hinge.penalties = [@penalties.R1()]")
    for one in (plain, penalised):
        one.step()
        shares = measure_shares(one)
        assert sum(shares.values()) == pytest.approx(1.0)
        assert all(0 <= share < 1 for share in shares.values())
        assert min(shares[piece] for piece in PIECES if piece != "penalty") > 0
    assert "step" not in vars(plain.state.optimizers["generator"])


def test_a_penalty_s_share_is_what_an_update_of_D_takes_longer_with_it(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure_pieces(rig: Rig, update: int, penalised: bool) -> dict[str, float]:
        pieces = dict.fromkeys(PIECES, 1.0)
        pieces["discriminator"] = 3.0 if penalised else 1.0
        pieces["penalty"] = 0.0
        pieces["hooks"] = 0.0
        return pieces

    monkeypatch.setattr(breakdown, "_measure_pieces", measure_pieces)
    monkeypatch.setattr(breakdown, "measure_loop_overhead", lambda rig: 2.0)
    one = rig()
    one.step()
    eighths = {"data": 1, "discriminator": 1, "penalty": 2, "generator": 1, "optimizer": 1, "hooks": 2}
    assert measure_shares(one) == pytest.approx({piece: count / 8 for piece, count in eighths.items()})


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    cost = {"a": 1.0, "b": 0.05, "b lazy": 0.25}

    def run_and_charge(work: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
        for _ in range(repeats):
            work()
        return cost[order[-1]]

    monkeypatch.setattr(timing, "time_calls", run_and_charge)
    work = {name: (lambda name=name: order.append(name)) for name in cost}
    turns = timing.Turns(
        {"a": [(1.0, work["a"])], "b": [(0.75, work["b"]), (0.25, work["b lazy"])]}, torch.device("cpu"), 6
    )
    # Two warm-ups; then what takes less than 0.2 s is repeated, and every second round the other begins.
    assert order[:6] == ["a", "a", "b", "b lazy", "b", "b lazy"]
    a = ["a"]
    b = ["b"] * 4 + ["b lazy"]
    assert order[6:] == 3 * (a + b + b + a)
    assert turns.first == {"a": 1.0, "b": pytest.approx(0.3)}
    assert turns.rounds["b"] == pytest.approx([0.75 * 0.05 + 0.25 * 0.25] * 6)
    assert turns.compute_ratios("b", "a") == pytest.approx([10.0] * 6)


def test_spread() -> None:
    values = np.random.default_rng(0).random(7).tolist()
    assert timing.compute_spread(values) == pytest.approx(np.quantile(values, [0.5, 0.1, 0.9]))


def test_the_ceiling_is_what_the_operations_take_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    like = counting.Like((2, 3), (3, 1), torch.float32), counting.Like((3, 4), (0, 1), torch.float32)
    product = counting.Call(lambda a, b: ran.append((a.dtype, a.shape, b.stride())), like, 48, torch.float32)
    tiny = counting.Call(lambda a, b: None, like, 7, torch.bfloat16)
    monkeypatch.setattr(ceiling, "time_calls", lambda work, device, repeats=1: work() or 0.5)
    assert ceiling.measure_alone({product: 2.5, tiny: 2.0}, torch.bfloat16, torch.device("cpu")) == 0.5 * 4.5
    assert ran[0] == (torch.bfloat16, (2, 3), (0, 1))
    assert ceiling.find_main_dtype({product: 1.0, tiny: 2.0}) == torch.float32
    assert ceiling.find_main_dtype({product: 1.0, tiny: 9.0}) == torch.bfloat16


def write_report(path: str, **ratios: float | None) -> str:
    """Write a report with one contender, at 100 and 200 images/s, and a ratio where one is given; return its path."""
    rows = [
        {"contender": "mine", "size": size[1:], "phase": "steady", "images_per_second": rate}
        | ({} if ratio is None else {"ratio": ratio})
        for (size, ratio), rate in zip(ratios.items(), (100.0, 200.0), strict=False)
    ]
    Path(path).write_text(json.dumps({"format": 1, "rows": rows}))
    return path


def test_compare_fails_on_a_slower_stage(cli: Cli) -> None:
    before = write_report("before.json", _4x4=1.2, _8x8=2.0)
    better = cli("bench", "compare", before, write_report("after.json", _4x4=1.19, _8x8=2.5))
    assert better.exit_code == 0 and "mine at 8x8 (steady): ratio 2 -> 2.5 (+25.0%)" in better.stdout
    worse = cli("bench", "compare", before, write_report("after.json", _4x4=1.2, _8x8=1.8))
    assert worse.exit_code == 1
    assert [line for line in worse.stdout.splitlines() if line.startswith("slower")] == [
        "slower: mine at 8x8 (steady): ratio 2 -> 1.8 (-10.0%)"
    ]
    assert cli("bench", "compare", before, "after.json", "--threshold", "0.11").exit_code == 0
    # Without a yardstick in both, images per second are compared.
    swapped = cli("bench", "compare", before, write_report("after.json", _8x8=None, _4x4=None))
    assert swapped.exit_code == 1 and "8x8 (steady): images per second 200 -> 100 (-50.0%)" in swapped.stdout


def test_compare_refuses_what_is_no_report(cli: Cli, refused: Refused) -> None:
    good = write_report("good.json", _4x4=1.0)
    Path("text.json").write_text("{")
    Path("list.json").write_text("[]")
    Path("newer.json").write_text('{"format": 2, "rows": []}')
    Path("rows.json").write_text('{"format": 1, "rows": [{}]}')
    for path, pattern in (
        ("none.json", r"none\.json cannot be read: No such file"),
        ("text.json", r"text\.json is not a report of"),
        ("list.json", r"list\.json is not a report of"),
        ("rows.json", r"rows\.json is not a report of"),
        ("newer.json", "has format 2; this version reads format 1"),
        (write_report("other.json", _5x5=1.0), "have no contender, stage and phase in common"),
        (write_report("zero.json", _4x4=0.0), r"zero\.json holds a figure that is not above 0"),
    ):
        refused(cli("bench", "compare", good, path), pattern)
    for threshold in ("0", "1", "nan"):
        refused(cli("bench", "compare", good, good, "--threshold", threshold), "--threshold must lie between 0 and 1")
