"""Average tensors over the processes of one machine, in memory that they share.

See docs/distributed.md.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pggan_kit.errors import TrainingError

SLOT_BYTES = 2**21
"""Bytes that a rank averages at a time. A multiple of the size of each dtype."""

SLOTS = 2
"""Slots of a rank: it may fill one while others still read the other."""

MEMORY = Path("/dev/shm")
"""Folder of files that have no disk, on Linux."""

MESSAGE = struct.Struct("<Q")
"""What ranks send each other: the number of elements that they average."""

T = TypeVar("T")


class SharedMemoryMeans:
    """Means of CPU tensors over the ranks of one machine; `connect_ranks` makes it.

    Each rank copies its tensors into a slot of its own, sends a message to each other rank, waits for a message of each
    and adds up the slots in the order of the ranks: all get the same bits. A slot is filled again two turns later, when
    the messages of the turn between say that all have read it. A rank that waits sleeps, so that its core is free for
    others. The end of a process closes its sockets, which wakes those that wait for it.

    Args:
        slots: Slots of each rank: uint8 of shape (`SLOTS`, `SLOT_BYTES`), in memory that all of them have mapped.
        rank: Rank of this process.
        peers: A connected stream socket to each other rank, in any order. Their timeout is that of a mean.
    """

    def __init__(self, slots: list[Tensor], rank: int, peers: list[socket.socket]) -> None:
        self._slots = slots
        self._rank = rank
        self._peers = peers
        self._streams = [peer.makefile("rb") for peer in peers]
        self._turn = 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all ranks, which all end with equal bits.

        Raises:
            OSError: Another rank has ended, or does not answer.
            TrainingError: The tensors have another size on another rank.
        """
        flats = [tensor.reshape(-1) for tensor in tensors]
        dtype = functools.reduce(torch.promote_types, [flat.dtype for flat in flats])
        total = sum(flat.numel() for flat in flats)
        for pieces in _fill_slots(flats, SLOT_BYTES // torch.empty((), dtype=dtype).element_size()):
            summands = self._exchange(pieces, dtype, total)
            # Straight into the tensors: each further pass over all gradients would cost as much as the exchange.
            lengths = [piece.numel() for piece in pieces]
            for piece, *parts in zip(pieces, *(summand.split(lengths) for summand in summands), strict=True):
                torch.add(parts[0], parts[1], out=piece)
                for part in parts[2:]:
                    piece += part
                piece /= len(summands)

        # A tensor with another layout was copied, not viewed.
        for tensor, flat in zip(tensors, flats, strict=True):
            if not tensor.is_contiguous():
                tensor.copy_(flat.view_as(tensor))

    def _exchange(self, pieces: list[Tensor], dtype: torch.dtype, total: int) -> list[Tensor]:
        """Fill the next slot with pieces, wait for the other ranks, and return what each rank has written, in order."""
        self._turn = (self._turn + 1) % SLOTS
        count = sum(piece.numel() for piece in pieces)
        summands = [slots[self._turn].view(dtype)[:count] for slots in self._slots]
        torch.cat(pieces, out=summands[self._rank])
        self._wait_for_all(total)
        return summands

    def _wait_for_all(self, total: int) -> None:
        """Wait until all ranks have filled their slots.

        Args:
            total: Number of elements that this rank averages, which must be the same for all ranks.

        Raises:
            OSError: Another rank has ended, or does not answer.
            TrainingError: Another rank averages another number of elements.
        """
        # Each rank sends how much it averages to all others, and reads what they sent.
        for peer in self._peers:
            peer.sendall(MESSAGE.pack(total))
        for stream in self._streams:
            message = stream.read(MESSAGE.size)
            if len(message) < MESSAGE.size:
                raise ConnectionResetError("connection closed by the other process")
            (theirs,) = MESSAGE.unpack(message)
            if theirs != total:
                raise TrainingError(
                    f"processes that train together average tensors of different sizes ({total} and {theirs} "
                    "elements): the stage, which parameters have gradients, and which losses there are must not depend "
                    "on the process. Where a plugin has should_advance, it must answer alike on all of them"
                )


def connect_ranks(timeout: timedelta) -> SharedMemoryMeans | None:
    """Return means over all ranks of the group; None, on all ranks, where not all of them can share memory.

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
    return SharedMemoryMeans(slots, rank, peers)


def _fill_slots(flats: Iterable[Tensor], room: int) -> Iterator[list[Tensor]]:
    """Split 1-dim tensors into lists of pieces, in order, of `room` elements each; the last may have fewer."""
    pieces: list[Tensor] = []
    free = room
    for flat in flats:
        # A tensor that does not fit goes on in the next slot.
        rest = flat
        while rest.numel() > 0:
            piece = rest[:free]
            pieces.append(piece)
            rest = rest[free:]
            free -= piece.numel()
            if free == 0:
                yield pieces
                pieces = []
                free = room
    if pieces:
        yield pieces


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
