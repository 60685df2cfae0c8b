"""Capture whole steps as CUDA graphs and replay them (`train.capture`), where a replay equals an eager step.

At small sizes and with narrow networks a GPU waits for the host, which launches hundreds of kernels a step. A graph
launches all of them at once. Its kernels are eager's, so its bits are eager's, too: what runs captured and what runs
eagerly changes no number of a run.

There is a graph for each *kind* of step in a region of a run (the fade of a stage, or what follows it): with and
without lazy penalties, for example. The first steps of a kind run eagerly. The next two run both ways, from the same
state, and are compared bit for bit: a number that is frozen in a graph shows at the second, at the latest. What cannot
be captured, or differs, goes on eagerly, and the log says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit.errors import first_line
from pggan_kit.experiment import Experiment
from pggan_kit.growth.moving_settings import find_settings, list_moving_settings
from pggan_kit.runs.learning_rate_tensors import is_capturable
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Position, value_at
from pggan_kit.system import distributed
from pggan_kit.system.graphs import CudaRecorder, Recorder
from pggan_kit.training.host_work import (
    EagerHostWork,
    HostWork,
    InputBlock,
    ReplayedHostWork,
    StepStart,
    UnfitForCaptureError,
)
from pggan_kit.training.module_watch import ModuleWatch
from pggan_kit.training.non_finite import Guard
from pggan_kit.training.out_of_memory import is_out_of_memory
from pggan_kit.training.parity import collect_settings
from pggan_kit.training.state_copy import (
    StateCopy,
    find_difference,
    flatten_settings,
    list_changed_numbers,
    list_parts,
    list_places,
)
from pggan_kit.training.step import UpdateContext
from pggan_kit.training.watched_reads import watch_reads

EAGER_STEPS = 2
"""Number of steps of a kind that run eagerly before one is captured: optimizers make their state in the first."""

CHECKED_STEPS = 2
"""Number of steps of a kind that run both ways before the graphs alone are trusted."""

MOST_KINDS = 12
"""Maximum number of kinds of step in a region; a setting that moves in each step would make more and more of them."""

MakeContext = Callable[[HostWork, StepStart], UpdateContext]
"""A function that makes the context of the step that begins at the present clock."""


def make_recorder(experiment: Experiment, device: torch.device) -> Recorder | None:
    """Return the maker of a run's graphs; None where steps are not captured."""
    if experiment.capture == "never" or device.type != "cuda" or distributed.world_size() > 1:
        return None
    return CudaRecorder(device)


