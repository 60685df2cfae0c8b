"""Test checkpoints that were damaged after they were written: reported, and the one before is used."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.snapshots import snapshot_at
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pggan_kit.api.generator import load_generator
from pggan_kit.api.train import resume
from pggan_kit.errors import RunError, UserError
from pggan_kit.runs import checkpoints as checkpoints_module
from pggan_kit.runs.checkpoints import DAMAGED, MANIFEST, Checkpoints
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import load_stage_end
from pggan_kit.system.files import read_bytes
from pggan_kit.testing.support import are_equal


def save(folder: Path, *clocks: int) -> list[Path]:
    checkpoints = Checkpoints(folder, keep=len(clocks))
    return [checkpoints.save(snapshot_at(images)) for images in clocks]


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def load_last(folder: Path) -> tuple[int, list[str]]:
    """Return the clock of what is loaded, and the messages."""
    said: list[str] = []
    return Checkpoints(folder, say=said.append).load_last().images, said


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with whole checkpoints at 1 and 2; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("pair")
    checkpoints = Checkpoints(folder)
    checkpoints.save(snapshot_at(1), forever=True)
    checkpoints.save(snapshot_at(2))
    return folder


@pytest.fixture
def run(copy_finished_run: Callable[[str], Path]) -> RunDirectory:
    """Return a copy of a finished run, `run` in the working folder."""
    return RunDirectory(copy_finished_run("run"))


def find_newest(folder: Path) -> Path:
    return max(folder.glob("*.pt"))


Damage = Callable[[Path, float], None]


def flip_somewhere(path: Path, where: float) -> None:
    flip_bit(path, int(where * 8 * path.stat().st_size))


def cut_somewhere(path: Path, where: float) -> None:
    os.truncate(path, int(where * path.stat().st_size))


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("damage", [flip_somewhere, cut_somewhere])
@given(where=st.floats(0, 1, exclude_max=True))
@example(where=0.0)
@settings(max_examples=100, deadline=None)
def test_any_flipped_bit_and_any_cut_falls_back_and_says_so(
    pair: Path, damage: Damage, with_manifest: bool, where: float
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(shutil.copytree(pair, Path(parent, "checkpoints")))
        if not with_manifest:
            (folder / MANIFEST).unlink()
        damaged = find_newest(folder)
        before = min(folder.glob("*.pt")).read_bytes()
        damage(damaged, where)
        images, said = load_last(folder)
        assert images == 1
        assert damaged.name in " ".join(said) and "damaged" in " ".join(said)
        assert min(folder.glob("*.pt")).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("with_manifest", [True, False])
def test_every_single_bit_and_every_length(pair: Path, tmp_path: Path, with_manifest: bool) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    if not with_manifest:
        (folder / MANIFEST).unlink()
    path = find_newest(folder)
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flip_bit(path, bit)
        assert load_last(folder)[0] == 1
        flip_bit(path, bit)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert load_last(folder)[0] == 1
    path.write_bytes(content)
    assert load_last(folder)[0] == 2


def test_a_missing_checkpoint_falls_back_and_says_so(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    find_newest(folder).unlink()
    images, said = load_last(folder)
    assert images == 1 and len(said) == 1
    assert "No such file" in said[0] and "Using the one before: images 1" in said[0]


def test_a_pipe_or_a_folder_in_place_of_a_checkpoint_is_not_waited_for(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    path = find_newest(folder)
    path.unlink()
    os.mkfifo(path)
    assert load_last(folder)[0] == 1
    path.unlink()
    path.mkdir()
    assert load_last(folder)[0] == 1


def test_where_none_is_whole_the_error_says_so(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    for path in folder.glob("*.pt"):
        flip_bit(path, 9)
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole: .*000000000002-.* is damaged"):
        load_last(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole"):
        load_last(folder)


def test_no_checkpoint_at_all_is_another_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no checkpoint, so there is nothing to continue from.*put it back"):
        load_last(tmp_path)
    with pytest.raises(RunError, match=r"holds no checkpoint, so there is nothing to continue from.*put it back"):
        load_last(tmp_path / "missing")


MANIFESTS = {
    "empty": b"",
    "cut": b'[\n {\n  "file": "0000000',
    "no list": b"{}",
    "null": b"null",
    "number": b"3",
    "no rows": b"[1, 2]",
    "missing key": b'[{"file": "000000000001-00000000.pt"}]',
    "no UTF-8": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "zeros": bytes(500),
}


@pytest.mark.parametrize("case", [*MANIFESTS, "missing", "a folder"])
def test_a_manifest_that_is_missing_or_damaged_is_made_from_the_files(case: str, pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    wanted = Checkpoints(folder).read_entries()
    (folder / MANIFEST).unlink()
    if case == "a folder":
        (folder / MANIFEST).mkdir()
    elif case != "missing":
        (folder / MANIFEST).write_bytes(MANIFESTS[case])
    images, said = load_last(folder)
    assert images == 2 and len(said) == 1
    assert "2 whole checkpoints were found without it" in said[0]
    with pytest.warns(UserWarning, match="found without it"):
        assert Checkpoints(folder).read_entries() == wanted, "the files say what is to stay"
    if case != "a folder":
        with pytest.warns(UserWarning, match="found without it"):
            Checkpoints(folder, keep=1).save(snapshot_at(3))
        assert [row.images for row in Checkpoints(folder).read_entries()] == [1, 3]


def test_files_of_other_names_are_no_checkpoints(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    (folder / MANIFEST).unlink()
    shutil.copy(find_newest(folder), folder / "mine.pt")
    shutil.copy(find_newest(folder), folder / "000000000009-00000000.pt")
    images, said = load_last(folder)
    assert images == 2
    assert "left out as damaged: 000000000009-00000000.pt, mine.pt" in said[0]


@pytest.mark.parametrize("name", ["../outside.pt", "/etc/passwd", "000000000002-0123abcd.pt/../x", "", None, 3])
def test_a_manifest_cannot_lead_out_of_its_folder(name: Any, pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    outside = tmp_path / "outside.pt"
    torch.save(snapshot_at(99).content(), outside)
    rows = json.loads((folder / MANIFEST).read_text())
    rows.insert(0, {**rows[0], "file": name})
    (folder / MANIFEST).write_text(json.dumps(rows))
    assert load_last(folder)[0] == 2
    with pytest.warns(UserWarning, match="is damaged"):
        Checkpoints(folder, keep=1).save(snapshot_at(3))
    assert outside.exists()


def test_the_next_save_sets_damaged_ones_aside_and_drops_no_whole_one(tmp_path: Path) -> None:
    """Else the damaged one would count among the last that are kept."""
    first, second = save(tmp_path, 1, 2)
    flip_bit(second, 1000)
    said: list[str] = []
    again = Checkpoints(tmp_path, keep=2, say=said.append)
    again.save(snapshot_at(3))
    assert [row.images for row in again.read_entries()] == [1, 3]
    assert first.exists() and not second.exists()
    assert second.with_name(second.name + DAMAGED).exists(), "it is kept to be looked at"
    assert len(said) == 1 and f"{second} is damaged" in said[0] and f"renamed to {second.name}{DAMAGED}" in said[0]


def test_reading_changes_nothing(tmp_path: Path) -> None:
    _, second = save(tmp_path, 1, 2)
    flip_bit(second, 1000)
    (tmp_path / ".rest.part").write_text("another process may be writing this")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    load_last(tmp_path)
    Checkpoints(tmp_path).read_entries()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_resumed_run_goes_on_from_the_one_before_and_says_so(
    train: Callable[..., Any], cli: Callable[..., Result], stub: str
) -> None:
    """Its end is that of a run whose checkpoint was never damaged; the message is on stderr and in log.txt."""
    run = train("train.keep = 3", run_dir="whole")
    wanted = run.checkpoints.load_last()
    shutil.copytree("whole", "hurt")
    folder = Path("hurt/checkpoints")
    path = Checkpoints(folder).find_last_file()
    assert path is not None
    flip_bit(path, 5000)
    result = cli("resume", "hurt", "--plugin", stub)
    assert result.exit_code == 0, result.output
    said = result.stderr + Path("hurt/log.txt").read_text()
    assert said.count("Using the one before: images 32") == 2, said
    resumed = Checkpoints(folder).load_last()
    assert resumed.images == wanted.images
    assert are_equal(dict(resumed.averages), dict(wanted.averages))
    assert [row["images"] for row in run.files.stats()] == [
        json.loads(line)["images"] for line in Path("hurt/stats.jsonl").read_text().splitlines()
    ]
    assert "warning: hurt/checkpoints" in result.stderr
    assert "checkpoint.py" not in result.stderr, "no line of code is shown"


def test_images_can_be_drawn_from_a_run_whose_last_checkpoint_is_damaged(run: RunDirectory) -> None:
    path = run.checkpoints().find_last_file()
    assert path is not None
    flip_bit(path, 5000)
    with pytest.warns(UserWarning, match="Using the one before"):
        generator = load_generator(run.path)
    assert generator.images == 32
    assert issubclass(RunError, UserError)


def test_one_checkpoint_stays_for_each_stage_and_for_each_fade(train: Callable[..., Any]) -> None:
    """Just before a fade ends, both paths are there: any alpha can still be drawn."""
    run = train("train.keep = 1")
    entries = [row for row in run.checkpoints.read_entries() if row.forever]
    assert [row.images for row in entries] == [8, 16, 24, 32, 40]
    states = [run.checkpoints.load(row) for row in entries]
    assert [state.bridged["generator"] for state in states] == [False, True, False, True, False]


def test_a_hard_switch_keeps_none_for_fades(train: Callable[..., Any]) -> None:
    run = train("train.keep = 1", "train.switch = @switches.Hard()")
    assert [row.images for row in run.checkpoints.read_entries() if row.forever] == [8, 24, 40]


@pytest.mark.parametrize("stride", [pytest.param(3, id="few"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_no_changed_bit_of_the_manifest_sets_a_whole_file_aside(pair: Path, tmp_path: Path, stride: int) -> None:
    """Each file's name carries its hash, and its content says whether it is to stay."""
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    wanted = Checkpoints(folder).read_entries()
    names = sorted(path.name for path in folder.iterdir())
    manifest = (folder / MANIFEST).read_bytes()
    for position in range(0, len(manifest), stride):
        (folder / MANIFEST).write_bytes(manifest)
        flip_bit(folder / MANIFEST, 8 * position + position % 7)
        said: list[str] = []
        checkpoints = Checkpoints(folder, say=said.append)
        is_harmless = json.loads(manifest) == read_json(folder / MANIFEST)
        assert checkpoints.load_last().images == 2
        checkpoints.clean_up()
        assert Checkpoints(folder).read_entries() == wanted
        assert sorted(path.name for path in folder.iterdir()) == names
        assert is_harmless or MANIFEST in " ".join(said), "what is not believed is named"
        assert json.loads((folder / MANIFEST).read_bytes()) == json.loads(manifest)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def test_resume_says_what_it_sets_aside(train: Callable[..., Any], cli: Callable[..., Result], stub: str) -> None:
    """The end of a stage that was over long ago, too: on the terminal and in log.txt."""
    run = train("train.keep = 1", run_dir="run")
    entries = run.checkpoints.read_entries()
    damaged = run.checkpoints.folder / entries[0].file
    missing = run.checkpoints.folder / entries[1].file
    flip_bit(damaged, 5000)
    missing.unlink()
    result = cli("resume", "run", "--plugin", stub)
    assert result.exit_code == 0, result.output
    log = Path("run/log.txt").read_text()
    for line in (f"{damaged} is damaged: its content is not what was written. It was renamed to {damaged.name}.damaged",
                 f"cannot read {missing}: No such file or directory. It is no longer listed"):  # fmt: skip
        assert f"warning: {line}" in log and line in result.stderr
    assert damaged.with_name(damaged.name + DAMAGED).exists()
    assert run.checkpoints.read_entries() == entries[2:]
    with pytest.raises(RunError, match=r"the stages that have ended: 1 \(8x8\), 2 \(16x16\)$"):
        load_stage_end(run.checkpoints, 0)


