"""The checks of every suite, and those of the kinds that can be trained with: a tiny training run around them."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pggan_kit.errors import PluginError, SettingError
from pggan_kit.experiment import MEMORY_FORMATS
from pggan_kit.growth.fade import NETS, PATHS
from pggan_kit.growth.planned_steps import count_drawn_batches
from pggan_kit.plugin_host.contracts import find_marked_hooks, require_protocol
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.testing.memories import have_same, keep_steady, list_changes, read_class_memory, read_memory
from pggan_kit.testing.replayed_graphs import ReplayRecorder
from pggan_kit.testing.support import (
    SyncWatch,
    are_equal,
    copy_weights,
    measure_difference,
    require,
    save_and_load,
    summarize_error,
)
from pggan_kit.testing.tiny_runs import (
    HOT_HOOKS,
    WatchedHooks,
    implements_hook,
    load_snapshots,
    make_run,
    summarize_run,
    train_tiny,
)
from pggan_kit.testing.toys import ToySampler
from pggan_kit.training.capture import CapturedSteps
from pggan_kit.training.compiler import Compiler, keep_recording
from pggan_kit.training.host_work import HostWork, StepStart
from pggan_kit.training.state_copy import find_difference
from pggan_kit.training.step import UpdateContext

Weights = dict[str, dict[str, Tensor]]
"""State of both networks, by network and name."""


@dataclass(frozen=True)
class TrainedRun:
    """A tiny run that has ended, which several tests of a suite compare.

    Attributes:
        component: The component that it was trained with.
        name: The component's name for messages.
        run: The run; its folder is gone.
        end: See `summarize_run`.
        saved: What `save_state` returned at its end, by the name of the component.
        files: Content of its files, by path; checkpoints are among them.
        memory: What the component held at its end; see `read_memory`.
        changed_in_class: Names of what the run changed in the component's class.
    """

    component: Any
    name: str
    run: Run
    end: Mapping[str, Any]
    saved: Mapping[str, Any]
    files: Mapping[str, bytes]
    memory: Mapping[str, Any]
    changed_in_class: Sequence[str]

    def write_files(self, folder: Path) -> None:
        """Write the run's files to a folder, from which a run can be resumed."""
        for path, content in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


class Suite:
    """The checks of every kind: inherit the suite of your component's kind and override `make`.

    Attributes:
        kind: Name of the kind, as in `components.KINDS`.
        bad_arguments: Keyword arguments that the component must refuse with a SettingError, e.g. `[{"weight": -1.0}]`.
    """

    kind = ""
    bad_arguments: Sequence[Mapping[str, Any]] = ()

    def make(self) -> Any:
        """Return a new component, always with the same arguments; called again for each object that a test needs."""
        raise NotImplementedError(f"{type(self).__name__}.make() must return the component under test")

    def make_with(self, **arguments: Any) -> Any:
        """Return the component with other arguments: its class called with them."""
        return type(self.make())(**arguments)

    def make_named(self) -> tuple[Any, str]:
        """Return a new component, and its name for messages."""
        component = self.make()
        return component, f"{self.kind}.{type(component).__name__}"

    def test_keeps_its_protocol(self) -> None:
        """Require all methods and attributes of the kind, with the right arguments."""
        component, name = self.make_named()
        try:
            require_protocol(component, self.kind, name)
        except PluginError as error:
            raise AssertionError(str(error)) from error

    def test_hooks_are_known(self) -> None:
        """Require that methods marked as hooks are hooks, and take only arguments that exist."""
        component, name = self.make_named()
        try:
            find_marked_hooks(component, name)
        except PluginError as error:
            raise AssertionError(str(error)) from error

    def test_bad_arguments_are_refused(self) -> None:
        """Require a SettingError that names the argument for each wrong argument."""
        for arguments in self.bad_arguments:
            name = next(iter(arguments))  # the argument that is wrong
            try:
                self.make_with(**arguments)
            except SettingError as error:
                require(
                    error.setting == name,
                    f"the SettingError for the bad {name} must have its name, and has {error.setting!r}: {error}",
                )
            except Exception as error:
                raise AssertionError(
                    f"bad arguments must raise a SettingError; {dict(arguments)} raised {summarize_error(error)}"
                ) from error
            else:
                raise AssertionError(f"the bad arguments {dict(arguments)} raise no SettingError")


