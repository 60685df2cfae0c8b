"""Define the content of a checkpoint: its entries, their names in the file, and their valid values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from pggan_kit.errors import PluginError, RunError, did_you_mean, suggest
from pggan_kit.runs.checkpoint_identity import SECTIONS, Identity, is_list_of_changes, read_noted_sizes
from pggan_kit.runs.host_copies import Copier, PendingCopy, PlainCopier, copy_tensors
from pggan_kit.schedule import FADE, STABLE
from pggan_kit.system.plain_data import PLAIN_DATA, describe_foreign_value

FORMAT = 6
"""Number of the file format, which changes when an older version could no longer read the file."""


STATE = "state"
WEIGHTS = "weights"
AVERAGE = "average"
"""What a checkpoint has of a run: its whole state, the weights of networks and averages, or those of averages alone."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The content of a checkpoint: all that a run needs to go on from there, or a part of it that is kept for good.

    Entries with a default are known to a run alone, not to the state of its networks; a file may lack them.

    Attributes:
        images: the clock: reals drawn so far, over all ranks.
        steps: iterations so far.
        starts: the clock at which each stage so far began.
        discriminator_updates: updates of D in the current stage.
        generator_updates: updates of G in the current stage.
        last_tick: the clock at the last tick.
        phase: `fade` or `stable`.
        bridged: whether a network (`generator`, `discriminator`) has its old path beside the new one.
        generator, discriminator: the weights of the networks.
        encoder: the weights of the encoder; empty where there is none.
        averages: the weights of each average of the generator, by name, in the order of `train.averages`.
        optimizers: the state of each optimizer, by name.
        optimizer_classes: the class of each optimizer, by name.
        means: the numbers that the running tick has added up so far.
        dropped: steps left out because a loss or gradient was not finite.
        rewinds: returns to an earlier checkpoint for the same reason.
        warned_stage: the last stage with a warning about collapse; -1 for none.
        scalers: the state of each network's loss scaler; empty without float16.
        identity: the experiment that the checkpoint belongs to.
        stage_over: whether it was saved at the end of its stage.
        ended: whether a component ended the run here, before its budget was spent.
        components: the state that components saved, by their place in the config.
        compiled: for each network, whether its steps were compiled (`compiled`) or not (`eager`).
        component_classes: the class of each component that can save something, by its place.
        alpha: the generator's alpha in the last step, or at the beginning of a stage without one; 1 where it has no
            old path.
        calibration_labels: the labels (N,) that the average's batch normalisation is calibrated with; None where it
            needs none.
        best: the best value of `train.keep_best` in its stage so far: `metric`, `value`, `images`, `stage`, `size`;
            empty where there is none. The checkpoint of that clock is kept as the best.
        changes: the settings that changed so far as the run was resumed, as `run.json` has them.
        forever: whether the checkpoint is kept however many follow.
        between_ticks: whether it was saved because the run was stopped, where a run that is not stopped has none.
        return_point: the content of the tick before, where a run that is resumed goes back to it after a NaN; None
            where it goes back to this one.
        holds: `state`, `weights` (no optimizers, and nothing that components saved), or `average` (the weights of
            networks are missing, too).
    """

    images: int
    steps: int
    starts: tuple[int, ...]
    discriminator_updates: int
    generator_updates: int
    last_tick: int
    phase: str
    bridged: Mapping[str, bool]
    generator: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor]
    averages: Mapping[str, Mapping[str, Tensor]]
    optimizers: Mapping[str, dict[str, Any]]
    optimizer_classes: Mapping[str, str]
    means: SavedMeans
    dropped: int
    rewinds: int
    warned_stage: int
    encoder: Mapping[str, Tensor] = field(default_factory=dict)
    scalers: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    identity: Identity = field(default_factory=dict)
    stage_over: bool = False
    ended: bool = False
    components: Mapping[str, Any] = field(default_factory=dict)
    compiled: Mapping[str, str] = field(default_factory=dict)
    component_classes: Mapping[str, str] = field(default_factory=dict)
    alpha: float = 1.0
    calibration_labels: Tensor | None = None
    best: Mapping[str, Any] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    forever: bool = False
    between_ticks: bool = False
    return_point: Snapshot | None = None
    holds: str = STATE

    @property
    def stage(self) -> int:
        """Return the number of the current stage, from 0."""
        return len(self.starts) - 1

    @property
    def sizes(self) -> list[str]:
        """Return the sizes of all stages of the run (`7x7`, ...).

        Raises:
            RunError: the checkpoint does not note them.
        """
        sizes = read_noted_sizes(self.identity)
        if len(sizes) <= self.stage:
            raise RunError(f"the checkpoint is corrupt: it is in stage {self.stage} of {len(sizes)} stages")
        return sizes

    @property
    def size(self) -> str:
        """Return the size of the current stage, as `28x28`.

        Raises:
            RunError: the checkpoint does not note it.
        """
        return self.sizes[self.stage]

    def select_average(self, name: str | None) -> Mapping[str, Tensor]:
        """Return the weights of an average of the generator.

        Args:
            name: its name; None for the first.

        Raises:
            RunError: there is no such average.
        """
        if name is None:
            return next(iter(self.averages.values()))
        if name not in self.averages:
            names = list(self.averages)
            raise RunError(
                f"the checkpoint at images {self.images} has no average {name}{suggest(did_you_mean(name, names))}; it "
                f"has {', '.join(names)}"
            )
        return self.averages[name]

    def content(self) -> dict[str, Any]:
        """Return what the file holds, as data that `torch.load(weights_only=True)` reads back."""
        # By names of their own, since a class may change and a file that is written may not.
        return {
            "format": FORMAT,
            "images": self.images,
            "steps": self.steps,
            "starts": list(self.starts),
            "discriminator_updates": self.discriminator_updates,
            "generator_updates": self.generator_updates,
            "last_tick": self.last_tick,
            "phase": self.phase,
            "bridged": self.bridged,
            "generator": self.generator,
            "discriminator": self.discriminator,
            "encoder": self.encoder,
            "averages": self.averages,
            "optimizers": self.optimizers,
            "optimizer_classes": self.optimizer_classes,
            "scalers": self.scalers,
            "means": {"sums": self.means.sums, "counts": self.means.counts},
            "dropped": self.dropped,
            "rewinds": self.rewinds,
            "warned_stage": self.warned_stage,
            "identity": self.identity,
            "stage_over": self.stage_over,
            "ended": self.ended,
            "components": self.components,
            "compiled": self.compiled,
            "component_classes": self.component_classes,
            "alpha": self.alpha,
            "calibration_labels": self.calibration_labels,
            "best": dict(self.best),
            "changes": self.changes,
            "forever": self.forever,
            "between_ticks": self.between_ticks,
            "return_point": None if self.return_point is None else self.return_point.content(),
            "holds": self.holds,
        }

    def reduce(self, holds: str) -> Snapshot:
        """Return what is kept for good of a checkpoint.

        Args:
            holds: `state`, `weights` or `average`.
        """
        # Weights do without what training needs; an average does without the networks that were trained.
        if holds == STATE:
            return self
        reduced = replace(
            self,
            optimizers={},
            optimizer_classes={},
            scalers={},
            components={},
            component_classes={},
            means=SavedMeans(),
            return_point=None,
            holds=holds,
        )
        if holds == AVERAGE:
            reduced = replace(reduced, generator={}, discriminator={}, encoder={})
        return reduced

    def as_beginning(self) -> Snapshot:
        """Return what a new run begins with, without what this run counted, measured and drew for itself."""
        # Its labels may be of classes that the other run's data have not, and its tick begins with it.
        return replace(
            self,
            last_tick=self.images,
            means=SavedMeans(),
            dropped=0,
            rewinds=0,
            warned_stage=-1,
            calibration_labels=None,
            best={},
        )

    def require_readable(self) -> None:
        """Check that a process that loads the snapshot will accept it.

        Raises:
            PluginError: It will not; the message names the entry and, within it, the value.
        """
        for name, value in self.content().items():
            phrase = describe_foreign_value(value, name)
            if phrase is None and name in _IS_VALID and not _IS_VALID[name](value):
                phrase = f"{name} has a value of the wrong kind"
            if phrase is not None:
                raise PluginError(
                    f"a checkpoint could not be read back, because in it {phrase}: checkpoints hold {PLAIN_DATA}, and "
                    "what a component gives to be saved there must be that"
                )

    @classmethod
    def from_content(cls, content: object) -> Snapshot:
        """Return the snapshot that a file holds.

        Whether it fits an experiment is checked when a `TrainState` loads it.

        Args:
            content: the value that `torch.load` returned; it may be anything.

        Raises:
            RunError: it is no checkpoint, this version cannot read it, or an entry is missing or corrupt.
        """
        if not isinstance(content, dict):
            raise RunError(
                f"the checkpoint holds a {type(content).__name__} and not a run's state: it is no checkpoint of a run"
            )
        _require_format(content.get("format"))

        # Each entry for itself; entries with a default may be missing.
        entries = {}
        for name, is_valid in _IS_VALID.items():
            if name in content:
                if not is_valid(content[name]):
                    raise RunError(f"the checkpoint is corrupt: its entry {name!r} has an impossible value")
                entries[name] = content[name]
            elif name in _REQUIRED:
                raise RunError(f"the checkpoint is corrupt: it has no entry {name!r}")

        # The entries together, in the types of a snapshot.
        entries["starts"] = tuple(entries["starts"])
        entries["means"] = SavedMeans(entries["means"]["sums"], entries["means"]["counts"])
        if entries.get("return_point") is not None:
            entries["return_point"] = cls.from_content(entries["return_point"])
        snapshot = cls(**entries)
        clock = [*snapshot.starts, snapshot.images]
        if clock != sorted(clock):
            raise RunError("the checkpoint is corrupt: its entries 'images' and 'starts' contradict each other")
        return snapshot

    def copy_to_cpu(self) -> Snapshot:
        """Return a copy that shares no memory with this one and takes no GPU's memory."""
        return self.begin_copy(PlainCopier()).wait()

    def begin_copy(self, copier: Copier) -> PendingCopy[Snapshot]:
        """Begin such a copy, of what the tensors are now, and return it; a GPU completes it while the process goes on.

        Args:
            copier: the copier for the device that the tensors are on.
        """
        copies: dict[str, Any] = {
            "means": SavedMeans(copy_tensors(self.means.sums, copier.begin), dict(self.means.counts))
        }
        # A return point is on the CPU already, and nothing changes it.
        for entry in fields(self):
            if entry.name not in ("means", "return_point"):
                copies[entry.name] = copy_tensors(getattr(self, entry.name), copier.begin)
        return PendingCopy(replace(self, **copies), copier.mark())


