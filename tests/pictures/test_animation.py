"""Animations, read back with other readers: Pillow, and ffmpeg."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pggan_kit.errors import DataError, RunError
from pggan_kit.pictures.animation import write_animation

GRAYS = [np.full((10, 12, 1), level, np.uint8) for level in (0, 90, 180, 250, 30)]
COLOURS = [np.full((9, 13, 3), level, np.uint8) for level in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
@pytest.mark.parametrize("frames", [GRAYS, COLOURS], ids=["gray", "colour"])
def test_pillow_reads_the_frames_back(name: str, frames: list[np.ndarray], tmp_path: Path) -> None:
    write_animation(iter(frames), tmp_path / name, 8)
    with Image.open(tmp_path / name) as picture:
        assert picture.info["loop"] == 0
        shown = []
        ends = 0.0
        for frame in ImageSequence.Iterator(picture):
            shown.append(np.asarray(frame.convert("RGB")))
            ends += frame.info["duration"]
        assert ends == pytest.approx(1000 * len(frames) / 8, abs=10)
    wanted = [np.broadcast_to(frame, (*frame.shape[:2], 3)) for frame in frames]
    np.testing.assert_allclose(np.stack(shown).astype(int), np.stack(wanted).astype(int), atol=6)


@pytest.mark.parametrize(("name", "off"), [("a.gif", 10), ("a.webp", 1)])
def test_many_frames_last_as_long_as_their_rate_says(name: str, off: int, tmp_path: Path) -> None:
    frames = [np.full((4, 4, 1), 10 * (number % 20), np.uint8) for number in range(144)]
    write_animation(frames, tmp_path / name, 30)
    with Image.open(tmp_path / name) as picture:
        durations = []
        for frame in ImageSequence.Iterator(picture):
            frame.load()
            durations.append(frame.info["duration"])
    ends = np.cumsum(durations)
    np.testing.assert_allclose(ends, 1000 / 30 * np.arange(1, 145), atol=off / 2 + 0.01)


@pytest.mark.parametrize("frames", [GRAYS, COLOURS], ids=["gray", "colour"])
def test_ffmpeg_reads_the_frames_back(frames: list[np.ndarray], tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs the extra video: make test-extras")
    write_animation(iter(frames), tmp_path / "a.mp4", 24)
    reader = ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    about = next(reader)
    height, width = frames[0].shape[:2]
    # Sides are even.
    assert about["fps"] == 24 and about["size"] == (width + width % 2, height + height % 2)
    shown = [np.frombuffer(frame, np.uint8).reshape(about["size"][1], about["size"][0], 3) for frame in reader]
    assert len(shown) == len(frames)
    for frame, wanted in zip(shown, frames, strict=True):
        np.testing.assert_allclose(frame[:height, :width].mean((0, 1)), wanted.mean((0, 1)) * np.ones(3), atol=12)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def import_module(name: str, *args: Any) -> Any:
        if name == "imageio_ffmpeg":
            raise ImportError("No module named 'imageio_ffmpeg'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(DataError, match=r"MP4 files need imageio-ffmpeg .*: pip install 'pggan_kit\[video\]'"):
        write_animation(iter(GRAYS), tmp_path / "a.mp4", 24)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"name a \.gif, \.webp or \.mp4 file"):
        write_animation(iter(GRAYS), tmp_path / "a.avi", 24)


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> Any:
        yield GRAYS[0]
        raise RunError("broken")

    names = ["a.gif", "a.webp"]
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        names.append("a.mp4")
    for name in names:
        with pytest.raises(RunError, match="broken"):
            write_animation(fail(), tmp_path / name, 24)
    assert list(tmp_path.iterdir()) == []
