"""Test benchmarks/gpu_compiled.py: threads in place of its processes, at tiny sizes and without a compiler."""

from __future__ import annotations

import importlib
import json
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers.paths import ROOT

from pggan_kit.errors import UserError

SIZES = ("4x4", "8x8", "16x16")


class ThreadProcess(threading.Thread):
    """A thread that can be asked what a process is asked."""

    exitcode: int | None = None

    def run(self) -> None:
        """Call the target; note as an exit code whether it raised."""
        try:
            super().run()
        except OSError:
            self.exitcode = 1
        else:
            self.exitcode = 0


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("gpu_compiled")
    context = SimpleNamespace(Process=ThreadProcess, Event=threading.Event)
    monkeypatch.setattr(module.multiprocessing, "get_context", lambda method: context)
    monkeypatch.setattr(module, "measure_matrix_products", lambda device, progress: {"float32": 1.0})
    return module


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Return a ladder of three stages, of which two fade."""
    file = tmp_path / "ladder.gin"
    text = f"include '{ROOT / 'benchmarks' / 'ladder.gin'}'\nschedule.sizes = (4, 8, 16)\n"
    file.write_text(text + "architectures.PGGAN.channels = 4\ntrain.latent_size = 4\n")
    return str(file)


class FakeBench:
    """A `bench` that compiles, waits for its turn and measures, of which it notes both."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.measured: list[str] = []
        self.measuring = 0

    def __call__(self, **options: Any) -> dict[str, Any]:
        """Return a report of one row; raise for the stage of 8x8 in its fade."""
        (size,), (phase,) = options["stages"], options["phases"]
        name = f"{size} {phase}"
        if name == "8x8 fading":
            raise OSError("the compiler is gone")
        self.built.append(name)
        options["wait_for_turn"]()
        assert options["matrix_product"] == {"float32": 1.0}
        assert len(options.get("against", [])) == (3 if phase == "steady" else 0)
        assert options["others"] == {"compiled": ["train.compile = 'always'"]}

        # Nothing is measured beside another.
        self.measuring += 1
        time.sleep(0.02)
        assert self.measuring == 1
        self.measured.append(f"{name} after {len(self.built)}")
        self.measuring -= 1
        row = {"contender": "compiled", "size": size, "stage": SIZES.index(size), "phase": phase, "batch": 16}
        machine = {"device": "Card", "native_bfloat16": True, "threads": 1, "torch": "2", "matrix_product": {}}
        report = {"machine": machine, "rows": [row | {"images_per_second": 9.0}], "failures": [], "left_out": []}
        return report | {"revision": "abc", "date": "today"}


def test_stages_compile_at_once_and_are_measured_in_turn(
    script: ModuleType, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeBench()
    monkeypatch.setattr(script, "bench", fake)
    file = tmp_path / "report.json"
    arguments = ["--config", config, "--json", str(file), "--workers", "4"]
    assert script.main(arguments) == 1
    assert "8x8-fading FAILED; the others go on" in capsys.readouterr().out

    # Of four that begin one fails; the fifth begins after them.
    assert fake.measured == [
        "4x4 steady after 3",
        "8x8 steady after 3",
        "16x16 steady after 3",
        "16x16 fading after 4",
    ]
    report = json.loads(file.read_text())
    cases = [(row["size"], row["phase"]) for row in report["rows"]]
    assert cases == [("4x4", "steady"), ("8x8", "steady"), ("16x16", "steady"), ("16x16", "fading")]
    assert "gpu_compiled.py" in report["command"]
    assert "| 16x16 (16) | compiled |" in file.with_suffix(".md").read_text()
    assert script.main([*arguments, "--stages", "4x4"]) == 0


def test_where_all_fail_there_is_no_report(
    script: ModuleType, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**options: Any) -> None:
        raise OSError

    monkeypatch.setattr(script, "bench", fail)
    assert script.main(["--config", config, "--json", "none.json", "--stages", "4x4"]) == 1
    assert not Path("none.json").exists()
    assert "nothing was measured" in capsys.readouterr().out


def test_a_stage_is_measured_without_a_compiler_too(
    script: ModuleType, config: str, monkeypatch: pytest.MonkeyPatch, no_fake_tensors: None, tmp_path: Path
) -> None:
    """Run the true `bench`, at the smallest stage and on one iteration a turn."""
    monkeypatch.setattr(script, "VARIANTS", {"compiled": ["train.seed = 3"]})
    monkeypatch.setattr(script, "REFERENCES", ("make",))
    for name in ("timing", "cases"):
        module = importlib.import_module(f"pggan_kit.benchmarking.{name}")
        monkeypatch.setattr(module, "LEAST_SECONDS", 0.0)
    file = tmp_path / "report.json"
    assert script.main(["--config", config, "--json", str(file), "--stages", "4x4"]) == 0
    contenders = [row["contender"] for row in json.loads(file.read_text())["rows"]]
    assert contenders == ["ladder", "compiled", "reference"]


def test_wrong_options_are_refused(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for options, pattern in (
        (["--json", "x.json", "--workers", "0"], "--workers must be at least 1, and is 0"),
        (["--json", "no/such.json"], "there is no folder no"),
        ([], "there is no CUDA device; to try this on a CPU, name the report with --json"),
    ):
        with pytest.raises(SystemExit):
            script.parse_arguments(options)
        assert pattern in capsys.readouterr().err
    with pytest.raises(UserError, match="--stages 5x5: there is no such stage"):
        script.main(["--json", "x.json", "--stages", "5x5"])


def test_as_many_processes_as_fit(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.os, "cpu_count", lambda: 16)
    for mib, workers in ((143_771, 11), (24_000, 2), (8_000, 1), (10**6, 16)):
        monkeypatch.setattr(script, "read_memory_mib", lambda device, mib=mib: mib)
        assert script.count_workers("cuda") == workers
