"""Reports of benchmarks: which may be compared, and what other tools read."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from click.testing import Result

from pggan_kit.system.provenance import describe_machine

Cli = Callable[..., Result]
Refused = Callable[[Result, str], str]

MACHINE = {"device": "AVX2", "processor": "A", "native_bfloat16": False, "threads": 1, "torch": "2.13.0"}
ROW = {
    "contender": "mine",
    "size": "8x8",
    "phase": "steady",
    "images_per_second": 100.0,
    "p10": 90.0,
    "p90": 110.0,
    "ratio": 1.2,
    "ratio_p10": 1.1,
    "ratio_p90": 1.3,
}


def write_report(path: str, machine: dict[str, Any] | None = None, **row: Any) -> str:
    """Write a report with one row, of a machine that differs in the given entries; return its path."""
    report = {"format": 1, "machine": MACHINE | (machine or {}), "rows": [ROW | row]}
    Path(path).write_text(json.dumps(report))
    return path


def test_reports_of_different_machines_are_refused_or_marked(cli: Cli, refused: Refused) -> None:
    before = write_report("before.json")
    after = write_report("after.json", {"processor": "B", "threads": 2}, ratio=1.21)
    message = refused(cli("bench", "compare", before, after), "of different machines")
    assert "processor: A -> B; threads: 1 -> 2" in message and "--different-machines" in message
    compared = cli("bench", "compare", before, after, "--different-machines")
    assert compared.exit_code == 0 and "ratio 1.2 -> 1.21" in compared.stdout
    assert "DIFFERENT MACHINES: processor: A -> B" in compared.stderr


def test_a_machine_that_a_report_does_not_name_is_another(cli: Cli, refused: Refused) -> None:
    report = json.loads(Path(write_report("before.json")).read_text())
    del report["machine"]["processor"]
    Path("old.json").write_text(json.dumps(report))
    refused(cli("bench", "compare", "old.json", "before.json"), "processor: unknown -> A")


def test_other_software_is_named_and_compared(cli: Cli) -> None:
    after = write_report("after.json", {"torch": "2.14.0"})
    compared = cli("bench", "compare", write_report("before.json"), after)
    assert compared.exit_code == 0
    assert "other software: torch: 2.13.0 -> 2.14.0" in compared.stderr
    assert "DIFFERENT" not in compared.stderr


def test_ratios_to_another_contender_are_not_compared(cli: Cli) -> None:
    before = write_report("before.json", ratio_to="reference")
    after = write_report("after.json", ratio_to="reference bfloat16", ratio=0.5)
    compared = cli("bench", "compare", before, after)
    assert compared.exit_code == 0 and "images per second 100 -> 100" in compared.stdout


def test_other_batches_and_kernels_are_refused(cli: Cli, refused: Refused) -> None:
    before = write_report("before.json", {"tf32": False}, batch=64)
    refused(cli("bench", "compare", before, write_report("b.json", {"tf32": False}, batch=4)), "64 and 4 images at 8x8")
    refused(cli("bench", "compare", before, write_report("c.json", {"tf32": True}, batch=64)), "tf32: False -> True")


def test_a_report_says_which_processor_and_libraries() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert machine["processor"] and machine["libraries"]["torch"] == importlib.metadata.version("torch")


def test_what_other_tools_read(cli: Cli) -> None:
    report = write_report("report.json")
    assert cli("bench", "export", report, "--to", "github-action-benchmark", "--out", "a.json").exit_code == 0
    (entry,) = json.loads(Path("a.json").read_text())
    assert (entry["name"], entry["value"], entry["range"]) == ("mine at 8x8 (steady)", 1.2, "1.1 to 1.3")
    assert set(entry) == {"name", "unit", "value", "range", "extra"}, "the fields that the action knows"
    assert cli("bench", "export", report, "--to", "bencher", "--out", "b.json").exit_code == 0
    assert json.loads(Path("b.json").read_text()) == {
        "mine at 8x8 (steady)": {
            "images-per-second": {"value": 100.0, "lower_value": 90.0, "upper_value": 110.0},
            "ratio": {"value": 1.2, "lower_value": 1.1, "upper_value": 1.3},
        }
    }


def test_what_cannot_be_exported_is_refused(cli: Cli, refused: Refused) -> None:
    report = write_report("report.json")
    refused(cli("bench", "export", report, "--to", "excel", "--out", "x.json"), "--to.*excel")
    plain = json.loads(Path(report).read_text())
    del plain["rows"][0]["ratio"]
    Path("plain.json").write_text(json.dumps(plain))
    refused(cli("bench", "export", "plain.json", "--to", "github-action-benchmark", "--out", "x.json"), "has no ratios")
    assert not Path("x.json").exists()
