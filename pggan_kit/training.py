"""The loop: stage -> step -> hooks -> next. Everything else happens in what it calls."""

from __future__ import annotations

import math
import resource
import sys
import time
from typing import Any

import torch
from torch import Tensor

from pggan_kit import distributed
from pggan_kit.data import Data
from pggan_kit.errors import Interrupted, TrainingError, UserError
from pggan_kit.runs import Run
from pggan_kit.schedule import FADE, STABLE, Stage
from pggan_kit.seeding import derive
from pggan_kit.signals import StopSignals
from pggan_kit.steps import PATHS, StepContext


def train(run: Run, data: Data, saved: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train a run to its end.

    Args:
        run: a run whose state is new, or was loaded from `saved`.
        data: the data set at all stages' sizes.
        saved: the checkpoint that a resumed run goes on from.

    Returns:
        What `after_run` is given.

    Raises:
        TrainingError: a loss became non-finite, or a plugin failed.
        Interrupted: a signal asked to stop; a checkpoint was written first.
    """
    try:
        with StopSignals() as stop:
            return _Loop(run, data, stop).to_end(saved)
    except BaseException as error:
        for failure in run.hooks.call_all("on_error", run=run, error=error):
            run.files.log(f"while the run was failing: {failure}")
        raise


class _Loop:
    def __init__(self, run: Run, data: Data, stop: StopSignals) -> None:
        self.run = run
        self.data = data
        self.stop = stop
        self.state = run.state
        self.schedule = run.schedule
        self.hooks = run.hooks
        self.experiment = run.experiment
        self.alpha_tensors = {path: torch.ones((), device=run.device) for path in PATHS}
        self.started = self.tick_started = time.perf_counter()
        self.update_seconds = self.tick_update_seconds = 0.0
        self.tick_steps_from = self.state.images
        self.checkpoint = run.checkpoints.last()

    def to_end(self, saved: dict[str, Any] | None) -> dict[str, Any]:
        self.hooks.call("before_run", run=self.run)
        for name, value in (saved or {}).get("components", {}).items():
            self.hooks.tell(name, "load_state", run=self.run, saved=value)
        self.enter_stage()
        running = self.move_on(self.stage_over() if saved is not None else self.passes_through())
        while running:
            self.obey_signals()
            self.step()
            over = self.stage_over()
            phase_over = over or (self.state.phase == FADE and self.position().phase == STABLE)
            tick = self.experiment.tick
            if phase_over or self.state.images // tick > self.state.last_tick // tick:
                self.tick(over)
            running = self.move_on(over)
        result = {
            "images": self.state.images,
            "steps": self.state.steps,
            "seconds": time.perf_counter() - self.started,
            "update_seconds": self.update_seconds,
            "checkpoint": str(self.checkpoint),
        }
        self.hooks.call("after_run", run=self.run, result=result)
        return result

    def position(self) -> Any:
        return self.schedule.at(self.state.images, self.state.starts)

    def step(self) -> None:
        state = self.state
        self.set_alpha()
        torch.manual_seed(derive(self.experiment.seed, "step", state.images, distributed.rank()))
        faded = {path: self.alpha_tensors[path] for path in PATHS if self.run.alpha[path] != 1.0}
        ctx = StepContext(self.experiment, state, state.stage, self.sampler, faded)
        began = time.perf_counter()
        losses = self.updated(ctx)
        state.images += ctx.drawn
        state.steps += 1
        state.follow()
        self.tick_update_seconds += time.perf_counter() - began
        state.means.add(losses)
        self.hooks.call("after_step", run=self.run, stage=state.stage, state=state, losses=losses)

    def updated(self, ctx: StepContext) -> dict[str, Tensor]:
        try:
            return self.experiment.update.step(ctx)
        except (UserError, TrainingError):
            raise
        except Exception as error:
            raise TrainingError(
                f"the update failed at images {ctx.images} (stage {ctx.stage.size}, {self.state.phase}): "
                f"{type(error).__name__}: {error}"
            ) from error

    def set_alpha(self) -> None:
        """Ask for alpha at the clock; hand it to the networks as tensors, so that nothing recompiles as it moves."""
        stage, state = self.state.stage, self.state
        position = self.position()
        for path in PATHS:
            alpha = 1.0
            if position.phase == FADE:
                alpha = self.ask_alpha(stage, position.progress, path)
            if alpha != 1.0 and path != "reals" and state.network(path).bridge is None:
                raise TrainingError(
                    f"the switch gave alpha {alpha} for the {path} at images {state.images}, after 1 at the start of "
                    f"stage {stage.size}: a path that starts at 1 has no old path to return to"
                )
            self.run.alpha[path] = alpha
            self.alpha_tensors[path].fill_(alpha)

    def ask_alpha(self, stage: Stage, progress: float, path: str) -> float:
        if path == "reals" and not self.experiment.fade_reals:
            return 1.0
        images = self.state.images
        answer = self.hooks.ask("fade_alpha", stage=stage, progress=progress, images=images, path=path)
        alpha = progress if answer is None else float(answer)
        if not 0.0 <= alpha <= 1.0:
            raise TrainingError(f"the switch gave alpha {alpha} for the {path} at images {images}; it lies in [0, 1]")
        return alpha

    def stage_over(self) -> bool:
        state = self.state
        if state.images >= self.schedule.total:
            return True
        if len(state.starts) == len(self.schedule.stages):
            return False
        answer = self.hooks.ask("should_advance", run=self.run, stage=state.stage, state=state)
        return state.images >= self.schedule.end(state.starts) if answer is None else bool(answer)

    def move_on(self, over: bool) -> bool:
        """End the fade and the stage where they are over. Returns whether there is more to train."""
        if self.state.phase == FADE and (over or self.position().phase == STABLE):
            self.end_fade()
        while over:
            self.tell("after_stage")
            if self.state.images >= self.schedule.total:
                return False
            self.grow()
            over = self.passes_through()
        return True

    def passes_through(self) -> bool:
        """Whether the stage has no budget: it is grown through at once, which is how a run starts at a larger size."""
        return self.state.stage.budget == 0 and len(self.state.starts) < len(self.schedule.stages)

    def end_fade(self) -> None:
        state, faded = self.state, self.state.fading
        state.end_fade()
        state.phase = STABLE
        state.renew_optimizers(reset=self.experiment.reset_optimizer == "phase")
        if faded:
            self.tell("after_fade")

    def grow(self) -> None:
        state = self.state
        stage = self.schedule.stages[len(state.starts)]
        bridged = {
            net: stage.fade_images > 0 and self.ask_alpha(stage, 0.0, net) != 1.0
            for net in ("generator", "discriminator")
        }
        state.grow(bridged)
        state.renew_optimizers(reset=self.experiment.reset_optimizer != "never")
        self.enter_stage()

    def enter_stage(self) -> None:
        self.sampler = self.data.sampler(self.state.stage)
        self.set_alpha()
        self.tell("before_stage")
        if self.state.fading:
            self.tell("before_fade")

    def tell(self, hook: str) -> None:
        self.hooks.call(hook, run=self.run, stage=self.state.stage, state=self.state)

    def tick(self, stage_over: bool) -> None:
        state = self.state
        stats = state.means.read()
        wrong = [name for name, value in stats.items() if not math.isfinite(value)]
        if wrong:
            raise TrainingError(
                f"{', '.join(wrong)} became non-finite before images {state.images} (stage {state.stage.size}, "
                f"{state.phase}, alpha {self.run.alpha['generator']:.3f}); the checkpoint before it is kept"
            )
        stats |= self.progress()
        state.last_tick = state.images
        if distributed.rank() == 0:
            row = {"images": state.images, "steps": state.steps, "phase": state.phase, **stats}
            self.run.files.append_stats(row)
        self.hooks.call("after_tick", run=self.run, stage=state.stage, state=state, stats=stats)
        self.save(forever=stage_over)

    def progress(self) -> dict[str, float]:
        now, state = time.perf_counter(), self.state
        seconds = now - self.tick_started
        images = state.images - self.tick_steps_from
        stats = {
            "Progress/alpha": self.run.alpha["generator"],
            "Progress/stage": state.stage.index,
            "Progress/size": state.stage.height,
            "Timing/seconds": seconds,
            "Timing/update_seconds": self.tick_update_seconds,
            "Timing/images_per_second": images / seconds if seconds > 0 else 0.0,
            "Resources/memory_mib": peak_memory_mib(),
        }
        if self.run.device.type == "cuda":
            stats["Resources/gpu_memory_mib"] = torch.cuda.max_memory_allocated(self.run.device) / 2**20
        self.update_seconds += self.tick_update_seconds
        self.tick_started, self.tick_update_seconds, self.tick_steps_from = now, 0.0, state.images
        return stats

    def save(self, forever: bool = False) -> None:
        components = self.hooks.collect("save_state", run=self.run)
        if distributed.rank() == 0:
            saved = {**self.state.state_dict(), "components": components}
            self.checkpoint = self.run.checkpoints.save(saved, self.state.images, forever)

    def obey_signals(self) -> None:
        if self.stop.received is None:
            return
        self.save()
        raise Interrupted(
            self.stop.received,
            f"stopped at images {self.state.images} and saved; go on with: pggan-kit resume {self.run.directory}",
        )


def peak_memory_mib() -> float:
    """The most memory this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