def test_a_damaged_stage_end_does_not_hide_the_others(run: RunDirectory) -> None:
    checkpoints = run.checkpoints()
    first = next(entry for entry in checkpoints.read_entries() if entry.forever)
    flip_bit(checkpoints.folder / first.file, 5000)
    assert load_stage_end(checkpoints, 1)[1].size == "8x8"
    with pytest.raises(RunError, match=r"ended: 1 \(8x8\), 2 \(16x16\)\. .*000000000008-\w+\.pt is damaged"):
        load_stage_end(checkpoints, 0)


def test_a_file_that_cannot_be_read_now_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails for a moment: root may read anything, so the call itself refuses."""
    first, second = save(tmp_path, 1, 2)

    def fail(path: Path) -> bytes:
        if path == first:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(path)

    said: list[str] = []
    checkpoints = Checkpoints(tmp_path, keep=1, say=said.append)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "read_bytes", fail)
        for images in (3, 4):
            checkpoints.save(snapshot_at(images))
    assert said == [f"cannot read {first}: Input/output error. It stays where it is"]
    assert [entry.images for entry in checkpoints.read_entries()] == [1, 4] and not second.exists()
    assert checkpoints.load(checkpoints.read_entries()[0]).images == 1


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("target", ["checkpoints", "../nowhere"])
def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    target: str, cli: Callable[..., Result], stub: str
) -> None:
    """A link in a circle stands for missing permission, one to nowhere for a disk that is not there."""
    Path("run/checkpoints").rename("kept")
    os.remove("run/stats.jsonl")  # nothing else tells that the run has trained
    Path("run/checkpoints").symlink_to(target)
    before = sorted(Path("run").iterdir())
    for command in (["resume", "run"], ["sample", "run", "--out", "x.npz"]):
        result = cli(*command, "--plugin", stub)
        assert result.exit_code == 2 and "scratch" not in result.stderr
        assert re.search(r"make its disk available again, and repeat the command", result.stderr)
    assert sorted(Path("run").iterdir()) == before
    os.remove("run/checkpoints")
    Path("kept").rename("run/checkpoints")
    assert cli("resume", "run", "--plugin", stub).exit_code == 0


def unlist(folder: Path, *images: int) -> None:
    """Take rows out of the manifest, as a process leaves it that is killed around its writing."""
    rows = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps([row for row in rows if row["images"] not in images]))


def test_whole_files_that_no_manifest_lists_are_used_or_removed(tmp_path: Path) -> None:
    """One later than the manifest's last is used, one that is to stay is kept, an earlier one is a leftover."""
    checkpoints = Checkpoints(tmp_path, keep=100)
    paths = [checkpoints.save(snapshot_at(images), forever=images in (1, 3)) for images in (1, 2, 3, 4, 5)]
    unlist(tmp_path, 1, 2, 5)
    said: list[str] = []
    again = Checkpoints(tmp_path, say=said.append)
    assert [(entry.images, entry.forever) for entry in again.read_entries()] == [
        (1, True), (3, True), (4, False), (5, False)
    ]  # fmt: skip
    assert again.load_last().images == 5
    assert all(path.exists() for path in paths), "reading changes nothing"
    assert again.clean_up() == [paths[1].name]
    assert [path.exists() for path in paths] == [True, False, True, True, True]
    assert not said and Checkpoints(tmp_path).read_entries() == again.read_entries()


