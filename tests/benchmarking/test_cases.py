"""Test what `bench` does where contenders fail or time ends, and what it adds on a GPU, with made-up sensors."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result

from pggan_kit.benchmarking import ceiling, timing
from pggan_kit.benchmarking.bench import bench
from pggan_kit.benchmarking.kernels import Event
from pggan_kit.benchmarking.report import Case, Report, TimeBudget
from pggan_kit.benchmarking.rig import Rig

benching = importlib.import_module("pggan_kit.benchmarking.bench")  # the package has a function of this name
casing = importlib.import_module("pggan_kit.benchmarking.cases")

Cli = Callable[..., Result]
Refused = Callable[[Result, str], str]

THEIRS = """\
import torch

def make(size, alpha, width, batch, colours):
    weight = torch.zeros(7)
    return (lambda: torch.ones(64, 64) @ torch.ones(64, 64)), [weight], [weight]

def make_late(size, alpha, width, batch, colours):
    steps = iter(range(3))
    def step():
        if next(steps, None) is None:
            raise ValueError("the third step is the last\\nof all")
    return step, [], []
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_fake_tensors: None) -> None:
    """Run one iteration a turn, multiply small matrices, and take no type but float32 for native."""
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(casing, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(ceiling, "SIDE", {"cpu": 64})
    monkeypatch.setattr(ceiling, "computes_bfloat16", lambda device: False)
    (tmp_path / "theirs.py").write_text(THEIRS)


def test_a_contender_that_fails_is_a_row_that_says_so(
    tiny: Callable[..., str], cli: Cli, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Rig.step

    def fail_in_fades(rig: Rig, *args: Any, **options: Any) -> None:
        if rig.experiment.seed == 3 and rig.alphas:
            raise RuntimeError("capture failed")
        step(rig, *args, **options)

    monkeypatch.setattr(Rig, "step", fail_in_fades)
    options = ["--variant", "captured=train.seed = 3", "--stages", "1", "--json", "report.json"]
    options += ["--against", "theirs.py:make", "--against", "theirs.py:make_late"]
    result = cli("bench", tiny("train.latent_size = 4"), "--plugin", stub, *options)
    assert result.exit_code == 1
    report = json.loads(Path("report.json").read_text())
    cases = [("8x8", "steady"), ("8x8", "fading")]
    rows = [(row["size"], row["phase"], row["contender"]) for row in report["rows"]]
    steady = [(*cases[0], name) for name in ("tiny", "captured", "theirs")]
    assert rows == [*steady, (*cases[1], "tiny"), (*cases[1], "theirs")]
    failures = [(row["size"], row["phase"], row["contender"], row["activity"]) for row in report["failures"]]
    captured = [("8x8", "fading", "captured", "first iteration")]
    late = [(*case, "theirs late", "rounds of iterations") for case in cases]
    assert sorted(failures) == sorted(captured + late)
    for row in report["failures"]:
        assert not row["out_of_memory"] and "Traceback" in row["traceback"]
    assert {row["reason"] for row in report["failures"]} == {
        "RuntimeError: capture failed",
        "ValueError: the third step is the last",
    }
    shown = " ".join(result.stdout.split())
    assert "captured at 8x8 (fading) failed (first iteration): RuntimeError: capture failed" in shown


def test_a_foreign_row_has_its_operations_too(tiny: Callable[..., str], stub: str) -> None:
    report = bench(tiny("train.latent_size = 4"), plugins=[stub], stages=["0"], against=["theirs.py:make"])
    own, theirs = report["rows"]
    assert report["failures"] == report["left_out"] == []
    assert theirs["gflops_per_image"] == pytest.approx(2 * 64**3 / 4 / 1e9)
    assert theirs["operators"] == 3
    for row in (own, theirs):
        assert row["seconds_per_1000_images"] == pytest.approx(1000 / row["images_per_second"])
        assert row["tflops_per_second"] == pytest.approx(row["gflops_per_image"] * row["images_per_second"] / 1000)
        product = report["machine"]["matrix_product"]["float32"]
        assert row["of_matrix_product"] == pytest.approx(1000 * row["tflops_per_second"] / product)
        assert row["computes_in"] == "float32"
    assert own["operators"] > 100


def test_a_report_says_what_it_was_made_from_and_is_saved_after_each_case(
    tiny: Callable[..., str], cli: Cli, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[tuple[str, str]]] = []
    measure = benching.measure_case

    def look_at_file(*args: Any) -> None:
        measure(*args)
        if Path("report.json").exists():
            rows = json.loads(Path("report.json").read_text())["rows"]
            seen.append([(row["size"], row["phase"]) for row in rows])

    monkeypatch.setattr(benching, "measure_case", look_at_file)
    options = ["--stages", "0,1", "--json", "report.json", "--revision", "abc", "--cudnn-benchmark"]
    before = torch.backends.cudnn.benchmark
    assert cli("bench", tiny(), "--plugin", stub, *options).exit_code == 0
    assert torch.backends.cudnn.benchmark == before
    # Steady stages come first, and a row's place is with its stage.
    steady = [("4x4", "steady"), ("8x8", "steady")]
    assert seen == [steady[:1], steady]  # what is saved before the next case is there in full
    report = json.loads(Path("report.json").read_text())
    assert report["revision"] == "abc"
    assert "pggan-kit" in report["command"]
    assert report["machine"]["cudnn_benchmark"] is True
    assert report["machine"]["tf32"] is False
    assert "architectures.PGGAN.channels = 4" in report["configuration"]["tiny"]
    assert "train.memory_format = 'channels_last'" in report["configuration"]["tiny"]  # with all defaults
    assert report["date"].endswith("+00:00")


def test_what_there_is_no_time_for_is_listed(
    tiny: Callable[..., str], cli: Cli, stub: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("0", "-1", "nan", "inf"):
        refused(cli("bench", tiny(), "--plugin", stub, "--seconds", wrong), "--seconds must be above 0 and finite")

    # A clock on which each case takes 40 seconds, of which its contender's iterations take all.
    now = 0.0
    monkeypatch.setattr("pggan_kit.benchmarking.report.time", SimpleNamespace(perf_counter=lambda: now))
    build = casing.build_own_contender

    def take_long(*args: Any) -> Any:
        nonlocal now
        now += 40.0
        return build(*args)

    monkeypatch.setattr(casing, "build_own_contender", take_long)
    result = cli("bench", tiny(), "--plugin", stub, "--seconds", "100", "--json", "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads(Path("report.json").read_text())
    assert [(row["size"], row["phase"]) for row in report["rows"]] == [
        (size, "steady") for size in ("4x4", "8x8", "16x16")
    ]
    left_out = [(row["size"], row["phase"], row["contender"], row["what"]) for row in report["left_out"]]
    everything = [(size, "fading", "tiny", "everything") for size in ("8x8", "16x16")]
    assert [row for row in left_out if row[3] == "everything"] == everything
    assert "no time for tiny at 8x8 (fading): everything" in " ".join(result.stdout.split())


def test_turns_become_shorter_as_time_does(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(casing, "LEAST_SECONDS", 0.2)
    least: list[float] = []

    class NotedTurns(timing.Turns):
        def __init__(self, contenders: Any, device: Any, rounds: int, least_seconds: float, guard: Any) -> None:
            least.append(least_seconds)
            super().__init__(contenders, device, rounds, 0.0, guard)

    monkeypatch.setattr(casing, "Turns", NotedTurns)
    for seconds in (None, 6.0):
        bench(tiny(), plugins=[stub], stages=["0"], seconds=seconds)
    assert least[0] == 0.2
    assert 0 < least[1] <= casing.TURNS_SHARE * 6.0 / 6 / 1


def test_a_gpu_s_power_and_kernels_are_in_its_rows(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(casing, "POWER_SECONDS", 0.3)
    monkeypatch.setattr(benching, "open_card", lambda device, machine, progress: lambda: 350.0)
    ran = []

    def record(work: Callable[[], object]) -> list[Event]:
        ran.append(work())
        kernels = [Event("kernel", number, number + 1e-6, on_device=True) for number in range(10)]
        return [*kernels, *[Event("cudaGraphLaunch", 0.0, 1.0, on_device=False)] * 2]

    monkeypatch.setattr(benching, "choose_event_recorder", lambda device: record)
    against = ["theirs.py:make"]
    report = bench(tiny("train.latent_size = 4"), plugins=[stub], stages=["1"], against=against)
    assert report["failures"] == report["left_out"] == []
    assert len(report["rows"]) == len(ran) == 4
    for row in report["rows"]:
        assert row["watts"] == 350.0
        assert row["joules_per_1000_images"] == pytest.approx(350.0 * row["seconds_per_1000_images"])
        assert (row["launches"], row["kernels"]) == (1.0, 5.0)
        assert row["busy_share"] == pytest.approx(5e-6 * row["images_per_second"] / 4)


def test_a_process_waits_for_its_turn_once_it_has_compiled(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benching, "choose_event_recorder", lambda device: lambda work: [])
    done: list[str] = []
    report = bench(
        tiny("train.latent_size = 4"),
        plugins=[stub],
        stages=["1"],
        phases=["fading"],
        against=["theirs.py:make"],
        matrix_product={"float32": 1e-3},
        wait_for_turn=lambda: done.append("its turn"),
        progress=lambda line: done.append(line.rpartition(": ")[2]),
    )
    assert report["failures"] == []
    ours, theirs = report["rows"]
    assert (ours["phase"], theirs["phase"]) == ("fading", "fading")
    assert ours["of_matrix_product"] == pytest.approx(ours["tflops_per_second"] * 1e6)
    assert done[:4] == ["first iteration of tiny", "its turn", "first iteration of theirs", "6 rounds of iterations"]
    assert done[-2:] == ["kernels of tiny", "kernels of theirs"]
    assert ours["launches"] == theirs["launches"] == 0


def test_contenders_are_kept_for_their_kernels_where_there_is_one_case(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benching, "choose_event_recorder", lambda device: lambda work: [])
    built = []
    build = casing.build_own_contender

    def note(*args: Any) -> Any:
        built.append(args)
        return build(*args)

    monkeypatch.setattr(casing, "build_own_contender", note)
    bench(tiny(), plugins=[stub], stages=["0"])
    assert len(built) == 1
    bench(tiny(), plugins=[stub], stages=["1"])
    assert len(built) == 1 + 2 * 2  # steady and fading, for their speed and for their kernels


def test_kernels_that_cannot_be_counted_cost_no_row(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> float:
        raise OSError("the sensor is gone")

    def refuse(work: Any) -> list[Event]:
        raise RuntimeError("CUPTI is taken")

    monkeypatch.setattr(casing, "POWER_SECONDS", 0.3)
    monkeypatch.setattr(benching, "open_card", lambda device, machine, progress: fail)
    monkeypatch.setattr(benching, "choose_event_recorder", lambda device: refuse)
    report = bench(tiny(), plugins=[stub], stages=["0"])
    (row,) = report["rows"]
    assert "watts" not in row and "launches" not in row and row["gflops_per_image"] > 0
    reasons = [(failure["activity"], failure["reason"]) for failure in report["failures"]]
    assert reasons == [
        ("power", "OSError: the sensor is gone"),
        ("counting its kernels", "RuntimeError: CUPTI is taken"),
    ]


def test_the_last_part_of_the_time_is_kept_for_kernels(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    monkeypatch.setattr(benching, "choose_event_recorder", lambda device: lambda work: [])
    monkeypatch.setattr(benching, "measure_case", lambda *args: shares.append(args[-1]))
    bench(tiny(), plugins=[stub], seconds=1000.0)
    assert len(shares) == 5
    assert 100 < shares[0] <= (1 - benching.KERNELS_SHARE) * 1000 / 5
    assert shares[-1] > 5 * shares[0] * 0.8  # nothing took any time


def test_memory_that_is_reserved_is_a_contender_s_own(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let torch hold 100 MiB more of a GPU after each contender, beside what others had freed."""
    freed: list[torch.device] = []
    reserved = iter([400.0, 500.0])
    monkeypatch.setattr(casing, "free_cached_memory", freed.append)
    monkeypatch.setattr(casing, "read_reserved_mib", lambda device: next(reserved))
    report = bench(tiny(), plugins=[stub], stages=["0"])
    assert [row["reserved_memory_mib"] for row in report["rows"]] == [100.0]
    assert len(freed) == 1


def test_a_budget_ends() -> None:
    unlimited = TimeBudget(None)
    assert (unlimited.is_limited, unlimited.is_up, unlimited.left) == (False, False, math.inf)
    assert TimeBudget(math.inf).is_limited is False
    over = TimeBudget(1e-9)
    assert (over.is_limited, over.is_up, over.left) == (True, True, 0.0)


def test_what_is_no_error_ends_everything(tiny: Callable[..., str], stub: str) -> None:
    from pggan_kit.api.prepare import prepare

    report = Report(torch.device("cpu"))
    case = Case(prepare(tiny(), plugins=[stub]).schedule().stages[0], "steady")
    with pytest.raises(KeyboardInterrupt), report.note_failure("mine", case, "power", print):
        raise KeyboardInterrupt
    assert report.failures == []
