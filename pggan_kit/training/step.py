"""Give an update what it works with: reals and latents, and `minimise`, the one place that changes weights."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pggan_kit.components import (
    Critic,
    DiscriminatorCall,
    DuePenalty,
    EncoderTerms,
    GeneratorCall,
    GeneratorPenalty,
    Penalty,
    Reals,
    Scores,
    TensorBatch,
    Terms,
)
from pggan_kit.data.device_feed import draw_batch, gather_batch
from pggan_kit.data.sampler import Source
from pggan_kit.errors import did_you_mean, suggest
from pggan_kit.experiment import Experiment
from pggan_kit.growth.fade import fade_reals
from pggan_kit.growth.moving_settings import find_weight, set_to_clock
from pggan_kit.growth.networks import GrowingNetwork
from pggan_kit.layers.batches import declare_batches
from pggan_kit.layers.derivatives import expect_second_derivatives
from pggan_kit.layers.tensors import close_gaps
from pggan_kit.plugin_host.hooks import describe_wrong_tag
from pggan_kit.runs.learning_rate_tensors import is_capturable
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Position, Stage, constant_at
from pggan_kit.system import distributed
from pggan_kit.system.seeding import torch_generator
from pggan_kit.training.generator_penalties import (
    FACTOR,
    MEMORY,
    NOISE,
    DueGeneratorPenalty,
    RecordingGenerator,
    compute_penalised_terms,
    find_due_penalties,
    remember_measured,
    take_measured,
    unscale_terms,
)
from pggan_kit.training.host_work import EagerHostWork, HostWork, StepStart
from pggan_kit.training.micro_batches import average_slices, merge_slices, slice_batch
from pggan_kit.training.non_finite import Guard

Differentiated = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Losses and kept tensors that `terms` returned, detached."""


class Work(NamedTuple):
    """One backward pass: that of a batch, or of a slice of it.

    Attributes:
        net: `generator`, `discriminator` or `encoder`, whose parameters get gradients.
        terms: See `StepContext.minimise`.
        batch: Named tensors with N rows each, or 0-dim, which `terms` is given.
        alpha: 0-dim tensors by path, without the paths that do not fade.
        factor: 0-dim factor on the sum of the terms before it is differentiated; None for 1.
        penalties: Generator penalties whose terms are added.
    """

    net: str
    terms: Terms | EncoderTerms
    batch: TensorBatch
    alpha: Mapping[str, Tensor]
    factor: Tensor | None
    penalties: tuple[DueGeneratorPenalty, ...] = ()


Backward = Callable[[Work], Differentiated]
"""A function that adds the gradients of a backward pass to those of the parameters."""

CompiledBackward = Callable[[Work, Backward], Differentiated]
"""A function that does the same by compiled code, or by the eager pass it is given: `training.compiler.Compiler`."""


def image_gradients(critic: Critic, images: Tensor) -> Tensor:
    """Return the gradient of each sample's score with respect to its image: (N, C, h, w), itself differentiable.

    Every penalty takes its gradients here, so that the core can change how they are computed for all of them.
    """
    images = images.detach().requires_grad_(True)
    with expect_second_derivatives():
        score = critic(images).score
    (gradient,) = torch.autograd.grad(score.sum(), images, create_graph=True)
    return gradient


def scores_of_each(D: DiscriminatorCall, batches: Sequence[Tensor], labels: Tensor | None) -> list[Scores]:
    """Return the discriminator's scores of several batches (N, C, h, w), each as if it were scored alone.

    Where the architecture `separates_batches`, and no augmentation precedes it, batches of equal size go through in
    one call: small stages spend more time on the overhead of operations than on arithmetic.

    Args:
        D: The discriminator.
        batches: Images in [-1, 1].
        labels: (N,), the same for each batch.
    """
    shapes = {(batch.shape, batch.dtype) for batch in batches}
    if len(shapes) > 1 or not getattr(D, "separates_batches", False):
        return [D(batch, labels) for batch in batches]

    # `declare_batches` lets layers that compare samples keep the batches apart.
    count = len(batches)
    with declare_batches(count):
        repeated = None if labels is None else labels.repeat(count)
        scores = D(torch.cat(list(batches)), repeated)

    rows = len(batches[0])
    return [scores.rows(slice(start, start + rows)) for start in range(0, rows * count, rows)]


