"""Training steps of a tiny experiment, compiled or not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from helpers.other_machines import OtherMachine
from torch import Tensor

from pggan_kit.runs.state import TrainState
from pggan_kit.testing.support import copy_weights
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_kit.testing.toys import ToySampler
from pggan_kit.training.compiler import Compiler, SeparateOutputs, _Pass, keep_recording
from pggan_kit.training.parity import Comparison, Evaluate, Result, choose_rounding, compute_rms
from pggan_kit.training.payback import PassSeconds
from pggan_kit.training.recording import Recording, record
from pggan_kit.training.step import Backward, Differentiated, UpdateContext, Work
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import WGANGP
from pggan_plugins.optimizers import Adam
from pggan_plugins.penalties import Drift, GradientPenalty
from pggan_plugins.resampling import Nearest
from pggan_plugins.updates import Alternating

NETS = ("generator", "discriminator")
CPU = torch.device("cpu")


class Steps:
    """Training steps of a tiny experiment, compiled or not.

    Attributes:
        lines: Lines that were logged, warned and announced, as (kind, text).
    """

    def __init__(self, compile: str, fading: bool = False, translate: Any = keep_recording, **chosen: Any) -> None:
        components: dict[str, Any] = {
            "architecture": PGGAN(4),
            "resampling": Nearest(),
            "update": Alternating(),
            "loss": WGANGP([GradientPenalty(), Drift()]),
            "generator_optimizer": Adam(),
            "discriminator_optimizer": Adam(),
        }
        self.experiment = make_tiny_experiment({**components, **chosen, "compile": compile})
        self.state = TrainState(self.experiment, self.experiment.schedule.resolve(16, 1, 0), CPU)
        if fading:
            self.state.grow(dict.fromkeys(NETS, True))
            self.state.renew_optimizers()
        self.lines: list[tuple[str, str]] = []
        notes = [self._make_note(kind) for kind in ("log", "warn", "announce")]
        self.compiler = Compiler(self.experiment, CPU, *notes, translate)
        self.compiler.enter_region(self.state, self.state.schedule)

    def _make_note(self, kind: str) -> Callable[[str], None]:
        return lambda text: self.lines.append((kind, text))

    def take(self, count: int = 3, alpha: float | None = None) -> list[dict[str, Tensor]]:
        """Take steps at an alpha that moves, and return the losses of each."""
        returned = []
        for number in range(count):
            torch.manual_seed(number)
            paths = ("generator", "discriminator", "reals") if alpha is not None else ()
            alphas = {path: torch.tensor((alpha or 0.0) + 0.1 * number) for path in paths}
            sampler = ToySampler(self.state.stage)
            ctx = UpdateContext(self.experiment, self.state, self.state.stage, sampler, alphas, compiler=self.compiler)
            returned.append(self.experiment.update.step(ctx))
            self.state.images += ctx.drawn
            self.state.update_averages(ctx.drawn)
        return returned

    def weights(self) -> dict[str, dict[str, Tensor]]:
        return {net: copy_weights(self.state.network(net)) for net in NETS}

    def list_lines(self, kind: str) -> list[str]:
        return [text for own_kind, text in self.lines if own_kind == kind]


class Passes:
    """The backward passes of one step, each with its recording, at weights, batches and alphas of any seed.

    Attributes:
        works: The pass of the discriminator, and that of the generator.
    """

    def __init__(self, fading: bool = True, **chosen: Any) -> None:
        self.works: list[Work] = []
        self._eager: list[Backward] = []
        steps = Steps("always", fading, **chosen)
        self.compiler = steps.compiler
        self.experiment = steps.experiment
        self.state = steps.state

        # One step gives the passes; what is compiled in it is not used.
        def note(work: Work, eager: Backward) -> Differentiated:
            self.works.append(work)
            self._eager.append(eager)
            return eager(work)

        note.enter_region = self.compiler.enter_region  # type: ignore[attr-defined]
        steps.compiler = note  # type: ignore[assignment]
        steps.take(1, alpha=0.3 if fading else None)
        self.parameters = [*self.state.generator.parameters(), *self.state.discriminator.parameters()]
        self._first = [parameter.detach().clone() for parameter in self.parameters]
        self._recordings: dict[int, Recording] = {}

    def compare(self, number: int, seed: int) -> Comparison:
        """Return the comparison of a pass with its eager way, at the weights, batch and alpha of a seed."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter, first in zip(self.parameters, self._first, strict=True):
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(first + 0.3 * (compute_rms(first) or 1.0) * noise)

        # As `minimise` does: only one network learns.
        work = self.works[number]
        for net in NETS:
            self.state.network(net).requires_grad_(net == work.net)

        batch: dict[str, Tensor | None] = dict(work.batch)
        for name, rows in work.batch.items():
            if name == "latents" and rows is not None:
                batch[name] = torch.randn(rows.shape, generator=generator)
            elif name == "real" and rows is not None:
                batch[name] = 2 * torch.rand(rows.shape, generator=generator) - 1
            elif name == "mix" and rows is not None:
                batch[name] = torch.rand(rows.shape, generator=generator)
        alpha = {path: torch.rand((), generator=generator) for path in work.alpha}
        self.works[number] = work._replace(batch=batch, alpha=alpha)
        eager = functools.partial(self.compiler._run_aside, self._eager[number])
        stage = self.state.stage
        rounding = choose_rounding(CPU, stage.batch_size * stage.height * stage.width)
        return Comparison(eager, self.works[number], self.parameters, rounding)

    def run_eager(self, number: int, work: Work) -> Result:
        """Return the eager result of a pass, or of another one in its place."""
        return self.compiler._run_aside(self._eager[number], work)

    def run_on(self, machine: OtherMachine, number: int) -> Evaluate:
        """Return a pass as another machine takes it."""
        if number not in self._recordings:
            self._recordings[number] = record(self.experiment, self.state, self.works[number])
        recording = self._recordings[number]
        work = self.works[number]
        function = SeparateOutputs(machine.translate(recording, work), recording.gradients_begin)
        run = _Pass(work, recording, None, function, PassSeconds(0.0, 0.0))
        return functools.partial(self.compiler._run_aside, run)
