"""Test checkpoints that were damaged after they were written: reported, and the one before is used."""

from __future__ import annotations

import json
import os
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
from pggan_kit.errors import RunError, UserError
from pggan_kit.runs.checkpoints import DAMAGED, MANIFEST, Checkpoints


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
    return Checkpoints(folder).load_last(said.append).images, said


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with whole checkpoints at 1 and 2; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("pair")
    save(folder, 1, 2)
    return folder


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
    assert "no such file" in said[0] and "Using the one before: images 1" in said[0]


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
    with pytest.raises(RunError, match=r"holds no checkpoint.*Start it again from scratch"):
        load_last(tmp_path)
    with pytest.raises(RunError, match=r"holds no checkpoint.*Start it again from scratch"):
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
        entries = Checkpoints(folder).read_entries()
    assert entries == [replace(entry, forever=True) for entry in wanted], "what was to stay is not known: all stay"
    if case != "a folder":
        with pytest.warns(UserWarning, match="found without it"):
            Checkpoints(folder, keep=1).save(snapshot_at(3))
        assert [row.images for row in Checkpoints(folder).read_entries()] == [1, 2, 3]


def test_files_of_other_names_are_no_checkpoints(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "checkpoints"))
    (folder / MANIFEST).unlink()
    shutil.copy(find_newest(folder), folder / "mine.pt")
    shutil.copy(find_newest(folder), folder / "000000000009-00000000.pt")
    images, said = load_last(folder)
    assert images == 2
    assert "left out as damaged: mine.pt, 000000000009-00000000.pt" in said[0]


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
    again = Checkpoints(tmp_path, keep=2)
    again.save(snapshot_at(3))
    assert [row.images for row in again.read_entries()] == [1, 3]
    assert first.exists() and not second.exists()
    assert second.with_name(second.name + DAMAGED).exists(), "it is kept to be looked at"


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
    assert all(torch.equal(value, resumed.ema[name]) for name, value in wanted.ema.items())
    assert [row["images"] for row in run.files.stats()] == [
        json.loads(line)["images"] for line in Path("hurt/stats.jsonl").read_text().splitlines()
    ]
    assert "warning: hurt/checkpoints" in result.stderr
    assert "checkpoint.py" not in result.stderr, "no line of code is shown"


def test_images_can_be_drawn_from_a_run_whose_last_checkpoint_is_damaged(train: Callable[..., Any]) -> None:
    run = train()
    path = run.checkpoints.find_last_file()
    flip_bit(path, 5000)
    with pytest.warns(UserWarning, match="Using the one before"):
        generator = load_generator(run.directory)
    assert generator.images < run.state.images
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
