"""The training loop: stage -> step -> hooks -> tick -> next stage. Everything else happens in what it calls.

A run goes through its stages in order. A stage whose new layers fade in is in the phase `fade` first, then in `stable`.
Each step trains both networks on one or more batches of reals; reals drawn so far are the one clock, `state.images`.
Every `train.tick` images, a few times before the first of these ticks, and at the end of each phase, the loop writes
statistics; what else it does there, such as checkpoints, has intervals of its own (`pggan_kit/ticks.py`).
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch

from pggan_kit.data.device_feed import choose_feed, close_feed
from pggan_kit.data.sampler import Data, Source
from pggan_kit.errors import (
    FORESEEN,
    DivergedError,
    Interrupted,
    PluginError,
    TrainingError,
    UnforeseenError,
    first_line,
    quote_path,
)
from pggan_kit.growth.fade import NETS, PATHS, Fade
from pggan_kit.growth.learning import list_forgotten
from pggan_kit.plugin_host.failures import describe_failure, name_component
from pggan_kit.plugin_host.hooks import list_implementing_classes
from pggan_kit.plugin_host.read_only import ReadOnlyDict
from pggan_kit.runs.average_snapshots import list_due
from pggan_kit.runs.branches import require_bridges
from pggan_kit.runs.host_copies import PendingCopy, PlainCopier, choose_copier
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE
from pggan_kit.system import distributed
from pggan_kit.system.devices import free_cached_memory, lacks_deterministic_kernel
from pggan_kit.system.seeding import derive, seed_step
from pggan_kit.system.signals import StopSignals
from pggan_kit.ticks import Tick
from pggan_kit.training.capture import CapturedSteps, make_recorder
from pggan_kit.training.checkpoint_writer import CheckpointWriter
from pggan_kit.training.compiler import Compiler
from pggan_kit.training.contract_check import describe_breach, describe_wrong_report
from pggan_kit.training.host_work import HostWork, StepStart
from pggan_kit.training.measures import Meter, compute_metrics, describe_shares, is_better, measure_diversity
from pggan_kit.training.non_finite import NonFiniteError, watch_layers
from pggan_kit.training.out_of_memory import explain_out_of_memory, is_out_of_memory
from pggan_kit.training.recovery import Recovery, Stop
from pggan_kit.training.step import UpdateContext, average_each

TIMED_OUT = 1
"""Request to stop at the time limit. A signal's request is this plus the signal's number, so that a signal prevails."""


def train(run: Run, data: Data, saved: Snapshot | None = None, signals: StopSignals | None = None) -> dict[str, Any]:
    """Train a run to its end.

    Args:
        run: A run whose state is new, or was loaded from `saved`.
        data: The data set at the sizes of all stages.
        saved: The checkpoint from which a resumed run, or a branch of another run, continues.
        signals: The signals that ask the run to stop; None: those that this process receives.

    Returns:
        The `result` that the hook `after_run` is given.

    Raises:
        TrainingError: A loss became NaN or infinite, or a plugin failed.
        Interrupted: A signal or `train.time_limit` stopped the run, after a checkpoint was written.
    """
    try:
        return _train_until_stopped(run, data, saved, signals or StopSignals())
    except BaseException as error:
        # Also after Ctrl-C: observers then close their files. What fails in that is logged, and hides no error.
        for second in run.hooks.call_all("on_error", run=run, error=error):
            run.files.log(f"while the run was failing: {second}")
        if isinstance(error, FORESEEN) or not isinstance(error, Exception):
            raise
        state = run.state
        failure = describe_failure(error, run.hooks.components)
        raise UnforeseenError(
            f"training failed at images {state.images} (stage {state.stage.size}, {state.phase}){failure}"
        ) from error
    finally:
        for line in run.hooks.list_repeated_failures():
            run.files.log(f"warning: {line}")


def _train_until_stopped(run: Run, data: Data, saved: Snapshot | None, signals: StopSignals) -> dict[str, Any]:
    """Train a run to its end; where memory is full, say how to continue with less.

    A part cannot bring the end about by `sys.exit`: the command would look successful.
    """
    try:
        with signals:
            loop = Loop(run, data, signals)
            try:
                return loop.train_to_end(saved)
            except BaseException:
                loop.writer.finish_as_run_fails()
                raise
            finally:
                loop.free_reals()
                # Whoever goes on with the run needs the memory for something else.
                loop.steps.forget_graphs()
    except SystemExit as error:
        # A part that exits must not look like the end of the run.
        raise TrainingError(
            f"a part of the run called sys.exit({error.code!r}) at images {run.state.images} (stage "
            f"{run.state.stage.size}): a part that cannot go on must raise an exception that says why"
        ) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise TrainingError(explain_out_of_memory(run, error)) from error
        if lacks_deterministic_kernel(error):
            raise TrainingError(
                "train.deterministic = 'always': an operation of this experiment has no deterministic kernel; choose "
                f"'warn', or another part ({first_line(error)})"
            ) from error
        raise


class Loop:
    """One process's way through a run; its methods are for this module.

    Args:
        run: The run to train.
        data: The data set at the sizes of all stages.
        signals: The signals that ask the run to stop.
    """

    sampler: Source

    def __init__(self, run: Run, data: Data, signals: StopSignals) -> None:
        self.run = run
        self.data = data
        self.signals = signals

        # What the run consists of, at hand.
        self.state = run.state
        self.schedule = run.schedule
        self.hooks = run.hooks
        self.experiment = run.experiment

        # What training adds to it.
        self.fade = Fade(run.hooks, run.experiment.fade_reals)
        self.alpha_tensors = {path: torch.ones((), device=run.device) for path in PATHS}
        self.early_ticks = run.schedule.list_early_ticks(run.experiment.tick)
        self.meter = Meter(self.state.images)
        self.agreement = distributed.Agreement()
        self.recovery = Recovery(run)
        self.copier = choose_copier(run.device)
        self.writer = CheckpointWriter(run, self.meter)
        # Not a method of this loop: a cycle would keep the networks alive after the run.
        announce = functools.partial(announce_compiling, run)
        self.compiler = Compiler(run.experiment, run.device, run.files.log, run.files.warn, announce)
        recorder = make_recorder(run.experiment, run.device)
        self.steps = CapturedSteps(run.experiment, recorder, run.files.log, self.compiler.drop_account)
        self.idle_optimizers: set[str] = set()
        self.has_taken_step = False

    def train_to_end(self, saved: Snapshot | None) -> dict[str, Any]:
        """Train from the beginning, or from a checkpoint, to the last image; return the result of the run."""
        if distributed.rank() == 0:
            self.run.files.keep_start()
        # A branch also continues from a checkpoint, but from that of another run.
        own_checkpoint = saved if self.run.resumed else None
        self.run.is_new_branch = saved is not None and own_checkpoint is None
        self.hooks.call("before_run", run=self.run)
        if own_checkpoint is not None:
            # The last tick, as if the run had not been stopped after it.
            last_tick = own_checkpoint.return_point or own_checkpoint
            self.recovery.keep(last_tick.begin_copy(PlainCopier()))
        unfinished = self.begin_or_resume(saved, is_branch=own_checkpoint is None)
        self.run.is_new_branch = False
        if unfinished and (own_checkpoint is None or own_checkpoint.changes != self.run.changes):
            # A run can then be resumed from before its first tick, and a branch without its trunk. After a NaN, a run
            # whose settings changed goes back no further than to where they did, however often it was stopped since.
            self.writer.begin(self.take_checkpoint())
            # On the disk before the first step: a run that has rows and no checkpoint could not be resumed.
            self.writer.finish()

        while unfinished:
            unfinished = self.advance_run()
        self.compiler.leave_region()
        self.writer.finish()
        self.warn_if_kept_in_a_stage()

        result: dict[str, Any] = {
            "images": self.state.images,
            "steps": self.state.steps,
            "seconds": self.meter.seconds,
            "update_seconds": self.meter.update_seconds,
            "shares": self.meter.compute_shares(self.hooks.observer_seconds),
            "checkpoint": str(self.writer.last_file),
        }
        if distributed.rank() == 0:
            self.run.files.log_and_say(f"shares of the time: {describe_shares(result['shares'])}", None)
        # Not a method of this loop, as above.
        self.signals.announce = functools.partial(announce_end, self.run)
        if self.signals.received is not None:
            self.signals.announce(self.signals.received)
        self.hooks.call("after_run", run=self.run, result=result)
        return result

    def begin_or_resume(self, checkpoint: Snapshot | None, is_branch: bool = False) -> bool:
        """Enter the stage that the state is in, and return whether there is more to train.

        Args:
            checkpoint: The checkpoint that the state was loaded from; None for a new run.
            is_branch: Whether it is another run's, whose stage may end elsewhere.
        """
        if distributed.rank() == 0:
            self.run.files.cut_average_snapshots(self.state.images)
        self.enter_stage(checkpoint)
        if checkpoint is None or self.state.images == self.state.starts[-1]:
            return self.end_phase_and_stage_if_over(self.stage_has_no_budget())

        # The checkpoint may have been written in the very step that ended its fade or its stage. A switch is not asked
        # again: it has seen the tick of that step by now, and had not when it answered.
        stage_over = checkpoint.stage_over
        if is_branch:
            # What ended that run early does not end this one.
            self.state.ended = False
            stage_over = self.stage_is_over()
        return self.end_phase_and_stage_if_over(stage_over)

    def advance_run(self) -> bool:
        """Take a step, tick where one is due, enter the next phase or stage; return whether there is more to train."""
        try:
            self.save_and_stop_if_asked()
            before = self.state.images
            self.take_step()
            self.has_taken_step = True
            self.keep_averages_if_due(before)

            # The tick at the end of a phase still has the networks of that phase.
            stage_over = self.stage_is_over()
            phase_over = stage_over or self.fade_is_over()
            if phase_over or self.tick_is_due():
                self.tick(stage_over, phase_over)
                stage_over = stage_over or self.state.ended
        except NonFiniteError as failure:
            decision = self.recovery.decide(failure)
            if isinstance(decision, Stop):
                self.save_and_fail_before(decision)
            return self.return_to_checkpoint(decision.rewinds)
        return self.end_phase_and_stage_if_over(stage_over)

    # A step.

    def take_step(self) -> None:
        """Train both networks on the reals that come next on the clock, and let the average of G follow."""
        state = self.state
        self.set_alpha()
        self.set_augmentation()
        fading = {path: self.alpha_tensors[path] for path in PATHS if self.run.alpha[path] != 1.0}
        guard = self.recovery.guard
        context: UpdateContext | None = None

        def make_context(host: HostWork, start: StepStart) -> UpdateContext:
            nonlocal context
            context = UpdateContext(
                self.experiment, state, state.stage, self.sampler, fading, guard, self.compiler, host, start
            )
            return context

        def seed() -> None:
            names = ("step", *state.make_seed_names(), distributed.rank())
            seed_step(state.device, derive(self.experiment.seed, *names))

        # Take the step: eagerly, or by replaying graphs.
        self.recovery.copy_buffers_if_droppable()
        began = time.perf_counter()
        try:
            losses, drawn = self.steps.take(make_context, seed, fading, guard)
        except NonFiniteError as failure:
            # Raises the failure again unless the policy is to drop the step, whose images then count as seen.
            self.recovery.drop_step(failure)
            assert context is not None
            state.images += max(context.drawn, state.stage.batch_size)
            state.steps += 1
            self.set_learning_factors()
            return
        except FORESEEN:
            raise
        except Exception as error:
            if not is_out_of_memory(error) and context is not None:
                self.explain_breach(error, context)
            raise

        # The clock moves, and what follows it: averages, learning rates.
        self.require_report(losses)

        state.images += drawn
        state.steps += 1
        state.update_averages(drawn)
        self.meter.add_update(time.perf_counter() - began)
        self.set_learning_factors()

        # Means stay tensors until the next tick, and hooks may not read them: nothing waits for the device.
        state.means.add(losses)
        means = average_each(losses)
        self.call_hook("after_step", losses=ReadOnlyDict(means))

    def explain_breach(self, error: Exception, context: UpdateContext) -> None:
        """Name the component that breaks its contract, where a step failed because of that.

        Raises:
            PluginError: A component does.
        """
        breach = describe_breach(self.run, context)
        if breach is not None:
            raise PluginError(breach) from error

    def require_report(self, report: object) -> None:
        """Check what the update's `step` returned.

        Raises:
            PluginError: It is no dict of tensors.
        """
        wrong = describe_wrong_report(report)
        if wrong is not None:
            raise PluginError(f"{name_component(self.experiment.update, self.hooks.components)}: {wrong}")

    def set_learning_factors(self) -> None:
        """Let each piece learn as fast as the growth policy says for the next step."""
        if self.state.set_learning_factors():
            # Other gradients are another backward pass.
            self.enter_region()

    def enter_region(self, compiled: Mapping[str, str] | None = None) -> None:
        """Begin a region of the run, or resume in it, whose steps are compiled and captured on their own.

        Args:
            compiled: What the checkpoint of a resumed region says of compiled steps.
        """
        self.compiler.enter_region(self.state, self.schedule, compiled)
        self.steps.enter_region(self.state)

    def set_alpha(self) -> None:
        """Ask for alpha at the clock, and write it into tensors, so that compiled code survives its change."""
        state = self.state
        old_paths = [name for name, net in state.networks.items() if net.bridge is not None]
        self.run.alpha = self.fade.compute_alphas(state.stage, state.starts[-1], state.images, old_paths)
        for path, alpha in self.run.alpha.items():
            self.alpha_tensors[path].fill_(alpha)

    def set_augmentation(self) -> None:
        """Set what moves in an augmentation to the clock, outside of the step, which may be a graph."""
        set_to_clock = getattr(self.experiment.augmentation, "set_to_clock", None)
        if set_to_clock is not None:
            set_to_clock(self.state.position)

    def save_and_stop_if_asked(self) -> None:
        """Write a checkpoint and end the run where a signal, or the time limit, of any process asks for it.

        Raises:
            Interrupted: The run was asked to stop.
        """
        request = 0
        limit = self.experiment.time_limit
        if self.signals.received is not None:
            request = TIMED_OUT + self.signals.received
        elif limit is not None and self.meter.seconds >= limit:
            # A process that takes no step brings the run no further, however often it is repeated.
            if self.has_taken_step:
                request = TIMED_OUT
            else:
                self.run.files.warn(
                    f"train.time_limit = {limit} passed before the first step of this process, which is taken all the "
                    "same: choose a limit that leaves time for steps"
                )
        agreed = self.agreement.largest(request)
        if agreed == 0:
            return

        self.recovery.require_finite_steps()
        self.writer.begin(self.take_checkpoint(between_ticks=True))
        self.writer.finish()
        # A process that exits before rank 0 has written gets rank 0 killed.
        distributed.barrier()

        number = None if agreed == TIMED_OUT else agreed - TIMED_OUT
        raise Interrupted(
            number,
            f"stopped at images {self.state.images} and saved; go on with: pggan-kit resume "
            f"{quote_path(self.run.files.path)}",
        )

    # Phases and stages.

    def end_phase_and_stage_if_over(self, stage_over: bool) -> bool:
        """End the fade and the stage where they are over, and return whether there is more to train."""
        # A run that ends within a fade keeps the networks of its last checkpoint: their old paths still count.
        leaves_stage = stage_over and not self.state.is_over
        if self.state.phase == FADE and (leaves_stage or self.fade_is_over()):
            self.end_fade()

        # Stages without a budget are entered and left at once: so a run can begin at a larger size.
        while stage_over:
            self.call_hook("after_stage")
            if self.state.is_over:
                return False
            self.grow_to_next_stage()
            stage_over = self.stage_has_no_budget()
        return True

    def fade_is_over(self) -> bool:
        """Return whether the stage is still in its fade, and has spent the images of it."""
        state = self.state
        return state.phase == FADE and self.schedule.at(state.images, state.starts).phase == STABLE

    def stage_is_over(self) -> bool:
        """Return whether the run is to leave its stage: a switch may say so, else the schedule does."""
        state = self.state
        if state.is_over:
            return True
        if self.is_last_stage():
            return False
        answer = self.hooks.ask("should_advance", run=self.run, stage=state.stage, state=state)
        if answer is not None:
            return bool(answer)
        return state.images >= self.schedule.end(state.starts)

    def stage_has_no_budget(self) -> bool:
        """Return whether the stage spends no images and another one follows."""
        return self.state.stage.budget == 0 and not self.is_last_stage()

    def warn_if_kept_in_a_stage(self) -> None:
        """Warn where answers to `should_advance` kept the run from stages that its budgets have."""
        state = self.state
        planned = self.schedule.list_planned_stages()
        is_kept = not state.ended and state.stage.index < planned[-1].index
        if not is_kept or not self.hooks.list_implementations("should_advance"):
            return
        how_far = "never let it grow" if state.stage == planned[0] else "let it grow no further"
        self.run.files.warn(
            f"ended in stage {state.stage.index + 1} of {len(self.schedule.stages)}, at {state.stage.size}: the switch "
            f"{how_far}. As long as its should_advance returns False, a stage goes on past its budget; None leaves the "
            "end of the stage to the budget"
        )

    def is_last_stage(self) -> bool:
        """Return whether the networks have grown to their final size."""
        return len(self.state.starts) == len(self.schedule.stages)

    def end_fade(self) -> None:
        """Drop the old paths, and begin the phase `stable`."""
        state = self.state
        old_paths = [name for name, net in state.networks.items() if net.bridge is not None]
        self.steps.forget_graphs()
        state.end_fade()
        state.phase = STABLE
        # A hard switch has no old path whose end could be a reason to forget moments.
        networks = list(state.networks.values())
        state.renew_optimizers(list_forgotten(self.experiment.growth, state.stage, networks, old_paths))
        self.enter_region()
        if old_paths:
            self.call_hook("after_fade")

    def grow_to_next_stage(self) -> None:
        """Grow the networks to the size of the next stage, and enter it."""
        state = self.state
        stage = self.schedule.stages[len(state.starts)]
        old_paths = self.fade.find_old_paths(stage, state.images)
        self.steps.forget_graphs()
        state.grow({net: net in old_paths for net in NETS})
        networks = list(state.networks.values())
        state.renew_optimizers(list_forgotten(self.experiment.growth, stage, networks))
        self.enter_stage()

    def enter_stage(self, checkpoint: Snapshot | None = None) -> None:
        """Prepare what depends on the stage: compiled code, reals, alpha and components.

        Args:
            checkpoint: The checkpoint that the stage continues from; None for a stage that begins.
        """
        continues = checkpoint is not None
        compiled = None
        if checkpoint is not None:
            compiled = checkpoint.compiled
        self.enter_region(compiled)
        self.free_reals()
        source = self.data.sampler(self.state.stage)
        self.sampler = choose_feed(source, self.run.device, self.experiment.data.device_memory)

        # A switch cannot be asked before it knows what it has saved.
        if continues:
            self.run.alpha = dict.fromkeys(PATHS, 1.0)
        else:
            self.set_alpha()
        self.call_hook("before_stage", continues=continues)
        if self.state.fading:
            self.call_hook("before_fade", continues=continues)

        # Last, so that what was saved stands, whatever those hooks have set.
        if checkpoint is not None:
            for name, value in checkpoint.components.items():
                self.hooks.call_one(name, "load_state", run=self.run, saved=value)
            require_bridges(self.state, self.hooks)
            self.set_alpha()
            if self.state.images > self.state.starts[-1]:
                self.run.alpha["generator"] = checkpoint.alpha

    def free_reals(self) -> None:
        """Free the reals of the stage that is over, before there are those of the next."""
        if hasattr(self, "sampler"):  # not before the first stage
            close_feed(self.sampler)
            del self.sampler
            free_cached_memory(self.run.device)

    # Ticks and checkpoints.

    def tick_is_due(self) -> bool:
        """Return whether the clock has passed a multiple of `train.tick`, or an early tick, since the last tick."""
        images = self.state.images
        last_tick = self.state.last_tick
        tick = self.experiment.tick
        passed_early_tick = any(last_tick < place <= images for place in self.early_ticks)
        return passed_early_tick or images // tick > last_tick // tick

    def tick(self, stage_over: bool, phase_over: bool) -> None:
        """Write the statistics since the last tick, and do what else is due.

        Args:
            stage_over: Whether the stage ends here.
            phase_over: Whether the phase ends here.
        """
        state = self.state
        # Nothing that follows a NaN may be written.
        self.recovery.require_finite_steps()
        is_early = state.images < self.experiment.tick
        tick = Tick(state.images, state.last_tick, self.schedule.total, state.stage, phase_over, is_early)

        stats = state.means.read()
        stats |= self.describe_progress()
        stats |= self.check_diversity_if_due(tick)
        stats |= self.evaluate_if_due(tick)
        stats |= self.meter.end_tick(self.run, self.hooks.observer_seconds)
        stats |= self.hooks.measure_tick(stats, run=self.run, stage=state.stage, state=state, tick=tick)
        # Hooks may decide by these numbers, and all processes must decide alike.
        shared = [stats]
        distributed.share_from_rank_0(shared)
        (stats,) = shared

        self.warn_of_idle_optimizers()
        state.last_tick = state.images
        if distributed.rank() == 0:
            self.run.files.keep_start()
            row = {"images": state.images, "steps": state.steps, "phase": state.phase, **stats}
            self.run.files.append_stats(row)
        self.call_hook("after_tick", stats=ReadOnlyDict(stats), tick=tick)
        self.ask_whether_to_end(ReadOnlyDict(stats))
        is_best = self.note_best(stats)

        # Just before a fade ends, both paths are there: from such a checkpoint any alpha can be drawn.
        stage_over = stage_over or state.ended
        keep_forever = stage_over or (phase_over and state.fading)
        copy = self.take_checkpoint(stage_over)
        if is_best or state.ended or tick.is_due(self.experiment.checkpoint_every):
            self.writer.begin(copy, keep_forever, is_best)

    def ask_whether_to_end(self, stats: Mapping[str, float]) -> None:
        """Ask whether the run is done before its budget is spent; all processes follow the first one's answer."""
        state = self.state
        answer = self.hooks.ask("should_end", run=self.run, stage=state.stage, state=state, stats=stats)
        answers = [bool(answer)]
        distributed.share_from_rank_0(answers)
        state.ended = answers[0] and state.images < self.schedule.total
        if state.ended:
            line = f"a plugin ended the run (should_end) at images {state.images} of {self.schedule.total}"
            self.run.files.log_and_say(line, None)

    def warn_of_idle_optimizers(self) -> None:
        """Warn once of each optimizer that the update returned and has not stepped in this stage."""
        idle = self.state.optimizers.keys() - self.state.stepped - self.idle_optimizers
        for name in sorted(idle):
            self.run.files.warn(
                f"train.update has not stepped its optimizer {name!r} in stage {self.state.stage.size}, until images "
                f"{self.state.images}: does its step() call ctx.minimise({name!r}, ...)?"
            )
        self.idle_optimizers |= idle

    def note_best(self, stats: Mapping[str, Any]) -> bool:
        """Return whether a tick's value of `train.keep_best` is the best of its stage; then note it in the state."""
        state = self.state
        name = self.experiment.keep_best
        value = stats.get(f"Metrics/{name}")
        if name is None or value is None or not is_better(self.experiment, value, state.best, state.stage):
            return False

        # All ranks note it, since it is part of the state; one of them logs it.
        state.best = {
            "metric": name,
            "value": float(value),
            "images": state.images,
            "stage": state.stage.index,
            "size": state.stage.size,
        }
        if distributed.rank() == 0:
            self.run.files.log(f"the best {name} at {state.stage.size} so far, {value:.6g}, at images {state.images}")
        return True

    def describe_progress(self) -> dict[str, float]:
        """Return the `Progress/*` of a tick."""
        state = self.state
        stats: dict[str, float] = {
            "Progress/alpha": self.run.alpha["generator"],
            "Progress/stage": state.stage.index,
            "Progress/size": state.stage.height,
        }
        if self.experiment.non_finite != "stop":
            stats["Progress/dropped_steps"] = state.dropped
            stats["Progress/rewinds"] = state.rewinds
        return stats

    def check_diversity_if_due(self, tick: Tick) -> dict[str, float]:
        """Return how diverse the generator's images are; warn once a stage where they have all but collapsed."""
        state = self.state
        experiment = self.experiment
        if experiment.collapse_below == 0 or distributed.rank() != 0 or not tick.is_due(experiment.diversity_every):
            return {}
        with self.meter.time_part("diversity"):
            diversity = measure_diversity(self.run, self.sampler)
        if diversity is None:
            return {}

        # A collapse lasts: one warning in each stage is enough.
        limit = experiment.collapse_below
        if diversity < limit and state.warned_stage != state.stage.index:
            state.warned_stage = state.stage.index
            self.run.files.warn(
                f"at images {state.images} (stage {state.stage.size}) the generator's images vary {diversity:.3f} "
                f"times as much as the data, less than train.collapse_below ({limit}): has it collapsed?"
            )
        return {"Progress/diversity": diversity}

    def evaluate_if_due(self, tick: Tick) -> dict[str, float]:
        """Return the `Metrics/*` of a tick, on rank 0; nothing where none are due."""
        evaluator = self.run.evaluator
        if evaluator is None or distributed.rank() != 0 or not tick.is_due(self.experiment.evaluation.every):
            return {}
        with self.meter.time_part("metrics"):
            return compute_metrics(self.run, evaluator)

    def keep_averages_if_due(self, before: int) -> None:
        """Keep power functions among the averages on disk where the clock has passed one of their places.

        It happens before any checkpoint of that place: a run that is resumed from there has all that came before.

        Args:
            before: The clock before the last step.
        """
        due = list_due(self.experiment.averages, self.schedule.total, before, self.state.images)
        if not due:
            return
        self.recovery.require_finite_steps()
        if distributed.rank() == 0:
            # One copy at a time is in memory beside the state.
            self.writer.finish()
            with self.meter.time_part("checkpoints"):
                self.writer.begin_averages(self.state.take_average_snapshot(due, self.copier))

    def take_checkpoint(self, stage_over: bool = False, between_ticks: bool = False) -> PendingCopy[Snapshot]:
        """Return the content of a checkpoint, and keep that of a tick in memory, to return to it after a failure.

        The last checkpoint is on the disk then.

        Args:
            stage_over: Whether the stage ends here.
            between_ticks: Whether the run ends here, at a place where a run that is not stopped has no checkpoint.
        """
        # Every process takes part in gathering the state; rank 0 alone writes it.
        with self.meter.time_part("checkpoints"):
            snapshot = self._gather_checkpoint(stage_over, between_ticks)

        # One copy at a time is in memory beside the state: the last tick's is written, and freed for this one.
        self.writer.finish()
        with self.meter.time_part("checkpoints"):
            # A run that is stopped must later go back to where one that is not stopped goes back to.
            if between_ticks:
                return snapshot.begin_copy(self.copier)
            self.recovery.forget()
            copy = snapshot.begin_copy(self.copier)
            self.recovery.keep(copy)
            return copy

    def _gather_checkpoint(self, stage_over: bool, between_ticks: bool) -> Snapshot:
        components = self.hooks.collect("save_state", run=self.run)
        component_classes = list_implementing_classes(self.hooks, "save_state")
        state = self.state
        state.means.gather()
        # That of the last step, as at the tick that is measured here.
        alpha = 1.0
        if state.generator.bridge is not None:
            alpha = self.run.alpha["generator"]
        snapshot = replace(
            state.take_snapshot(),
            identity=self.run.identity,
            stage_over=stage_over,
            components=components,
            compiled=self.compiler.outcome,
            component_classes=component_classes,
            alpha=alpha,
            changes=self.run.changes,
            between_ticks=between_ticks,
            return_point=self.recovery.find_return_point(between_ticks),
        )

        # The first checkpoint is written before the first step: nothing is trained that cannot be loaded.
        snapshot.require_readable()
        return snapshot

    # After a loss or gradient became NaN or infinite.

    def return_to_checkpoint(self, rewinds: int) -> bool:
        """Resume from the last checkpoint, which is kept in memory, and return whether there is more to train.

        Args:
            rewinds: Times that the run has gone back to draw other latents, this one included.
        """
        state = TrainState(self.experiment, self.schedule, self.run.device)
        state.load_snapshot(self.recovery.snapshot)
        state.rewinds = rewinds
        self.state = state
        self.run.state = state
        return self.begin_or_resume(self.recovery.snapshot.copy_to_cpu())

    def save_and_fail_before(self, stop: Stop) -> NoReturn:
        """Save the state before the step that failed, find the layer that failed first, and end the run.

        Raises:
            DivergedError: Always.
        """
        # Take the steps since the last checkpoint again, up to the one that failed.
        self.return_to_checkpoint(self.state.rewinds)
        while self.state.images < stop.images:
            self.advance_run()
        self.writer.begin(self.take_checkpoint(between_ticks=True))
        self.writer.finish()

        # Repeat the step that failed, eagerly: compiled code knows no layers.
        self.compiler.disable()
        with watch_layers(self.state.networks) as layers:
            try:
                self.take_step()
                finding = "It did not happen again when the step was repeated. "
            except NonFiniteError:
                finding = f"First seen in the output of {layers[0]}. " if layers else ""

        raise DivergedError(
            f"{stop.reason}. {finding}The state before this step is saved; see train.non_finite for "
            "ways to train on from it"
        )

    # Hooks.

    def call_hook(self, hook: str, **arguments: Any) -> None:
        """Call a hook with the run, its stage and its state, and further arguments."""
        self.hooks.call(hook, run=self.run, stage=self.state.stage, state=self.state, **arguments)


def announce_compiling(run: Run, net: str) -> None:
    """Call `before_compile`, since compiling a network's step takes a while."""
    run.hooks.call("before_compile", run=run, stage=run.state.stage, state=run.state, net=net)


def announce_end(run: Run, number: int) -> None:
    """Say that there is no step left to stop at, as a signal asks for it."""
    run.files.warn(
        f"asked to stop by {signal.Signals(number).name} when all images were trained: the run ends as soon as its "
        "observers have finished; a second signal ends it at once"
    )
