"""Add up tensors of the processes of one machine in memory that they share: several times cheaper than over a socket.

See docs/distributed.md.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pggan_kit.errors import TrainingError

SLOT_BYTES = 2**21
"""Bytes of a tensor that go through the memory at a time. A multiple of the size of each dtype."""

SLOTS = 2
"""Slots of a rank: it may fill one while others still read the other."""

MEMORY = Path("/dev/shm")
"""Folder of files that have no disk, on Linux."""

MESSAGE = struct.Struct("<Q")
"""What ranks send each other: the number of bytes that they have written."""

T = TypeVar("T")


class SharedMemorySum:
    """Sums of CPU tensors over the ranks of one machine; `connect_ranks` makes it.

    Each rank writes its summand into a slot of its own, sends a message to each other rank, waits for a message of each
    and adds up the slots in the order of the ranks: all get the same bits. A slot is filled again two turns later, when
    the messages of the turn between say that all have read it. A rank that waits sleeps, so that its core is free for
    others. The end of a process closes its sockets, which wakes those that wait for it.

    Args:
        slots: Slots of each rank: uint8 of shape (`SLOTS`, `SLOT_BYTES`), in memory that all of them have mapped.
        rank: Rank of this process.
        peers: A connected stream socket to each other rank, in any order. Their timeout is that of a sum.
    """

    def __init__(self, slots: list[Tensor], rank: int, peers: list[socket.socket]) -> None:
        self._slots = slots
        self._rank = rank
        self._peers = peers
        self._streams = [peer.makefile("rb") for peer in peers]
        self._turn = 0

    def add_up(self, flat: Tensor) -> None:
        """Replace a 1-dim CPU tensor by its sum over all ranks, which all end with equal bits.

        Raises:
            OSError: Another rank has ended, or does not answer.
            TrainingError: The tensor has another size on another rank.
        """
        for part in flat.split(SLOT_BYTES // flat.element_size()):
            size = part.numel() * part.element_size()
            self._turn = (self._turn + 1) % SLOTS
            summands = [slots[self._turn, :size].view(part.dtype) for slots in self._slots]
            summands[self._rank].copy_(part)
            self._wait_for_all(size)

            part.copy_(summands[0])
            for summand in summands[1:]:
                part += summand

    def _wait_for_all(self, size: int) -> None:
        """Wait until all ranks have filled their slots with `size` bytes.

        Raises:
            OSError: Another rank has ended, or does not answer.
            TrainingError: Another rank has written another number of bytes.
        """
        for peer in self._peers:
            peer.sendall(MESSAGE.pack(size))
        for stream in self._streams:
            message = stream.read(MESSAGE.size)
            if len(message) < MESSAGE.size:
                raise ConnectionResetError("connection closed by the other process")
            (written,) = MESSAGE.unpack(message)
            if written != size:
                raise TrainingError(
                    f"processes that train together average tensors of different sizes ({size} and {written} bytes): "
                    "which parameters have gradients, and which losses there are, must not depend on the process"
                )


def connect_ranks(timeout: timedelta) -> SharedMemorySum | None:
    """Return sums over all ranks of the group; None, on all ranks, where not all of them can share memory.

    Args:
        timeout: Time that a rank waits for another before it fails.

    Raises:
        RuntimeError: Another rank has ended, or does not answer.
        OSError: Likewise.
    """
    rank = dist.get_rank()
    world = dist.get_world_size()
    with contextlib.ExitStack() as cleanup:
        # Ranks of other machines, or of other containers, do not find the folder of rank 0.
        name: list[Any] = [None]
        if rank == 0:
            name[0] = _try(_make_folder)
            if name[0] is not None:
                cleanup.callback(shutil.rmtree, name[0], ignore_errors=True)
        dist.broadcast_object_list(name, src=0)
        if name[0] is None:
            return None
        folder = Path(name[0])

        # All files are there before any of them is opened, and are opened before the folder is removed.
        listener = _try(lambda: _make_files(folder, rank, world))
        if listener is not None:
            cleanup.enter_context(listener)
        if not _all_succeeded(listener):
            return None
        opened = _try(lambda: (_map_slots(folder, world), _connect_to_lower(folder, rank)))
        if not _all_succeeded(opened):
            return None
        assert listener is not None and opened is not None, "all have both"

        # Ranks above this one have connected: nobody is waited for.
        slots, peers = opened
        peers += [listener.accept()[0] for _ in range(rank + 1, world)]
    for peer in peers:
        peer.settimeout(timeout.total_seconds())
    return SharedMemorySum(slots, rank, peers)


def _make_folder() -> str | None:
    """Make a folder for the files of all ranks, in memory where there is such a place; None without Unix sockets."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    parent = None
    if os.access(MEMORY, os.W_OK):
        parent = MEMORY
    return tempfile.mkdtemp(prefix="pggan_kit-", dir=parent)


def _make_files(folder: Path, rank: int, world: int) -> socket.socket:
    """Make this rank's slots in a folder, and a socket that listens there."""
    # Written whole: where there is no room for them, this fails here, and not when the memory is first used.
    (folder / f"slots{rank}").write_bytes(bytes(SLOTS * SLOT_BYTES))

    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(folder / f"socket{rank}"))
        listener.listen(world)
    except OSError:
        listener.close()
        raise
    return listener


def _map_slots(folder: Path, world: int) -> list[Tensor]:
    """Return the slots of all ranks, in shared memory."""
    slots = []
    for rank in range(world):
        with (folder / f"slots{rank}").open("r+b") as file:
            memory = mmap.mmap(file.fileno(), SLOTS * SLOT_BYTES)
        slots.append(torch.frombuffer(memory, dtype=torch.uint8).view(SLOTS, SLOT_BYTES))
    return slots


def _connect_to_lower(folder: Path, rank: int) -> list[socket.socket]:
    """Return a socket to each rank below this one."""
    peers = []
    for other in range(rank):
        peer = socket.socket(socket.AF_UNIX)
        peers.append(peer)
        peer.connect(str(folder / f"socket{other}"))
    return peers


def _try(action: Callable[[], T]) -> T | None:
    """Return what an action returns; None where the machine does not allow it."""
    try:
        return action()
    except OSError:
        return None


def _all_succeeded(outcome: object) -> bool:
    """Return whether no rank's outcome is None."""
    succeeded = torch.tensor(int(outcome is not None))
    dist.all_reduce(succeeded, dist.ReduceOp.MIN)
    return bool(succeeded)
