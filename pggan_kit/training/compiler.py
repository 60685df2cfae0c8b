"""Compiled steps (`train.compile`): where they pay, whether they are right, and what is computed eagerly instead.

What is compiled is a whole backward pass (`tracing.py`), once for each network and kind of step in each *region* of a
run, a stage's fade or what follows it. Before a compiled pass is used, its terms
and gradients are compared with the eager ones on the batch at hand. Where compiled code begins and ends depends on the
schedule and on what is compiled, and on nothing that is timed: a resumed run computes what the run before it did.
Compiled and eager steps differ in rounding: they are two classes of determinism.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pggan_kit.errors import ConfigError, first_line
from pggan_kit.experiment import Experiment
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, Schedule, Stage
from pggan_kit.system.seeding import fork_random_numbers
from pggan_kit.training.non_finite import float_buffers
from pggan_kit.training.parity import TOLERANCE, Result, differing, identity, made_of, named_parts, settings_of
from pggan_kit.training.recording import Recording, record, varying
from pggan_kit.training.step import Backward, Differentiated, Work

PAYS_FROM_STEPS = 3_000
"""What a region must have, at least, for `auto` to compile it. Of benchmarks/ladder.gin's networks a step in bfloat16
saves 10 ms at 4 pixels, 30 at 16, 240 at 128, and compiling a region takes 10 to 70 s, of one core of a CPU: it pays
from half so many steps on."""

GRAPHS_UP_TO = 32
"""Image height up to which launching a GPU's kernels takes longer than running them."""

MOST_KINDS = 4
"""Kinds of step that one network may have in a region: with and without lazy penalties, and a few more."""

COMPILED, EAGER = "compiled", "eager"

Translate = Callable[[Recording, Work, bool], Callable[..., Any]]
"""Takes a recording, an example of the work, and whether CUDA graphs are to be replayed."""


