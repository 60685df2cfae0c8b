"""Trackers, in their offline or local mode, read back by their own readers; and what they share, with a stand-in.

Where a tracker's library is missing, its tests are skipped; `make test-extras` installs and runs them all.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from conftest import STUB
from helpers.killing import in_a_child

import pggan_kit
from pggan_kit import Component, ConfigError, SettingError, hookimpl
from pggan_kit.testing import ObserverSuite
from pggan_plugins.observers import MLflow, Trackio, WandB
from pggan_plugins.observers.tracker import Tracker

Read = Callable[[Path], dict[str, Any]]

SERVICES = ("stand-in", "wandb", "mlflow", "trackio")
CLASSES = {"stand-in": "StandIn", "wandb": "WandB", "mlflow": "MLflow", "trackio": "Trackio"}


class StandIn(Tracker):
    """A tracker that keeps what it is sent in a list for each run."""

    service = "stand-in"
    module = "json"
    runs: ClassVar[dict[str, list[tuple[str, int, Any]]]] = {}
    configs: ClassVar[dict[str, Any]] = {}
    statuses: ClassVar[list[str]] = []
    failures = 0
    failure: ClassVar[type[BaseException]] = OSError

    def open(self, run: Any, name: str, config: Any) -> None:
        self.own = self.runs.setdefault(name, [])
        self.configs.setdefault(name, dict(config))

    def send(self, points: Any, grid: Any, images: int) -> None:
        if StandIn.failures:
            StandIn.failures -= 1
            raise self.failure("no network")
        self.own += [(tag, clock, value) for clock, numbers in points for tag, value in numbers.items()]
        if grid is not None:
            self.own.append(("Samples", images, grid.size))

    def send_film(self, path: Path, images: int) -> None:
        self.own.append(("Growth", images, path.read_bytes()))

    def close(self, status: str) -> None:
        self.statuses.append(status)


def require_library(service: str) -> None:
    """Skip a test of a tracker whose library is missing."""
    if service != "stand-in":
        pytest.importorskip(service, reason=f"needs the extra {service}: make test-extras")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let all trackers write to a folder on this machine, which is returned."""
    folder = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.chdir(folder)
        forget_environment()
        yield folder
    forget_environment()


def forget_environment() -> None:
    """Let libraries of trackers read the environment again, which they do once in a process: other tests use them too.

    W&B keeps its settings until it is torn down; Trackio reads its folder as it is imported.
    """
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        del sys.modules[name]


def read_name(run: Path, service: str) -> str:
    """Return the name of a run at its tracker."""
    return str(json.loads((run / "trackers" / f"{service}.json").read_text())["run"])


def read_stand_in(run: Path) -> dict[str, Any]:
    name = read_name(run, "stand-in")
    points: dict[str, list[tuple[int, Any]]] = {}
    for tag, clock, value in StandIn.runs[name]:
        points.setdefault(tag, []).append((clock, value))
    return {
        "points": {tag: rows for tag, rows in points.items() if tag not in ("Samples", "Growth")},
        "grids": [clock for clock, _ in points.get("Samples", [])],
        "film": [content for _, content in points.get("Growth", [])],
        "config": StandIn.configs[name],
        "runs": 1,
    }


