"""Builds of resized copies that are stopped or killed, and go on from their last whole chunk."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import ArrayDataset, make_random_dataset
from helpers.forks import Fork, wait_until

from pggan_kit.data import build_journal, resizing
from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.system import locks
from pggan_kit.system.signals import exit_in_order_on_signals

SIZES = [(3, 3), (6, 6)]
IMAGES = 80
CHUNK = 8
GOING_ON = "going on with the resized copies at picture"


@pytest.fixture(autouse=True)
def write_at_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let builds have small chunks, and a journal of each."""
    monkeypatch.setattr(resizing, "CHUNK_IMAGES", CHUNK)
    monkeypatch.setattr(build_journal, "JOURNAL_SECONDS", 0)


def make_dataset(name: str = "source") -> ArrayDataset:
    """Return a data set with classes, some images that cannot be read, and one that is enlarged."""
    source = make_random_dataset(IMAGES, (12, 12, 1), classes=3, name=name)
    source.images[5] = source.images[5][:4, :4]
    source.images[70] = source.images[70][:4, :4]
    source.broken = {2, 3, 60}
    return source


def build(source: ArrayDataset, folder: Path, **options: object) -> list[str]:
    """Build all levels and return the warnings."""
    settings = DataSettings(cache=str(folder), **{"workers": 1, **options})  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_data(source, settings, SIZES, 0)
    return [str(warning.message) for warning in caught]


def stop_at(source: ArrayDataset, number: int, error: BaseException) -> None:
    """Let a data set raise an error where its image of this number is read."""
    read = source.image

    def image(i: int) -> np.ndarray:
        if i == number:
            raise error
        return read(i)

    source.image = image  # type: ignore[method-assign]


def build_until(folder: Path, number: int = 45, name: str = "source", **options: object) -> None:
    """Build until Ctrl-C at the image of this number."""
    source = make_dataset(name)
    stop_at(source, number, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        build(source, folder, **options)


def read_arrays(folder: Path) -> dict[str, bytes]:
    """Return the content of all arrays in a cache folder, by name."""
    return {path.name: path.read_bytes() for path in (folder / "pyramids").glob("*.npy")}


def list_leftovers(folder: Path) -> list[Path]:
    """Return the temporary files in a cache folder."""
    return list((folder / "pyramids").glob(".*.part"))


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The arrays of a build that nothing happened to."""
    build(make_dataset(), tmp_path / "whole")
    return read_arrays(tmp_path / "whole")


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_build_goes_on_after_a_signal(tmp_path: Path, whole: dict[str, bytes], end: str) -> None:
    folder = tmp_path / "stopped"
    log = tmp_path / "log"

    def build_slowly() -> None:
        source = make_dataset()
        read = source.image

        def image(i: int) -> np.ndarray:
            with log.open("a") as file:
                file.write("x")
            time.sleep(0 if i < 45 else 60)
            return read(i)

        source.image = image  # type: ignore[method-assign]
        # pytest keeps warnings for itself.
        warnings.showwarning = lambda message, *rest: print(message, file=sys.stderr)
        with exit_in_order_on_signals():
            open_data(source, DataSettings(cache=str(folder), workers=1), SIZES, 0)

    process = Fork(build_slowly)
    wait_until(lambda: log.exists() and len(log.read_text()) > 46, process)
    process.send_signal(signal.Signals[end])
    process.wait()
    assert read_arrays(folder) == {}, "a level is visible when it is whole"
    kept = f"stopped: the resized copies of 40 of 80 images are kept in {folder / 'pyramids'}"
    assert (kept in process.read_errors()) == (end != "SIGKILL")

    source = make_dataset()
    messages = build(source, folder)
    assert f"{GOING_ON} 40 of 80: an earlier process stopped there" in messages
    assert min(set(source.reads) - {0}) == 40, "what is on the disk is not read again"
    assert read_arrays(folder) == whole
    assert not list_leftovers(folder)
    # What is said of all images includes those of the first process.
    assert any(message.startswith("3 of 80 images are left out:\n  picture 2 is broken") for message in messages)
    assert "2 of 80 images are smaller than 6x6, and enlarged" in messages


def test_a_build_goes_on_many_times(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for number in (20, 20, 33, 34, 79):
        build_until(tmp_path / "stopped", number)
    source = make_dataset()
    build(source, tmp_path / "stopped", workers=3)
    assert min(set(source.reads) - {0}) == 72
    assert read_arrays(tmp_path / "stopped") == whole


def test_rows_beyond_the_journal_are_cut(tmp_path: Path, whole: dict[str, bytes]) -> None:
    build_until(tmp_path / "stopped")
    for path in list_leftovers(tmp_path / "stopped"):
        if ".npy." in path.name:
            with path.open("ab") as file:
                file.write(b"half a chunk")
    assert any(GOING_ON in message for message in build(make_dataset(), tmp_path / "stopped"))
    assert read_arrays(tmp_path / "stopped") == whole


def edit_journal(**changes: object) -> Callable[[list[Path]], None]:
    """Return a damage that changes fields of the journal's progress."""

    def edit(paths: list[Path]) -> None:
        (journal,) = (path for path in paths if "journal" in path.name)
        content = json.loads(journal.read_text())
        content["progress"] |= changes
        journal.write_text(json.dumps(content))

    return edit


def cut_images(paths: list[Path]) -> None:
    path = next(path for path in paths if "images" in path.name)
    os.truncate(path, path.stat().st_size - 1)


def change_header(paths: list[Path]) -> None:
    path = next(path for path in paths if "images" in path.name)
    path.write_bytes(path.read_bytes().replace(b"|u1", b"|i1", 1))


def remove_labels(paths: list[Path]) -> None:
    next(path for path in paths if "labels" in path.name).unlink()


def cut_journal(paths: list[Path]) -> None:
    path = next(path for path in paths if "journal" in path.name)
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    "damage",
    [
        *(cut_images, change_header, remove_labels, cut_journal),
        edit_journal(rows=39),
        edit_journal(images=4000, rows=3998),
        edit_journal(rows="38"),
        edit_journal(skipped=[1, 2]),
        edit_journal(skipped_images=[0, 1, 2, 3]),
        edit_journal(skipped_images=["0"]),
        edit_journal(unknown=1),
        edit_journal(rows=-1, images=1),
    ],
)
def test_what_does_not_fit_together_starts_again(
    tmp_path: Path, whole: dict[str, bytes], damage: Callable[[list[Path]], None]
) -> None:
    build_until(tmp_path / "stopped")
    damage(list_leftovers(tmp_path / "stopped"))
    source = make_dataset()
    assert not any(GOING_ON in message for message in build(source, tmp_path / "stopped"))
    assert len(source.reads) == IMAGES
    assert read_arrays(tmp_path / "stopped") == whole
    assert not list_leftovers(tmp_path / "stopped")