@dataclass(frozen=True, eq=False)
class SavedMeans:
    """The running means of a tick, as a checkpoint holds them.

    Attributes:
        sums: the sum of each number, 0-dim.
        counts: the number of values in each sum.
    """

    sums: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def _require_format(version: object) -> None:
    if type(version) is not int:
        raise RunError("the checkpoint has no format number: it is not a checkpoint of a run")
    if version > FORMAT:
        raise RunError(
            f"the checkpoint was written by a newer pggan_kit (format {version}); this version reads format {FORMAT}: "
            "install the newer version"
        )
    if version < FORMAT:
        raise RunError(f"the checkpoint has format {version}; this version reads format {FORMAT}")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_list_of_starts(value: object) -> bool:
    return isinstance(value, list) and all(_is_count(start) for start in value) and value[:1] == [0]


def _is_mapping_of(kind: type) -> Callable[[object], bool]:
    def is_valid(value: object) -> bool:
        return isinstance(value, dict) and all(
            isinstance(name, str) and isinstance(inner, kind) for name, inner in value.items()
        )

    return is_valid


_is_mapping_of_texts = _is_mapping_of(str)
_is_mapping_of_tensors = _is_mapping_of(Tensor)
_is_mapping_of_mappings = _is_mapping_of(dict)


def is_mapping_of_weights(value: object) -> bool:
    """Return whether a value, read from a file, holds the weights of at least one average, by its name."""
    return (
        isinstance(value, dict)
        and bool(value)
        and _is_mapping_of(dict)(value)
        and all(_is_mapping_of_tensors(weights) for weights in value.values())
    )


