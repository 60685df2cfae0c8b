"""Test the scripts under benchmarks/ that measure a GPU and print tables, on made-up reports and at tiny sizes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.paths import ROOT

from pggan_kit.benchmarking.flops import Call, Counts, Like

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scripts be imported as they import each other: by their names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def tables(scripts: None) -> ModuleType:
    return importlib.import_module("tables")


def make_gpu_report() -> dict[str, Any]:
    """Return a report of a made-up card: 100 images/s after a fade, and 50 in it; the yardstick half as fast."""
    rows = []
    for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        for phase, rate in (("steady", 100.0), ("fading", 50.0)):
            if (size, phase) == (4, "fading"):
                continue
            for contender, factor in (("paper", 1.0), ("reference", 0.5)):
                row = {"contender": contender, "size": f"{size}x{size}", "phase": phase, "batch": 3}
                row["images_per_second"] = rate * factor
                rows.append(row)
    rows[0] |= {"launches": 440.4, "busy_share": 0.25, "watts": None, "of_ceiling": 0.609}
    machine = {"device": "Card", "native_bfloat16": True, "threads": 1, "torch": "2", "cudnn": 9, "driver": "580.1"}
    machine["matrix_product"] = {"bfloat16": 7e5}
    place = {"contender": "captured", "size": "8x8", "phase": "fading", "batch": 16}
    failure = place | {"activity": "power", "out_of_memory": False, "reason": "OSError: gone"}
    return {
        "machine": machine,
        "rows": rows,
        "failures": [failure],
        "left_out": [place | {"what": "everything"}],
        "revision": "abc",
        "date": "today",
        "command": "pggan-kit bench x",
    }


def test_all_figures_of_a_gpu_are_shown(tables: ModuleType) -> None:
    text = tables.gpu_tables(make_gpu_report())
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("| 4x4 (3) | paper")) == (
        "| 4x4 (3) | paper | 2.00 | 100 |  |  |  |  | 61% |  | 440 |  | 25% |  |  |  |  |"
    )
    assert "| 8x8 (3) | reference | 1.00 | 25 |" in text
    assert "driver 580.1" in text and "revision abc, today, `pggan-kit bench x`" in text
    assert "captured at 8x8 (fading) failed (power): OSError: gone" in text
    assert "no time for captured at 8x8 (fading): everything" in text


def test_hours_of_the_released_schedule(tables: ModuleType) -> None:
    report = make_gpu_report()
    schedule = tables.load_released_schedule()
    # 12 million images: 8 fades of 600,000, and the rest after them.
    seconds = 8 * 600_000 / 50 + (12_000_000 - 8 * 600_000) / 100
    assert tables.compute_hours(report, "paper", schedule) == pytest.approx(seconds / 3600)
    assert f"| paper | {seconds / 3600:.1f} | {14 * 24 * 3600 / seconds:.1f} |" in tables.hours(report, schedule)
    report["rows"] = [row for row in report["rows"] if (row["size"], row["phase"]) != ("512x512", "fading")]
    assert tables.compute_hours(report, "paper", schedule) is None
    assert len(tables.hours(report, schedule).splitlines()) == 2


def test_the_tables_of_a_cpu(tables: ModuleType) -> None:
    figures = {"images_per_second": 20.0, "gflops_per_image": 2.0, "of_ceiling": 0.5, "shares": {"hooks": 0.0012}}
    rows = [
        {"contender": "mine", "size": "4x4", "phase": "steady", "ratio": 1.25, **figures},
        {"contender": "theirs", "size": "4x4", "phase": "steady", "ratio": 1.0, "images_per_second": 16.0},
        {"contender": "mine", "size": "8x8", "phase": "steady", **figures},
    ]
    lines = tables.speeds({"rows": rows}).splitlines()
    assert lines[2] == "| 4x4 | steady | 20 (1.25) | 16 (1.00) |"
    assert lines[3] == "| 8x8 | steady | 20 |  |"  # the other one failed there
    assert tables.costs({"rows": rows}, "mine").splitlines()[2] == "| 4x4 | 50 | 2 | 25 | 50% | 0.12% |"


def test_one_command_checks_measures_and_writes_the_tables(
    scripts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = importlib.import_module("gpu")
    commands: list[list[str]] = []
    codes = iter([1, 0])
    report = tmp_path / "card.json"

    class Finished:
        def __init__(self, command: list[str], **options: Any) -> None:
            commands.append(command)
            self.returncode = next(codes)
            if "bench" in command and self.returncode == 0:
                report.write_text(json.dumps(make_gpu_report()))

    monkeypatch.setattr(gpu.subprocess, "run", Finished)
    arguments = ["--seconds", "99", "--json", str(report), "--variant", "x=train.seed = 3", "--revision", "abc"]
    assert gpu.main(arguments) == 1  # the tests failed, and measuring went on
    tests, bench = commands
    assert str(ROOT / "tests" / "test_gpu.py") in tests and "gpu" in tests
    assert bench[bench.index("--seconds") + 1] == "99.0"
    assert bench[-4:] == ["--variant", "x=train.seed = 3", "--revision", "abc"]
    assert [text.rpartition(":")[2] for text in bench if "reference.py" in text] == [
        "make",
        "make_bfloat16",
        "make_tf32",
    ]
    assert "the tests FAILED" in capsys.readouterr().out
    assert "| 4x4 (3) | paper |" in (tmp_path / "card.md").read_text()

    codes = iter([0])
    assert gpu.main([*arguments, "--tests-seconds", "0"]) == 0
    assert len(commands) == 3

    # Where nothing could be measured, an older report is not shown as if it were new.
    codes = iter([1])
    capsys.readouterr()
    assert gpu.main([*arguments, "--tests-seconds", "0"]) == 1
    printed = capsys.readouterr().out
    assert "there is no new report" in printed
    assert "| paper |" not in printed

    def take_long(command: list[str], timeout: float, **options: Any) -> None:
        raise gpu.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu.subprocess, "run", take_long)
    assert gpu.run_tests(5.0) is False
    assert "the tests took more than 5 s and were stopped" in capsys.readouterr().out


def test_a_report_is_named_by_its_card(
    scripts: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = importlib.import_module("gpu")
    assert gpu.name_card("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.parse_arguments([])
    assert "there is no CUDA device; to try this on a CPU, name the report with --json" in capsys.readouterr().err
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    options, rest = gpu.parse_arguments(["--stages", "4x4"])
    assert options.json == BENCHMARKS / "results" / "nvidia-h200.json"
    assert rest == ["--stages", "4x4"]


def test_an_estimate_follows_its_model(scripts: None) -> None:
    estimates = importlib.import_module("estimates")
    torch = estimates.torch
    weight = Like((4, 3, 1, 1), (3, 1, 1, 1), torch.bfloat16)
    images = Like((1, 3, 8, 8), (192, 64, 8, 1), torch.bfloat16)
    small = Call(None, (images, weight), 100, torch.bfloat16)
    moved = 2 * (12 + 192 + 192)
    assert estimates.count_call_bytes(small) == moved
    large = Call(None, (images,), 395 * 10**9, torch.bfloat16)
    counts = Counts({small: 2.0, large: 1.0}, operators=100.0, other_bytes=3e9)
    estimate = estimates.estimate_step(counts, 10)
    assert estimate.convolutions == pytest.approx(1e-3 + 2 * moved / 3e12)
    assert estimate.elementwise == pytest.approx(1e-3)
    # 2 ms of a GPU against 0.5 to 1 ms of the host.
    assert estimate.estimate_eager() == pytest.approx((5000, 5000), rel=1e-3)
    launched = estimates.estimate_step(Counts(counts.calls, operators=1000.0, other_bytes=3e9), 10)
    assert launched.estimate_eager() == pytest.approx((1000, 2000), rel=1e-3)
    assert launched.estimate_captured() == pytest.approx((5000, 5000), rel=1e-3)
    assert launched.estimate_limit() == pytest.approx(10_000, rel=1e-3)


@pytest.mark.slow
def test_the_page_has_the_estimates_of_today(scripts: None) -> None:
    """Compare one stage, for the whole table takes minutes: python benchmarks/estimates.py"""
    estimates = importlib.import_module("estimates")
    report = {"rows": [{"phase": "steady", "contender": "mine", "size": "4x4", "images_per_second": 12345.6}]}
    head, _, line = estimates.make_table(report, sizes=(4,)).splitlines()
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert line.removesuffix(" 1.235e+04 |") in page
    assert line.endswith("| 1.235e+04 |") and head.endswith("| mine, measured |")
    assert head.removesuffix(" mine, measured |") in page
