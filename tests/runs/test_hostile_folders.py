"""Test files of unknown origin (checkpoints, run directories, configs): no code in them runs, differences are named."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import py_compile
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.killing import StopAt
from helpers.waiting import fail_if_it_waits

import pggan_kit
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation.plan import Plan
from pggan_kit.api.generator import load_generator
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, PluginError, RunError
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.plugin_host.plugin_files import read_trusted_hashes
from pggan_kit.runs.checkpoints import MANIFEST
from pggan_kit.runs.directory import START, RunDirectory

Cli = Callable[..., Result]


def read_message(result: Result) -> str:
    """Return the one line that reports wrong input."""
    assert result.exit_code == 2, result.output
    message = result.stderr.strip()
    assert "Traceback" not in message and message.splitlines()[-1].startswith("error: ")
    return message.splitlines()[-1]


def plant(run: Path, content: bytes) -> None:
    """Make this the run's last checkpoint, with the right SHA-256 in the manifest."""
    folder = run / "checkpoints"
    rows = json.loads((folder / MANIFEST).read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"{10**9:012d}-{sha256[:8]}.pt"
    (folder / name).write_bytes(content)
    rows.append({"file": name, "images": 10**9, "sha256": sha256, "forever": False})
    (folder / MANIFEST).write_text(json.dumps(rows))


def plant_changed(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Make a changed copy of the run's last checkpoint the last one."""
    saved = RunDirectory(run).checkpoints().load_last().content()
    result = change(saved)
    torch.save(saved if result is None else result, run / "new.pt")
    plant(run, (run / "new.pt").read_bytes())


@pytest.fixture
def run(copy_finished_run: Callable[[str], Path]) -> Path:
    """Return a copy of a finished run, as `run` in the working directory."""
    return copy_finished_run("run")


class Payload:
    """Pickled code that makes a folder when it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("proof",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("command", [["resume", "run"], ["sample", "run", "--out", "x.npz"]])
def test_a_checkpoint_with_code_is_refused_and_runs_nothing(
    run: Path, cli: Cli, command: list[str], forced: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the environment asks torch to run such code."""
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    if form == "pickle":
        plant(run, pickle.dumps({"format": 1, "images": Payload()}, protocol=2))
    else:
        torch.save({"images": Payload()}, "bad.pt", _use_new_zipfile_serialization=form == "zip")
        plant(run, Path("bad.pt").read_bytes())
    assert "a checkpoint is data, never code" in read_message(cli(*command))
    assert not Path("proof").exists()
    with pytest.raises(FileExistsError):
        pickle.loads(pickle.dumps((Payload(), Payload())))
    assert Path("proof").exists(), "the payload would have worked"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run.json", r"run holds no run|cannot read run/run\.json: no regular file"),
        ("config.gin", r"cannot read run/config\.gin: no regular file"),
        ("stats.jsonl", r"cannot read run/stats\.jsonl: no regular file"),
        ("log.txt", None),
        (".lock", None),
        (f"checkpoints/{MANIFEST}", r"cannot write run/checkpoints/manifest\.json: it is no regular file"),
    ],
)
def test_a_named_pipe_in_a_run_holds_no_command(run: Path, cli: Cli, stub: str, name: str, message: str | None) -> None:
    """A command ends with an error, or without the file."""
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with fail_if_it_waits():
        for command in (["resume", "run"], ["sample", "run", "--count", "2", "--out", "x.npz"]):
            result = cli(*command, "--plugin", stub)
            is_written = name in ("stats.jsonl", f"checkpoints/{MANIFEST}")
            if message is not None and (not is_written or command[0] == "resume"):
                assert re.search(message, read_message(result))
            else:
                assert result.exit_code == 0, result.output


