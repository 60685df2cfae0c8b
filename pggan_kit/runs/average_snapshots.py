"""Keep power-function averages at places on the clock, of which averages of other widths are made later."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pggan_kit.components import Average
from pggan_kit.errors import RunError
from pggan_kit.growth.averages import PowerAverage
from pggan_kit.growth.networks import read_birth
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.snapshot import FORMAT, is_mapping_of_weights
from pggan_kit.system.background_writer import wait_for_writes
from pggan_kit.system.files import read_bytes, write_atomically

FOLDER = "averages"
"""Name of the folder in a run's folder."""

_NAME = re.compile(r"(\d{12,})-([0-9a-f]{8})\.pt")


@dataclass(frozen=True, eq=False)
class AverageSnapshot:
    """Averages of the generator at a place on the clock.

    Attributes:
        images: the clock.
        exponents: the exponent of each average, by its name.
        weights: the weights of each, by its name and by the names that `Generator.name_weights` gives.
    """

    images: int
    exponents: Mapping[str, float]
    weights: Mapping[str, Mapping[str, Tensor]]


def compute_interval(average: PowerAverage, total: int) -> int:
    """Return the images between two places at which an average is kept in a run of `total` images."""
    return -(-total // average.snapshots)


def list_due(averages: Sequence[Average], total: int, before: int, images: int) -> list[PowerAverage]:
    """Return the averages that are to be kept after a step.

    Args:
        averages: all averages of the experiment.
        total: the images of the whole run.
        before: the clock before the step.
        images: the clock after it.
    """
    due = []
    for average in averages:
        if isinstance(average, PowerAverage):
            interval = compute_interval(average, total)
            if before // interval < images // interval:
                due.append(average)
    return due


class AverageSnapshots:
    """The folder `averages` of a run: one file for each place, whose name has its clock and its content's SHA-256.

    Args:
        folder: the folder, which is made when the first file is written.
        say: the receiver of one sentence for each file that cannot be used.
    """

    def __init__(self, folder: Path, say: Say = warnings.warn) -> None:
        self.folder = folder
        self._say = say

    def save(self, snapshot: AverageSnapshot) -> Path:
        """Write a file. The same content again changes nothing.

        Raises:
            RunError: it cannot be written.
        """
        buffer = io.BytesIO()
        content = {
            "format": FORMAT,
            "images": snapshot.images,
            "exponents": dict(snapshot.exponents),
            "weights": {name: dict(weights) for name, weights in snapshot.weights.items()},
        }
        torch.save(content, buffer)
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        path = self.folder / f"{snapshot.images:012d}-{sha256[:8]}.pt"
        try:
            # A run whose folder is gone must not get another.
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self.folder}: {error.strerror or error}") from error
        write_atomically(path, buffer.getvalue())
        return path

    def list_files(self) -> list[tuple[int, Path]]:
        """Return the clock and the path of each file, oldest first; none where there is no folder."""
        # In the process that trains, one may be written right now.
        wait_for_writes()
        files = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match is not None:
                    files.append((int(match[1]), path))
        return sorted(files)

    def load_before(self, images: int) -> Iterator[AverageSnapshot]:
        """Yield what was kept before a place on the clock, oldest first. A file that cannot be used is left out, and
        said."""
        for clock, path in self.list_files():
            if clock >= images:
                return
            try:
                yield _read_file(path, clock)
            except RunError as error:
                self._say(f"{error}. The average is made without it")

    def cut(self, images: int) -> list[str]:
        """Remove the files past a place on the clock, from where a run trains again; return their names.

        Raises:
            RunError: one cannot be removed.
        """
        removed = []
        for clock, path in self.list_files():
            if clock > images:
                try:
                    path.unlink()
                except OSError as error:
                    raise RunError(f"cannot remove {path}, which is past the checkpoint: {error.strerror}") from error
                removed.append(path.name)
        return removed

    def copy_from(self, other: AverageSnapshots, images: int, replaced: int | None = None) -> int:
        """Copy what another run kept up to a place on the clock; return the number of files.

        Args:
            other: the snapshots of the other run.
            images: the clock.
            replaced: the index of the stage up to which pieces were replaced by those of a third run, of whose weights
                nothing was kept: theirs are left out. None where no piece was.

        Raises:
            RunError: one cannot be copied.
        """
        if replaced is not None:
            return self._copy_pieces_after(replaced, other, images)

        # All that was kept until then goes along as it is.
        files = [path for clock, path in other.list_files() if clock <= images]
        try:
            for path in files:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self.folder / path.name, read_bytes(path))
        except OSError as error:
            raise RunError(f"cannot copy {path} to {self.folder}: {error.strerror}") from error
        return len(files)

    def _copy_pieces_after(self, birth: int, other: AverageSnapshots, images: int) -> int:
        """Copy what another run kept of the pieces that came after a stage; return the number of files."""
        count = 0
        for each in other.load_before(images + 1):
            weights = {
                name: {key: value for key, value in own.items() if read_birth(key) > birth}
                for name, own in each.weights.items()
            }
            if any(weights.values()):
                self.save(replace(each, weights=weights))
                count += 1
        return count


def _read_file(path: Path, images: int) -> AverageSnapshot:
    """Return the content of a file.

    Raises:
        RunError: it is damaged, or was written by another version.
    """
    try:
        data = read_bytes(path)
    except (OSError, MemoryError) as error:
        raise RunError(f"cannot read {path}: {getattr(error, 'strerror', 'too large')}") from error
    if not path.name.endswith(f"-{hashlib.sha256(data).hexdigest()[:8]}.pt"):
        raise RunError(f"{path} is damaged: its content is not what was written")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (Exception, RecursionError, MemoryError) as error:  # torch.load documents none of what it raises
        raise RunError(f"{path} holds something other than tensors and numbers ({type(error).__name__})") from error

    is_dict = isinstance(content, dict)
    if is_dict and type(content.get("format")) is int and content["format"] != FORMAT:
        raise RunError(f"{path} has format {content['format']}; this version reads format {FORMAT}")
    if not is_dict or not _is_content(content, images):
        raise RunError(f"{path} is no snapshot of averages")
    return AverageSnapshot(images, content["exponents"], content["weights"])


def _is_content(content: Mapping[str, object], images: int) -> bool:
    exponents = content.get("exponents")
    weights = content.get("weights")
    return (
        content.get("images") == images
        and isinstance(exponents, dict)
        and all(type(exponent) is float for exponent in exponents.values())
        and is_mapping_of_weights(weights)
        and isinstance(weights, dict)
        and weights.keys() == exponents.keys()
    )
