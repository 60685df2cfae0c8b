"""Compile steps where that pays (`train.compile`), check that they are right, and run the others eagerly.

What is compiled is a whole backward pass (`recording.py`), once for each network and kind of step in each *region* of a
run: the fade of a stage, or what follows it. Where a growth policy freezes other pieces than before, another region
begins. Before a compiled pass is used, its terms and gradients are compared with the eager ones on the batch at hand.
Where compiled code begins and ends depends on the schedule and on the components, and on nothing that is timed: a
resumed run computes what the uninterrupted run computes. Compiled and eager steps differ in rounding, and so are two
classes of determinism.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pggan_kit.errors import ConfigError, first_line
from pggan_kit.experiment import Experiment
from pggan_kit.growth.planned_steps import count_steps
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system.seeding import fork_random_numbers
from pggan_kit.training.non_finite import list_float_buffers
from pggan_kit.training.parity import (
    Comparison,
    Evaluate,
    Result,
    choose_rounding,
    collect_settings,
    identify,
    name_components,
    take_apart,
)
from pggan_kit.training.payback import PassSeconds, Payback, format_ms
from pggan_kit.training.recording import Recording, list_varying_tensors, record
from pggan_kit.training.state_copy import PartsCopy, list_parts
from pggan_kit.training.step import Backward, Differentiated, Work

PAYS_FROM_STEPS = 3_000
"""Minimum number of steps of a region that `auto` compiles. With the networks of benchmarks/ladder.gin, a step in
bfloat16 saves 10 ms at 4 pixels, 30 at 16 and 240 at 128, and compiling a region takes 10 to 70 s of one core of a CPU:
it pays from half as many steps on. On an H200, with the paper's networks at 128 pixels, compiling takes 60 s and saves
26 ms a step: it pays from 2,300 steps on."""

PAYS_FROM_SIZE = 128
"""Size in pixels below which a step must be taken more often on a GPU, in proportion, for compiling to pay. Steps are
captured there and wait for no host, so that compiling saves reading and writing alone. On an H200, with the paper's
networks, it saves 0.3 ms a step at 4 pixels, 1.5 at 8, 2.7 at 16, 6 at 32, 13 at 64, 27 at 128 and 46 to 49 above, and
takes 40 to 80 s: it pays from 145,000, 35,000, 19,000, 8,000, 3,000, 2,300 and 1,600 steps on, or up to twice as
many where several stages are compiled at once."""

TIMED_ROUNDS = 3
"""Number of times that an eager and a compiled pass are timed, in turn; the shortest of each counts."""

MOST_KINDS = 4
"""Maximum number of kinds of step that one network may have in a region: with and without lazy penalties, and a few
more."""

COMPILED = "compiled"
EAGER = "eager"

Translate = Callable[[Recording, Work], Callable[..., Any]]
"""A function that turns a recording into what is run, given an example of the work."""


class Compiler:
    """The compiler of a run's backward passes: a `CompiledBackward`.

    Args:
        experiment: The chosen components and settings, of which `compile` says what to compile.
        device: The device of the networks.
        log: A function that takes a sentence for the log.
        warn: A function that takes a sentence for the log and the terminal.
        announce: A function that takes the name of a network before its step is compiled, which may take a
            minute.
        translate: The way from a recording to what is run; `keep_recording` needs no compiler on the machine.

    Raises:
        ConfigError: `train.compile` is `always`, and nothing can be compiled on this machine.
    """

    def __init__(
        self,
        experiment: Experiment,
        device: torch.device,
        log: Callable[[str], None],
        warn: Callable[[str], None],
        announce: Callable[[str], None],
        translate: Translate | None = None,
    ) -> None:
        self.experiment = experiment
        self._device = device
        self._log = log
        self._warn = warn
        self._announce = announce
        self._translate = translate or translate_to_machine_code

        # Where nothing can be compiled, `always` is refused and the other settings fall back to eager steps.
        self._usable = experiment.compile != "never"
        if self._usable and translate is None:
            require_compiler(experiment, device)
            missing = describe_missing_compiler(device)
            if missing is not None:
                self._usable = False
                warn(f"train.compile: {missing}; all steps run eagerly")

        self._active = False
        self._passes: dict[Hashable, _Pass] = {}
        self._outcome: dict[str, str] = {}
        self._recalled: dict[str, str] = {}
        self._weights: list[int] = []
        self._payback = Payback("", 0, log)

    def enter_region(self, state: TrainState, schedule: Schedule, recalled: Mapping[str, str] | None = None) -> None:
        """Begin a region, or resume in it.

        Args:
            state: Networks and clock.
            schedule: The stages.
            recalled: The `outcome` of a checkpoint within this region.
        """
        self._state = state
        self._stage = state.stage

        # Where the weights are the same objects, as after a hard switch, only the clock tells the regions apart, and
        # what was compiled still holds.
        networks = state.networks.values()
        weights = [id(param) for net in networks for param in (*net.weights(), *net.learning_weights())]
        if weights != self._weights:
            self._payback.close(state.images)
            place = f"{state.stage.size} ({state.phase})"
            self._payback = Payback(place, state.images, self._log)
            self._weights = weights
            self._passes = {}
            self._recalled = dict(recalled or {})
            self._outcome = {net: EAGER for net, outcome in self._recalled.items() if outcome == EAGER}

        steps = count_steps(self.experiment.update, schedule, state.starts, state.phase)
        self._active = self._usable and compiling_pays(self.experiment.compile, steps, state.stage, self._device)

    def leave_region(self) -> None:
        """End the last region, as the run ends: log that compiling did not pay in it, if that is so."""
        self._payback.close(self._state.images)

    def drop_account(self) -> None:
        """Say no more of what compiling pays in this region: its passes are part of graphs, which tell no times."""
        self._payback.drop()

    def disable(self) -> None:
        """Run eagerly until the next region."""
        self._active = False

    @property
    def outcome(self) -> dict[str, str]:
        """`compiled` or `eager` for each network whose steps were to be compiled in this region."""
        return dict(self._outcome)

    def __call__(self, work: Work, eager: Backward) -> Differentiated:
        """Add the gradients of a pass to those of the parameters, and return its terms.

        Args:
            work: The pass.
            eager: A function that does the same without a compiler.
        """
        if not self._active or self._outcome.get(work.net) == EAGER:
            return eager(work)
        known = self._passes.get(self._identify_kind(work))
        if known is None:
            return self._compile_and_run(work, eager)

        # A setting is a constant in the recording: once it has changed, the recording is wrong.
        if known.settings != self._collect_settings(work):
            return self._give_up(work, eager, "the loss, a penalty or the augmentation changes from step to step")
        return self._run_compiled(known, work)

    def _run_compiled(self, compiled: _Pass, work: Work) -> Differentiated:
        self._payback.add_pass(compiled.seconds, self._state.images)
        return compiled(work)

    def _compile_and_run(self, work: Work, eager: Backward) -> Differentiated:
        """Record and compile a pass whose kind is new in this region, and use it if it is right."""
        kinds = sum(known.work.net == work.net for known in self._passes.values())
        if kinds == MOST_KINDS:
            return self._give_up(
                work, eager, f"its terms are of more than {MOST_KINDS} kinds, or are new objects in each step"
            )

        # Record the pass. Code of components may raise anything when it is run without numbers.
        began = time.perf_counter()
        settings = self._collect_settings(work)
        # What a call leaves in a component, the eager step must not find there.
        before = PartsCopy(list_parts(self.experiment))
        self._announce(work.net)
        try:
            recording = record(self.experiment, self._state, work)
        except Exception as error:
            before.restore()
            return self._give_up(work, eager, f"{type(error).__name__}: {first_line(error)}")
        if self._collect_settings(work) != settings:
            before.restore()
            return self._give_up(work, eager, "the loss, a penalty or the augmentation changes when it is called")

        # Compile and check it. A compiler may raise anything, too.
        function = SeparateOutputs(recording.graph, recording.gradients_begin)
        compiled = _Pass(work, recording, settings, function, PassSeconds(0.0, 0.0))
        try:
            problem = self._translate_and_check(compiled, work, eager)
        except Exception as error:
            problem = f"it cannot be compiled ({type(error).__name__}: {first_line(error)})"
        seconds = time.perf_counter() - began
        self._payback.add_compiling(seconds)
        before.restore()
        if problem is not None:
            return self._give_up(work, eager, problem, warn=True)

        self._passes[self._identify_kind(work)] = compiled
        self._outcome[work.net] = COMPILED
        self._log(
            f"compiled the {work.net}'s step at {self._stage.size} ({self._state.phase}) in {seconds:.0f} s: it takes "
            f"{format_ms(compiled.seconds.compiled)}, and {format_ms(compiled.seconds.eager)} eagerly"
        )
        return self._run_compiled(compiled, work)

    def _translate_and_check(self, compiled: _Pass, work: Work, eager: Backward) -> str | None:
        """Compile and time a recorded pass, and return what is wrong with it; None where it is right up to rounding.

        The recording itself is checked first, before time is spent on compiling it. All this leaves gradients, buffers
        random numbers and weights as they were.
        """
        # Scaled gradients may overflow, as they should; what is compared are the unscaled ones.
        if work.factor is not None:
            work = work._replace(factor=torch.ones_like(work.factor))

        # Run the pass eagerly, which may change buffers, as batch normalisation does.
        buffers = list_float_buffers(*self._state.networks.values())
        before = [buffer.clone() for buffer in buffers]
        changed = False
        try:
            self._run_aside(eager, work)
        finally:
            for buffer, value in zip(buffers, before, strict=True):
                changed = changed or not torch.equal(buffer, value)
                buffer.copy_(value)
        if changed:
            return "it changes a network's buffers"

        # The recorded operations alone: compiled code repeats them, right or wrong.
        run_eager = functools.partial(self._run_aside, eager)
        run_compiled = functools.partial(self._run_aside, compiled)
        parameters = [param for net in self._state.networks.values() for param in net.parameters()]
        pixels = self._stage.batch_size * self._stage.height * self._stage.width
        rounding = choose_rounding(self._device, pixels)
        comparison = Comparison(run_eager, work, parameters, rounding)
        problem = comparison.find_problem(run_compiled)
        if problem is not None:
            return problem

        # The compiled code, which is timed only if it computes the same.
        translated = self._translate(compiled.recording, work)
        compiled.function = SeparateOutputs(translated, compiled.recording.gradients_begin)
        problem = comparison.find_problem(run_compiled)
        if problem is None:
            compiled.seconds = self._time_in_turn(run_eager, run_compiled, work)
        return problem

    def _time_in_turn(self, run_eager: Evaluate, run_compiled: Evaluate, work: Work) -> PassSeconds:
        """Return the seconds that a pass takes eagerly and compiled; wait for the device."""
        rounds = []
        for _ in range(TIMED_ROUNDS):
            rounds.append([self._time(run_eager, work), self._time(run_compiled, work)])
        return PassSeconds(*(min(times) for times in zip(*rounds, strict=True)))

    def _time(self, run: Evaluate, work: Work) -> float:
        self._wait_for_device()
        began = time.perf_counter()
        run(work)
        self._wait_for_device()
        return time.perf_counter() - began

    def _wait_for_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _run_aside(self, run: Backward, work: Work) -> Result:
        """Return the result of a pass; leave gradients and random numbers as they were, also where it raises.

        The step goes on eagerly then, and adds to the gradients: those of earlier slices must be there, and those of
        half a backward pass must not.
        """
        network = self._state.network(work.net)
        parameters = dict(network.named_parameters())
        before = {name: param.grad for name, param in parameters.items()}

        # Gradients of this run are compared, and leave no trace in those of the step.
        network.zero_grad(set_to_none=True)
        try:
            with fork_random_numbers(self._device):
                losses, kept = run(work)
            result = losses | kept
            for name, param in parameters.items():
                if param.grad is not None:
                    result[f"the gradient of {name}"] = param.grad
        finally:
            for name, param in parameters.items():
                param.grad = before[name]
        return result

    def _identify_kind(self, work: Work) -> Hashable:
        """Return what tells recordings apart: code, bound objects, names, shapes and modes."""
        code, bound = take_apart(work.terms)
        shapes = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in list_varying_tensors(work))
        training = tuple(net.training for net in self._state.networks.values())
        bound_objects = identify((bound, work.penalties))
        return work.net, code, bound_objects, tuple(work.batch), tuple(work.alpha), shapes, training

    def _collect_settings(self, work: Work) -> Hashable:
        """Return the numbers that a recording holds as constants."""
        _, bound = take_apart(work.terms)
        return collect_settings((bound, work.penalties, self.experiment.loss, self.experiment.augmentation))

    def _give_up(self, work: Work, eager: Backward, reason: str, warn: bool = False) -> Differentiated:
        """Run the network's steps eagerly from here to the end of the region, and say why."""
        self._outcome[work.net] = EAGER
        line = f"the {work.net}'s step at {self._stage.size} ({self._state.phase}) is not compiled but eager: {reason}"
        if self._recalled.get(work.net) == COMPILED:
            line += ". It was compiled until now: the run goes on, but is no longer equal bit for bit"
            warn = True
        tell = self._warn if warn else self._log
        names = [name_components(work.terms), *(each.name for each in work.penalties)]
        tell(f"{line} ({', '.join(filter(None, names))})")
        return eager(work)