class Compiler:
    """Runs a run's backward passes, compiled where that is chosen and right.

    Args:
        experiment: its `compile` says where.
        device: of the networks.
        log, warn: take a sentence each.
        announce: told `generator` or `discriminator` before its step is compiled, which takes a minute.
        translate: turns a recording into what is run; `as_recorded` needs no compiler.

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
        self._log, self._warn, self._announce = log, warn, announce
        self._translate = translate or machine_code
        self._usable = False
        if experiment.compile != "never":
            missing = missing_compiler(device) if translate is None else None
            self._usable = missing is None
            if missing and experiment.compile == "always":
                raise ConfigError(f"train.compile 'always' cannot be: {missing}; or choose 'auto' or 'never'")
            if missing:
                warn(f"train.compile: {missing}; all steps run eagerly")
        self._active = False
        self._passes: dict[Hashable, _Pass] = {}
        self._outcome: dict[str, str] = {}
        self._recalled: dict[str, str] = {}
        self._weights: list[int] = []

    def enter(self, state: TrainState, schedule: Schedule, recalled: Mapping[str, str] | None = None) -> None:
        """A region begins, or is gone on with.

        Args:
            state: networks and clock.
            schedule: the stages.
            recalled: the `outcome` that a checkpoint within this region holds.
        """
        self._state, self._stage = state, state.stage
        weights = [id(param) for net in (state.generator, state.discriminator) for param in net.parameters()]
        if weights != self._weights:  # else nothing but the clock tells the regions apart: a hard switch
            self._weights, self._passes = weights, {}
            self._recalled = dict(recalled or {})
            self._outcome = {net: EAGER for net, outcome in self._recalled.items() if outcome == EAGER}
        steps = steps_of(state.stage, state.phase, schedule.end(state.starts) - state.starts[-1])
        self._active = self._usable and pays(self.experiment.compile, steps)

    def rest(self) -> None:
        """Run eagerly until the next region."""
        self._active = False

    @property
    def outcome(self) -> dict[str, str]:
        """For each network whose steps were to be compiled in this region, `compiled` or `eager`."""
        return dict(self._outcome)

    def __call__(self, work: Work, eager: Backward) -> Differentiated:
        """Add a pass's gradients to those of the parameters, and return its terms.

        Args:
            work: the pass.
            eager: does the same without a compiler.
        """
        if not self._active or self._outcome.get(work.net) == EAGER:
            return eager(work)
        known = self._passes.get(self._kind(work))
        if known is None:
            return self._first(work, eager)
        if known.settings != self._settings(work):
            return self._give_up(work, eager, "the loss, a penalty or the augmentation changes from step to step")
        return known(work)

    def _first(self, work: Work, eager: Backward) -> Differentiated:
        """Record and compile a pass that is new in this region, and use it if it is right."""
        began = time.perf_counter()
        if sum(known.work.net == work.net for known in self._passes.values()) == MOST_KINDS:
            return self._give_up(work, eager, f"its terms are of more than {MOST_KINDS} kinds, or made anew each time")
        settings = self._settings(work)
        self._announce(work.net)
        try:
            recording = record(self.experiment, self._state, work)
        except Exception as error:  # whatever a part's code raises when it is run without numbers
            return self._give_up(work, eager, f"{type(error).__name__}: {first_line(error)}")
        if self._settings(work) != settings:
            return self._give_up(work, eager, "the loss, a penalty or the augmentation changes when it is called")
        made = _Pass(work, recording, settings, recording.graph)
        try:
            wrong = self._translated(made, work, eager)
        except Exception as error:  # whatever a compiler raises
            wrong = f"it cannot be compiled ({type(error).__name__}: {first_line(error)})"
        if wrong is not None:
            return self._give_up(work, eager, wrong, warn=True)
        self._passes[self._kind(work)], self._outcome[work.net] = made, COMPILED
        seconds = time.perf_counter() - began
        self._log(f"compiled the {work.net}'s step at {self._stage.size} ({self._state.phase}) in {seconds:.0f} s")
        return made(work)

    def _translated(self, made: _Pass, work: Work, eager: Backward) -> str | None:
        """Compile a recorded pass. Returns what is wrong with it; None where it is the eager one up to rounding.

        What is wrong with the recording itself is found before the time for compiling it is spent. Nothing of all this
        stays in gradients, buffers or random numbers.
        """
        if work.factor is not None:
            work = work._replace(factor=torch.ones_like(work.factor))  # scaled gradients may overflow, as they should
        buffers = float_buffers(self._state.generator, self._state.discriminator)
        before = [buffer.clone() for buffer in buffers]
        wanted = self._tried(eager, work)
        changed = not all(torch.equal(buffer, value) for buffer, value in zip(buffers, before, strict=True))
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        if changed:
            return "it changes a network's buffers"
        exact = self._tried(eager, work._replace(precision="float32"))
        tolerance = TOLERANCE[self._computed_in()]
        wrong = differing(wanted, self._tried(made, work), tolerance, exact)
        if wrong is None:
            graphs = replays_graphs(self.experiment.compile, self._device, self._stage)
            made.function = self._translate(made.recording, work, graphs)
            wrong = differing(wanted, self._tried(made, work), tolerance, exact)
        return wrong

    def _tried(self, run: Backward, work: Work) -> Result:
        """What a pass gives; leaves gradients and random numbers as they were."""
        net = self._state.network(work.net)
        before = [param.grad for param in net.parameters()]
        net.zero_grad(set_to_none=True)
        with fork_random_numbers(self._device):
            losses, kept = run(work)
        gradients = {name: param.grad for name, param in net.named_parameters() if param.grad is not None}
        for param, gradient in zip(net.parameters(), before, strict=True):
            param.grad = gradient
        return losses | kept, gradients

    def _computed_in(self) -> torch.dtype:
        kind = self._device.type
        with self.experiment.autocast(self._device):
            return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.get_default_dtype()

    def _kind(self, work: Work) -> Hashable:
        """What tells recordings apart."""
        code, bound = made_of(work.terms)
        shapes = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in varying(work))
        training = (self._state.generator.training, self._state.discriminator.training)
        return work.net, code, identity(bound), tuple(work.part), tuple(work.alpha), shapes, training

    def _settings(self, work: Work) -> Hashable:
        """The numbers that a recording holds as constants."""
        return settings_of((made_of(work.terms)[1], self.experiment.loss, self.experiment.augmentation))

    def _give_up(self, work: Work, eager: Backward, why: str, warn: bool = False) -> Differentiated:
        """From here to the end of the region the network's steps are eager."""
        self._outcome[work.net] = EAGER
        line = f"the {work.net}'s step at {self._stage.size} ({self._state.phase}) is not compiled but eager: {why}"
        if self._recalled.get(work.net) == COMPILED:
            line, warn = f"{line}. It was compiled until now: the run goes on, but not to the bit", True
        (self._warn if warn else self._log)(f"{line} ({named_parts(work.terms)})")
        return eager(work)


