"""Checkpoints: written whole or not at all, listed with their SHA-256, read as data and never as code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pggan_kit.errors import RunError

MANIFEST = "manifest.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Put a file in place so that a crash leaves the old one or the new one, never a part.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. What was saved before is untouched"
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # it is gone where all went well
                os.unlink(temporary)


class Checkpoints:
    """The `checkpoints/` folder of a run.

    Args:
        folder: made when the first checkpoint is written.
        keep: how many of the last are kept, besides those saved with `forever`.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, state: Mapping[str, Any], images: int, forever: bool = False) -> Path:
        """Write a checkpoint, then the manifest, then remove those that are no longer kept.

        Args:
            state: tensors, numbers, strings, and dicts, lists and tuples of those.
            images: the clock. With the content's hash it names the file: of two checkpoints at one clock, neither
                overwrites the other.
            forever: keep it however many follow.

        Raises:
            RunError: it cannot be written; what was saved before is untouched.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self.folder}: {error.strerror or error}") from error
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{images:012d}-{sha256[:8]}.pt"
        write_atomically(path, content)
        entries = self.entries()
        forever = forever or any(entry["forever"] for entry in entries if entry["file"] == path.name)
        entries = [entry for entry in entries if entry["file"] != path.name]
        entries.append({"file": path.name, "images": images, "sha256": sha256, "forever": forever})
        passing = [entry for entry in entries if not entry["forever"]]
        dropped = passing[: max(0, len(passing) - self.keep)]
        kept = [entry for entry in entries if entry not in dropped]
        write_atomically(self.folder / MANIFEST, json.dumps(kept, indent=1).encode())
        for entry in dropped:
            (self.folder / entry["file"]).unlink(missing_ok=True)
        return path

    def last(self) -> Path | None:
        """The last checkpoint's file, None where nothing was written yet."""
        entries = self.entries()
        return self.folder / entries[-1]["file"] if entries else None

    def entries(self) -> list[dict[str, Any]]:
        """The manifest's rows, oldest first; none where nothing was written yet.

        Raises:
            RunError: a manifest that is no JSON.
        """
        try:
            rows: list[dict[str, Any]] = json.loads((self.folder / MANIFEST).read_text())
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise RunError(f"{self.folder / MANIFEST} is damaged: {error}") from error
        return rows

    def load_last(self) -> dict[str, Any]:
        """The last checkpoint's state, on the CPU.

        Raises:
            RunError: there is none, or its content is not what was written.
        """
        entries = self.entries()
        if not entries:
            raise RunError(f"{self.folder} holds no checkpoint: the run ended before its first tick. Start it anew")
        return self._read(entries[-1])

    def _read(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        path = self.folder / entry["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise RunError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}")
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load documents none of what it raises
            raise RunError(
                f"{path} holds something else than tensors and plain values, and is not read: a checkpoint is data, "
                f"never code ({type(error).__name__})"
            ) from error
        return state


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