class TrainedSuite(Suite):
    """The checks of kinds that an experiment picks: two stages, 4x4 and 8x8, with toys for everything else.

    Attributes:
        own_to_process: Names of attributes that belong to the process and decide nothing, such as a cache or the number
            of warnings so far: a run that is stopped and resumed may have others, and runs may share them.
    """

    own_to_process: tuple[str, ...] = ()
    _ended: ClassVar[dict[str, TrainedRun]] = {}
    """Runs of this class that tests share, by what is particular to them."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Begin without runs that have ended: those of another class are of other components."""
        super().__init_subclass__(**arguments)
        cls._ended = {}

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the arguments of `Experiment` that put the component in its place."""
        raise NotImplementedError

    def train(
        self, component: Any, name: str, folder: str, saved: Snapshot | None = None, single_step: bool = False
    ) -> Run:
        """Train a tiny run with the component, from scratch or from a checkpoint; to its end, or a single step."""
        return train_tiny(component, name, Path(folder), self.choose_arguments(component), saved, single_step)

    def train_to_end(self, component: Any, name: str) -> TrainedRun:
        """Train a tiny run from scratch, and return what is left of it."""
        in_class = read_class_memory(component)
        with tempfile.TemporaryDirectory() as folder:
            run = self.train(component, name, folder)
            return TrainedRun(
                component=component,
                name=name,
                run=run,
                end=summarize_run(run),
                saved=run.hooks.collect("save_state", run=run),
                files=read_files(Path(folder)),
                memory=read_memory(component),
                changed_in_class=list_changes(in_class, read_class_memory(component)),
            )

    def first_run(self) -> TrainedRun:
        """Return a run with a new component."""
        return self._share("first", lambda: self.train_to_end(*self._make_unseeded(1)))

    def other_run(self) -> TrainedRun:
        """Return a run with another new component, and other seeds of the generators that a run does not seed."""
        return self._share("other", lambda: self.train_to_end(*self._make_unseeded(2)))

    def second_run(self) -> TrainedRun:
        """Return a second run with the component of the first."""
        first = self.first_run()
        return self._share("second", lambda: self.train_to_end(first.component, first.name))

    def _make_unseeded(self, seed: int) -> tuple[Any, str]:
        """Return a new component and its name, after seeding the random generators that a run does not seed."""
        random.seed(seed)
        np.random.seed(seed)
        return self.make_named()

    def _share(self, key: str, train: Callable[[], TrainedRun]) -> TrainedRun:
        """Return a run that other tests of this class look at too; train it where none has yet.

        A suite with attributes of its own, as fixtures set them, may make another component in each test, and shares
        nothing.
        """
        if vars(self):
            return train()
        if key not in self._ended:
            self._ended[key] = train()
        return self._ended[key]

    def test_trains_through_a_fade(self) -> None:
        """Require a run that grows, fades, and ends in training mode with finite weights, as its schedule is spent."""
        first = self.first_run()
        run = first.run
        name = first.name

        # The last step may spend more than what is left, but by less than one iteration.
        overdrawn = run.state.images - run.schedule.total
        batches = count_drawn_batches(run.state.experiment.update, run.state.position)
        require(
            0 <= overdrawn < batches * run.state.stage.batch_size,
            f"with {name} the run spends {run.state.images} images where its schedule has {run.schedule.total}",
        )
        require(
            len(run.state.starts) == len(run.schedule.stages),
            f"with {name} the run ends in stage {len(run.state.starts)} of {len(run.schedule.stages)}: it never grows",
        )
        for net in run.state.networks.values():
            require(net.training, f"with {name} the {net.kind} is left in inference mode: call train() after eval()")
            for key, value in net.state_dict().items():
                require(bool(value.isfinite().all()), f"with {name} the {net.kind}'s {key} becomes non-finite")

    def test_same_seed_same_weights(self) -> None:
        """Require two runs with one seed to be equal bit for bit: all randomness comes from torch's generator."""
        first = self.first_run()
        require(
            are_equal(first.end, self.other_run().end),
            f"two runs with {first.name} and the same seed differ: it draws random numbers from elsewhere",
        )

    def test_resumes_exactly(self) -> None:
        """Require a run that is resumed from any of its checkpoints to end with the same weights, bit for bit."""
        first = self.first_run()
        with tempfile.TemporaryDirectory() as folder:
            first.write_files(Path(folder))
            beginning, *later = load_snapshots(Path(folder))
            # Nothing has happened before the first step that could be forgotten: it is enough that a run goes on there.
            self.train(self.make(), first.name, folder, beginning, single_step=True)
            for saved in later:
                resumed = self.train(self.make(), first.name, folder, saved)
                self._require_same_end(resumed, f"resumed at images {saved.images}")

    def test_stops_exactly(self) -> None:
        """Require a run that is stopped after each step, also between ticks, to end with the same weights.

        Only hooks know of ticks: a component without any is tested by `test_resumes_exactly`.
        """
        first = self.first_run()
        if not find_marked_hooks(first.component, first.name):
            return
        with tempfile.TemporaryDirectory() as folder:
            component = self.make()
            run = self.train(component, first.name, folder, single_step=True)
            while run.state.images < run.schedule.total:
                saved = run.checkpoints.load_last()
                component = self.make()
                run = self.train(component, first.name, folder, saved, single_step=True)
        self._require_same_end(run, "stopped and resumed after each step")
        # What differs between two runs without a break says nothing.
        unbroken = keep_steady(self.other_run().memory, first.memory)
        self.compare_memories(unbroken, read_memory(component))

    def compare_memories(self, unbroken: Mapping[str, Any], resumed: Mapping[str, Any]) -> None:
        """Require that components hold the same after a run without a break, and one that was stopped at each step.

        What one has counted may decide only in runs that are longer than a test's.

        Args:
            unbroken: What the first holds, by attribute; see `read_memory`.
            resumed: What the second holds.
        """
        _, component_name = self.make_named()
        for name, value in unbroken.items():
            other = resumed.get(name)
            require(
                have_same(value, other) or name in self.own_to_process,
                f"{component_name}.{name} is {value!r:.100} at the end of a run without a break, and "
                f"{other!r:.100} at the end of one that was stopped and resumed after each step: save it "
                "in save_state, and take it back in load_state; or, if it belongs to the process and decides nothing, "
                f"as a cache does, let the suite have own_to_process = ({name!r},)",
            )

    def _require_same_end(self, run: Run, how: str) -> None:
        first = self.first_run()
        require(
            are_equal(summarize_end(run), {**first.end, "saved": first.saved}),
            f"a run with {first.name} that is {how} does not end where one without a break does: {first.name} keeps "
            "something that it does not save in save_state and take back in load_state",
        )

    def test_begins_each_run_afresh(self) -> None:
        """Require the second run with one object to end as a run with a new object does, bit for bit."""
        second = self.second_run()
        fresh = self.other_run()  # not the first: what its object saved may have changed in the second
        name = second.name
        require(
            are_equal({**second.end, "saved": second.saved}, {**fresh.end, "saved": fresh.saved}),
            f"a second run with one {name} does not end where a run with a new one does: {name} keeps something from "
            "run to run; begin it in before_run, not in __init__ alone",
        )

    def test_keeps_nothing_in_its_class(self) -> None:
        """Require a run to leave the attributes of the component's class as they are: all runs of a process share them.

        A process that resumes a run has none of what the class held.
        """
        first = self.first_run()
        for place in first.changed_in_class:
            attribute = place.partition(".")[2]
            require(
                attribute in self.own_to_process,
                f"a run with {first.name} changes {place}, which belongs to the class, so that all runs of a process "
                f"share it, and one that is resumed has lost it: make it in before_run (self.{attribute} = ...); or, "
                f"if it decides nothing, as a cache does, let the suite have own_to_process = ({attribute!r},)",
            )

    def test_state_survives_a_checkpoint(self) -> None:
        """Require that what `save_state` returns can be saved as data, and that `load_state` takes it back."""
        component, name = self.make_named()
        saves = implements_hook(component, "save_state")
        loads = implements_hook(component, "load_state")
        require(saves or not loads, f"{name} has load_state but no save_state to give it anything")
        require(loads or not saves, f"{name} has save_state but no load_state: what it saves is lost")
        if not saves:
            return

        (saved,) = self.first_run().saved.values()
        loaded = save_and_load(saved, name)

        # A new object that has loaded the state must save the same.
        with tempfile.TemporaryDirectory() as folder:
            fresh = self.make()
            other = make_run(fresh, name, Path(folder), self.choose_arguments(fresh))
            other.resumed = True
            other.hooks.call("before_run", run=other)
            other.hooks.call_one(name, "load_state", run=other, saved=loaded)
            (again,) = other.hooks.collect("save_state", run=other).values()
        require(are_equal(again, loaded), f"{name} does not take back in load_state all that it saves in save_state")

    def test_hot_hooks_do_not_wait(self) -> None:
        """Require hooks that are called in each step to let the device's queue run on."""
        component, name = self.make_named()
        if not any(implements_hook(component, hook) for hook in HOT_HOOKS):
            return
        hooks = self.first_run().run.hooks
        assert isinstance(hooks, WatchedHooks)
        for hook, calls in hooks.waits.items():
            require(
                not calls,
                f"{name} waits for the device in {hook}: it calls {', '.join(sorted(set(calls)))} on a tensor in every "
                "step; keep tensors as they are, and read them in after_tick",
            )