class WatchedPosition(Position):
    """The position of a step, which notes what is read of it that moves within a stage: a graph would freeze that."""

    _reads: set[str] | None = None

    @classmethod
    def watch(cls, position: Position, reads: set[str]) -> WatchedPosition:
        """Return a position that adds the names of what is read of it to a set."""
        watched = object.__new__(cls)
        vars(watched).update(vars(position), _reads=reads)
        return watched

    def __getattribute__(self, name: str) -> Any:
        """Return an attribute."""
        if name in ("images", "progress"):
            reads = object.__getattribute__(self, "_reads")
            if reads is not None:
                reads.add(f"ctx.position.{name}")
        return object.__getattribute__(self, name)


class UpdateContext:
    """The `StepContext` of an update: what it may draw and change, from the run's state and data.

    Args:
        experiment: The chosen components and settings.
        state: The state that the update changes.
        stage: The current stage.
        sampler: The reals of the stage.
        alpha: 0-dim tensors by path, without the paths that do not fade.
        guard: The check of losses and gradients; None for no check.
        compiler: The compiler of backward passes; None for eager ones.
        host: What the step does on the host; None for an eager step.
        start: The step's beginning, for draws that are repeated; None for the present one.

    Attributes:
        experiment: The chosen components and settings.
        stage: The current stage.
        loss: The chosen loss.
        position: See `StepContext.position`.
        drawn: Reals drawn in this iteration so far, over all ranks.
        clock_reads: What the update has read of the clock, as `ctx.images`.
        alpha: See above.
    """

    def __init__(
        self,
        experiment: Experiment,
        state: TrainState,
        stage: Stage,
        sampler: Source,
        alpha: Mapping[str, Tensor],
        guard: Guard | None = None,
        compiler: CompiledBackward | None = None,
        host: HostWork | None = None,
        start: StepStart | None = None,
    ) -> None:
        self.experiment = experiment
        self.stage = stage
        self.loss = experiment.loss
        self.clock_reads: set[str] = set()
        self.position: Position = WatchedPosition.watch(state.position, self.clock_reads)
        self.drawn = 0
        # What an update must not touch but through this object.
        self._state = state
        self._sampler = sampler
        self.alpha = alpha
        self._guard = guard
        self._compiler = compiler
        self._host = host or EagerHostWork(state.device)
        self._start = start or StepStart(state.generator_updates)
        # Weights of penalties that move, which are inputs of a compiled pass: nothing is compiled again while they do.
        self._moving_weights: dict[str, Tensor] = {}

    @property
    def images(self) -> int:
        """The clock, with what this iteration has drawn so far."""
        self.clock_reads.add("ctx.images")
        return self._state.images + self.drawn

    @property
    def local_batch(self) -> int:
        """Samples of a batch that fall to this rank."""
        return len(range(distributed.rank(), self.stage.batch_size, distributed.world_size()))

    def reals(self) -> Reals:
        """Draw the next batch of the data; see `StepContext.reals`."""
        # What is drawn again for replays knows nothing of this context, which lasts for one step.
        source = self._sampler
        state = self._state
        drawn_before = self.drawn
        count = self.stage.batch_size

        def draw() -> list[Tensor]:
            position = state.images + drawn_before
            return [_take_own_rows(rows) for rows in draw_batch(source, position, count)]

        pictures, labels = gather_batch(source, self._host.bring(draw))
        self.drawn += count
        pictures = source.values.to_images(pictures, torch.get_default_dtype())

        # While the reals fade, they are as detailed as the half-grown networks.
        alpha = self.alpha.get("reals")
        if alpha is not None:
            up, down = state.find_image_pair(self.stage)
            pictures = fade_reals(pictures, self.stage.factor, alpha, up, down)
        return Reals(pictures, labels)

    def latents(self, stream: str, count: int | None = None) -> Tensor:
        """Draw a batch of latents; see `StepContext.latents`."""
        rows = self.stage.batch_size if count is None else count
        shape = (rows, self.experiment.latent_size)
        return self._draw_numbers(torch.randn, shape, ("latents", stream))

    def uniform(self, stream: str) -> Tensor:
        """Draw mixing weights; see `StepContext.uniform`."""
        return self._draw_numbers(torch.rand, (self.stage.batch_size,), ("uniform", stream))

    def _draw_numbers(
        self, distribution: Callable[..., Tensor], shape: tuple[int, ...], names: tuple[str, ...]
    ) -> Tensor:
        """Draw random numbers for the whole batch that depend on these names and the place on the clock alone."""
        seed = self.experiment.seed
        state = self._state
        drawn_before = self.drawn

        def draw() -> list[Tensor]:
            generator = torch_generator(seed, *names, *state.make_seed_names(drawn_before))
            return [_take_own_rows(distribution(shape, generator=generator))]

        (numbers,) = self._host.bring(draw)
        return numbers

    def due(self, penalties: Sequence[Penalty]) -> tuple[DuePenalty, ...]:
        """Return the penalties that the next update of D adds; see `StepContext.due`."""
        update = self._state.discriminator_updates
        due = []
        for number, penalty in enumerate(penalties):
            if update % penalty.every:
                continue
            moves = constant_at(penalty.weight, self.stage, instead=None) is None
            each = DuePenalty(penalty, number, self.stage.height, moves)
            if moves:
                self._moving_weights[each.entry] = self._bring_factor(penalty)
            due.append(each)
        return tuple(due)

    def _bring_factor(self, penalty: Penalty | GeneratorPenalty) -> Tensor:
        """Return `weight * every` of a penalty at the clock, 0-dim: one that is added rarely weighs more for it."""
        state = self._state

        def draw() -> list[Tensor]:
            weight = find_weight(penalty, state.position)
            return [torch.full((), weight * penalty.every)]

        (factor,) = self._host.bring(draw)
        return factor

    def minimise(
        self, optimizer: str, net: str, terms: Terms | EncoderTerms, batch: TensorBatch, *, inference: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take one optimizer step that makes the sum of the terms smaller; see `StepContext.minimise`."""
        state = self._state
        _require_known("net", net, state.networks)
        _require_known("optimizer", optimizer, state.optimizers)
        state.stepped.add(optimizer)
        if net == "discriminator":
            # Counted before anything can fail: an update that is dropped has had its turn.
            state.discriminator_updates += 1

        # Generator penalties are added here, whatever the update is.
        batch, due = self._add_moving_numbers(net, batch)
        if net == "generator":
            state.generator_updates += 1

        # The network that learns, whose frozen pieces have no gradients.
        moving = state.network(net)
        fixed = [other for name, other in state.networks.items() if name != net]
        chosen = state.optimizers[optimizer]
        scaler = state.scalers[net]
        self._host.call_before(functools.partial(_set_optimizer_to_clock, optimizer, state))
        for other in fixed:
            _set_requires_grad(other.weights(), False)
        _set_requires_grad(moving.learning_weights(), True)
        _clear_gradients(chosen, moving)

        # The gradients of the sum.
        if inference:
            for other in fixed:
                other.eval()
        losses, kept = self._differentiate(net, terms, batch, scaler, due)
        measured = take_measured(kept)
        if inference:
            for other in fixed:
                other.train()

        # All processes take the same step: that of the whole batch.
        if distributed.world_size() > 1:
            _average_over_processes(moving, fixed, [*losses.values(), *measured.values()])
        scaler.unscale_(chosen)
        try:
            if self._guard is not None:
                self._guard.check(net, losses, sum_losses(losses), moving, scaler)
            self._step_optimizer(optimizer, scaler)
        finally:
            scaler.update()
        self._host.call_after(functools.partial(remember_measured, due, measured))
        return unscale_terms(losses, due), kept

    def _add_moving_numbers(self, net: str, batch: TensorBatch) -> tuple[TensorBatch, tuple[DueGeneratorPenalty, ...]]:
        """Return a batch with what penalties on a network read of the clock, and the generator penalties that are due.

        It comes with the batch because a captured or compiled step is the same for all values.
        """
        if net == "discriminator":
            # A weight that moves goes with D's batch, to which penalties belong.
            return {**batch, **self._moving_weights}, ()
        if net != "generator":
            return batch, ()
        due = find_due_penalties(self.experiment.generator_penalties, self._state.generator_updates)
        if any(each.penalty.needs_noise for each in due):
            batch = {**batch, NOISE: self._draw_noise(batch)}
        return {**batch, **self._bring_numbers(due)}, due

    def _step_optimizer(self, name: str, scaler: torch.amp.GradScaler) -> None:
        """Take an optimizer's step, outside of graphs where it keeps numbers on the host."""
        optimizer = self._state.optimizers[name]
        if is_capturable(optimizer):
            with self._state.rate_tensors.lend(name, optimizer):
                scaler.step(optimizer)
        else:
            gradients = {param: param.grad for group in optimizer.param_groups for param in group["params"]}
            self._host.call_between(functools.partial(_step_with_gradients, optimizer, scaler, gradients))

    def _bring_numbers(self, due: Sequence[DueGeneratorPenalty]) -> dict[str, Tensor]:
        """Return what moves of generator penalties, 0-dim: a captured or compiled step is the same for all values."""
        numbers = {}
        for name, penalty in due:
            numbers[FACTOR + name] = self._bring_factor(penalty)
            # Its value is brought; to ask whether there is one is no reading of it.
            if inspect.getattr_static(penalty, "memory", None) is not None:
                (numbers[MEMORY + name],) = self._host.bring(functools.partial(_list_memory, penalty))
        return numbers

    def _draw_noise(self, batch: TensorBatch) -> Tensor:
        """Draw noise (N, C, h, w) from N(0, 1) for the generator penalties of a batch, like latents."""
        # The noise of the whole batch, of which each rank takes its rows.
        rows = len(next(rows for rows in batch.values() if rows is not None and rows.dim() > 0))
        stage = self.stage
        shape = (rows * distributed.world_size(), stage.image_channels, stage.height, stage.width)

        # The names of its seed follow the clock of the step, also where the step is replayed.
        seed = self.experiment.seed
        start = self._start
        state = self._state
        updates_before = state.generator_updates - start.generator_updates
        drawn_before = self.drawn

        def draw() -> list[Tensor]:
            update = start.generator_updates + updates_before
            names = (update, *state.make_seed_names(drawn_before))
            generator = torch_generator(seed, "generator penalties", *names)
            return [_take_own_rows(torch.randn(shape, generator=generator))]

        (noise,) = self._host.bring(draw)
        return noise

    def _differentiate(
        self,
        net: str,
        terms: Terms | EncoderTerms,
        batch: TensorBatch,
        scaler: torch.amp.GradScaler,
        due: tuple[DueGeneratorPenalty, ...],
    ) -> Differentiated:
        """Leave the gradient of the terms' sum, times the scale, in the parameters; return what `minimise` returns."""
        # Gradients of slices add up: each slice counts by its share of the batch.
        count = self.experiment.count_micro_batches(self.stage, self.local_batch)
        factor = None
        if count > 1 or scaler.is_enabled():
            factor = scaler.scale(torch.full((), 1 / count, device=self._state.device))

        results = []
        for piece in slice_batch(batch, count):
            work = Work(net, terms, piece, self.alpha, factor, due)
            if self._compiler is None:
                results.append(self._run_backward(work))
            else:
                results.append(self._compiler(work, self._run_backward))

        # What comes back is what the whole batch would have given.
        if count == 1:
            return results[0]
        losses = average_slices([result[0] for result in results])
        kept = merge_slices([result[1] for result in results])
        return losses, kept

    def _run_backward(self, work: Work) -> Differentiated:
        with self.experiment.autocast(self._state.device):
            losses, kept = compute_terms(self.experiment, self._state, work)
            wrong = describe_wrong_terms(losses, f"the function of the {work.net}'s terms")
            if wrong is not None:
                raise TypeError(wrong)
        objective = sum_losses(losses)
        if work.factor is not None:
            objective = objective * work.factor
        torch.autograd.backward(objective)
        return _detach(losses), _detach(kept)


def _take_own_rows(batch: Tensor) -> Tensor:
    """Return this rank's rows of a batch."""
    if distributed.world_size() == 1:
        return batch
    return close_gaps(batch[distributed.rank() :: distributed.world_size()])


def _set_optimizer_to_clock(name: str, state: TrainState) -> None:
    """Set what moves of an optimizer to the clock, before a step."""
    optimizer = state.optimizers[name]
    set_to_clock(name, optimizer, state.position)
    state.rate_tensors.write(name, optimizer)


def _step_with_gradients(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, gradients: Mapping[nn.Parameter, Tensor | None]
) -> None:
    """Take an optimizer's step on gradients, which need not be those that the parameters have by now."""
    for param, gradient in gradients.items():
        param.grad = gradient
    scaler.step(optimizer)


def _list_memory(penalty: GeneratorPenalty) -> list[Tensor]:
    memory: Any = penalty
    return [memory.memory]


def compute_terms(experiment: Experiment, state: TrainState, work: Work) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the losses and kept tensors of a pass, with the terms of its generator penalties."""
    G, D = make_network_calls(experiment, state, work.alpha)
    terms = _bind_encoder(state, work)
    if not work.penalties:
        return terms(G, D, work.batch)
    recorder = RecordingGenerator(state.generator, work.alpha.get("generator"))
    return compute_penalised_terms(terms, recorder, D, work.batch, work.penalties)


def _bind_encoder(state: TrainState, work: Work) -> Terms:
    """Return the terms of a pass as a function of G, D and the batch."""
    terms: Any = work.terms
    encoder = state.encoder
    if encoder is None:
        bound: Terms = terms
        return bound
    # The old paths of E and of D fade alike.
    alpha = work.alpha.get("discriminator")

    def encode(images: Tensor) -> Tensor:
        codes: Tensor = encoder(images, alpha)
        return codes

    return lambda G, D, batch: terms(G, D, encode, batch)


def make_network_calls(
    experiment: Experiment, state: TrainState, alpha: Mapping[str, Tensor]
) -> tuple[GeneratorCall, DiscriminatorCall]:
    """Return both networks as `terms` call them: at an alpha, and the discriminator behind the augmentation.

    Args:
        experiment: The chosen components and settings.
        state: The state that holds the networks.
        alpha: 0-dim tensors by path, without the paths that do not fade.
    """

    def call_generator(latents: Tensor, labels: Tensor | None = None) -> Tensor:
        fakes: Tensor = state.generator(latents, labels, alpha.get("generator"))
        return fakes

    return call_generator, _AugmentedDiscriminator(experiment, state, alpha.get("discriminator"))


class _AugmentedDiscriminator:
    """The discriminator behind the augmentation, at an alpha."""

    def __init__(self, experiment: Experiment, state: TrainState, alpha: Tensor | None) -> None:
        self._augmentation = experiment.augmentation
        self._net = state.discriminator
        self._alpha = alpha
        # An augmentation's random numbers would not be those that each batch alone would have drawn.
        self.separates_batches = self._augmentation is None and self._net.separates_batches()

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Scores:
        if self._augmentation is not None:
            images = self._augmentation(images)
        scores: Scores = self._net(images, labels, self._alpha)
        return scores


def _require_known(argument: str, name: str, names: Collection[str]) -> None:
    """Check the name of a network or an optimizer that an update gives to `minimise`.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in names:
        raise ValueError(
            f"ctx.minimise got the {argument} {name!r}{suggest(did_you_mean(str(name), names))}; there are "
            f"{', '.join(names)}"
        )


def _average_over_processes(
    moving: GrowingNetwork, fixed: Iterable[GrowingNetwork], measured: Iterable[Tensor]
) -> None:
    """Replace gradients, measured numbers and moving statistics by their means over all processes.

    Args:
        moving: The network that learns.
        fixed: The other networks, whose statistics move where they are in training mode.
        measured: Losses, and what penalties measured.
    """
    gradients = [param.grad for param in moving.parameters() if param.grad is not None]
    buffers = [buffer for each in (moving, *fixed) for buffer in each.list_moving_buffers()]
    statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
    distributed.average([*gradients, *measured, *statistics])


def _set_requires_grad(weights: Iterable[nn.Parameter], value: bool) -> None:
    for param in weights:
        param.requires_grad_(value)


def _clear_gradients(optimizer: torch.optim.Optimizer, moving: GrowingNetwork) -> None:
    """Clear the gradients of all that an optimizer holds, and of weights of the network that it does not hold.

    Torch's own `zero_grad` adds profiler marks, which cost more than the clearing.
    """
    for param in moving.weights():
        param.grad = None
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = None


def describe_wrong_terms(terms: object, owner: str) -> str | None:
    """Return what is wrong with the terms that a network minimises, as a sentence; None where nothing is.

    Args:
        terms: The terms.
        owner: Who returned them, as the sentence begins.
    """
    # They are tensors by name.
    if not isinstance(terms, Mapping) or not terms:
        value = "an empty dict" if terms == {} else f"a {type(terms).__name__}"
        return f"{owner} returned {value}, and must return a dict of 0-dim tensors by name"
    for name, value in terms.items():
        if describe_wrong_tag(f"Loss/{name}") is not None:
            return (
                f"{owner} returned the term {name!r}, whose name is no part of a tag: leave out spaces, as in Loss/name"
            )
        if not isinstance(value, Tensor):
            return f"{owner} returned a {type(value).__name__} as the term {name!r}, which must be a 0-dim tensor"
        if value.dim() > 0:
            shape = tuple(value.shape)
            return f"{owner} returned a tensor {shape} as the term {name!r}, which must be 0-dim, such as a mean"

    # At least one of them depends on weights.
    if not any(value.requires_grad for value in terms.values()):
        return f"{owner} returned terms without gradients: nothing would be learnt from them"
    return None


def sum_losses(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of 0-dim tensors."""
    return torch.stack(list(losses.values())).sum()


def average_each(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return 0-dim losses: the mean of each value that an update computed several times, the others as they are."""
    return {tag: value if value.dim() == 0 else value.mean() for tag, value in losses.items()}


def _detach(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}
