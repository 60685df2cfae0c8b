"""Ask a growth policy how fast each piece learns, and split the groups of optimizers accordingly."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from pggan_kit.components import GrowthPolicy, Piece, Update
from pggan_kit.errors import TrainingError
from pggan_kit.growth.fade import NETS
from pggan_kit.growth.learning_rates import set_learning_factor
from pggan_kit.growth.moving_settings import name_place
from pggan_kit.growth.networks import GrowingNetwork
from pggan_kit.growth.planned_steps import group_steps
from pggan_kit.schedule import Position, Schedule, Stage

LOOKED_AT = 200
"""Number of places of a stage, besides its beginning, at which its plan is looked at."""

AROUND_THE_IMAGE = ("to_image", "from_image", "bridge")
"""Names of the pieces that every growth and every end of a fade touches."""


def name_pieces(stage: Stage, nets: Sequence[str] = NETS) -> list[Piece]:
    """Return the pieces of networks at a stage, but for old paths, without building them.

    Args:
        stage: the stage.
        nets: the names of the networks.
    """
    pieces = []
    for net in nets:
        first, layer = ("stem", "to_image") if net == "generator" else ("head", "from_image")
        # D may have grown to another stage.
        stages = [stage.of(net)]
        while stages[0].previous is not None:
            stages.insert(0, stages[0].previous)
        pieces.append(Piece(net, first, stages[0]))
        pieces += [Piece(net, "block", birth) for birth in stages[1:]]
        pieces.append(Piece(net, layer, stages[-1]))
    return pieces


def ask_factors(policy: GrowthPolicy, pieces: Sequence[Piece], position: Position) -> list[float]:
    """Return the factor of each piece at a place on the clock.

    Args:
        policy: the policy.
        pieces: the pieces of all networks.
        position: the place on the clock.

    Raises:
        ConfigError: a setting of the policy has no value there.
        TrainingError: the policy gave something else than a finite number of at least 0, or freezes all pieces of a
            network.
    """
    # Each answer by itself.
    factors = []
    for piece in pieces:
        with name_place("train.growth", position):
            answer: Any = policy.factor(piece, position)
        is_number = isinstance(answer, (int, float)) and not isinstance(answer, bool)
        if not is_number or not 0 <= answer < math.inf:
            raise TrainingError(
                f"train.growth gave {answer!r} as the factor of the {piece} at images {position.images}; it must be a "
                "finite number of at least 0"
            )
        factors.append(float(answer))

    # A network with all its pieces frozen would learn nothing.
    for net in dict.fromkeys(piece.net for piece in pieces):
        if not any(factor for piece, factor in zip(pieces, factors, strict=True) if piece.net == net):
            raise make_frozen_error(net, position)
    return factors


def make_frozen_error(net: str, position: Position) -> TrainingError:
    """Return the error that a policy freezes a whole network."""
    return TrainingError(
        f"train.growth freezes the whole {net} at images {position.images} (stage {position.stage.size}, "
        f"{position.phase}): leave a piece of it that has weights a factor above 0"
    )


def describe_factors(pieces: Sequence[Piece], begin: Sequence[float], end: Sequence[float]) -> str:
    """Return in words which pieces are frozen and which learn faster or slower, as in `generator's stem of 4x4 frozen`.

    It is empty where everything learns at its optimizer's rate.

    Args:
        pieces: the pieces.
        begin, end: their factors at the first and the last step that is described.
    """
    # Pieces that learn alike are named together.
    by_factors: dict[tuple[float, float], list[str]] = {}
    for piece, first, last in zip(pieces, begin, end, strict=True):
        if (first, last) != (1.0, 1.0):
            by_factors.setdefault((first, last), []).append(str(piece))

    # In the order of their factors, the frozen ones first.
    described = []
    for (first, last), names in sorted(by_factors.items()):
        how = f"at {first:.3g} of the rate"
        if first != last:
            how = f"at {first:.3g} to {last:.3g} of the rate"
        if first == last == 0:
            how = "frozen"
        described.append(f"{', '.join(names)} {how}")
    return "; ".join(described)


class LearningPart(NamedTuple):
    """A part of a stage in which the same pieces are frozen.

    Attributes:
        begin: the clock at its first step.
        text: what `describe_factors` says of it.
    """

    begin: int
    text: str


def list_planned_parts(
    policy: GrowthPolicy | None, update: Update, schedule: Schedule, stage: Stage, nets: Sequence[str] = NETS
) -> list[LearningPart]:
    """Return the parts of a stage in which other pieces are frozen than before, as the schedule plans its steps.

    The policy is asked at `LOOKED_AT` places of the stage, and between two of them that differ for the step from which
    they do. So most policies that freeze a whole network are found before anything is trained.

    Args:
        policy: the policy; None where everything learns.
        update: the update, which decides where steps begin.
        schedule: the stages.
        stage: the stage to look at.
        nets: the names of the networks.

    Raises:
        ConfigError, TrainingError: see `ask_factors`.
    """
    starts = schedule.planned_starts()[: stage.index + 1]
    if policy is None or schedule.end(starts) == starts[-1]:
        return []
    steps: list[int] = []
    for group in group_steps(update, schedule, starts, starts[-1], schedule.end(starts)):
        steps += [group.begin + number * group.images for number in range(group.steps)]
    pieces = name_pieces(stage, nets)

    def ask(step: int) -> list[float]:
        return ask_factors(policy, pieces, schedule.at(steps[step], starts))

    def find_frozen(step: int) -> list[bool]:
        return [factor == 0 for factor in ask(step)]

    last = len(steps) - 1
    looked_at = sorted({round(share * last / LOOKED_AT) for share in range(LOOKED_AT + 1)})
    begins = [0]
    was_frozen = find_frozen(0)
    for before, after in pairwise(looked_at):
        now_frozen = find_frozen(after)
        if now_frozen != was_frozen:
            # The first step from which the pieces of `after` are frozen.
            between = range(before, after)
            begins.append(before + bisect.bisect_left(between, True, key=lambda step: find_frozen(step) == now_frozen))
        was_frozen = now_frozen

    parts = []
    for begin, next_begin in pairwise([*begins, len(steps)]):
        parts.append(LearningPart(steps[begin], describe_factors(pieces, ask(begin), ask(next_begin - 1))))
    return parts


def acts_at_base(policy: GrowthPolicy | None, schedule: Schedule, nets: Sequence[str] = NETS) -> bool:
    """Return whether a policy changes a factor in the base stage, where nothing has grown yet.

    It is asked at each batch that the schedule plans there, so before each step, however many batches an update draws.
    """
    base = schedule.stages[0]
    pieces = name_pieces(base, nets)
    steps = range(0, schedule.end([0]), base.batch_size)
    if policy is None:
        return False
    for images in steps:
        position = schedule.at(images, [0])
        if any(policy.factor(piece, position) != 1 for piece in pieces):
            return True
    return False


def is_touched(piece: Piece, newest: Stage) -> bool:
    """Return whether a growth to a stage, or the end of its fade, changes what surrounds a piece.

    Args:
        piece: the piece.
        newest: the stage.
    """
    return piece.name in AROUND_THE_IMAGE or piece.birth.index == newest.index - 1


def list_forgotten(
    policy: GrowthPolicy | None, stage: Stage, nets: Sequence[GrowingNetwork], faded: Collection[str] | None = None
) -> set[nn.Parameter]:
    """Return the parameters whose state the optimizers forget, as a stage begins or a fade ends.

    Args:
        policy: the policy; None where all state is kept.
        stage: the stage.
        nets: the networks, as they are now.
        faded: at the end of a fade, the networks whose old path was dropped; None where a stage begins.
    """
    if policy is None or policy.moments == "keep":
        return set()
    if faded is not None and (policy.moments == "forget_at_stages" or not faded):
        return set()

    forgotten: set[nn.Parameter] = set()
    for net in nets:
        # D may stay as it is where G grows.
        changed = not stage.keeps(net.kind) if faded is None else net.kind in faded
        for built in net.pieces():
            touched = changed and is_touched(built.piece, net.stages[-1])
            if touched or policy.moments != "forget_touched":
                forgotten.update(built.weights)
    return forgotten


class SplitOptimizer:
    """An optimizer whose groups are split by how fast their parameters learn.

    Where all parameters learn at the optimizer's rate, the groups are those that it was built with. A group of which
    nothing learns stays, empty: its settings are needed where something of it learns again.

    Args:
        optimizer: the optimizer, as it was built.
        name: its name, for messages.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, name: str) -> None:
        self.optimizer = optimizer
        self._name = name
        # For each group that was built: its parameters, and the groups that it is split into.
        self._whole = [list(group["params"]) for group in optimizer.param_groups]
        self._parts: list[list[dict[str, Any]]] = []
        self._factors: Mapping[nn.Parameter, float] = {}

    def split(self, factors: Mapping[nn.Parameter, float]) -> None:
        """Split the groups by the factors of their parameters; parameters with 0 are in none, and have no state.

        Args:
            factors: the factors that are not 1.

        Raises:
            TrainingError: the optimizer has no learning rate that a factor could change.
        """
        # Whole groups first; most often nothing is to be split.
        self.merge()
        held = {param: factors[param] for params in self._whole for param in params if param in factors}
        if not held:
            return

        # A group for each factor.
        self._factors = held
        for group, params in zip(self.optimizer.param_groups, self._whole, strict=True):
            self._parts.append(self._split_group(group, params))
        self.optimizer.param_groups = [group for parts in self._parts for group in parts]

        # What is frozen loses what the optimizer remembers of it.
        for param, factor in held.items():
            if factor == 0:
                self.optimizer.state.pop(param, None)

    def _split_group(self, group: dict[str, Any], params: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
        by_factor: dict[float, list[nn.Parameter]] = {}
        for param in params:
            by_factor.setdefault(self._factors.get(param, 1.0), []).append(param)
        by_factor.pop(0.0, None)

        # The first part is the group itself: who holds it goes on changing its settings.
        parts = [group, *(dict(group) for _ in list(by_factor)[1:])]
        group["params"] = []
        for part, (factor, own) in zip(parts, by_factor.items(), strict=False):
            part["params"] = own
            if factor != 1.0:
                self._require_rate(part)
                set_learning_factor(part, factor)
        return parts

    def _require_rate(self, group: dict[str, Any]) -> None:
        if "lr" not in group:
            raise TrainingError(
                f"train.growth changes how fast pieces learn, and the optimizer {self._name} "
                f"({type(self.optimizer).__name__}) has no learning rate `lr` in its groups: choose another optimizer, "
                "or a policy that only freezes"
            )

    def merge(self) -> None:
        """Join the groups to those that the optimizer was built with, at its own learning rates."""
        if not self._parts:
            return
        groups = [parts[0] for parts in self._parts]
        for group, params in zip(groups, self._whole, strict=True):
            group["params"] = list(params)
            if "learning_factor" in group:
                del group["learning_factor"]
                group["lr"] = group.pop("rate")
        self.optimizer.param_groups = groups
        self._parts = []
        self._factors = {}

    def save(self) -> dict[str, Any]:
        """Return the optimizer's `state_dict` as if nothing were split: it fits whatever the growth policy is."""
        factors = self._factors
        self.merge()
        saved = self.optimizer.state_dict()
        self.split(factors)
        return saved
