"""Every hook of the framework: its arguments, its moment, and what it may return. This is the extension contract.

Implement a hook by giving a function (of a plugin module) or a method (of a component) its name and marking it with
`pggan_kit.hookimpl`. Take only the arguments that you want. The hooks of plugins are called first, in the order of
loading, then those of the experiment's components, in config order.

A run calls them in this order:

    before_run
      before_stage                          once per stage, and again where it continues from a checkpoint
        before_fade                         where the stage fades
          (fade_alpha, after_step, should_advance) ...      after_tick where due
        after_fade
          (after_step, should_advance) ...                  after_tick where due
      after_stage
    after_run          or, if anything raised, on_error

Where a run continues from a checkpoint, `before_stage` is called again for the current stage and, within a fade,
`before_fade`, both with `continues` true, and then `load_state`: what was saved stands, whatever those hooks have set.
A resumed run calls `before_run` first, with `run.resumed` true. With `train.compile`, `before_compile` is called before
the first steps of a stage and before the first steps after its fade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pggan_kit.components import Component, Importer
    from pggan_kit.runs.run import Run
    from pggan_kit.runs.state import TrainState
    from pggan_kit.schedule import Stage
    from pggan_kit.ticks import Tick

PROJECT = "pggan_kit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def components() -> list[Component]:  # type: ignore[empty-body]
    """Return the components that a plugin brings. Called once, when a plugin is loaded; not for components."""


@hookspec
def importers() -> list[Importer]:  # type: ignore[empty-body]
    """Return the importers that a plugin brings. Called once, when a file is imported; not for components.

    An importer reads networks that another project has trained: see `pggan_kit.components.Importer`.
    """


@hookspec
def before_run(run: Run) -> None:
    """Prepare for a run. The run directory exists, the data set is open, and nothing is trained yet.

    A component that keeps state on itself resets it here: given as an object (`parts`), it may already have been part
    of another run in this process. `load_state`, which follows where a run is resumed, brings back what was saved.

    Args:
        run: The run: its directory, experiment, schedule and device. `run.resumed` is true in a resumed run.
    """


@hookspec
def after_run(run: Run, result: Mapping[str, Any]) -> None:
    """Conclude a run that has reached its end. Its last checkpoint is written.

    Args:
        run: The run.
        result: `images` and `steps` of the whole run; `seconds` of this process and, within them, `update_seconds`; the
            `shares` of the time that updates, checkpoints, diversity, metrics and observers took, by name; and the path
            of the last `checkpoint`.
    """


@hookspec
def on_error(run: Run, error: BaseException) -> None:
    """React to the early end of a run, by an error or by a signal. The error is raised again afterwards.

    Args:
        run: The run.
        error: The error.
    """


@hookspec
def before_stage(run: Run, stage: Stage, state: TrainState, continues: bool) -> None:
    """Prepare for a stage. The networks have its size, the optimizers are ready, and no batch is drawn yet.

    Also called where a stage continues from a checkpoint: in a run that is resumed or begins as a branch
    (`train --from`), and where a run goes back after a loss became NaN or infinite (`train.non_finite`). Networks,
    optimizers and clock are those of the checkpoint; `load_state` follows, and until then `run.alpha` is 1; from then
    on G's is that of the checkpoint's last step.

    Args:
        run: The run.
        stage: The stage that begins or continues.
        state: The networks, their average, the optimizers and the clock.
        continues: Whether the stage continues from a checkpoint. What may be done only once, as a stage begins, was
            done before that checkpoint.
    """


@hookspec
def before_fade(run: Run, stage: Stage, state: TrainState, continues: bool) -> None:
    """Prepare for a fade. At least one network has its bridge.

    Called right after `before_stage`; not where a stage has no fade, or where the switch is hard.

    Args:
        run: The run.
        stage: The stage that fades in.
        state: As for `before_stage`; `state.generator.bridge` and `state.discriminator.bridge` are the old paths.
        continues: As for `before_stage`.
    """


@hookspec
def after_fade(run: Run, stage: Stage, state: TrainState) -> None:
    """React to the end of a fade. The bridges are gone from networks, average and optimizers.

    Called only after a `before_fade`. A run that ends within a fade keeps its bridges, and does not call it.

    Args:
        run: The run.
        stage: The stage that has faded in.
        state: As for `before_stage`.
    """


@hookspec
def fade_alpha(stage: Stage, progress: float, images: int, path: str) -> float | None:
    """Return alpha, the share of the new path.

    Asked as a stage grows and begins (before `before_stage`), before each step of its fade, and whenever a generator is
    sampled or a report is drawn. The answer must depend on nothing but the arguments and what `save_state` saves.

    This is a question: at most one implementation may answer. Without an answer, alpha is `progress`. A network whose
    alpha is 1 at the start of a stage grows without a bridge, and its alpha must then stay 1. It is not asked for a
    discriminator that does not grow as the stage begins (`schedule.discriminator_height`).

    Args:
        stage: The stage that fades in, which is that of the generator.
        progress: The share of the fade's images that is spent, in [0, 1).
        images: The clock.
        path: `generator`, `discriminator`, or `reals` for the images of the data that D reads.

    Returns:
        alpha in [0, 1], or None for no opinion.
    """


@hookspec
def should_advance(run: Run, stage: Stage, state: TrainState) -> bool | None:
    """Return whether the stage is over. Asked after each step of every stage but the last.

    This is a question: at most one implementation may answer. Without an answer, a stage ends when its budget is spent.
    The answer must depend on nothing but the arguments and on what `save_state` saves. A branch (`train --from`) asks
    at the checkpoint that it begins from, too. The run ends at the schedule's total in any case.

    Args:
        run: The run.
        stage: The stage.
        state: As for `before_stage`.

    Returns:
        True to grow now; False to continue, also where the stage's budget is spent; None for no opinion, so that the
        stage ends with its budget. A switch that never returns True or None never lets the run grow.
    """


@hookspec
def before_compile(run: Run, stage: Stage, state: TrainState, net: str) -> None:
    """Prepare for a compilation (`train.compile`), which takes up to a minute before the first step of a new kind.

    Args:
        run: The run.
        stage: The stage.
        state: As for `before_stage`.
        net: The network whose step is compiled, `generator`, `discriminator` or `encoder`.
    """


@hookspec
def after_step(run: Run, stage: Stage, state: TrainState, losses: Mapping[str, Tensor]) -> None:
    """Observe an iteration, after the average has followed.

    Not called for a step that is skipped, and called again for steps that a run repeats (`train.non_finite`). Must not
    wait for the device: no `.item()`, `.cpu()` or printing of tensors.

    Args:
        run: The run.
        stage: The stage.
        state: As for `before_stage`; `state.images` includes this step.
        losses: What the update returned: detached 0-dim tensors by tag; means where the step computed several values.
            They cannot be changed; `measure_tick` returns numbers of your own.
    """


@hookspec
def measure_tick(  # type: ignore[empty-body]
    run: Run, stage: Stage, state: TrainState, tick: Tick
) -> dict[str, float]:
    """Return numbers of a tick, which are logged like those of the core.

    They become columns of `stats.jsonl`, and TensorBoard and the report draw them. Called at each tick, before
    `after_tick`, on all processes; the answer of the first process counts, so that an observer can have one.

    Args:
        run: The run.
        stage: The stage.
        state: As for `before_stage`.
        tick: As for `after_tick`.

    Returns:
        Plain numbers by tag, `Group/name`. Nobody else may have used the tag, and `Loss/`, `Scores/`, `Progress/`,
        `Timing/`, `Resources/` and `Metrics/` are groups of the core to which numbers may be added. An empty dict for
        nothing.
    """


@hookspec
def after_tick(run: Run, stage: Stage, state: TrainState, stats: Mapping[str, float], tick: Tick) -> None:
    """Log, draw or measure at a tick: every `train.tick` images, a few times before the first of these, and at the
    end of each phase.

    What takes long, or fills the disk, has an interval (`pggan_kit.Interval`) and asks whether it is due:
    `tick.is_due(self.every)`. A checkpoint, where one is due, is written right after, by a thread while steps go on;
    what reads it in this process waits for it. At the end of a fade the bridges are still there.

    Args:
        run: The run.
        stage: The stage.
        state: As for `before_stage`.
        stats: Plain numbers by tag: means over the tick of what the update returned, `Progress/*`, `Timing/*`,
            `Resources/*`, what `measure_tick` returned and, where an evaluation was due, `Metrics/*`, e.g.
            `Metrics/FID` and its noise floor `Metrics/FID_floor`. They cannot be changed; `measure_tick` returns
            numbers of your own.
        tick: The tick: its clock, that of the tick before, and what is due.
    """


@hookspec
def should_end(run: Run, stage: Stage, state: TrainState, stats: Mapping[str, float]) -> bool | None:
    """Return whether the run is done, before its budget is spent. Asked after each `after_tick`.

    A run that ends here is complete: its stage ends, its last checkpoint is kept, `after_stage` and `after_run` are
    called, and `resume` has nothing to do. The answer of the first process counts. It must depend on nothing but the
    arguments and what `save_state` saves.

    This is a question: at most one implementation may answer. Without an answer, the schedule decides.

    Args:
        run: The run.
        stage: The stage.
        state: As for `before_stage`.
        stats: As for `after_tick`.

    Returns:
        True to end the run now, False to continue, None for no opinion.
    """


@hookspec
def after_stage(run: Run, stage: Stage, state: TrainState) -> None:
    """React to the end of a stage. The networks have not grown yet.

    Args:
        run: The run.
        stage: The stage that has ended.
        state: As for `before_stage`.
    """


@hookspec
def save_state(run: Run) -> dict[str, Any]:  # type: ignore[empty-body]
    """Return what this implementation needs after a resume.

    Called for each checkpoint; the first is written before the first step. Anything else than what is listed below is
    refused there, since no process could load it.

    Args:
        run: The run.

    Returns:
        A dict of tensors, numbers, strings, truth values, None, and lists, tuples and dicts of those: files hold data,
        never code. Values of NumPy and paths are none of them: write `float(x)`, `x.tolist()` or `str(path)`.
    """


@hookspec
def load_state(run: Run, saved: Mapping[str, Any]) -> None:
    """Restore what `save_state` returned.

    Called for each implementation that saved something, where a run continues from a checkpoint: right after
    `before_stage` and `before_fade` (see there), and before the first step. That is so where a run is resumed, where it
    goes back after a NaN, and where it begins as a branch: `run.is_new_branch` is then true, and files of the run have
    nothing of what another run saved.

    Args:
        run: The run.
        saved: What this implementation's `save_state` returned.
    """