@dataclass
class _Pass:
    """A compiled pass. Holds its `terms`, so that what its kind is known by cannot be another's."""

    work: Work
    recording: Recording
    settings: Hashable
    function: Callable[..., Any]

    @torch.no_grad()
    def __call__(self, work: Work) -> Differentiated:
        result, gradients = self.recording.read(self.function(*self.recording.inputs(work)))
        for parameter, gradient in zip(self.recording.parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return result


def pays(setting: str, steps: int) -> bool:
    """Whether `train.compile` compiles a region of so many steps: the rule, which `plan` shows."""
    return setting == "always" or (setting in ("auto", "graphs") and steps >= PAYS_FROM_STEPS)


def steps_of(stage: Stage, phase: str, stage_images: int) -> int:
    """Steps of a region, if nothing ends it early.

    Args:
        stage, phase: which.
        stage_images: those of the whole stage.
    """
    fade = min(stage.fade_images, stage_images)
    return -(-(fade if phase == FADE else stage_images - fade) // stage.batch_size)


def replays_graphs(setting: str, device: torch.device, stage: Stage) -> bool:
    """Whether steps are replayed as CUDA graphs."""
    return setting == "graphs" and device.type == "cuda" and stage.height <= GRAPHS_UP_TO


def missing_compiler(device: torch.device) -> str | None:
    """What this machine lacks to compile for a device, as a sentence's begin; None where nothing is missing."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "it needs the package triton, which is not installed"
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name):
        return None
    return f"it needs a C++ compiler, and there is no {name} (the environment variable CXX names another)"


def as_recorded(recording: Recording, work: Work, graphs: bool) -> Callable[..., Any]:
    """The recording itself, operation by operation: eager's results, to the bit."""
    return recording.graph


def machine_code(recording: Recording, work: Work, graphs: bool) -> Callable[..., Any]:
    """The recording compiled by torch's inductor, which keeps what it has compiled in a cache on disk."""
    # Takes seconds to import: who compiles nothing does not wait for it.
    from torch import _inductor

    # torch.compile would first have to find the graph that is here already, and look in each step whether it holds.
    # Random numbers are eager's, so that the two can be compared, and resuming needs no other state.
    # On a CPU the kernels are called from C++: at 4x4 pixels, calling them from Python takes a sixth of the step.
    on_cpu = recording.fixed[0].device.type == "cpu"
    options = {"fallback_random": True, "triton.cudagraphs": graphs, "cpp_wrapper": on_cpu}
    with torch.no_grad():
        inputs: list[Any] = [*recording.inputs(work)]
        function: Callable[..., Any] = _inductor.compile(recording.graph, inputs, options=options)
    if not graphs:
        return function
    # A CUDA graph's outputs lie where its next replay writes.
    return lambda *tensors: [output.clone() for output in function(*tensors)]
