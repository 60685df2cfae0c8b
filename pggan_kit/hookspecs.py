"""Every hook of the framework: its arguments, when it fires, what it may return. This is the whole extension contract.

Implement one by naming a function (of a plugin module) or a method (of a component) like the hook and marking it with
`pggan_kit.hookimpl`; take only the arguments that you want. Plugins hear hooks first, in the order in which they were
loaded, then the components of the experiment in config order.

A run fires them in this order:

    before_run
      before_stage                          once per stage
        before_fade                         where the stage fades
          (fade_alpha, after_step, should_advance) ...      after_tick where due
        after_fade
          (after_step, should_advance) ...                  after_tick where due
      after_stage
    after_run          or, if anything raised, on_error

A resumed run fires `before_run` (with `run.resumed` true), then `load_state`, then `before_stage` for the stage it
stands in and, mid-fade, `before_fade`. With `train.compile`, `before_compile` fires before the first steps of a stage
and of what follows its fade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pggan_kit.components import Component
    from pggan_kit.runs.run import Run
    from pggan_kit.runs.state import TrainState
    from pggan_kit.schedule import Stage

PROJECT = "pggan_kit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def components() -> list[Component]:  # type: ignore[empty-body]
    """The components that a plugin brings. Fires once, when the plugin is loaded; for plugins, not components."""


@hookspec
def before_run(run: Run) -> None:
    """The run directory exists, the data set is open, nothing is trained yet.

    A part that keeps state on itself must begin here as a new object would: given as an object (`parts`), it may have
    been through another run of this process. What a resumed run goes on from comes after, in `load_state`.

    Args:
        run: the run: its directory, experiment, schedule and device. `run.resumed` tells a resumed run.
    """


@hookspec
def after_run(run: Run, result: Mapping[str, Any]) -> None:
    """The run has ended well, and its last checkpoint is written.

    Args:
        run: the run.
        result: `images` and `steps` in all; of this process `seconds` and, within them, `update_seconds`; and the last
            `checkpoint`'s path.
    """


@hookspec
def on_error(run: Run, error: BaseException) -> None:
    """The run ends early: something raised, or a signal asked it to stop. The error is raised again afterwards.

    Args:
        run: the run.
        error: what was raised.
    """


@hookspec
def before_stage(run: Run, stage: Stage, state: TrainState) -> None:
    """The networks have the stage's size, the optimizers are ready, and its first batch is not yet drawn.

    Args:
        run: the run.
        stage: the stage that begins (or, after a resume, goes on).
        state: networks, their average, optimizers and the clock.
    """


@hookspec
def before_fade(run: Run, stage: Stage, state: TrainState) -> None:
    """A fade begins: at least one network has its bridge. Right after `before_stage`; not fired where a stage has no
    fade, or where the switch is hard.

    Args:
        run: the run.
        stage: the stage that fades in.
        state: as for `before_stage`; `state.generator.bridge` and `state.discriminator.bridge` are the old paths.
    """


@hookspec
def after_fade(run: Run, stage: Stage, state: TrainState) -> None:
    """A fade has ended: the bridges are gone from networks, average and optimizers. Only after a `before_fade`.

    Args:
        run: the run.
        stage: the stage that has faded in.
        state: as for `before_stage`.
    """


@hookspec
def fade_alpha(stage: Stage, progress: float, images: int, path: str) -> float | None:
    """How much of the new path is blended in, asked before each step of a fade phase.

    A question: at most one implementation may answer. Where nobody does, alpha is `progress`. A network whose alpha is
    1 as the stage begins grows without a bridge, and its alpha must then stay 1.

    Args:
        stage: the stage that fades in.
        progress: how much of the fade's images are spent, in [0, 1).
        images: the clock.
        path: `generator`, `discriminator`, or `reals` for what D is shown of the data.

    Returns:
        alpha in [0, 1], or None for no opinion.
    """


@hookspec
def should_advance(run: Run, stage: Stage, state: TrainState) -> bool | None:
    """Whether the stage is over, asked after each step of every stage but the last.

    A question: at most one implementation may answer. Where nobody does, a stage ends when its budget is spent. The
    answer must depend on nothing but the arguments and the state that `save_state` saves: a resumed run asks again.
    The run ends at the schedule's total in any case.

    Args:
        run: the run.
        stage: the stage.
        state: as for `before_stage`.

    Returns:
        True to grow now, False to go on, None for no opinion.
    """


@hookspec
def before_compile(run: Run, stage: Stage, state: TrainState, net: str) -> None:
    """A kind of step is new and is to be compiled (`train.compile`), which takes up to a minute; its step follows.

    Args:
        run: the run.
        stage: the stage.
        state: as for `before_stage`.
        net: `generator` or `discriminator`, whose step it is.
    """


@hookspec
def after_step(run: Run, stage: Stage, state: TrainState, losses: Mapping[str, Tensor]) -> None:
    """One iteration is done, and the average has followed. Not fired for a step that was left out, and again for steps
    that a run takes again (`train.non_finite`).

    Must not wait for the device: no `.item()`, `.cpu()`, printing of tensors.

    Args:
        run: the run.
        stage: the stage.
        state: as for `before_stage`; `state.images` counts this step.
        losses: what the update returned: detached 0-dim tensors by tag; of what the step computed several times, the
            mean.
    """


@hookspec
def after_tick(run: Run, stage: Stage, state: TrainState, stats: Mapping[str, float]) -> None:
    """Every `train.tick` images, and at the end of each phase: the time to log, draw and measure. The checkpoint is
    written right after. At the end of a fade the bridges are still there.

    Args:
        run: the run.
        stage: the stage.
        state: as for `before_stage`.
        stats: plain numbers by tag: means over the tick of what the update returned, `Progress/*`, `Timing/*`,
            `Resources/*`, and where an evaluation was due, `Metrics/*`: `Metrics/FID` and its noise floor
            `Metrics/FID_floor`.
    """


@hookspec
def after_stage(run: Run, stage: Stage, state: TrainState) -> None:
    """A stage is over; the networks have not grown yet.

    Args:
        run: the run.
        stage: the stage that has ended.
        state: as for `before_stage`.
    """


@hookspec
def save_state(run: Run) -> dict[str, Any]:  # type: ignore[empty-body]
    """What an implementation wants back after a resume; called for each checkpoint, the first of them before the first
    step.

    Args:
        run: the run.

    Returns:
        Tensors, numbers, strings, and lists, tuples and dicts of those: files hold data, never code.
    """


@hookspec
def load_state(run: Run, saved: Mapping[str, Any]) -> None:
    """Fires for each implementation that had saved something: on resume and at a branch's begin (`train --from`) after
    `before_run`, and when a run goes back because numbers died (`train.non_finite`). `before_stage` follows.

    Args:
        run: the run.
        saved: what this implementation's `save_state` returned, under its own name.
    """
