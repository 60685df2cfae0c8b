"""Test checkpoints: whole or not at all, verified, kept as promised, never code."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killing import in_a_child, killed_at
from helpers.snapshots import snapshot_at

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.runs.checkpoints import MANIFEST, Checkpoints, Entry
from pggan_kit.system.files import write_atomically


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    path = checkpoints.save(snapshot_at(3, components={"nested": [("a", 1.5), {"b": None}]}))
    loaded = checkpoints.load_last()
    assert torch.equal(loaded.generator["weight"], snapshot_at(3).generator["weight"])
    assert loaded.components == {"nested": [("a", 1.5), {"b": None}]}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoints.read_entries() == [Entry(path.name, 3, sha256, forever=False)]
    written = json.loads((checkpoints.folder / MANIFEST).read_text())
    row = {"file": path.name, "images": 3, "sha256": sha256, "forever": False, "between_ticks": False}
    row["holds"] = "state"
    assert written == [row]


def test_a_wrong_hash_in_the_manifest_is_said_and_the_file_is_used(tmp_path: Path) -> None:
    """The file's name has its own hash, so the manifest is what is wrong."""
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(snapshot_at(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoints.load_last()

    rows = json.loads((tmp_path / MANIFEST).read_text())
    rows[-1]["sha256"] = rows[-1]["sha256"][:8] + "0" * 56  # whose first digits the name has
    (tmp_path / MANIFEST).write_text(json.dumps(rows))
    with pytest.warns(UserWarning, match=f"manifest.json has a wrong SHA-256 for {path.name}"):
        loaded = Checkpoints(tmp_path).load_last()
    assert torch.equal(loaded.generator["weight"], snapshot_at(3).generator["weight"])


def test_the_last_few_and_those_forever_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for images in range(1, 8):
        checkpoints.save(snapshot_at(images), forever=images in (2, 5))
    assert [entry.images for entry in checkpoints.read_entries()] == [2, 5, 6, 7]
    assert len(list_files(tmp_path)) == 5, "the files of dropped checkpoints are gone, and nothing else is left"
    assert checkpoints.load_last().images == 7


@pytest.mark.parametrize("keep", [1, 2])
def test_a_checkpoint_between_ticks_pushes_none_out_and_goes_with_the_next(tmp_path: Path, keep: int) -> None:
    """A run that was stopped often keeps the same checkpoints as one that was not."""
    checkpoints = Checkpoints(tmp_path, keep)
    for images in (8, 16):
        checkpoints.save(snapshot_at(images))
    for images in (17, 18):
        checkpoints.save(snapshot_at(images, between_ticks=True))
        assert checkpoints.load_last().between_ticks and checkpoints.load_last().images == images
        assert [entry.images for entry in checkpoints.read_entries()] == [8, 16, images][-1 - keep :]
    checkpoints.save(snapshot_at(24))
    assert [entry.images for entry in checkpoints.read_entries()] == [8, 16, 24][-keep:]
    assert len(list_files(tmp_path)) == keep + 1


@pytest.mark.parametrize("holds", ["weights", "average"])
def test_parts_that_are_kept_are_no_place_to_go_on_from(holds: str, tmp_path: Path) -> None:
    """A process that is killed between the part and the whole leaves a part that is removed, and written again."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    for images in (8, 16):
        whole = snapshot_at(images, optimizers={"both": {"state": {}}}, discriminator={"weight": torch.ones(1)})
        checkpoints.save_part(whole.reduce(holds))
        checkpoints.save(whole)
    kept = checkpoints.load(checkpoints.read_entries()[0])
    assert (kept.images, kept.holds, kept.optimizers) == (8, holds, {}) and kept.averages
    assert bool(kept.discriminator) == (holds == "weights")
    assert [(entry.images, entry.holds) for entry in checkpoints.read_entries()] == [
        (8, holds), (16, holds), (16, "state")
    ]  # fmt: skip
    assert [saved.holds for saved in checkpoints.load_kept()] == [holds, "state"], "each clock once"

    checkpoints.save_part(snapshot_at(24).reduce(holds))
    again = Checkpoints(tmp_path, keep=1)
    assert again.load_last().images == 16 and again.find_last_file() == checkpoints.folder / find_name(again, 16)
    again.clean_up()
    assert [entry.images for entry in again.read_entries()] == [8, 16, 16]
    # The manifest may be lost: the files say what they hold.
    (tmp_path / MANIFEST).unlink()
    with pytest.warns(UserWarning, match="manifest.json is missing"):
        assert Checkpoints(tmp_path).load_last().images == 16


def find_name(checkpoints: Checkpoints, images: int) -> str:
    (name,) = [entry.file for entry in checkpoints.read_entries() if (entry.images, entry.holds) == (images, "state")]
    return name


def test_keep_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    for images in (1, 2, 3):
        checkpoints.save(snapshot_at(images))
    assert [entry.images for entry in checkpoints.read_entries()] == [3]


def list_best(folder: Path) -> list[int]:
    return [int(name[5:17]) for name in list_files(folder) if name.startswith("best-")]


def save_best(checkpoints: Checkpoints, images: int, best: int, forever: bool = False) -> Path:
    """Save a checkpoint whose best is that of a clock, and is kept as the best where that is its own."""
    label = {"metric": "FID", "value": 1.0, "images": best, "stage": 0, "size": "4x4"}
    return checkpoints.save(snapshot_at(images, best=label), forever, is_best=images == best)


def test_a_process_that_is_killed_as_it_saves_the_best_leaves_no_checkpoint_without_it(tmp_path: Path) -> None:
    """Between its two files: the last checkpoint on the disk names the best before it, or one that is there."""
    checkpoints = Checkpoints(tmp_path)
    save_best(checkpoints, 1, 1)

    def save_and_be_killed() -> None:
        with killed_at("replace", 2):
            save_best(checkpoints, 2, 2)

    assert in_a_child(save_and_be_killed) == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.pt"))) == 3, "it was killed between the two"
    again = Checkpoints(tmp_path)
    assert again.load_best().images == again.load_last().best["images"] == 1


def test_the_best_that_a_kept_checkpoint_names_is_there(tmp_path: Path) -> None:
    """Also where the last checkpoints are damaged, and the run goes on from the one before."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for images, best, kept in ((1, 1, [1]), (2, 1, [1]), (3, 3, [1, 3]), (4, 4, [3, 4]), (5, 4, [4]), (6, 6, [4, 6])):
        last = save_best(checkpoints, images, best)
        assert list_best(tmp_path) == kept
    assert checkpoints.load_best().images == 6
    assert [entry.images for entry in checkpoints.read_entries()] == [5, 6], "no manifest lists them"
    last.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="Using the one before: images 5"):
        assert Checkpoints(tmp_path).load_best().images == 4

    # The run goes on from there in another way: what was later is no best of it.
    again = Checkpoints(tmp_path, keep=2)
    with pytest.warns(UserWarning, match="is damaged"):
        save_best(again, 6, 4)
    assert list_best(tmp_path) == [4]
    other = tmp_path / f"best-{7:012d}-00000000.pt"
    other.write_bytes(b"of a process that was killed")
    save_best(again, 7, 7, forever=True)
    assert list_best(tmp_path) == [4, 7] and not other.exists()

    # Without its manifest the folder is read as before.
    (tmp_path / MANIFEST).unlink()
    with pytest.warns(UserWarning, match=r"manifest.json is missing: 3 whole checkpoints were found without it$"):
        assert Checkpoints(tmp_path).load_best().images == 7


def test_two_checkpoints_at_one_clock_leave_the_kept_one_alone(tmp_path: Path) -> None:
    """A finished stage is saved forever; a signal right after growth saves again at the same clock."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    kept = checkpoints.save(snapshot_at(8), forever=True)
    checkpoints.save(snapshot_at(8, starts=(0, 8)))
    assert checkpoints.load_last().stage == 1
    assert torch.load(kept, weights_only=True)["starts"] == [0]
    checkpoints.save(snapshot_at(9))
    assert kept.exists()
    assert [(entry.images, entry.forever) for entry in checkpoints.read_entries()] == [(8, True), (9, False)]
    assert checkpoints.save(snapshot_at(8), forever=True) == kept, "the same content has one file"
    assert [entry.images for entry in checkpoints.read_entries()] == [9, 8]


class Crash(BaseException):
    """An exception in place of a kill at that point."""


@pytest.mark.parametrize("failing", ["replace", "fsync"])
@pytest.mark.parametrize("which", [1, 2])
def test_a_crash_while_writing_leaves_the_last_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, which: int
) -> None:
    """Before the rename of the checkpoint's own file, the previous one loads; at the manifest's, the new one."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(snapshot_at(1))
    calls = []
    real = getattr(os, failing)

    def crash(*args: Any) -> Any:
        calls.append(args)
        # Each file is synced, then renamed, then its folder is synced.
        if len(calls) == (which if failing == "replace" else 2 * which - 1):
            raise Crash
        return real(*args)

    monkeypatch.setattr(os, failing, crash)
    with pytest.raises(Crash):
        checkpoints.save(snapshot_at(2))
    monkeypatch.undo()
    assert Checkpoints(tmp_path).load_last().images == which
    checkpoints.save(snapshot_at(3))
    assert checkpoints.load_last().images == 3


def test_a_full_disk_is_a_clear_error_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot_at(1))
    before = list_files(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TrainingError, match=r"cannot write .*: No space left on device.*untouched"):
        checkpoints.save(snapshot_at(2))
    monkeypatch.undo()
    assert list_files(tmp_path) == before, "no temporary file is left"
    assert checkpoints.load_last().images == 1