def _is_means(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_mapping_of_tensors(value.get("sums"))
        and _is_mapping_of(int)(value.get("counts"))
        and value["sums"].keys() == value["counts"].keys()
    )


def _is_labels(value: object) -> bool:
    return value is None or (isinstance(value, Tensor) and value.dim() == 1 and value.dtype == torch.int64)


def is_best(value: object) -> bool:
    """Return whether a value, read from a file, says what a checkpoint was chosen by; empty where it was not chosen."""
    if not isinstance(value, dict):
        return False
    kinds = {name: type(inner) for name, inner in value.items()}
    return not value or kinds == {"metric": str, "value": float, "images": int, "stage": int, "size": str}


def _is_identity(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    # It is empty where the state was saved outside of a run.
    return not value or all(_is_mapping_of_texts(value.get(section)) for section in SECTIONS)


_IS_VALID: dict[str, Callable[[object], bool]] = {
    "images": _is_count,
    "steps": _is_count,
    "starts": _is_list_of_starts,
    "discriminator_updates": _is_count,
    "generator_updates": _is_count,
    "last_tick": _is_count,
    "phase": lambda value: isinstance(value, str) and value in (FADE, STABLE),
    "bridged": _is_mapping_of(bool),
    "generator": _is_mapping_of_tensors,
    "discriminator": _is_mapping_of_tensors,
    "encoder": _is_mapping_of_tensors,
    "averages": is_mapping_of_weights,
    "optimizers": _is_mapping_of_mappings,
    "optimizer_classes": _is_mapping_of_texts,
    "means": _is_means,
    "dropped": _is_count,
    "rewinds": _is_count,
    "warned_stage": lambda value: type(value) is int and value >= -1,
    "scalers": _is_mapping_of_mappings,
    "identity": _is_identity,
    "stage_over": lambda value: type(value) is bool,
    "ended": lambda value: type(value) is bool,
    "components": _is_mapping_of(object),
    "compiled": _is_mapping_of_texts,
    "component_classes": _is_mapping_of_texts,
    "alpha": lambda value: type(value) is float and 0 <= value <= 1,
    "calibration_labels": _is_labels,
    "best": is_best,
    "changes": is_list_of_changes,
    "forever": lambda value: type(value) is bool,
    "between_ticks": lambda value: type(value) is bool,
    "return_point": lambda value: value is None or isinstance(value, dict),
    "holds": lambda value: isinstance(value, str) and value in (STATE, WEIGHTS, AVERAGE),
}
"""Check of each entry's value, by the entry's name."""

_REQUIRED = {entry.name for entry in fields(Snapshot) if entry.default is MISSING and entry.default_factory is MISSING}