class CapturedSteps:
    """Takes the steps of a run: eagerly, or by replaying graphs.

    Args:
        experiment: The chosen components and settings.
        recorder: The maker of graphs; None where all steps are eager.
        log: A function that takes a sentence for the log.
        notice: A function that is called when a kind of step is captured.
    """

    def __init__(
        self,
        experiment: Experiment,
        recorder: Recorder | None,
        log: Callable[[str], None],
        notice: Callable[[], object] = lambda: None,
    ) -> None:
        self._experiment = experiment
        self._notice = notice
        self._recorder = recorder
        self._log = log
        self._start = StepStart()
        self._active = False
        self._has_recorded = False
        self._clock_reads: set[str] = set()
        self._kinds: dict[Hashable, _Kind] = {}

    def enter_region(self, state: TrainState) -> None:
        """Begin a region, or resume in it."""
        self.forget_graphs()
        self._state = state
        self._active = self._recorder is not None
        # Updates of D and of G in a step, by what the update's curves say before it.
        self._updates: dict[Hashable, tuple[int, int]] = {}
        self._settings: dict[str, Hashable] = {}
        self._unsettled: set[str] = set()
        self._watches = [ModuleWatch(net) for net in state.networks.values()] if self._active else []

    def forget_graphs(self) -> None:
        """Drop all graphs, and free their memory: before networks grow, and after a run, it is needed elsewhere."""
        self._kinds = {}
        # A recording that failed, or was thrown away, has left the recorder memory of which no graph is in use.
        if self._recorder is None or not self._has_recorded:
            return
        self._has_recorded = False
        # Gradients lie in the memory of the graphs.
        _set_gradients(dict.fromkeys(self._list_gradients()))
        self._recorder.forget()

    def _list_gradients(self) -> dict[nn.Parameter, Tensor | None]:
        return {param: param.grad for net in self._state.networks.values() for param in net.parameters()}

    @property
    def trusted_kinds(self) -> int:
        """Return the number of kinds of step that are replayed in this region."""
        return sum(kind.is_trusted for kind in self._kinds.values())

    @property
    def is_active(self) -> bool:
        """Return whether steps of this region are captured, or may be."""
        return self._active

    def take(
        self, make_context: MakeContext, seed: Callable[[], object], fading: Mapping[str, Tensor], guard: Guard | None
    ) -> tuple[dict[str, Tensor], int]:
        """Take a step, and return the losses and the number of reals that it drew.

        Args:
            make_context: A function that makes the step's context.
            seed: A function that seeds the device's random numbers for the step.
            fading: The alphas of the paths that fade, 0-dim.
            guard: The check of each step; where it waits for the device, so does a step, which is eager then.
        """
        state = self._state
        self._start.generator_updates = state.generator_updates
        seed()
        if not self._active or (guard is not None and guard.each_step):
            return self._run_eagerly(make_context, EagerHostWork(state.device))

        # A kind of step is run eagerly at first, then both ways until the graph is trusted, then replayed.
        kind = self._find_kind(tuple(fading))
        if kind is None:
            return self._run_eagerly(make_context, EagerHostWork(state.device))
        if kind.is_trusted:
            return kind.replay(state)
        kind.steps += 1
        if kind.steps <= EAGER_STEPS:
            before = _Counters.read(state)
            curves = self._read_update_curves()
            result = self._run_eagerly(make_context, EagerHostWork(state.device))
            self._note_updates(curves, _Counters.read(state).since(before))
            return result
        return self._take_both_ways(kind, make_context, seed)

    def _run_eagerly(self, make_context: MakeContext, host: EagerHostWork) -> tuple[dict[str, Tensor], int]:
        context = make_context(host, self._start)
        losses = self._experiment.update.step(context)
        self._clock_reads = context.clock_reads
        return losses, context.drawn

    # Kinds of step.

    def _find_kind(self, fading: tuple[str, ...]) -> _Kind | None:
        """Return the kind of the step that begins here; None where there are too many."""
        self._note_settings()
        key = self._identify_kind(fading)
        if key not in self._kinds:
            if len(self._kinds) == MOST_KINDS:
                self._give_up(f"there are more than {MOST_KINDS} kinds of them: what moves must be a tensor")
                return None
            self._kinds[key] = _Kind()
        return self._kinds[key]

    def _identify_kind(self, fading: tuple[str, ...]) -> Hashable:
        """Return all that a graph holds as constants: what differs in it is a step of another kind."""
        state = self._state
        position = state.position
        capturable = {name: each for name, each in state.optimizers.items() if is_capturable(each)}
        numbers = [_list_numbers(name, each, position) for name, each in capturable.items()]
        curves = self._read_update_curves()
        return (
            fading,
            self._list_due_penalties(curves),
            tuple(numbers),
            curves,
            tuple((name, value) for name, value in self._settings.items() if name not in self._unsettled),
            # Graphs read and write where the weights were.
            tuple(watch.describe() for watch in self._watches),
        )

    def _read_update_curves(self) -> Hashable:
        """Return what the curves of the update, such as a number of updates, are worth at the clock."""
        moving = list_moving_settings({"update": self._experiment.update})
        return tuple(value_at(setting, self._state.position) for setting in moving.values())

    def _list_due_penalties(self, curves: Hashable) -> Hashable:
        """Return which penalties are due in each update of the step; None where it is not known how many it has.

        Args:
            curves: What the curves of the update are worth; steps before, where they were the same, tell the number.
        """
        if curves not in self._updates:
            return None
        state = self._state
        discriminator_updates, generator_updates = self._updates[curves]
        due = []
        for number in range(discriminator_updates):
            update = state.discriminator_updates + number
            due += [update % penalty.every == 0 for penalty in self._experiment.loss.penalties]
        for number in range(generator_updates):
            update = state.generator_updates + number
            due += [update % penalty.every == 0 for penalty in self._experiment.generator_penalties]
        return self._updates[curves], tuple(due)

    def _note_settings(self) -> None:
        """Note the plain numbers in components, where their tensors lie, and which of these move from step to step.

        Those that move before a graph is trusted, such as a counter of a component, are no constants of a kind: a step
        that reads one of them is not captured. All others are.
        """
        parts = list_parts(self._experiment)
        settings = flatten_settings({name: collect_settings(part) for name, part in parts.items()})
        for name, part in parts.items():
            settings |= list_places(name, part)
        if self._settings and self.trusted_kinds == 0:
            moving = [name for name, value in settings.items() if self._settings.get(name, value) != value]
            self._unsettled.update(moving)
        self._settings = settings

    def _note_updates(self, curves: Hashable, taken: _Counters) -> None:
        """Note how many updates a step has: with more or fewer, its penalties are not those that it was known by."""
        updates = (taken.discriminator_updates, taken.generator_updates)
        if self._updates.setdefault(curves, updates) != updates:
            self._give_up("they differ in their number of updates")

    def _give_up(self, reason: str) -> None:
        """Take all steps eagerly from here to the end of the region, and say why."""
        state = self._state
        self._active = False
        # Who looks at gradients after this step finds its own.
        gradients = self._list_gradients()
        self.forget_graphs()
        _set_gradients(gradients)
        self._log(f"the steps at {state.stage.size} ({state.phase}) are not captured but eager: {reason}")

    # Capture.

    def _take_both_ways(
        self, kind: _Kind, make_context: MakeContext, seed: Callable[[], object]
    ) -> tuple[dict[str, Tensor], int]:
        """Take a step eagerly and by graphs, each from the same state, and compare the results."""
        state = self._state
        counters = _Counters.read(state)
        before = self._copy_state_or_give_up()
        if before is None:
            return self._run_eagerly(make_context, EagerHostWork(state.device))

        # Eagerly.
        host = EagerHostWork(state.device)
        with watch_reads(list_parts(self._experiment), self._unsettled, lambda: host.is_outside) as reads:
            losses, drawn = self._run_eagerly(make_context, host)
        losses = {name: value.clone() for name, value in losses.items()}
        eager = self._copy_state_or_give_up()
        if eager is None:
            return losses, drawn
        gradients = self._list_gradients()
        eager_counters = _Counters.read(state)
        kind.taken = eager_counters.since(counters)
        kind.drawn = drawn
        obstacle = self._find_obstacle(list_changed_numbers(before, eager), reads)
        if obstacle is not None:
            self._give_up(obstacle)
            return losses, drawn

        def go_back() -> None:
            before.restore()
            counters.write(state)
            seed()

        # By graphs. Components may raise anything where they ask for what cannot be recorded.
        go_back()
        try:
            if kind.work is None:
                self._capture(kind, host, make_context)
            else:
                kind.replay(state)
            problem = self._compare(kind, losses, eager, lambda: self._run_again(go_back, make_context))
        except UnfitForCaptureError as error:
            problem = str(error)
        except Exception as error:
            problem = f"{type(error).__name__}: {first_line(error)}"

        # The eager result stands, in any case.
        eager.restore()
        eager_counters.write(state)
        _set_gradients(gradients)
        if problem is not None:
            self._give_up(problem)
            return losses, drawn
        kind.checked_steps += 1
        if kind.checked_steps == CHECKED_STEPS:
            assert kind.work is not None
            self._notice()
            graphs = kind.work.count_graphs()
            self._log(
                f"the steps at {state.stage.size} ({state.phase}) are captured (kind {self.trusted_kinds}, "
                f"{graphs} CUDA graph{'' if graphs == 1 else 's'})"
            )
        return losses, drawn

    def _copy_state_or_give_up(self) -> StateCopy | None:
        """Return a copy of the state; None where there is no memory for it, and then steps are eager from here on."""
        try:
            return StateCopy(self._state)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # The frames of the exception held what was copied until here.
        self._give_up("there is no memory for the two copies of networks and optimizers that they are checked by")
        return None

    def _find_obstacle(self, changed: Sequence[str], reads: Collection[str]) -> str | None:
        """Return why a step that was taken eagerly cannot be captured; None where nothing is against it.

        Args:
            changed: Numbers that the step changed and that are no tensors.
            reads: What the step read that moves from step to step.
        """
        if changed:
            return f"{changed[0]} changes within a step, and is no tensor"
        if reads:
            return f"{min(reads)} moves from step to step, and a step reads it: what moves must be a tensor"

        # What a curve of the update makes of the clock is a constant of a kind.
        follows_curves = bool(list_moving_settings({"update": self._experiment.update}))
        if "ctx.images" in self._clock_reads or (self._clock_reads and not follows_curves):
            return f"train.update reads {min(self._clock_reads)}, which moves: what follows the clock must be a curve"
        return None

    def _capture(self, kind: _Kind, eager: EagerHostWork, make_context: MakeContext) -> None:
        """Record the step that begins here, and take it."""
        assert self._recorder is not None
        work = ReplayedHostWork(eager.before, InputBlock(eager.brought, self._state.device), self._recorder)

        # What runs here is recorded and not computed.
        self._has_recorded = True
        with self._recorder.record():
            work.prepare()
            context = make_context(work, self._start)
            try:
                work.begin()
                kind.losses = _Losses(self._experiment.update.step(context))
                work.end()
            except BaseException:
                work.abandon()
                raise
            work.finish()
        work.require_all_handed_out()
        if context.drawn != kind.drawn:
            raise UnfitForCaptureError("they differ in the number of reals that they draw")
        kind.work = work
        kind.gradients = self._list_gradients()

    def _compare(
        self, kind: _Kind, losses: Mapping[str, Tensor], eager: StateCopy, run_again: Callable[[], StateCopy]
    ) -> str | None:
        """Return what is wrong with a step that was just taken by graphs; None where it equals the eager one."""
        assert kind.losses is not None
        captured_losses = kind.losses.read()
        captured = StateCopy(self._state)
        different = find_difference(losses, captured_losses) or find_difference(eager.values, captured.values)
        if different is None:
            return None

        # Where eager steps differ from each other, none can be compared with.
        again = run_again()
        if find_difference(eager.values, again.values) is not None:
            return (
                f"{different} differs from one eager step to the next: some kernels add in another order each time, or "
                "a part of the step changes by itself (train.deterministic chooses other kernels)"
            )
        return f"{different} is not equal to that of an eager step: something in a step is frozen that moves"

    def _run_again(self, go_back: Callable[[], None], make_context: MakeContext) -> StateCopy:
        go_back()
        self._run_eagerly(make_context, EagerHostWork(self._state.device))
        return StateCopy(self._state)