def test_builds_of_other_data_and_settings_do_not_mix(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "stopped"
    build_until(folder)
    other = make_dataset("other")
    other.images = [255 - image for image in other.images]
    assert not any(GOING_ON in message for message in build(other, folder))
    nearest = make_dataset()
    assert not any(GOING_ON in message for message in build(nearest, folder, filter="nearest"))
    assert len(nearest.reads) == IMAGES

    # The first build can still go on.
    assert any(GOING_ON in message for message in build(make_dataset(), folder))
    assert {name: content for name, content in read_arrays(folder).items() if name in whole} == whole
    assert not list_leftovers(folder)


def test_a_build_that_others_have_made_meanwhile_leaves_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    build_until(folder)
    for size in SIZES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            open_data(make_dataset(), DataSettings(cache=str(folder), workers=1), [size], 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_data(make_dataset(), DataSettings(cache=str(folder), workers=1), [(4, 4)], 0)
    assert not list_leftovers(folder)


def test_an_unforeseen_error_keeps_what_was_made_and_a_users_error_does_not(tmp_path: Path) -> None:
    source = make_dataset()
    stop_at(source, 45, OSError("the server does not answer"))
    with pytest.raises(OSError, match="does not answer"), pytest.warns(UserWarning, match="40 of 80 images are kept"):
        open_data(source, DataSettings(cache=str(tmp_path), workers=1), SIZES, 0)
    assert list_leftovers(tmp_path)
    wrong = make_dataset()
    wrong.images[78] = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="image 78 has 3 channels"), pytest.warns(UserWarning, match=GOING_ON):
        open_data(wrong, DataSettings(cache=str(tmp_path), workers=1), SIZES, 0)
    assert not list_leftovers(tmp_path)


def test_without_locks_nobody_goes_on_with_what_another_process_may_be_writing(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_until(tmp_path / "stopped")
    monkeypatch.setattr(locks, "acquire", lambda path, waiting: None)
    assert not any(GOING_ON in message for message in build(make_dataset(), tmp_path / "stopped"))
    assert read_arrays(tmp_path / "stopped") == whole
    assert list_leftovers(tmp_path / "stopped")
