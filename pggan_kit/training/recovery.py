"""What the loop does when numbers die (`train.non_finite`): stop before it, drop the step, or go back and try anew.

All three stand on one thing: the content of the last checkpoint, kept in memory. To go back is to resume from it within
the process; a tick that is taken again is the same to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pggan_kit.errors import DivergedError, TrainingError
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.system import distributed
from pggan_kit.training.non_finite import Guard, NonFiniteError, float_buffers, watched_layers

if TYPE_CHECKING:
    from pggan_kit.training.loop import Loop
    from pggan_kit.training.step import StepContext


class Recovery:
    """Keeps what is needed to go back, and does so.

    Attributes:
        guard: finds what is not finite.
        snapshot: the content of the last checkpoint, on the CPU; set before the first step.
    """

    snapshot: Snapshot

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._policy = loop.experiment.non_finite
        self._limit = loop.experiment.non_finite_limit
        self.guard = Guard(loop.run.device)
        self._buffers: list[Tensor] = []
        self._checked_until = -1
        self._stopping = False

    def before_step(self) -> None:
        """Keep what a step changes before it can be checked."""
        if self._policy == "skip":
            self._buffers = [buffer.clone() for buffer in self._changing()]

    def settle(self) -> None:
        """Read the flag of the steps since the last tick, before anything is written.

        Raises:
            NonFiniteError: one of them was not finite.
        """
        guard = self.guard
        if not guard.each_step and guard.read():
            raise NonFiniteError
        if 0 <= self._checked_until <= self._loop.state.images:
            self._checked_until, guard.each_step = -1, False

    def drop(self, death: NonFiniteError, ctx: StepContext) -> None:
        """Leave the step out, and move the clock past it.

        Raises:
            NonFiniteError: that is not the policy, or it was done too often.
        """
        state = self._loop.state
        if self._policy != "skip" or state.dropped >= self._limit:
            raise death
        with torch.no_grad():
            for buffer, before in zip(self._changing(), self._buffers, strict=True):
                buffer.copy_(before)
        state.dropped += 1
        self._say(f"{death} became non-finite {self._where()}: step dropped ({state.dropped} of {self._limit})")
        state.images += max(ctx.drawn, ctx.stage.batch_size)
        state.steps += 1

    def after(self, death: NonFiniteError) -> bool:
        """Go back as the policy asks. Returns whether there is more to train.

        Raises:
            TrainingError: the policy is to stop, or the others were tried too often.
        """
        loop = self._loop
        if self._stopping:
            raise TrainingError(f"{death} became non-finite {self._where()}, and not in the same step as before")
        if not death.net:
            self._say(f"something became non-finite before images {loop.state.images}: taking the tick's steps again")
            self._checked_until, self.guard.each_step = loop.state.images, True
            return self._back(loop.state.rewinds)
        if self._policy == "rewind" and loop.state.rewinds < self._limit:
            rewinds = loop.state.rewinds + 1
            self._say(
                f"{death} became non-finite {self._where()}: back to images {self.snapshot.images} with new latents "
                f"({rewinds} of {self._limit})"
            )
            return self._back(rewinds)
        self._stop(death)
        return False

    def _stop(self, death: NonFiniteError) -> None:
        """Save the state before the step that died; find the layer; raise."""
        loop, self._stopping, self.guard.each_step = self._loop, True, True
        clock, where, tried = loop.state.images, self._where(), self._tried()
        self._back(loop.state.rewinds)
        while loop.state.images < clock:
            loop.advance()
        loop.save()
        loop.compiler.rest()  # compiled code knows no layers
        with watched_layers({"generator": loop.state.generator, "discriminator": loop.state.discriminator}) as layers:
            try:
                loop.step()
                again = "It did not come again when the step was repeated. "
            except NonFiniteError:
                again = f"First seen in the output of {layers[0]}. " if layers else ""
        raise DivergedError(
            f"{death} became non-finite {where}{tried}. {again}The state before this step is saved; "
            f"train.non_finite says what else could be done"
        )

    def _back(self, rewinds: int) -> bool:
        """Resume from the last checkpoint's content, with the latents of the `rewinds`-th try."""
        loop = self._loop
        state = TrainState(loop.experiment, loop.schedule, loop.run.device)
        state.load_snapshot(self.snapshot)
        state.rewinds = rewinds
        loop.state = loop.run.state = state
        return loop.stand(self.snapshot.on_cpu())

    def _changing(self) -> list[Tensor]:
        state = self._loop.state
        return float_buffers(state.generator, state.discriminator)

    def _where(self) -> str:
        state, alpha = self._loop.state, self._loop.run.alpha["generator"]
        return f"at images {state.images} (stage {state.stage.size}, {state.phase}, alpha {alpha:.3f})"

    def _tried(self) -> str:
        state = self._loop.state
        done = {"skip": f"{state.dropped} dropped steps", "rewind": f"{state.rewinds} rewinds"}.get(self._policy)
        return f", after {done}" if done else ""

    def _say(self, line: str) -> None:
        if distributed.rank() == 0:
            self._loop.run.files.log(line)