class SeparateOutputs:
    """A function whose later outputs share no memory with its inputs, nor with the outputs before them.

    A recording, or what a compiler makes of it, may return one tensor as the gradient of two parameters. Autograd
    copies it in this case: gradients are unscaled and added up in place.

    Args:
        function: A function of tensors. It shares the same memory in each call, as what is recorded or compiled does.
        first: Number of the first output that is separate.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], first: int) -> None:
        self._function = function
        self._first = first
        self._shared: list[int] | None = None

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return the outputs."""
        outputs = list(self._function(*inputs))
        if self._shared is None:
            self._shared = self._find_shared(inputs, outputs)
        for number in self._shared:
            outputs[number] = outputs[number].clone()
        return outputs

    def _find_shared(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[int]:
        taken = {tensor.untyped_storage().data_ptr() for tensor in (*inputs, *outputs[: self._first])}
        shared = []
        for number, output in enumerate(outputs[self._first :], start=self._first):
            place = output.untyped_storage().data_ptr()
            if place in taken:
                shared.append(number)
            taken.add(place)
        return shared


@dataclass
class _Pass:
    """A compiled pass.

    It keeps its `work`, so that the ids of the objects bound in its terms, by which its kind is known, stay theirs.
    """

    work: Work
    recording: Recording
    settings: Hashable
    function: SeparateOutputs
    seconds: PassSeconds

    @torch.no_grad()
    def __call__(self, work: Work) -> Differentiated:
        outputs = self.function(*self.recording.list_inputs(work))
        result, gradients = self.recording.split_outputs(outputs)
        for parameter, gradient in zip(self.recording.parameters, gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad.add_(gradient)
        return result


def compiling_pays(setting: str, steps: int, stage: Stage, device: torch.device) -> bool:
    """Return whether `train.compile` compiles a region of a stage; `plan` shows the same rule.

    Args:
        setting: Value of `train.compile`.
        steps: Number of steps of the region.
        stage: Its stage.
        device: The device that trains it.
    """
    if setting != "auto":
        return setting == "always"
    fewest: float = PAYS_FROM_STEPS
    if device.type == "cuda":
        fewest *= max(1.0, PAYS_FROM_SIZE / math.sqrt(stage.height * stage.width))
    return steps >= fewest


def require_compiler(experiment: Experiment, device: torch.device) -> None:
    """Refuse `train.compile = 'always'` on a machine that cannot compile.

    Raises:
        ConfigError: The setting is `always`, and nothing can be compiled on this machine.
    """
    missing = describe_missing_compiler(device)
    if experiment.compile == "always" and missing is not None:
        raise ConfigError(f"train.compile = 'always' is not possible here: {missing}; or choose 'auto' or 'never'")


def describe_missing_compiler(device: torch.device) -> str | None:
    """Return what this machine lacks to compile for a device, as the beginning of a sentence; None for nothing."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton"):
            return None
        return "compiling needs the package triton, which is not installed"

    default = "clang++" if sys.platform == "darwin" else "g++"
    name = os.environ.get("CXX") or default
    if shutil.which(name):
        return None
    return f"compiling needs a C++ compiler, and there is no {name} (the environment variable CXX names another)"


def keep_recording(recording: Recording, work: Work) -> Callable[..., Any]:
    """Return the recording itself, operation by operation: its results are the eager ones bit for bit."""
    return recording.graph


def translate_to_machine_code(recording: Recording, work: Work) -> Callable[..., Any]:
    """Return the recording compiled by torch's inductor, which keeps what it has compiled in a cache on disk."""
    # Importing it takes seconds, which a run that compiles nothing should not spend.
    from torch import _inductor

    # torch.compile would first have to find the graph that is here already, and check in each step whether it holds.
    # Random numbers are eager's, so that the two can be compared, and resuming needs no other state.
    # On a CPU the kernels are called from C++: at 4x4 pixels, calling them from Python takes a sixth of the step.
    on_cpu = recording.fixed[0].device.type == "cpu"
    options = {"fallback_random": True, "cpp_wrapper": on_cpu}
    with torch.no_grad():
        inputs: list[Any] = [*recording.list_inputs(work)]
        function: Callable[..., Any] = _inductor.compile(recording.graph, inputs, options=options)
    return function