def test_a_leftover_is_used_where_nothing_else_is_whole(tmp_path: Path) -> None:
    leftover, other, listed = save(tmp_path, 1, 2, 3)
    unlist(tmp_path, 1, 2)
    flip_bit(other, 1000)
    flip_bit(listed, 1000)
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path, say=said.append)
    assert checkpoints.load_last().images == 1
    assert "Using the one before: images 1" in said[0]
    assert checkpoints.clean_up() == []
    assert leftover.exists() and [entry.images for entry in checkpoints.read_entries()] == [1]
    assert {path.name for path in tmp_path.glob(f"*{DAMAGED}")} == {other.name + DAMAGED, listed.name + DAMAGED}
    assert all(any(f"{path} is damaged" in line for line in said[1:]) for path in (other, listed))


def test_the_first_checkpoint_of_a_process_that_was_killed_does_not_stay_forever(tmp_path: Path) -> None:
    """It was written, and the manifest was not yet: nothing is lost, so nothing is said."""
    save(tmp_path, 0)
    (tmp_path / MANIFEST).unlink()
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path, keep=1, say=said.append)
    assert checkpoints.load_last().images == 0
    checkpoints.save(snapshot_at(1))
    assert [path.name[:12] for path in tmp_path.glob("*.pt")] == ["000000000001"] and not said


def test_leftovers_of_a_killed_process_are_removed_and_counted(train: Callable[..., Any], stub: str) -> None:
    """Temporary files anywhere in the run's folder, and a checkpoint that is no longer listed."""
    run = train("train.observers = [@observers.Samples()]", run_dir="run")
    passing = [entry for entry in run.checkpoints.read_entries() if not entry.forever]
    leftover = Checkpoints(run.checkpoints.folder, keep=100).save(replace(run.checkpoints.load_last(), images=30))
    unlist(run.checkpoints.folder, 30)
    parts = [
        Path("run", name) for name in (".stats.jsonl.a1.part", "samples/.x.png.b2.part", "checkpoints/.y.pt.c3.part")
    ]
    for path in parts:
        path.write_bytes(b"half")
    kept = Path("run/mine.part")
    kept.write_text("no temporary file")
    resume("run", plugins=[stub])
    assert not any(path.exists() for path in [*parts, leftover]) and kept.exists()
    assert [entry for entry in run.checkpoints.read_entries() if not entry.forever] == passing
    line = next(line for line in Path("run/log.txt").read_text().splitlines() if "leftovers" in line)
    assert "removed 4 leftovers of a process that was killed: " in line
    assert all(path.name in line for path in [*parts, leftover])
