"""Write animations, a frame at a time: GIF, WebP and MP4."""

from __future__ import annotations

import importlib
import io
import itertools
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pggan_kit.errors import DataError, RunError
from pggan_kit.pictures.encoding import make_picture
from pggan_kit.pictures.frames import index_colours
from pggan_kit.pictures.gif import Frame, assemble_gif, encode_frame
from pggan_kit.system.files import UNFINISHED, require_replaceable, write_atomically

QUALITY = 8
"""Quality of MP4 files, from 1 to 10."""


def write_animation(frames: Iterable[np.ndarray], target: Path, fps: float) -> None:
    """Write frames as an animation that loops, which players of MP4 have to be asked for.

    Args:
        frames: Frames uint8 (h, w, 1 or 3), all of one size, at least one.
        target: `.gif`, `.webp` or `.mp4`, in a folder that exists.
        fps: Frames per second, at least 0.01. A GIF counts in hundredths of a second, and holds up to 655 s a frame.

    Raises:
        DataError: MP4 needs a library that is missing.
        RunError: The target has another suffix, or cannot be written.
    """
    require_format(target)
    WRITERS[target.suffix](frames, target, fps)


def require_format(target: Path) -> None:
    """Check that animations can be written to a file of this name.

    Raises:
        DataError: It needs a library that is missing.
        RunError: It has another suffix, or something is there that is no file.
    """
    if target.suffix not in WRITERS:
        raise RunError(f"--out {target}: name a .gif, .webp or .mp4 file")
    require_replaceable(target)
    if target.suffix == ".mp4":
        _import_ffmpeg()


def _write_gif(frames: Iterable[np.ndarray], target: Path, fps: float) -> None:
    encoded: list[Frame] = []
    for number, frame in enumerate(frames):
        if frame.shape[-1] == 1:
            picture = make_picture(frame)
        else:
            palette, indices = index_colours(frame[None])
            picture = Image.fromarray(indices[0, ..., 0])
            picture.putpalette(palette)
        encoded.append(encode_frame(picture, number))
    write_atomically(target, assemble_gif(encoded, _list_durations(len(encoded), fps, 10)))


def _list_durations(count: int, fps: float, unit: int) -> list[int]:
    """Return the milliseconds for which each frame is shown, in a format that counts in `unit` milliseconds."""
    # Rounded sums, not sums of rounded numbers: 30 frames take a second.
    ends = [unit * round(1000 / unit * number / fps) for number in range(count + 1)]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def _write_webp(frames: Iterable[np.ndarray], target: Path, fps: float) -> None:
    pictures = [_make_colour(frame) for frame in frames]
    content = io.BytesIO()
    pictures[0].save(
        content,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=_list_durations(len(pictures), fps, 1),
        loop=0,
        quality=90,
        method=4,
    )
    write_atomically(target, content.getvalue())


def _write_mp4(frames: Iterable[np.ndarray], target: Path, fps: float) -> None:
    ffmpeg = _import_ffmpeg()
    # ffmpeg writes files by their names alone. It is moved into place when it is whole.
    aside = target.with_name(f".{secrets.token_hex(8)}{UNFINISHED}.mp4")
    try:
        _encode_video(ffmpeg, frames, aside, fps)
        os.replace(aside, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def _encode_video(ffmpeg: Any, frames: Iterable[np.ndarray], path: Path, fps: float) -> None:
    writer = None
    try:
        for frame in frames:
            pixels = np.asarray(_make_colour(frame))
            # Its colours have half the resolution: sides are even.
            height, width = pixels.shape[:2]
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if writer is None:
                size = (pixels.shape[1], pixels.shape[0])
                writer = ffmpeg.write_frames(
                    str(path), size, fps=fps, quality=QUALITY, macro_block_size=2, ffmpeg_log_level="error"
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(pixels))
    finally:
        if writer is not None:
            writer.close()


def _make_colour(frame: np.ndarray) -> Image.Image:
    """Return a frame as a picture of mode `RGB`."""
    return make_picture(frame).convert("RGB")


def _import_ffmpeg() -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise DataError(
            f"MP4 files need imageio-ffmpeg ({error}): pip install 'pggan_kit[video]', or name a .gif or .webp file"
        ) from error


WRITERS: dict[str, Callable[[Iterable[np.ndarray], Path, float], None]] = {
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".mp4": _write_mp4,
}
"""Writers by the suffix of their target."""