@dataclass
class _Counters:
    """What a step counts in the state, in plain numbers."""

    discriminator_updates: int
    generator_updates: int
    stepped: frozenset[str]

    @classmethod
    def read(cls, state: TrainState) -> _Counters:
        return cls(state.discriminator_updates, state.generator_updates, frozenset(state.stepped))

    def write(self, state: TrainState) -> None:
        state.discriminator_updates = self.discriminator_updates
        state.generator_updates = self.generator_updates
        state.stepped = set(self.stepped)

    def since(self, before: _Counters) -> _Counters:
        """Return what was counted since another reading."""
        return _Counters(
            self.discriminator_updates - before.discriminator_updates,
            self.generator_updates - before.generator_updates,
            self.stepped,
        )

    def add_to(self, state: TrainState) -> None:
        """Count the same once more."""
        state.discriminator_updates += self.discriminator_updates
        state.generator_updates += self.generator_updates
        state.stepped |= self.stepped


class _Losses:
    """The losses of a captured step, at a place that the next step overwrites.

    Args:
        losses: The losses as the update returned them, while the step is recorded.
    """

    def __init__(self, losses: Mapping[str, Tensor]) -> None:
        self._losses = dict(losses)
        self._packed: Tensor | None = None
        # One copy for all of them, where they have one type.
        if len({value.dtype for value in self._losses.values()}) == 1:
            self._packed = torch.cat([value.reshape(-1) for value in self._losses.values()])

    def read(self) -> dict[str, Tensor]:
        """Return copies of the losses of the last step."""
        if self._packed is None:
            return {name: value.clone() for name, value in self._losses.items()}
        sizes = [value.numel() for value in self._losses.values()]
        pieces = self._packed.clone().split(sizes)
        return {
            name: piece.view(value.shape) for (name, value), piece in zip(self._losses.items(), pieces, strict=True)
        }