class StepSuite(TrainedSuite):
    """The checks of kinds that take part in a training step.

    Attributes:
        format_tolerance: Tolerance between weights after two steps in the two memory formats, relative to the largest.
        captured_steps: Number of steps of which the last ones are replayed, after those that are compared.
    """

    format_tolerance = 1e-3
    captured_steps = 6

    def test_step_does_not_wait(self) -> None:
        """Require a step, in a stage and in a fade, to let the device's queue run on."""
        component, name = self.make_named()
        for fading in (False, True):
            watch = SyncWatch()
            self.run_steps(component, name, fading, count=1, watch=watch)
            calls = ", ".join(sorted(set(watch.found)))
            require(not watch.found, f"a step with {name} waits for the device: it calls {calls} on a tensor")

    def test_memory_formats_agree(self) -> None:
        """Require the same weights, up to rounding, with features in `channels_last` and in `contiguous` memory."""
        ends = []
        for memory_format in MEMORY_FORMATS:
            component, name = self.make_named()
            ends.append(self.run_steps(component, name, fading=True, count=2, memory_format=memory_format))
        ours, wanted = ends
        self._require_close(
            ours,
            wanted,
            f"with {name} the {{key}} after two steps depends on the memory format, by {{change:.2g}}: is "
            "memory reinterpreted (`as_strided`, `untyped_storage`) where dimensions are meant?",
        )

    def test_trains_in_bfloat16(self) -> None:
        """Require two steps under bfloat16 autocast to end in finite weights."""
        component, name = self.make_named()
        try:
            ends = self.run_steps(component, name, fading=True, count=2, precision="bfloat16")
        except Exception as error:
            reason = summarize_error(error)
            raise AssertionError(f"under bfloat16 autocast a step with {name} fails: {reason}") from error
        for net, weights in ends.items():
            for key, value in weights.items():
                require(
                    bool(value.isfinite().all()),
                    f"under bfloat16 autocast with {name} the {net}'s {key} becomes non-finite",
                )

    def test_recorded_steps_agree(self) -> None:
        """Require a step that `train.compile` records to lead to the weights that the step without it leads to."""
        ends = []
        warnings: list[str] = []
        for setting in ("never", "always"):
            component, name = self.make_named()
            ends.append(self.run_steps(component, name, fading=True, count=2, warn=warnings.append, compile=setting))

        # A warning says that the step could not be recorded.
        require(not warnings, f"with {name}, {'; '.join(warnings)}")

        plain, recorded = ends
        self._require_close(
            recorded,
            plain,
            f"with {name} the {{key}} after two compiled steps is off by {{change:.2g}}: does a step "
            "depend on something that changes, and is neither a number in a public attribute nor in the batch?",
        )

    def test_steps_can_be_captured(self) -> None:
        """Require a step, replayed as a GPU replays its graph, to lead to the weights that the step itself leads to."""
        lines: list[str] = []
        ends = []
        recorder = ReplayRecorder()
        for its_recorder in (None, recorder):
            component, name = self.make_named()
            ends.append(
                self.run_steps(component, name, True, self.captured_steps, recorder=its_recorder, log=lines.append)
            )
        for line in lines:
            require("not captured" not in line, f"with {name}, {line} (see `train.capture`)")
        require(recorder.replays > 0, f"no step with {name} is captured: each is of another kind")
        plain, captured = ends
        # Steps without a guard may diverge, and must do so alike.
        for net, weights in plain.items():
            different = find_difference(weights, captured[net])
            require(different is None, f"with {name} captured steps lead to another {different} of the {net}")

    def _require_close(self, ours: Weights, wanted: Weights, message: str) -> None:
        """Fail with the message, filled with `key` and `change`, where weights differ by more than rounding."""
        for net, weights in wanted.items():
            for key, value in weights.items():
                change = measure_difference(ours[net][key].float(), value.float())
                require(change <= self.format_tolerance, message.format(key=f"{net}'s {key}", change=change))

    def run_steps(
        self,
        component: Any,
        name: str,
        fading: bool,
        count: int,
        watch: SyncWatch | None = None,
        warn: Callable[[str], None] = print,
        recorder: ReplayRecorder | None = None,
        log: Callable[[str], None] = print,
        **settings: Any,
    ) -> Weights:
        """Run some steps of the base stage, or of the next one's fade, and return the weights of both networks.

        Args:
            component: The component under test.
            name: Its name.
            fading: Whether the steps belong to a fade.
            count: Number of steps.
            watch: Entered during each step.
            warn: Function that is given warnings of `train.compile`.
            recorder: Recorder of graphs; None where no step is captured.
            log: Function that is given what the log would say of captured steps.
            settings: Further arguments of `Experiment`.
        """
        with tempfile.TemporaryDirectory() as folder:
            chosen = {**self.choose_arguments(component), **settings}
            state = make_run(component, name, Path(folder), chosen).state
        alpha: dict[str, Tensor] = {}
        if fading:
            alpha = start_fade(state)

        # As the loop takes steps, with seeds of their own.
        compiler = Compiler(state.experiment, state.device, print, warn, lambda net: None, keep_recording)
        compiler.enter_region(state, state.schedule)
        steps = CapturedSteps(state.experiment, recorder, log)
        steps.enter_region(state)

        def make_context(host: HostWork, start: StepStart) -> UpdateContext:
            sampler = ToySampler(state.stage)
            return UpdateContext(state.experiment, state, state.stage, sampler, alpha, None, compiler, host, start)

        for number in range(count):
            with watch or nullcontext():
                _, drawn = steps.take(make_context, functools.partial(torch.manual_seed, number), alpha, None)
            state.images += drawn
            if state.set_learning_factors():
                compiler.enter_region(state, state.schedule)
                steps.enter_region(state)
        return {name: copy_weights(net) for name, net in state.networks.items()}


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by path."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def summarize_end(run: Run) -> dict[str, Any]:
    """Return the clock, the weights and the states of components with which a run ended."""
    return {**summarize_run(run), "saved": run.hooks.collect("save_state", run=run)}


def start_fade(state: TrainState) -> dict[str, Tensor]:
    """Grow both networks of a state with their old paths, and return an alpha of one half for each path."""
    state.grow(dict.fromkeys(NETS, True))
    state.renew_optimizers()
    return {path: torch.tensor(0.5) for path in PATHS}