def test_atomic_write_replaces_and_keeps_permissions_ordinary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    mask = os.umask(0)
    os.umask(mask)
    with monkeypatch.context() as patch:
        # To read the mask is to change it for a moment, in which another thread may write.
        patch.delattr(os, "umask")
        write_atomically(path, b"old")
        write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert list_files(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(TrainingError, match=r"cannot make .*taken: File exists"):
        Checkpoints(tmp_path / "taken").save(snapshot_at(1))
    with pytest.raises(RunError, match="cannot write"):
        write_atomically(tmp_path / "missing" / "file", b"")


class Payload:
    """Pickled code that would run when loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.proof),))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_unrun(tmp_path: Path, form: str) -> None:
    """Also where its SHA-256 is the manifest's."""
    proof = tmp_path / "proof"
    folder = tmp_path / "checkpoints"
    path = Checkpoints(folder).save(snapshot_at(1))
    if form == "torch":
        torch.save({"weights": Payload(proof)}, path)
    else:
        path.write_bytes(pickle.dumps({"weights": Payload(proof)}, protocol=2))
    rows = json.loads((folder / MANIFEST).read_text())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    rows[-1] |= {"sha256": sha256, "file": f"{1:012d}-{sha256[:8]}.pt"}
    path.rename(folder / rows[-1]["file"])
    (folder / MANIFEST).write_text(json.dumps(rows))
    with pytest.raises(RunError, match="never code"):
        Checkpoints(folder).load_last()
    assert not proof.exists()


def test_a_reader_of_a_run_that_goes_on_finds_the_checkpoint_that_is_last_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process saves between the look at the folder and the reading of a file, and drops that file."""
    writer = Checkpoints(tmp_path, keep=1)
    writer.save(snapshot_at(1), forever=True)
    writer.save(snapshot_at(2))
    reader = Checkpoints(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = reader.load_kept()
        assert next(kept).images == 1
        writer.save(snapshot_at(3))
        assert [saved.images for saved in kept] == [3]

        read = reader._read_proven

        def read_late(name: str) -> Any:
            monkeypatch.undo()
            writer.save(snapshot_at(4))
            return read(name)

        monkeypatch.setattr(reader, "_read_proven", read_late)
        assert reader.load_last().images == 4
