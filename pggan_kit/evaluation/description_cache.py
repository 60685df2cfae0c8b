"""Tensors that are kept on disk: made once, written whole or not at all, and made anew where a file is damaged."""

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
"""Part of every key: raise it when the same key would stand for other numbers than before."""

LARGEST = 1 << 28
"""Bytes of a tensor; a larger one is made each time."""

DIGEST_BYTES = 32


class Keeper:
    """A folder with one file for each tensor, named by a hash of what it was made from: a .npy file and its SHA-256.

    Args:
        folder: made when the first tensor is kept. Where it cannot be written, nothing is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: tuple[str | int, ...], make: Callable[[], Tensor | None]) -> Tensor | None:
        """The tensor that was kept under `key`; where there is none, or its file is damaged, what `make` returns."""
        named = json.dumps((FORMAT, *key), allow_nan=False)
        path = self.folder / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.npy"
        found = _read(path)
        if found is None:
            found = make()
            if found is not None and found.nbytes <= LARGEST:
                with suppress(OSError, RunError):  # it only saves time
                    self.folder.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, _packed(found))
        return found


def _packed(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tensor.numpy(), allow_pickle=False)
    content = buffer.getvalue()
    return content + hashlib.sha256(content).digest()


def _read(path: Path) -> Tensor | None:
    """None where the file is missing, or not what was written."""
    try:
        packed = path.read_bytes()
    except OSError:
        return None
    content, digest = packed[:-DIGEST_BYTES], packed[-DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
