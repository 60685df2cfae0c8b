"""Decide what the loop does when a loss or gradient is NaN or infinite (`train.non_finite`).

It may stop before the step, drop the step, or go back and draw other latents. All three need one thing: the content of
the last tick, kept in memory, whether it was written to the disk or not. To go back is to resume from it within the
process; a tick that is trained again is the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pggan_kit.errors import TrainingError
from pggan_kit.runs.host_copies import PendingCopy
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system import distributed
from pggan_kit.training.non_finite import Guard, NonFiniteError, list_float_buffers


@dataclass(frozen=True)
class GoBack:
    """The decision to resume from the last checkpoint's content.

    Attributes:
        rewinds: Times that the run has gone back to draw other latents; unchanged where the same steps are to be taken
            again.
    """

    rewinds: int


@dataclass(frozen=True)
class Stop:
    """The decision to save the state before the step that failed, and to end the run.

    Attributes:
        images: The clock at which that step begins.
        reason: What failed, where, and what was tried before, as a sentence without its full stop.
    """

    images: int
    reason: str


class Recovery:
    """The policy of a run against losses and gradients that are not finite, and what is needed to go back.

    Args:
        run: The run; its state is read, and changed by `drop_step` alone.

    Attributes:
        guard: The check of each step.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._policy = run.experiment.non_finite
        self._limit = run.experiment.non_finite_limit
        self.guard = Guard(run.device)
        self._copy: PendingCopy[Snapshot] | None = None
        self._buffers_before: list[Tensor] = []
        self._checked_until = -1
        self._stopping = False

    @property
    def snapshot(self) -> Snapshot:
        """Return the content of the last tick's checkpoint, on the CPU."""
        assert self._copy is not None, "a run has one from before its first step"
        return self._copy.wait()

    def keep(self, copy: PendingCopy[Snapshot]) -> None:
        """Keep the content of a tick, to go back there."""
        self._copy = copy

    def forget(self) -> None:
        """Free the content of the last tick, before that of the next is copied."""
        self._copy = None

    def find_return_point(self, between_ticks: bool) -> Snapshot | None:
        """Return what a checkpoint holds besides its own state, for a run that is resumed from it to go back to.

        Only a return that draws other latents depends on where it goes back to. Otherwise the checkpoint itself will
        do: the steps before it are taken as they were, and were all finite.

        Args:
            between_ticks: Whether the checkpoint lies between two ticks.
        """
        if between_ticks and self._policy == "rewind":
            return self.snapshot
        return None

    def copy_buffers_if_droppable(self) -> None:
        """Copy what a step changes before it can be checked, where the step may be dropped."""
        if self._policy == "skip":
            self._buffers_before = [buffer.clone() for buffer in self._list_changing_buffers()]

    def require_finite_steps(self) -> None:
        """Check the steps since the last tick, before anything is written.

        Raises:
            NonFiniteError: A loss or gradient was not finite in one of them.
        """
        guard = self.guard
        if not guard.each_step and guard.read():
            raise NonFiniteError

        # A tick that had to be taken again, step by step, is behind us.
        if 0 <= self._checked_until <= self._run.state.images:
            self._checked_until = -1
            guard.each_step = False

    def drop_step(self, failure: NonFiniteError) -> None:
        """Undo what the step that failed has changed, and count it; the loop moves the clock.

        Raises:
            NonFiniteError: The policy is another one, or too many steps were dropped.
        """
        state = self._run.state
        if self._policy != "skip" or state.dropped >= self._limit:
            raise failure

        # The update that failed has moved no weight, but its forward pass has changed running statistics. What earlier
        # updates of the step have moved, such as those of D before G failed, stays.
        with torch.no_grad():
            for buffer, before in zip(self._list_changing_buffers(), self._buffers_before, strict=True):
                buffer.copy_(before)
        state.dropped += 1
        self._log(f"{self._describe(failure)}: step dropped ({state.dropped} of {self._limit})")

    def decide(self, failure: NonFiniteError) -> GoBack | Stop:
        """Return what the loop is to do after a failure.

        Raises:
            TrainingError: The steps up to a failure were taken again in order to stop before it, and another failed.
        """
        state = self._run.state
        if self._stopping:
            raise TrainingError(f"{self._describe(failure)}, and not in the same step as before")

        # Where only the flag of a whole tick is known, its steps are taken again, each checked.
        if not failure.net:
            self._log(f"something became non-finite before images {state.images}: taking the tick's steps again")
            self._checked_until = state.images
            self.guard.each_step = True
            return GoBack(state.rewinds)

        if self._policy == "rewind" and state.rewinds < self._limit:
            rewinds = state.rewinds + 1
            self._log(
                f"{self._describe(failure)}: back to images {self.snapshot.images} with new latents "
                f"({rewinds} of {self._limit})"
            )
            return GoBack(rewinds)

        self._stopping = True
        self.guard.each_step = True
        return Stop(state.images, self._describe(failure) + self._describe_earlier_tries())

    def _list_changing_buffers(self) -> list[Tensor]:
        state = self._run.state
        return list_float_buffers(*state.networks.values())

    def _describe(self, failure: NonFiniteError) -> str:
        state = self._run.state
        alpha = self._run.alpha["generator"]
        place = f"at images {state.images} (stage {state.stage.size}, {state.phase}, alpha {alpha:.3f})"
        return f"{failure} became non-finite {place}"

    def _describe_earlier_tries(self) -> str:
        state = self._run.state
        if self._policy == "skip":
            return f", after {state.dropped} dropped steps"
        if self._policy == "rewind":
            return f", after {state.rewinds} rewinds"
        return ""

    def _log(self, line: str) -> None:
        if distributed.rank() == 0:
            self._run.files.log(line)