WRONG = {
    "a newer format": (
        lambda saved: saved.update(format=99),
        r"by a newer pggan_kit \(format 99\); this version reads format",
    ),
    "an older format": (lambda saved: saved.update(format=0), r"has format 0; this version reads format"),
    "a list": (lambda saved: [1, 2], r"holds a list and not a run's state"),
    "a tensor": (lambda saved: torch.ones(2), r"holds a Tensor and not a run's state"),
    "no networks": (lambda saved: saved.pop("averages"), r"is corrupt: it has no entry 'averages'"),
    "too many stages": (lambda saved: saved.update(starts=[0] * 9), r"is in stage 8 of a schedule of 3 stages"),
    "texts as weights": (
        lambda saved: saved.update(generator={name: "x" for name in saved["generator"]}),
        r"is corrupt: its entry 'generator' has an impossible value",
    ),
    "a stage that begins later": (
        lambda saved: saved.update(starts=[0, 8, saved["images"] + 1]),
        r"is corrupt: its entries 'images' and 'starts' contradict each other",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_of_another_form_says_what_is_wrong(run: Path, stub: str, case: str) -> None:
    change, message = WRONG[case]
    plant_changed(run, lambda saved: result if isinstance(result := change(saved), (list, torch.Tensor)) else None)
    with pytest.raises(RunError, match=message):
        resume(run, plugins=[stub])
    with pytest.raises(RunError):
        load_generator(run, plugins=[stub])


OTHERS = {
    "architecture": (
        "architectures.PGGAN.channels = 8",
        r"checkpoint is of another architecture \(architectures\.PGGAN\.channels: 4 there, 8 here\)\..*--from RUN",
    ),
    "latents": (
        "train.latent_size = 4",
        r"another architecture \(train\.latent_size: 8 there, 4 here\)",
    ),
    "schedule": (
        "schedule.stable_images = 12",
        r"another schedule \(total_images: 40 there, 52 here; stable_images at 4x4: 8 there, 12 here; .*and 1 more\)",
    ),
    "sizes": ("schedule.sizes = (4, 8)", r"another schedule \(sizes: 4x4, 8x8, 16x16 there, 4x4, 8x8 here; "),
    "data set": ("datasets.Stub.n = 13", r"another data set \(images: 12 there, 13 here; content: [0-9a-f]+ there, "),
    "classes": ("datasets.Stub.classes = 2", r"another kind of data \(classes: 0 there, 2 here\) and of another data"),
    "several": (
        "train.latent_size = 4\ndatasets.Stub.n = 13",
        r"of another architecture \(.*\) and of another data set \(",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_another_experiment_says_which_and_how_they_differ(
    run: Path, stub: str, tiny: Callable[..., str], case: str
) -> None:
    """A finished run's checkpoints, put into the directory of another one."""
    line, message = OTHERS[case]
    with pytest.raises(Interrupted):
        pggan_kit.train(tiny(*line.splitlines()), run_dir="other", plugins=[stub, StopAt(4)])
    shutil.rmtree("other/checkpoints")
    shutil.copytree("run/checkpoints", "other/checkpoints")
    with pytest.raises(RunError, match=message) as raised:
        resume("other", plugins=[stub])
    assert len(str(raised.value)) < 600


def test_the_names_and_numbers_in_a_checkpoint_cannot_steer_a_terminal(run: Path, cli: Cli, stub: str) -> None:
    def steering(saved: dict[str, Any]) -> None:
        saved["identity"]["dataset"]["images"] = "\x1b[2J" + "x" * 10_000

    plant_changed(run, steering)
    message = read_message(cli("resume", "run", "--plugin", stub))
    assert "another data set" in message and message.isprintable() and len(message) < 600

    def nameless(saved: dict[str, Any]) -> None:
        saved["identity"] = {}
        saved["generator"]["\x1b[2J"] = torch.ones(1)

    plant_changed(run, nameless)
    message = read_message(cli("resume", "run", "--plugin", stub))
    assert "generator is of another architecture" in message and message.isprintable()
    plant_changed(run, lambda saved: saved.update(identity={"schedule": 3}))
    assert "its entry 'identity' has an impossible value" in read_message(cli("resume", "run", "--plugin", stub))


PLUGIN = """
from pathlib import Path
from pggan_kit import Component, hookimpl

Path("ran").touch()

@hookimpl
def before_run(run): ...
"""


REFUSES = """
from pggan_kit import ConfigError, hookimpl

@hookimpl
def before_run(run):
    raise ConfigError("this experiment does not fit")
"""


@pytest.mark.parametrize("there", ["none", "folder", "link"])
def test_a_run_that_never_began_leaves_what_was_there(
    there: str, tiny: Callable[..., str], cli: Cli, stub: str
) -> None:
    Path("refuses.py").write_text(REFUSES)
    run = Path("run")
    if there == "folder":
        run.mkdir()
    elif there == "link":
        Path("disk").mkdir()
        run.symlink_to("disk")
    result = cli("train", tiny(), "--plugin", stub, "--plugin", "refuses.py", "--run-dir", run)
    assert result.exit_code == 2 and "this experiment does not fit" in result.stderr
    assert run.is_symlink() == (there == "link")
    if there == "none":
        assert not run.exists()
    else:
        assert list(run.iterdir()) == []


def test_a_changed_plugin_file_is_refused_unless_it_is_named(train: Callable[..., Any], cli: Cli, stub: str) -> None:
    plugin = Path("mine.py").resolve()
    plugin.write_text(PLUGIN)
    train(plugins=(str(plugin),), run_dir="run")
    assert cli("resume", "run").exit_code == 0, "unchanged"
    os.unlink("ran")
    plugin.write_text(PLUGIN.replace("touch", "touch "))
    message = read_message(cli("resume", "run"))
    assert f"the plugin file {plugin} has changed since run/run.json recorded it" in message
    assert f"--plugin {plugin}" in message and not Path("ran").exists()
    assert "has changed" in read_message(cli("sample", "run", "--out", "x.npz")) and not Path("ran").exists()
    assert cli("resume", "run", "--plugin", stub, "--plugin", plugin).exit_code == 0
    assert Path("ran").exists()


def test_a_plugin_file_that_is_a_link_is_recorded_by_its_own_name(train: Callable[..., Any], cli: Cli) -> None:
    """Its target need not end in .py."""
    Path("store").mkdir()
    Path("store/3f2a").write_text(PLUGIN)
    Path("mine.py").symlink_to("store/3f2a")
    train(plugins=("mine.py",), run_dir="run")
    recorded = json.loads(Path("run/run.json").read_text())["plugins"][-1]["origin"]
    assert recorded == str(Path.cwd() / "mine.py")
    assert cli("resume", "run").exit_code == 0


def test_a_run_of_somebody_else_cannot_bring_code_along(
    run: Path, cli: Cli, stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run.json points to a file beside it. Named by hand, the file runs, and then also where it is recorded."""
    evil = tmp_path / "run" / "evil.py"
    evil.write_text(PLUGIN)
    about = json.loads((run / "run.json").read_text())
    row = {"name": "evil.py", "origin": str(evil), "sha256": hashlib.sha256(evil.read_bytes()).hexdigest()}
    (run / "run.json").write_text(json.dumps({**about, "plugins": [*about["plugins"], row]}))
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    for command in (["resume", "run"], ["sample", "run", "--out", "x.npz"]):
        message = read_message(cli(*command))
        assert "was never named on this machine" in message and "--plugin" in message
    assert not Path("ran").exists()
    assert cli("resume", "run", "--plugin", stub, "--plugin", evil).exit_code == 0
    os.unlink("ran")
    assert cli("resume", "run").exit_code == 0
    assert Path("ran").exists()


EVIL = """
from pathlib import Path
from pggan_kit import hookimpl

Path("evil ran").touch()

@hookimpl
def before_run(run): ...
"""
SHA256 = hashlib.sha256(EVIL.encode()).hexdigest()

MISSING = object()
HASHES = {
    "right": SHA256,
    "wrong": "0" * 64,
    "missing": MISSING,
    "null": None,
    "empty": "",
    "cut": SHA256[:63],
    "upper case": SHA256.upper(),
    "with a line end": SHA256 + "\n",
    "no hex": "g" * 64,
}

SPELLINGS = [
    "./run/evil.py",
    "run/evil.py",
    "run//evil.py",
    "run/./evil.py",
    "run/checkpoints/../evil.py",
    "link.py",
    "~/evil.py",
    "{here}/run/evil.py",
    "{here}/./run//evil.py",
    "{here}/run/checkpoints/../evil.py",
    "{here}/link.py",
]


def draw_for_report(folder: str) -> None:
    """Draw what a report shows of a run, and raise what could not be drawn, which a report only mentions."""
    from pggan_kit.report.run_pictures import draw_run
    from pggan_kit.report.run_record import read_run

    said: list[str] = []
    draw_run(read_run(Path(folder)), said.append)
    if said:
        raise RunError(said[0])


def make_plan(plugins: dict[str, Any]) -> Plan:
    """Return the plan of an ablation of the run's own config, as somebody else may have written it."""
    return Plan(
        name="switch",
        base="tiny.gin",
        variants={"linear": [], "hard": []},
        seeds=[0],
        controls={},
        contrasts=[["hard", "linear"]],
        primary="gap",
        quantities={"gap": {"direction": "lower", "scale": "log"}},
        margin=0.5,
        evaluation=[],
        shared=[],
        branch=None,
        configs={name: Path("run/config.gin").read_text() for name in ("linear", "hard")},
        plugins=plugins,
    )


OPENERS: dict[str, Callable[[Cli], Any]] = {
    "sample": lambda cli: cli("sample", "run", "--out", "x.npz"),
    "resume": lambda cli: cli("resume", "run"),
    "evaluate": lambda cli: cli("evaluate", "run"),
    "load_generator": lambda cli: load_generator("run"),
    "report": lambda cli: draw_for_report("run"),
    "trial": lambda cli: cli("trial", "out", "hard", "0"),
}
"""Commands and functions that read the paths of plugin files from a folder."""


@pytest.fixture
def refused_plugin(run: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that checks that a folder with this record runs nothing, and returns the message."""
    monkeypatch.setenv("HOME", str(run.resolve()))
    (run / "evil.py").write_text(EVIL)
    Path("link.py").symlink_to(run.resolve() / "evil.py")
    about = json.loads((run / "run.json").read_text())

    def check(opener: str, origin: str, sha256: object) -> str:
        row = {"name": "evil.py", "origin": origin, "sha256": sha256}
        if sha256 is MISSING:
            del row["sha256"]
        (run / "run.json").write_text(json.dumps({**about, "plugins": [row, *about["plugins"]]}))
        plans.write_plan(make_plan({origin: None if sha256 is MISSING else sha256}), Path("out"))
        try:
            result = OPENERS[opener](cli)
            message = read_message(result)
        except (PluginError, RunError) as error:
            message = str(error)
        assert not Path("evil ran").exists(), f"{origin} with the SHA-256 {sha256!r} ran"
        assert SHA256 not in read_trusted_hashes(), f"{origin} with the SHA-256 {sha256!r} is trusted from now on"
        assert "evil.py" in message or "link.py" in message
        return message

    return check


@pytest.mark.parametrize("opener", OPENERS)
def test_a_recorded_plugin_file_runs_under_no_spelling_of_its_path(
    opener: str, refused_plugin: Callable[..., str], tmp_path: Path
) -> None:
    """Whatever hash stands beside it."""
    record = "out/plan.json" if opener == "trial" else "run/run.json"
    cases = []
    for spelling in SPELLINGS:
        origin = spelling.format(here=tmp_path)
        # No hash is looked at beside a relative path.
        names = list(HASHES) if origin.startswith("/") else ["right", "missing", "null"]
        cases += [(origin, name) for name in names]
    for origin, name in cases:
        message = refused_plugin(opener, origin, HASHES[name])
        assert record in message, (origin, name)
        if not origin.startswith("/"):
            assert "by a relative path" in message, (origin, name)
        elif name == "right":
            assert "was never named on this machine" in message
        elif name == "wrong":
            assert "has changed" in message
        else:
            assert "without its SHA-256" in message, (origin, name)


def test_a_branch_runs_no_plugin_of_its_trunk(run: Path, cli: Cli, stub: str, tiny: Callable[..., str]) -> None:
    """It runs under the plugins that it was begun with."""
    (run / "evil.py").write_text(EVIL)
    about = json.loads((run / "run.json").read_text())
    config = tiny("schedule.stable_images = {4: 8, 16: 12}")
    for number, origin in enumerate(("./run/evil.py", "run/evil.py", str(run.resolve() / "evil.py"))):
        row = {"name": "evil.py", "origin": origin, "sha256": "0" * 64}
        (run / "run.json").write_text(json.dumps({**about, "plugins": [row]}))
        result = cli("train", config, "--from", "run", "--plugin", stub, "--run-dir", f"branch-{number}")
        assert result.exit_code == 0, result.output
        assert not Path("evil ran").exists() and SHA256 not in read_trusted_hashes()


def test_what_a_run_records_of_other_plugins_needs_no_hash(run: Path) -> None:
    """Installed ones are found by their names, and objects of the caller's are given again."""
    rows = json.loads((run / "run.json").read_text())["plugins"]
    assert [row["name"] for row in rows if row["sha256"] is not None] == ["stub_plugin.py"] and len(rows) > 1
    load_generator(run)


def test_the_path_of_a_plugin_file_is_recorded_whole_however_it_was_named(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the run can be opened from another working directory."""
    Path("a").mkdir()
    Path("mine.py").write_text(PLUGIN)
    Path("link.py").symlink_to("mine.py")
    for named in ("./mine.py", "a/../mine.py", ".//mine.py", Path("mine.py").resolve()):
        assert load_plugins([named]).loaded[-1].origin == str(tmp_path.resolve() / "mine.py"), named
    # What a link leads to need not look like a plugin.
    assert load_plugins(["link.py"]).loaded[-1].origin == str(tmp_path.resolve() / "link.py")
    train(plugins=("a/../mine.py",), run_dir="run")
    monkeypatch.chdir("a")
    load_generator("../run")


def test_a_line_that_is_no_hash_trusts_nothing(
    run: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's log may be a link to the list."""
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    Path("cache").mkdir()
    Path("cache/trusted_plugins").write_text(f"2026-01-01 00:00:00 warning: {SHA256} is damaged\n{'0' * 64}\n")
    assert read_trusted_hashes() == {"0" * 64}


def test_what_was_hashed_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a cached .pyc of another content with the same size and time."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    os.utime(path, (1, 1))
    py_compile.compile(str(path))
    path.write_text(PLUGIN.replace("ran", "new"))
    os.utime(path, (1, 1))
    load_plugins([path])
    assert Path("new").exists()


RECORDS = {
    "empty": b"",
    "cut": b'{"plugins": [',
    "a list": b"[]",
    "no plugins": b"{}",
    "plugins of text": b'{"plugins": "ab"}',
    "a number as path": b'{"plugins": [{"name": "a", "origin": 3, "sha256": "x"}]}',
    "a number as distribution": b'{"plugins": [{"name": "a", "origin": "a", "distribution": 3}]}',
    "a number as hash": b'{"plugins": [{"name": "a", "origin": "a", "sha256": 3}]}',
    "no UTF-8": b"\xff\xfe",
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_damaged_run_json_is_named(run: Path, cli: Cli, case: str) -> None:
    (run / "run.json").write_bytes(RECORDS[case])
    assert "run/run.json is damaged" in read_message(cli("resume", "run"))


def test_a_damaged_config_is_named(run: Path, cli: Cli, stub: str) -> None:
    for content, message in (
        (b"\xff", "config.gin is damaged: it is no UTF-8 text"),
        (b"include '/etc/hostname'\n", "an override cannot include a file"),
        (b"import os\n", "a config may not import"),
    ):
        (run / "config.gin").write_bytes(content)
        assert message in read_message(cli("resume", "run", "--plugin", stub))
    (run / "config.gin").unlink()
    assert "cannot read run/config.gin" in read_message(cli("resume", "run", "--plugin", stub))


@pytest.mark.parametrize(
    "name", ["..", "../up", "a/b", "a\\b", "x\ny", "\x1b[2J", "-rf", "a" * 500, "ü" * 200, "", " ", "CON:", "~"]
)
def test_a_runs_folder_lies_right_under_runs_whatever_its_config_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = RunDirectory.create(None, name, dict.fromkeys(START, ""))
    files.unlock()
    assert files.path.resolve().parent == tmp_path / "runs"
    assert files.path.name.startswith("00000-") and files.path.name.isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


CODE = [
    "import os",
    "from os import system",
    "import os.path as p",
    "from __gin__ import dynamic_registration",
    "train.seed = __import__('os').mkdir('proof')",
    "train.seed = @os.mkdir()",
    "train.seed = @builtins.exec()",
    "train.seed = @open()",
    "train.seed = (lambda: 3)()",
    "train.seed = [x for x in (1,)][0]",
    "train.seed = open('/etc/hostname').read()",
    "train.seed = f'{1}'",
    "train.seed = %os.environ",
    "train.dataset = @gin.config.external_configurable()",
    "os.mkdir.path = 'proof'",
    "gin.config.parse_config.bindings = 'import os'",
    "include 'https://example.org/x.gin'",
    "include '/dev/null\\0'",
]


@pytest.mark.parametrize("line", CODE)
def test_a_config_cannot_import_read_or_run_anything(line: str, rejected: Callable[..., str], tmp_path: Path) -> None:
    rejected("", line)
    assert not (tmp_path / "proof").exists()
