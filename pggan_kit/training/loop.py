"""The loop: stage -> step -> hooks -> next. Everything else happens in what it calls."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from pggan_kit.data.device_feed import fed
from pggan_kit.data.sampler import Data
from pggan_kit.errors import DivergedError, Interrupted, TrainingError, UserError
from pggan_kit.growth.fade import NETS, PATHS, Fade
from pggan_kit.plugin_host.hooks import part_classes
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE
from pggan_kit.system import distributed
from pggan_kit.system.seeding import derive, seed_step
from pggan_kit.system.signals import StopSignals
from pggan_kit.training.compiler import Compiler
from pggan_kit.training.measures import Meter, diversity, metrics
from pggan_kit.training.non_finite import NonFiniteError, watched_layers
from pggan_kit.training.recovery import Recovery, Stop
from pggan_kit.training.step import TrainingStep, mean_of_each

TIMED_OUT = 1
"""Stands for the time limit among the numbers of signals, of which it must be the smallest."""


def train(run: Run, data: Data, saved: Snapshot | None = None) -> dict[str, Any]:
    """Train a run to its end.

    Args:
        run: a run whose state is new, or was loaded from `saved`.
        data: the data set at all stages' sizes.
        saved: the checkpoint that a resumed run, or a branch of another, goes on from.

    Returns:
        What `after_run` is given.

    Raises:
        TrainingError: a loss became non-finite, or a plugin failed.
        Interrupted: a signal or `train.time_limit` asked to stop; a checkpoint was written first.
    """
    try:
        with StopSignals() as stop:
            return Loop(run, data, stop).to_end(saved)
    except BaseException as error:
        for failure in run.hooks.call_all("on_error", run=run, error=error):
            run.files.log(f"while the run was failing: {failure}")
        raise


class Loop:
    """One process's way through a run. Its methods are for this module."""

    def __init__(self, run: Run, data: Data, stop: StopSignals) -> None:
        self.run = run
        self.data = data
        self.stop = stop
        self.state = run.state
        self.schedule = run.schedule
        self.hooks = run.hooks
        self.experiment = run.experiment
        self.fade = Fade(run.hooks, run.experiment.fade_reals)
        self.alpha_tensors = {path: torch.ones((), device=run.device) for path in PATHS}
        self.meter = Meter(self.state.images)
        self.agreement = distributed.Agreement()
        self.recovery = Recovery(run)
        self.compiler = Compiler(run.experiment, run.device, run.files.log, run.files.warn, self.tell_compiling)
        self.checkpoint = run.checkpoints.last()

    def to_end(self, saved: Snapshot | None) -> dict[str, Any]:
        self.hooks.call("before_run", run=self.run)
        resumed = saved if self.run.resumed else None
        if resumed is not None:
            self.recovery.snapshot = resumed.on_cpu()
        running = self.stand(saved)
        if running and resumed is None:
            self.save()  # so that a run can be resumed from before its first tick, and a branch without its trunk
        while running:
            running = self.advance()
        result = {
            "images": self.state.images,
            "steps": self.state.steps,
            "seconds": self.meter.seconds,
            "update_seconds": self.meter.update_seconds,
            "checkpoint": str(self.checkpoint),
        }
        self.hooks.call("after_run", run=self.run, result=result)
        return result

    def stand(self, saved: Snapshot | None) -> bool:
        """Begin, or go on from what the state was loaded from. Returns whether there is more to train."""
        if saved is not None:
            for name, value in saved.components.items():
                self.hooks.tell(name, "load_state", run=self.run, saved=value)
        self.enter_stage(saved.compiled if saved is not None else None)
        begun = self.state.images > self.state.starts[-1]
        return self.move_on(self.stage_over() if begun else self.passes_through())

    def advance(self) -> bool:
        """Take one step, and do what follows from it. Returns whether there is more to train."""
        try:
            self.obey_stops()
            self.step()
            over = self.stage_over()
            phase_over = over or (self.state.phase == FADE and self.position().phase == STABLE)
            tick = self.experiment.tick
            if phase_over or self.state.images // tick > self.state.last_tick // tick:
                # Just before a fade ends both paths are there: from this one any alpha can be drawn.
                self.tick(over, forever=over or (phase_over and self.state.fading))
        except NonFiniteError as failure:
            decision = self.recovery.decide(failure)
            if isinstance(decision, Stop):
                self.stop_before(decision)
            return self.go_back(decision.rewinds)
        return self.move_on(over)

    def go_back(self, rewinds: int) -> bool:
        """Resume from the last checkpoint's content. Returns whether there is more to train.

        Args:
            rewinds: how often the run has gone back for other latents, this time included.
        """
        state = TrainState(self.experiment, self.schedule, self.run.device)
        state.load_snapshot(self.recovery.snapshot)
        state.rewinds = rewinds
        self.state = self.run.state = state
        return self.stand(self.recovery.snapshot.on_cpu())

    def stop_before(self, stop: Stop) -> NoReturn:
        """Save the state before a step that failed, find the layer where it fails, and end the run.

        Raises:
            DivergedError: always.
        """
        # Take the steps from the last checkpoint on again, up to the one that failed.
        self.go_back(self.state.rewinds)
        while self.state.images < stop.images:
            self.advance()
        self.save()

        # Compiled code knows no layers.
        self.compiler.rest()
        with watched_layers({net: self.state.network(net) for net in NETS}) as layers:
            try:
                self.step()
                again = "It did not come again when the step was repeated. "
            except NonFiniteError:
                again = f"First seen in the output of {layers[0]}. " if layers else ""
        raise DivergedError(
            f"{stop.reason}. {again}The state before this step is saved; train.non_finite says what else could be done"
        )

    def position(self) -> Any:
        return self.schedule.at(self.state.images, self.state.starts)

    def step(self) -> None:
        state, seed = self.state, self.experiment.seed
        self.set_alpha()
        seed_step(state.device, derive(seed, "step", *state.stream(), distributed.rank()))
        faded = {path: self.alpha_tensors[path] for path in PATHS if self.run.alpha[path] != 1.0}
        guard = self.recovery.guard
        ctx = TrainingStep(self.experiment, state, state.stage, self.sampler, faded, guard, self.compiler)
        self.recovery.before_step()
        began = time.perf_counter()
        try:
            losses = self.updated(ctx)
        except NonFiniteError as failure:
            self.recovery.drop_step(failure)
            state.images += max(ctx.drawn, state.stage.batch_size)
            state.steps += 1
            return
        state.images += ctx.drawn
        state.steps += 1
        state.follow(ctx.drawn)
        self.meter.updated(time.perf_counter() - began)
        state.means.add(losses)
        means = mean_of_each(losses)
        self.hooks.call("after_step", run=self.run, stage=state.stage, state=state, losses=means)

    def updated(self, ctx: TrainingStep) -> dict[str, Tensor]:
        try:
            return self.experiment.update.step(ctx)
        except (UserError, TrainingError, NonFiniteError):
            raise
        except Exception as error:
            raise TrainingError(
                f"the update failed at images {ctx.images} (stage {ctx.stage.size}, {self.state.phase}): "
                f"{type(error).__name__}: {error}"
            ) from error

    def set_alpha(self) -> None:
        """Ask for alpha at the clock; hand it to the networks as tensors, so that nothing recompiles as it moves."""
        state = self.state
        old_paths = [net for net in NETS if state.network(net).bridge is not None]
        self.run.alpha = self.fade.alphas_at(state.stage, state.starts[-1], state.images, old_paths)
        for path, alpha in self.run.alpha.items():
            self.alpha_tensors[path].fill_(alpha)

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
        # A hard switch has no old path whose end could be a reason to forget.
        state.renew_optimizers(reset=faded and self.experiment.reset_optimizer == "phase")
        self.compiler.enter(state, self.schedule)
        if faded:
            self.tell("after_fade")

    def grow(self) -> None:
        state = self.state
        stage = self.schedule.stages[len(state.starts)]
        old_paths = self.fade.old_paths(stage, state.images)
        state.grow({net: net in old_paths for net in NETS})
        state.renew_optimizers(reset=self.experiment.reset_optimizer != "never")
        self.enter_stage()

    def enter_stage(self, compiled: Mapping[str, str] | None = None) -> None:
        self.compiler.enter(self.state, self.schedule, compiled)
        source = self.data.sampler(self.state.stage)
        self.sampler = fed(source, self.run.device, self.experiment.data.device_memory)
        self.set_alpha()
        self.tell("before_stage")
        if self.state.fading:
            self.tell("before_fade")

    def tell(self, hook: str) -> None:
        self.hooks.call(hook, run=self.run, stage=self.state.stage, state=self.state)

    def tell_compiling(self, net: str) -> None:
        self.hooks.call("before_compile", run=self.run, stage=self.state.stage, state=self.state, net=net)

    def tick(self, stage_over: bool, forever: bool) -> None:
        state = self.state
        self.recovery.settle()
        shared = [state.means.read() | self.progress() | self.metrics(forever) | self.meter.tick(self.run)]
        distributed.share_from_rank_0(shared)  # hooks may decide by them, and all ranks must decide alike
        (stats,) = shared
        state.last_tick = state.images
        if distributed.rank() == 0:
            row = {"images": state.images, "steps": state.steps, "phase": state.phase, **stats}
            self.run.files.append_stats(row)
        self.hooks.call("after_tick", run=self.run, stage=state.stage, state=state, stats=stats)
        self.save(stage_over, forever)

    def progress(self) -> dict[str, float]:
        state, experiment = self.state, self.experiment
        stats = {
            "Progress/alpha": self.run.alpha["generator"],
            "Progress/stage": state.stage.index,
            "Progress/size": state.stage.height,
        }
        if experiment.non_finite != "stop":
            stats |= {"Progress/dropped_steps": state.dropped, "Progress/rewinds": state.rewinds}
        if experiment.collapse_below > 0 and distributed.rank() == 0:
            stats |= self.diversity()
        return stats

    def metrics(self, forever: bool) -> dict[str, float]:
        evaluator, state = self.run.evaluator, self.state
        due = evaluator and (forever or evaluator.due(state.images, state.last_tick, self.experiment.tick))
        if evaluator is None or not due or distributed.rank() != 0:
            return {}
        return metrics(self.run, evaluator)

    def diversity(self) -> dict[str, float]:
        found, state = diversity(self.run, self.sampler), self.state
        if found is None:
            return {}
        if found < self.experiment.collapse_below and state.warned_stage != state.stage.index:
            state.warned_stage = state.stage.index
            self.run.files.warn(
                f"at images {state.images} (stage {state.stage.size}) the generator's images vary {found:.3f} times as "
                f"much as the data, less than train.collapse_below ({self.experiment.collapse_below}): has it "
                "collapsed?"
            )
        return {"Progress/diversity": found}

    def save(self, stage_over: bool = False, forever: bool = False) -> None:
        components = self.hooks.collect("save_state", run=self.run)
        component_classes = part_classes(self.hooks, "save_state")
        self.state.means.gather()
        snapshot = replace(
            self.state.take_snapshot(),
            identity=self.run.identity,
            stage_over=stage_over,
            components=components,
            compiled=self.compiler.outcome,
            component_classes=component_classes,
        )
        self.recovery.snapshot = snapshot.on_cpu()
        if distributed.rank() == 0:
            self.checkpoint = self.run.checkpoints.save(self.recovery.snapshot, forever)

    def obey_stops(self) -> None:
        limit = self.experiment.time_limit
        timed_out = limit is not None and self.meter.seconds >= limit
        asked = self.agreement.largest(self.stop.received or (TIMED_OUT if timed_out else 0))
        if asked == 0:
            return
        self.recovery.settle()
        self.save()
        distributed.barrier()  # a rank that leaves before rank 0 has written gets it killed
        raise Interrupted(
            None if asked == TIMED_OUT else asked,
            f"stopped at images {self.state.images} and saved; go on with: pggan-kit resume {self.run.directory}",
        )