def scan_log(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file in the log format of LevelDB, which begins with a header of its own."""
    block = 32_768
    parts = b""
    place = 7
    while place + 7 <= len(content):
        # No header of a part begins in the last six bytes of a block.
        if block - place % block < 7:
            place += block - place % block
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        kind = content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_wandb(run: Path) -> dict[str, Any]:
    """Read all offline parts of a run, which `wandb sync` puts together by their id."""
    from wandb.proto import wandb_internal_pb2

    # A log has a record for each message, and a run may have several logs.
    points: dict[str, list[tuple[int, Any]]] = {}
    config: dict[str, Any] = {}
    grids: list[int] = []
    film: list[bytes] = []
    ids = set()
    for file in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        for data in scan_log(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.run.run_id:
                ids.add(record.run.run_id)
            for update in (*record.run.config.update, *record.config.update):
                config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
            # Numbers, and the names of files.
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for tag, value in row.items():
                if tag == "Samples/path":
                    assert (file.parent / "files" / value).is_file()
                    grids.append(row["_step"])
                elif tag == "Growth/path":
                    film.append((file.parent / "files" / value).read_bytes())
                elif not tag.startswith(("_", "Samples/", "Growth/")):
                    points.setdefault(tag, []).append((row["_step"], value))
    assert ids == {read_name(run, "wandb")}
    return {"points": points, "grids": grids, "film": film, "config": config, "runs": len(ids)}


def read_mlflow(run: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("pggan_kit")
    assert experiment is not None
    name = read_name(run, "mlflow")
    found = client.search_runs([experiment.experiment_id], f"tags.pggan_kit_run = '{name}'")
    assert found[0].info.status == "FINISHED"
    own = found[0].info.run_id
    points = {
        tag: [(metric.step, metric.value) for metric in client.get_metric_history(own, tag)]
        for tag in found[0].data.metrics
    }
    grids = [int(Path(entry.path).stem) for entry in client.list_artifacts(own, "Samples")]
    film = []
    if "growth.gif" in [entry.path for entry in client.list_artifacts(own)]:
        film = [Path(client.download_artifacts(own, "growth.gif")).read_bytes()]
    return {"points": points, "grids": grids, "film": film, "config": found[0].data.params, "runs": len(found)}


def read_trackio(run: Path) -> dict[str, Any]:
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    name = read_name(run, "trackio")
    points: dict[str, list[tuple[int, Any]]] = {}
    grids = []
    film = []
    for row in SQLiteStorage.get_logs("pggan_kit", name):
        for tag, value in row.items():
            if tag == "Samples":
                grids.append(row["step"])
            elif tag == "Growth":
                film.append((Path(MEDIA_DIR) / value["file_path"]).read_bytes())
            elif tag not in ("step", "timestamp"):
                points.setdefault(tag, []).append((row["step"], value))
    records = [record for record in SQLiteStorage.get_run_records("pggan_kit") if record["name"] == name]
    config = SQLiteStorage.get_run_config("pggan_kit", name)
    return {"points": points, "grids": grids, "film": film, "config": config, "runs": len(records)}


READERS: dict[str, Read] = {
    "stand-in": read_stand_in,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


def observe(service: str, *lines: str) -> list[str]:
    """Return lines of a config with a tracker, a film, rows of switches and a metric with its floor."""
    return [
        f"train.observers = [@observers.{CLASSES[service]}(), @observers.Growth(), @observers.TransitionShock()]",
        f"observers.{CLASSES[service]}.count = 4",
        "observers.Growth.count = 1",
        "train.metrics = [@metrics.SlicedWasserstein()]",
        "evaluation.count = 4",
        "evaluation.every = 8",
        *lines,
    ]


PLUGIN = Component("observers", "StandIn", StandIn)


def require_all_points(run: Path, service: str) -> dict[str, Any]:
    """Check that a tracker has the numbers of all ticks and switches, each once; return what it has."""
    shown = READERS[service](run)
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    metrics = [tag for tag in rows[-1] if tag.startswith("Metrics/")]
    assert any(tag.endswith("_floor") for tag in metrics), metrics
    for tag in ("Loss/generator/hinge", "Progress/alpha", *metrics):
        wanted = [(row["images"], row[tag]) for row in rows if row.get(tag) is not None]
        assert [clock for clock, _ in shown["points"][tag]] == [clock for clock, _ in wanted], tag
        assert [value for _, value in shown["points"][tag]] == pytest.approx([value for _, value in wanted]), tag
    switches = [json.loads(line) for line in (run / "transitions.jsonl").read_text().splitlines()]
    tag = "Transition/rms/ema"
    wanted = [(row["images"] + 1, row[tag]) for row in switches if row.get(tag) is not None]
    assert [clock for clock, _ in shown["points"][tag]] == [clock for clock, _ in wanted]
    return shown


@pytest.mark.parametrize("service", SERVICES)
def test_a_run_that_fails_and_is_resumed_is_one_run_without_doubled_points(
    service: str, train: Callable[..., Any], tmp_path: Path
) -> None:
    """It fails at images 28; its last checkpoint is of images 16, and images 24 was sent: the same numbers again."""
    require_library(service)

    class Fails:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 28:
                raise ValueError("broken")

    lines = observe(service)
    with pytest.raises(pggan_kit.TrainingError, match="broken"):
        train(*lines, plugins=(Fails(), PLUGIN), run_dir="run")
    run = tmp_path / "run"
    name = read_name(run, service)
    record = json.loads((run / "trackers" / f"{service}.json").read_text())
    assert record["sent"] == 24

    # As where the process was killed before it had written the later checkpoints.
    for file in sorted((run / "checkpoints").glob("*.pt")):
        if int(file.name.partition("-")[0]) > 16:
            file.unlink()
    pggan_kit.resume(run, plugins=[STUB, PLUGIN])
    assert read_name(run, service) == name
    shown = require_all_points(run, service)
    assert shown["runs"] == 1 and shown["grids"] == [8, 16, 24, 32, 40]
    assert shown["film"] == [(run / "growth.gif").read_bytes()]
    assert str(shown["config"]["train.latent_size"]) == "8"

    # A run that is over is over there too.
    pggan_kit.resume(run, plugins=[STUB, PLUGIN])
    assert require_all_points(run, service)["film"] == shown["film"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_tracker_that_fails_ends_no_run_and_gets_the_rest_later(
    service: str, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_library(service)
    kind: Any = {"stand-in": StandIn, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}[service]
    real = kind.open
    calls = []

    def fail_first(self: Any, *args: Any) -> None:
        calls.append(args)
        if len(calls) <= 2:
            raise OSError("no network")
        real(self, *args)

    monkeypatch.setattr(kind, "open", fail_first)
    with pytest.warns(UserWarning, match="no network") as warned:
        train(*observe(service), plugins=(PLUGIN,), run_dir="run")
    about = [str(warning.message) for warning in warned if "no network" in str(warning.message)]
    assert len(about) == 1 and "the run continues" in about[0]
    # After the second failure it rests for two ticks.
    assert len(calls) == 3
    assert require_all_points(tmp_path / "run", service)["grids"] == [40]


@pytest.mark.parametrize("failure", [OSError, SystemExit])
def test_what_fails_after_an_opening_is_sent_once(
    failure: type[BaseException], train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "failure", failure)
    StandIn.failures = 1
    StandIn.statuses.clear()
    with pytest.warns(UserWarning, match="no network"):
        train(*observe("stand-in"), plugins=(PLUGIN,), run_dir="run")
    require_all_points(tmp_path / "run", "stand-in")
    assert StandIn.statuses == ["failed", "finished"]


def test_a_tracker_that_never_answers_ends_no_run(train: Callable[..., Any]) -> None:
    StandIn.failures = 1_000
    try:
        with pytest.warns(UserWarning, match="no network"):
            assert train(*observe("stand-in"), plugins=(PLUGIN,), run_dir="run").state.images == 40
    finally:
        StandIn.failures = 0


def test_what_fails_at_the_end_is_sent_where_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the film, then the last numbers; the run has finished all the same."""
    state = SimpleNamespace(images=40, last_tick=40)
    run: Any = SimpleNamespace(
        name="end", directory=tmp_path, resumed=False, schedule=SimpleNamespace(stages=()), state=state
    )
    (tmp_path / "growth.gif").write_bytes(b"film")
    StandIn.statuses.clear()

    def end_run(**points: float) -> None:
        observer = StandIn()
        observer.before_run(run)
        run.resumed = True
        if points:
            observer._ticks.add(40, points)
        observer.after_run(run)

    def fail(*args: Any) -> None:
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(StandIn, "send_film", fail)
        with pytest.raises(OSError, match="no network"):
            end_run()
    StandIn.failures = 1
    with pytest.raises(OSError, match="no network"):
        end_run(loss=1.0)
    end_run(loss=1.0)
    end_run()
    assert StandIn.statuses == ["finished"] * 3
    assert StandIn.runs[read_name(tmp_path, "stand-in")] == [("loss", 40, 1.0), ("Growth", 40, b"film")]


def test_a_process_that_is_killed_as_it_sends_leaves_nothing_that_is_sent_twice(tmp_path: Path) -> None:
    """It notes first, and then sends: the tracker may lack what was under way."""
    state = SimpleNamespace(images=40, last_tick=40)
    run: Any = SimpleNamespace(
        name="end", directory=tmp_path, resumed=False, schedule=SimpleNamespace(stages=()), state=state
    )
    file = tmp_path / "sent.txt"

    class Lines(StandIn):
        def send(self, points: Any, grid: Any, images: int) -> None:
            with file.open("a") as stream:
                stream.writelines(f"{clock}\n" for clock, _ in points)

    def end_run(*clocks: int) -> None:
        observer = Lines()
        observer.before_run(run)
        for clock in clocks:
            observer._ticks.add(clock, {"loss": 1.0})
        observer.after_run(run)

    def end_run_and_kill_it() -> None:
        begun: list[str] = []
        note = Lines._note
        send = Lines.send

        def kill_at_the_second(name: str) -> None:
            begun.append(name)
            if len(begun) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        def note_or_be_killed(self: Any, run: Any, **changes: Any) -> None:
            if "sent" in changes:
                kill_at_the_second("note")
            note(self, run, **changes)

        def send_or_be_killed(self: Any, *args: Any) -> None:
            kill_at_the_second("send")
            send(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lines, "_note", note_or_be_killed)
            patch.setattr(Lines, "send", send_or_be_killed)
            end_run(40)

    assert in_a_child(end_run_and_kill_it) == -signal.SIGKILL
    run.resumed = True
    end_run(40, 48)
    assert file.read_text() == "48\n"


def test_a_branch_is_a_run_of_its_own(train: Callable[..., Any], tmp_path: Path) -> None:
    lines = observe("stand-in")
    train(*lines, plugins=(PLUGIN,), run_dir="run")
    pggan_kit.train("tiny.gin", run_dir="branch", plugins=[STUB, PLUGIN], start_from="run@8x8")
    assert read_name(tmp_path / "branch", "stand-in") != read_name(tmp_path / "run", "stand-in")
    clocks = [clock for clock, _ in read_stand_in(tmp_path / "branch")["points"]["Progress/alpha"]]
    assert clocks == [32, 40]


def test_a_damaged_record_begins_another_run(train: Callable[..., Any], tmp_path: Path) -> None:
    run = train(*observe("stand-in"), plugins=(PLUGIN,), run_dir="run")
    file = tmp_path / "run" / "trackers" / "stand-in.json"
    before = json.loads(file.read_text())["run"]
    for damaged in ("{", "[]", '{"run": 3, "sent": 0}', '{"run": "a"}'):
        file.write_text(damaged)
        observer = StandIn()
        run.resumed = True
        observer.before_run(run)
        assert observer._record["run"] != before and observer._record["sent"] == 0


@pytest.mark.parametrize("original", ["moved", "moved, with a link", "copied", "begun again"])
def test_a_copy_of_a_run_is_a_run_of_its_own_and_a_moved_one_is_not(tmp_path: Path, original: str) -> None:
    state = SimpleNamespace(images=40, last_tick=40)
    warned: list[str] = []
    run: Any = SimpleNamespace(
        name="end",
        directory=tmp_path / "first",
        resumed=False,
        schedule=SimpleNamespace(stages=()),
        state=state,
        files=SimpleNamespace(warn=warned.append),
    )

    def send() -> dict[str, Any]:
        observer = StandIn()
        observer.before_run(run)
        observer._ticks.add(40, {"Loss": 1.0})
        observer.after_run(run)
        return observer._record

    run.directory.mkdir()
    first = send()
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    if original != "copied":
        shutil.rmtree(tmp_path / "first")
    if original == "moved, with a link":
        run.directory.symlink_to(tmp_path / "second")
    if original == "begun again":
        run.directory.mkdir()
        assert send()["run"] != first["run"]

    run.directory = tmp_path / "second"
    run.resumed = True
    second = send()
    assert (second["run"] == first["run"]) is (original != "copied")
    assert warned == [message for message in warned if str(tmp_path / "first") in message]
    assert len(warned) == (1 if original == "copied" else 0)

    # From then on the copy is a run like any other.
    assert send()["run"] == second["run"] and len(warned) <= 1


def test_trackers_write_here_whatever_other_tests_did_with_their_libraries(offline: Path) -> None:
    """W&B and Trackio keep what they read of the environment, here of another one."""
    for service in ("wandb", "trackio"):
        require_library(service)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("TRACKIO_DIR", str(offline / "elsewhere"))
        forget_environment()
        assert importlib.import_module("wandb").setup().settings.mode == "disabled"
        importlib.import_module("trackio")
    forget_environment()
    assert importlib.import_module("wandb").setup().settings.mode == "offline"
    assert Path(importlib.import_module("trackio.utils").MEDIA_DIR).is_relative_to(offline / "trackio")


@pytest.mark.parametrize("service", SERVICES[1:])
def test_a_missing_library_names_the_extra(
    service: str, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def import_module(name: str, *args: Any) -> Any:
        if name == service:
            raise ImportError(f"No module named '{name}'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ConfigError, match=rf"needs {service} .*: pip install 'pggan_kit\[{service}\]'"):
        train(f"train.observers = [@observers.{CLASSES[service]}()]", run_dir="run")


@pytest.mark.parametrize("kind", [WandB, MLflow, Trackio])
def test_wrong_settings_are_refused(kind: Any) -> None:
    for wrong in ({"count": -1}, {"every": 0}, {"project": ""}, {"project": 3}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            kind(**wrong)
    with pytest.raises(SettingError, match="mode"):
        WandB(mode="sometimes")
    assert kind.critical is False


class TestWandB(ObserverSuite):
    bad_arguments = ({"count": -1}, {"mode": "sometimes"})

    def make(self) -> WandB:
        require_library("wandb")
        return WandB(count=1)


class TestMLflow(ObserverSuite):
    bad_arguments = ({"count": -1},)

    def make(self) -> MLflow:
        require_library("mlflow")
        return MLflow(count=1)


class TestTrackio(ObserverSuite):
    bad_arguments = ({"count": -1},)

    def make(self) -> Trackio:
        require_library("trackio")
        return Trackio(count=1)
