"""Decide what the loop does when a loss or gradient is not finite (`train.non_finite`).

It may stop before the step, drop the step, or go back and take other latents. All three need one thing: the content of
the last checkpoint, kept in memory. To go back is to resume from it within the process; a tick that is taken again is
the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pggan_kit.errors import TrainingError
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system import distributed
from pggan_kit.training.non_finite import Guard, NonFiniteError, float_buffers


@dataclass(frozen=True)
class GoBack:
    """Resume from the last checkpoint's content.

    Attributes:
        rewinds: how often the run has gone back for other latents; equal to the count before where the same steps are
            to be taken again.
    """

    rewinds: int


@dataclass(frozen=True)
class Stop:
    """Save the state before the step that failed, and end the run.

    Attributes:
        images: the clock at which that step begins.
        reason: what failed, where, and what was tried before, in a sentence without its full stop.
    """

    images: int
    reason: str


class Recovery:
    """Decide by the policy, and keep what is needed to go back.

    Args:
        run: its state is read, and changed by `drop_step` alone.

    Attributes:
        guard: finds what is not finite.
        snapshot: the content of the last checkpoint, on the CPU; set before the first step.
    """

    snapshot: Snapshot

    def __init__(self, run: Run) -> None:
        self._run = run
        self._policy = run.experiment.non_finite
        self._limit = run.experiment.non_finite_limit
        self.guard = Guard(run.device)
        self._buffers: list[Tensor] = []
        self._checked_until = -1
        self._stopping = False

    def before_step(self) -> None:
        """Keep what a step changes before it can be checked."""
        if self._policy == "skip":
            self._buffers = [buffer.clone() for buffer in self._changing_buffers()]

    def settle(self) -> None:
        """Read the flag of the steps since the last tick, before anything is written.

        Raises:
            NonFiniteError: one of them was not finite.
        """
        guard = self.guard
        if not guard.each_step and guard.read():
            raise NonFiniteError
        if 0 <= self._checked_until <= self._run.state.images:
            self._checked_until = -1
            guard.each_step = False

    def drop_step(self, failure: NonFiniteError) -> None:
        """Undo what the step that failed has changed, and count it; the clock is the loop's to move.

        Raises:
            NonFiniteError: that is not the policy, or it was done too often.
        """
        state = self._run.state
        if self._policy != "skip" or state.dropped >= self._limit:
            raise failure
        with torch.no_grad():
            for buffer, before in zip(self._changing_buffers(), self._buffers, strict=True):
                buffer.copy_(before)
        state.dropped += 1
        self._log(
            f"{failure} became non-finite {self._describe_place()}: step dropped ({state.dropped} of {self._limit})"
        )

    def decide(self, failure: NonFiniteError) -> GoBack | Stop:
        """Return what the loop is to do after a failure.

        Raises:
            TrainingError: the steps up to a failure were taken again in order to stop before it, and another failed.
        """
        state = self._run.state
        if self._stopping:
            raise TrainingError(
                f"{failure} became non-finite {self._describe_place()}, and not in the same step as before"
            )

        # Only the flag of a whole tick tells: take its steps again, each checked.
        if not failure.net:
            self._log(f"something became non-finite before images {state.images}: taking the tick's steps again")
            self._checked_until = state.images
            self.guard.each_step = True
            return GoBack(state.rewinds)

        if self._policy == "rewind" and state.rewinds < self._limit:
            rewinds = state.rewinds + 1
            self._log(
                f"{failure} became non-finite {self._describe_place()}: back to images {self.snapshot.images} with "
                f"new latents ({rewinds} of {self._limit})"
            )
            return GoBack(rewinds)

        self._stopping = True
        self.guard.each_step = True
        return Stop(
            state.images, f"{failure} became non-finite {self._describe_place()}{self._describe_earlier_tries()}"
        )

    def _changing_buffers(self) -> list[Tensor]:
        state = self._run.state
        return float_buffers(state.generator, state.discriminator)

    def _describe_place(self) -> str:
        state = self._run.state
        alpha = self._run.alpha["generator"]
        return f"at images {state.images} (stage {state.stage.size}, {state.phase}, alpha {alpha:.3f})"

    def _describe_earlier_tries(self) -> str:
        state = self._run.state
        tries = {"skip": f"{state.dropped} dropped steps", "rewind": f"{state.rewinds} rewinds"}
        return f", after {tries[self._policy]}" if self._policy in tries else ""

    def _log(self, line: str) -> None:
        if distributed.rank() == 0:
            self._run.files.log(line)
