"""Descriptions of images on disk: made once, written whole or not at all, made again where a file is corrupt."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pggan_kit.errors import RunError
from pggan_kit.system.files import write_atomically

FORMAT = 1
"""Number in every key: raise it when the same key would stand for other numbers than before."""

LARGEST_BYTES = 1 << 28
"""Maximum bytes of a tensor in the cache; a larger one is made each time."""

DIGEST_BYTES = 32
"""Bytes of the SHA-256 at the end of a file."""


class DescriptionCache:
    """A folder with one file for each tensor, named by a hash of what it was made from: a .npy file and its SHA-256.

    Args:
        folder: Folder of the files, created when the first tensor is written. Where it cannot be written, every tensor
            is made each time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: tuple[str | int, ...], make: Callable[[], Tensor | None]) -> Tensor | None:
        """Return the tensor of a key, from its file or else from `make`, whose tensor is then written.

        Args:
            key: Everything that the tensor depends on.
            make: Function that makes the tensor where its file is missing or corrupt; None is not written.
        """
        path = self._name_file(key)
        tensor = _read(path)
        if tensor is not None:
            return tensor

        tensor = make()
        if tensor is not None and tensor.nbytes <= LARGEST_BYTES:
            with suppress(OSError, RunError):  # the file only saves time
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _encode(tensor))
        return tensor

    def _name_file(self, key: tuple[str | int, ...]) -> Path:
        """Return the path of a key's file."""
        text = json.dumps((FORMAT, *key), allow_nan=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / f"{digest[:32]}.npy"


def _encode(tensor: Tensor) -> bytes:
    """Return the content of a tensor's file."""
    buffer = io.BytesIO()
    np.save(buffer, tensor.numpy(), allow_pickle=False)
    content = buffer.getvalue()
    return content + hashlib.sha256(content).digest()


def _read(path: Path) -> Tensor | None:
    """Return the tensor that a file holds, or None where the file is missing or corrupt."""
    try:
        content_and_digest = path.read_bytes()
    except OSError:
        return None
    content = content_and_digest[:-DIGEST_BYTES]
    digest = content_and_digest[-DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