@dataclass
class _Kind:
    """A kind of step, and its graphs.

    Attributes:
        steps: Steps that were not replayed.
        checked_steps: Steps that were equal to eager ones.
        work: What a replay does; None before the kind is captured.
        losses: The losses of the last replay.
        gradients: The gradients that a replay leaves.
        taken: What a step counts.
        drawn: Reals that a step draws.
    """

    steps: int = 0
    checked_steps: int = 0
    work: ReplayedHostWork | None = None
    losses: _Losses | None = None
    gradients: dict[nn.Parameter, Tensor | None] = field(default_factory=dict)
    taken: _Counters = field(default_factory=lambda: _Counters(0, 0, frozenset()))
    drawn: int = 0

    @property
    def is_trusted(self) -> bool:
        """Return whether the graphs alone take the steps."""
        return self.checked_steps >= CHECKED_STEPS

    def replay(self, state: TrainState) -> tuple[dict[str, Tensor], int]:
        """Take a step by the graphs.

        Args:
            state: The state, whose counters follow.
        """
        assert self.work is not None and self.losses is not None
        self.work.replay()
        self.taken.add_to(state)
        # Who looks at gradients after a step finds those of this one, also where a hook has cleared the last ones.
        _set_gradients(self.gradients)
        return self.losses.read(), self.drawn


def _set_gradients(gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
    for param, gradient in gradients.items():
        param.grad = gradient


def _list_numbers(name: str, optimizer: torch.optim.Optimizer, position: Position) -> Hashable:
    """Return what is constant in a graph of an optimizer's: its settings in the step, its parameters, its places."""
    moved = find_settings(name, optimizer, position)
    groups: list[Any] = []
    for group in optimizer.param_groups:
        settings = tuple(
            (key, value.data_ptr() if isinstance(value, Tensor) else value)
            for key, value in {**group, **moved}.items()
            if key not in ("params", "lr", "rate", "learning_factor") or isinstance(value, Tensor)
        )
        groups.append((settings, tuple(id(param) for param in group["params"])))
    kept = [value for held in optimizer.state.values() for value in held.values()]
    places = tuple(value.data_ptr() for value in kept if isinstance(value, Tensor))
    return tuple(groups), places
