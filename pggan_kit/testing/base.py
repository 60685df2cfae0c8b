"""What every suite checks, whatever the kind; and for what can be trained with, a tiny training run around it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.errors import PluginError, SettingError
from pggan_kit.experiment import MEMORY_FORMATS
from pggan_kit.growth.fade import NETS, PATHS
from pggan_kit.plugin_host.contracts import marked_hooks, require_protocol
from pggan_kit.testing.support import SyncWatch, difference, equal, first_lines, require, through_a_file, weights
from pggan_kit.testing.tiny_runs import HOT_HOOKS, WatchedHooks, hears, mid_fade, new_run, summary, train_tiny
from pggan_kit.testing.toys import (
    ToySampler,
)
from pggan_kit.training.compiler import Compiler, as_recorded
from pggan_kit.training.step import TrainingStep


class Suite:
    """Inherit the suite of a kind and override `make`.

    Attributes:
        kind: as in `components.KINDS`.
        bad_arguments: keyword arguments that the part must refuse with a ValueError, e.g. `[{"weight": -1.0}]`.
    """

    kind = ""
    bad_arguments: Sequence[Mapping[str, Any]] = ()

    def make(self) -> Any:
        """A new part; called anew for each test, and more than once in some."""
        raise NotImplementedError(f"{type(self).__name__}.make() must return the part under test")

    def make_with(self, **arguments: Any) -> Any:
        """The part with other arguments: its class called with them."""
        return type(self.make())(**arguments)

    def part(self) -> tuple[Any, str]:
        """A new part, and its name for messages."""
        part = self.make()
        return part, f"{self.kind}.{type(part).__name__}"

    def test_keeps_its_protocol(self) -> None:
        """It has all methods and attributes of its kind, with the right arguments."""
        part, name = self.part()
        try:
            require_protocol(part, self.kind, name)
        except PluginError as error:
            raise AssertionError(str(error)) from error

    def test_hooks_are_known(self) -> None:
        """What it marks as hooks are hooks, and take only arguments that there are."""
        part, name = self.part()
        try:
            marked_hooks(part, name)
        except PluginError as error:
            raise AssertionError(str(error)) from error

    def test_bad_arguments_are_refused(self) -> None:
        """A wrong argument is a SettingError with its name."""
        for arguments in self.bad_arguments:
            name = next(iter(arguments))
            try:
                self.make_with(**arguments)
            except SettingError as error:
                require(
                    error.setting == name,
                    f"the SettingError for the bad {name} must have its name, and has {error.setting!r}: {error}",
                )
            except Exception as error:
                raise AssertionError(
                    f"bad arguments must raise a SettingError; {dict(arguments)} raised {first_lines(error)}"
                ) from error
            else:
                raise AssertionError(f"the bad arguments {dict(arguments)} are taken without a word")


class TrainedSuite(Suite):
    """For kinds whose parts are chosen in an experiment: two stages, 4x4 and 8x8, with toys for everything else.

    Attributes:
        batches: of reals that one iteration with the part draws.
        format_tolerance: between weights after two steps in the two memory formats, relative to the largest.
    """

    batches = 1
    format_tolerance = 1e-3

    def chosen(self, part: Any) -> dict[str, Any]:
        """The arguments of `Experiment` that put the part in its place."""
        raise NotImplementedError

    def test_trains_through_a_fade(self) -> None:
        """It trains, grows, fades and ends with finite weights at the first step at or past the schedule's total."""
        part, name = self.part()
        with tempfile.TemporaryDirectory() as folder:
            run = train_tiny(part, name, Path(folder), self.chosen(part))
        over = run.state.images - run.schedule.total
        require(
            0 <= over < self.batches * run.schedule.stages[-1].batch_size,
            f"with {name} the run spends {run.state.images} images where its schedule has {run.schedule.total}",
        )
        require(
            len(run.state.starts) == len(run.schedule.stages),
            f"with {name} the run ends in stage {len(run.state.starts)} of {len(run.schedule.stages)}: it never grows",
        )
        for net in (run.state.generator, run.state.discriminator):
            for key, value in net.state_dict().items():
                require(bool(value.isfinite().all()), f"with {name} the {net.kind}'s {key} becomes non-finite")

    def test_same_seed_same_weights(self) -> None:
        """Two runs with one seed are equal to the bit: all randomness comes from torch's seeded generator."""
        ends = []
        for seed in (1, 2):
            part, name = self.part()
            random.seed(seed)
            np.random.seed(seed)
            with tempfile.TemporaryDirectory() as folder:
                ends.append(summary(train_tiny(part, name, Path(folder), self.chosen(part))))
        require(equal(*ends), f"two runs with {name} and the same seed differ: it draws random numbers from elsewhere")

    def test_resumes_exactly(self) -> None:
        """A run that is resumed in the middle of a fade ends in the same weights, to the bit."""
        part, name = self.part()
        with tempfile.TemporaryDirectory() as folder:
            wanted = summary(train_tiny(part, name, Path(folder), self.chosen(part)))
            saved = mid_fade(Path(folder))
            part = self.make()
            found = summary(train_tiny(part, name, Path(folder), self.chosen(part), saved))
        require(
            equal(found, wanted),
            f"a resumed run with {name} does not end where one without a break does: {name} keeps something that it "
            "does not save in save_state and take back in load_state",
        )

    def test_begins_each_run_afresh(self) -> None:
        """One object in two runs: the second ends as a run with a new object does, bit for bit."""
        used, name = self.part()
        ends: list[dict[str, Any]] = []
        for part in (used, used, self.make()):
            with tempfile.TemporaryDirectory() as folder:
                run = train_tiny(part, name, Path(folder), self.chosen(part))
                ends.append({**summary(run), "saved": run.hooks.collect("save_state", run=run)})
        _, second, fresh = ends
        require(
            equal(second, fresh),
            f"a second run with one {name} does not end where a run with a new one does: {name} keeps something from "
            "run to run; begin it in before_run, not in __init__ alone",
        )

    def test_state_survives_a_checkpoint(self) -> None:
        """What `save_state` returns can be saved as data, and `load_state` takes it back."""
        part, name = self.part()
        if not hears(part, "save_state"):
            require(not hears(part, "load_state"), f"{name} has load_state but no save_state to give it anything")
            return
        require(hears(part, "load_state"), f"{name} has save_state but no load_state: what it saves is lost")
        with tempfile.TemporaryDirectory() as folder:
            run = train_tiny(part, name, Path(folder), self.chosen(part))
            (saved,) = run.hooks.collect("save_state", run=run).values()
            read = through_a_file(saved, name)
            fresh = self.make()
            other = new_run(fresh, name, Path(folder), self.chosen(fresh))
            other.hooks.call("before_run", run=other)
            other.hooks.tell(name, "load_state", run=other, saved=read)
            (again,) = other.hooks.collect("save_state", run=other).values()
        require(equal(again, read), f"{name} does not take back in load_state all that it saves in save_state")

    def test_hot_hooks_do_not_wait(self) -> None:
        """Nothing that is called in each step makes the device finish its queue."""
        part, name = self.part()
        if not any(hears(part, hook) for hook in HOT_HOOKS):
            return
        with tempfile.TemporaryDirectory() as folder:
            run = train_tiny(part, name, Path(folder), self.chosen(part))
        assert isinstance(run.hooks, WatchedHooks)
        for hook, calls in run.hooks.waits.items():
            require(
                not calls,
                f"{name} waits for the device in {hook}: it calls {', '.join(sorted(set(calls)))} on a tensor in every "
                "step; keep tensors as they are, and read them in after_tick",
            )

    def test_step_does_not_wait(self) -> None:
        """Nothing that a step computes with it makes the device finish its queue, in a stage and in a fade."""
        part, name = self.part()
        for fading in (False, True):
            watch = SyncWatch()
            self.stepped(part, name, fading, count=1, watch=watch)
            require(
                not watch.found,
                f"a step with {name} waits for the device: it calls {', '.join(sorted(set(watch.found)))} on a tensor",
            )

    def test_memory_formats_agree(self) -> None:
        """With features in `channels_last` and in `contiguous` memory, weights become the same up to rounding."""
        ends = []
        for memory_format in MEMORY_FORMATS:
            part, name = self.part()
            ends.append(self.stepped(part, name, fading=True, count=2, memory_format=memory_format))
        for net, found in ends[0].items():
            for key, value in found.items():
                change = difference(value.float(), ends[1][net][key].float())
                require(
                    change <= self.format_tolerance,
                    f"with {name} the {net}'s {key} after two steps depends on the memory format, by {change:.2g}: is "
                    "memory reinterpreted (`as_strided`, `untyped_storage`) where dimensions are meant?",
                )

    def test_trains_in_bfloat16(self) -> None:
        """Under bfloat16 autocast two steps work, and end in finite float32 weights."""
        part, name = self.part()
        try:
            ends = self.stepped(part, name, fading=True, count=2, precision="bfloat16")
        except Exception as error:
            raise AssertionError(f"under bfloat16 autocast a step with {name} fails: {first_lines(error)}") from error
        for net, found in ends.items():
            for key, value in found.items():
                require(
                    bool(value.isfinite().all()),
                    f"under bfloat16 autocast with {name} the {net}'s {key} becomes non-finite",
                )

    def test_recorded_steps_agree(self) -> None:
        """A step that `train.compile` can record takes the weights where the step without it takes them."""
        ends: list[dict[str, dict[str, Tensor]]] = []
        warned: list[str] = []
        for setting in ("never", "always"):
            part, name = self.part()
            ends.append(self.stepped(part, name, fading=True, count=2, warn=warned.append, compile=setting))
        require(not warned, f"with {name}, {'; '.join(warned)}")
        for net, found in ends[0].items():
            for key, value in found.items():
                change = difference(ends[1][net][key].float(), value.float())
                require(
                    change <= self.format_tolerance,
                    f"with {name} the {net}'s {key} after two compiled steps is off by {change:.2g}: does a step "
                    "depend on something that changes, and is neither a number in a public part nor in the batch?",
                )

    def stepped(
        self,
        part: Any,
        name: str,
        fading: bool,
        count: int,
        watch: SyncWatch | None = None,
        warn: Callable[[str], None] = print,
        **settings: Any,
    ) -> dict[str, dict[str, Tensor]]:
        """The weights of both networks after some steps of the base stage, or of the next one's fade."""
        with tempfile.TemporaryDirectory() as folder:
            state = new_run(part, name, Path(folder), {**self.chosen(part), **settings}).state
        alpha: dict[str, Tensor] = {}
        if fading:
            state.grow({"generator": True, "discriminator": True})
            state.renew_optimizers(reset=False)
            alpha = {path: torch.tensor(0.5) for path in PATHS}
        compiler = Compiler(state.experiment, state.device, print, warn, lambda net: None, as_recorded)
        compiler.enter(state, state.schedule)
        for number in range(count):
            torch.manual_seed(number)
            ctx = TrainingStep(state.experiment, state, state.stage, ToySampler(state.stage), alpha, compiler=compiler)
            with watch or nullcontext():
                state.experiment.update.step(ctx)
            state.images += ctx.drawn
        return {net: weights(state.network(net)) for net in NETS}
