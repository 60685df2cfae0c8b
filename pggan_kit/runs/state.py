"""Hold the state of training: networks, averages of G, optimizers and the clock, all of which a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit.components import GeneratorPenalty, Penalty, Piece
from pggan_kit.errors import PluginError, RunError, SettingError, did_you_mean, suggest
from pggan_kit.experiment import Experiment
from pggan_kit.growth.averages import PowerAverage, list_names
from pggan_kit.growth.fade import ENCODER, NETS
from pggan_kit.growth.learning import SplitOptimizer, ask_factors, make_frozen_error
from pggan_kit.growth.moving_settings import check_over_schedule
from pggan_kit.growth.networks import Encoder, Generator, GrowingNetwork
from pggan_kit.runs.average import (
    OLD,
    calibrate_batch_norm,
    compute_shares,
    draw_calibration_labels,
    list_copies,
)
from pggan_kit.runs.average_snapshots import AverageSnapshot
from pggan_kit.runs.host_copies import Copier, PendingCopy, copy_tensors
from pggan_kit.runs.learning_rate_tensors import RateTensors, make_capturable
from pggan_kit.runs.network_building import N, build_discriminator, build_encoder, build_generator, place_network
from pggan_kit.runs.optimizer_state import leave_out, load_optimizer
from pggan_kit.runs.snapshot import SavedMeans, Snapshot
from pggan_kit.runs.snapshot_loading import (
    load_pieces,
    load_weights,
    match_averages,
    match_strides,
    refuse_unfit_snapshot,
    require_same_nets,
    require_stage_in_schedule,
)
from pggan_kit.runs.tick_means import TickMeans
from pggan_kit.schedule import FADE, STABLE, Position, Schedule, Stage


class TrainState:
    """Networks, averages of G, optimizers and the clock.

    Attributes:
        images: reals drawn so far, over all ranks: the one clock.
        steps: iterations so far.
        starts: the clock at which each stage so far began.
        discriminator_updates: updates of D in this stage so far; `StepContext.minimise` counts them.
        generator_updates: updates of G in this stage so far, counted likewise.
        last_tick: the clock at the last tick.
        phase: `fade` or `stable`, the stage's phase; it changes when the loop acts on it, not by the clock alone.
        generator, discriminator: the networks, at the size they have grown to.
        encoder: the encoder, at the generator's size; None where the run trains none.
        optimizers: the optimizers, by the names that the update gave them.
        rate_tensors: their learning rates on the device, for steps that may be captured.
        scalers: loss scalers, by the network they move; they do nothing unless `train.precision` is `float16`.
        means: the means of the running tick.
        dropped: steps that were left out because a loss or gradient was not finite.
        rewinds: returns to an earlier checkpoint for the same reason; each return draws other latents.
        warned_stage: the last stage with a warning about collapse; -1 for none.
        ended: whether a component has ended the run before its budget was spent.
        stepped: names of the optimizers that this process has stepped in the current stage.
        best: the best value of `train.keep_best` in its stage so far; see `Snapshot`.
    """

    def __init__(self, experiment: Experiment, schedule: Schedule, device: torch.device) -> None:
        self.experiment = experiment
        self.schedule = schedule
        self.device = device

        # The clock and the counters.
        self.images = 0
        self.steps = 0
        self.starts = [0]
        self.discriminator_updates = 0
        self.generator_updates = 0
        self.last_tick = 0
        self.phase = STABLE
        self.means = TickMeans()
        self.dropped = 0
        self.rewinds = 0
        self.warned_stage = -1
        self.ended = False
        self.stepped: set[str] = set()
        self.best: Mapping[str, Any] = {}

        # The networks and the averages, at the base stage.
        if any(True for _ in experiment.image_resampling.up(1, 2).parameters()):
            raise SettingError("train.image_resampling", "must have no parameters: it also resamples reals")
        self._image_pair: tuple[Stage, tuple[nn.Module, nn.Module]] | None = None
        base = schedule.stages[0]
        self.generator = self._place(build_generator(experiment, base))
        self._averages = {
            name: self._place(build_generator(experiment, base)).requires_grad_(False)
            for name in list_names(experiment.averages)
        }
        self._calibrated: set[str] = set()
        self._calibration_labels: Tensor | None = None
        self.discriminator = self._place(build_discriminator(experiment, base))
        self._grow_discriminator(bridged=False)
        self.encoder: Encoder | None = None
        if experiment.encoder_architecture is not None:
            self.encoder = self._place(build_encoder(experiment, base))

        # What trains them.
        uses_float16 = experiment.precision == "float16"
        self.scalers = {name: torch.amp.GradScaler(device.type, enabled=uses_float16) for name in experiment.nets}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.rate_tensors = RateTensors(device)
        self._splits: list[SplitOptimizer] = []
        self._factors: list[float] | None = None
        self.renew_optimizers()
        self._check_over_schedule()

    def _check_over_schedule(self) -> None:
        """Check the values of settings that move, at places all over the planned schedule."""
        experiment = self.experiment
        penalties: list[Penalty | GeneratorPenalty] = [*experiment.loss.penalties, *experiment.generator_penalties]
        checks: list[Callable[[Position], object]] = [
            partial(compute_shares, average, age=OLD, images=1) for average in experiment.averages
        ]
        for component in (experiment.update, experiment.augmentation):
            check_at: Callable[[Position], object] | None = getattr(component, "check_at", None)
            if check_at is not None:
                checks.append(check_at)
        check_over_schedule(self.schedule, experiment.update, penalties, self.optimizers, checks)

    @property
    def stage(self) -> Stage:
        """Return the stage that the networks have grown to."""
        return self.schedule.stages[len(self.starts) - 1]

    @property
    def position(self) -> Position:
        """Return the place on the clock."""
        return self.schedule.at(self.images, self.starts)

    @property
    def is_over(self) -> bool:
        """Return whether the run is complete: its budget is spent, or a component has ended it."""
        return self.ended or self.images >= self.schedule.total

    @property
    def fading(self) -> bool:
        """Return whether a network has its old path beside the new one."""
        return self.generator.bridge is not None or self.discriminator.bridge is not None

    def make_seed_names(self, drawn: int = 0) -> tuple[int | str, ...]:
        """Return the names that, after their purpose, seed the random numbers of a place on the clock.

        Args:
            drawn: reals that the current step has drawn; the clock does not count them yet.
        """
        names: tuple[int | str, ...] = (self.images + drawn,)
        if self.rewinds:
            names = (*names, "rewind", self.rewinds)
        return names

    @property
    def networks(self) -> dict[str, GrowingNetwork]:
        """Return the networks that learn, by name: `generator`, `discriminator` and, where there is one, `encoder`."""
        networks: dict[str, GrowingNetwork] = {"generator": self.generator, "discriminator": self.discriminator}
        if self.encoder is not None:
            networks[ENCODER] = self.encoder
        return networks

    def network(self, name: str) -> GrowingNetwork:
        """Return the network of this name, one of `networks`."""
        return self.networks[name]

    def grow(self, bridged: Mapping[str, bool]) -> None:
        """Begin the next stage here: grow all networks, with bridges for those named in `bridged`.

        The encoder has one where the discriminator has.
        """
        self.starts.append(self.images)
        self.discriminator_updates = 0
        self.generator_updates = 0
        self.stepped = set()
        self.phase = STABLE
        if self.stage.fade_images > 0:
            self.phase = FADE
        self._grow_networks(bridged)

    def end_fade(self) -> None:
        """Drop the bridges."""
        for net in (*self.networks.values(), *self._averages.values()):
            net.end_fade()
        self._calibrated.clear()

    def find_image_pair(self, stage: Stage) -> tuple[nn.Module, nn.Module]:
        """Return the modules that enlarge and reduce a stage's images by its factor, on the device.

        They are made once for each stage: a step that made them would copy their filters each time, and could not be
        part of a CUDA graph.
        """
        if self._image_pair is None or self._image_pair[0] != stage:
            resampling = self.experiment.image_resampling
            up = resampling.up(stage.image_channels, stage.factor).to(self.device)
            down = resampling.down(stage.image_channels, stage.factor).to(self.device)
            self._image_pair = stage, (up, down)
        return self._image_pair[1]

    def renew_optimizers(self, forgotten: Set[nn.Parameter] = frozenset()) -> None:
        """Ask the update for optimizers that fit the networks; parameters that stay keep their state.

        Args:
            forgotten: the parameters that begin without state all the same.
        """
        before = self.optimizers
        self._build_optimizers()

        # State belongs to parameters, whatever group they are in now.
        for name, optimizer in self.optimizers.items():
            if name not in before:
                continue
            kept = before[name].state
            for group in optimizer.param_groups:
                for param in group["params"]:
                    if param in kept and param not in forgotten:
                        optimizer.state[param] = kept[param]
        self.set_learning_factors()

    def _build_optimizers(self) -> None:
        former = self.optimizers.values()

        # An update may go by `requires_grad`, which the last step set for the network that it moved.
        for net in self.networks.values():
            net.reset_requires_grad()

        # The optimizers of both networks, and of the encoder where there is one.
        built: object = self.experiment.update.optimizers(
            self.experiment, self.stage, self.generator, self.discriminator
        )
        self.optimizers = _require_optimizers(built, "optimizers")
        if self.encoder is not None:
            update: Any = self.experiment.update
            built = update.encoder_optimizers(self.experiment, self.stage, self.encoder)
            further = _require_optimizers(built, "encoder_optimizers")
            for name in further:
                if name in self.optimizers:
                    raise PluginError(
                        f"train.update: optimizers() and encoder_optimizers() both returned an optimizer {name!r}: "
                        "rename one of them"
                    )
            self.optimizers.update(further)
        self._require_whole_optimizers(former)
        for net in self.networks.values():
            if net.frozen:
                net.freeze(net.frozen)

        # They are prepared for captured steps, scaled losses and the factors of pieces.
        for optimizer in self.optimizers.values():
            make_capturable(optimizer, self.device)
        self._require_scalable()
        self._splits = [SplitOptimizer(optimizer, name) for name, optimizer in self.optimizers.items()]
        self._factors = None

    def _require_whole_optimizers(self, former: Collection[torch.optim.Optimizer]) -> None:
        """Check that the optimizers are new, and hold all weights that learn.

        Args:
            former: Those that were built before.

        Raises:
            PluginError: One was built before, or a weight that learns is in none.
        """
        for name, optimizer in self.optimizers.items():
            if any(optimizer is each for each in former):
                raise PluginError(
                    f"train.update: the optimizer {name!r} is the one that was built before, for other weights: "
                    "build() must return a new one each time; the core carries over the state of weights that stay"
                )

        groups = [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]
        held = {param for group in groups for param in group["params"]}
        for net in self.networks.values():
            for name, param in net.named_parameters():
                if param not in held and not net.is_constant(param):
                    raise PluginError(
                        f"train.update: no optimizer holds the {net.kind}'s weight {name}, which would never learn: "
                        "give all of its parameters() to an optimizer, whose build() must hold all that it is given"
                    )

    def set_learning_factors(self) -> bool:
        """Let each piece learn as fast as the growth policy says at this place on the clock.

        To be called whenever the clock has moved, and before the state is saved: what an optimizer holds then depends
        on the saved place alone.

        Returns:
            Whether other pieces are frozen than before.

        Raises:
            TrainingError: the policy gave something that is no factor, or freezes a whole network.
        """
        policy = self.experiment.growth
        if policy is None:
            return False
        built = [piece for net in self.networks.values() for piece in net.pieces()]
        pieces = [each.piece for each in built]
        factors = ask_factors(policy, pieces, self.position)
        if factors == self._factors:
            return False
        self._factors = factors

        # Frozen pieces get no gradients and keep their weights.
        frozen = frozenset(piece for piece, factor in zip(pieces, factors, strict=True) if factor == 0)
        changed = frozen != frozenset().union(*(net.frozen for net in self.networks.values()))
        if changed:
            self._freeze(frozen)

        # All others that learn at another rate get groups of their own in the optimizers.
        slowed = {}
        for each, factor in zip(built, factors, strict=True):
            if factor != 1.0:
                slowed.update(dict.fromkeys(each.weights, factor))
        for split in self._splits:
            split.split(slowed)
        return changed

    def _freeze(self, frozen: frozenset[Piece]) -> None:
        """Freeze pieces in the networks and in the averages, and let all others learn."""
        # What is frozen in an average is not calibrated any more.
        if frozen - self.generator.frozen:
            for name in self._averages:
                self.read_average(name)
        for net in (*self.networks.values(), *self._averages.values()):
            net.freeze({piece for piece in frozen if piece.net == net.kind})
            if not net.learning_weights():
                raise make_frozen_error(net.kind, self.position)

    def save_optimizers(self) -> dict[str, dict[str, Any]]:
        """Return the state of optimizers, as it is whatever the growth policy, without what they do not read."""
        return {
            name: leave_out(optimizer, split.save())
            for (name, optimizer), split in zip(self.optimizers.items(), self._splits, strict=True)
        }

    def _require_scalable(self) -> None:
        """Check that optimizers can leave out a step whose gradients overflowed in float16, without a wait for it."""
        if self.experiment.precision != "float16":
            return
        for name, optimizer in self.optimizers.items():
            if not getattr(optimizer, "_step_supports_amp_scaling", False):
                raise ValueError(
                    f"train.precision 'float16' needs optimizers that take `found_inf`, as fused ones of torch do, and "
                    f"the optimizer {name} is a {type(optimizer).__name__} that does not: choose another, or 'bfloat16'"
                )

    @property
    def ema(self) -> Generator:
        """Return the first average of the generator's weights; see `read_average`."""
        return self.read_average()

    def read_average(self, name: str | None = None) -> Generator:
        """Return an average of the generator's weights, which grows along and lasts through all stages.

        Its batch normalisation fits its own features, not those of the generator; it is calibrated when the average is
        read. Where the settings ask for a copy and not for an average, it has the generator's.

        Args:
            name: its name; None for the first of `train.averages`.

        Raises:
            RunError: there is no such average.
        """
        if name is None:
            name = next(iter(self._averages))
        if name not in self._averages:
            names = list(self._averages)
            raise RunError(
                f"train.averages has no average {name}{suggest(did_you_mean(name, names))}; it has {', '.join(names)}"
            )

        # Calibration costs passes through the network: it is put off until somebody reads the average.
        net = self._averages[name]
        if name not in self._calibrated and net.find_batch_norms() and name not in self._list_copies():
            if self._calibration_labels is None:
                self._calibration_labels = draw_calibration_labels(self.experiment, self.stage)
            calibrate_batch_norm(net, self._calibration_labels, self.experiment.seed, self.device)
        self._calibrated.add(name)
        return net

    def _list_copies(self) -> list[str]:
        """Return the averages that are copies of G here: as after a load, which knows this place alone."""
        return list_copies(self.experiment.averages, self.position)

    @torch.no_grad()
    def update_averages(self, images: int) -> None:
        """Update the averages after one update of the generator: `average += share * (generator - average)`.

        Args:
            images: reals that the update drew, over all ranks; the clock counts them already.
        """
        before = self.images - images
        position = self.schedule.at(before, self.starts)
        copies = self._list_copies()
        self._calibrated.clear()

        # Each piece by its own age. A frozen one stays, but in power functions, which are sums over all steps.
        for average in self.experiment.averages:
            is_power = isinstance(average, PowerAverage)
            for birth, currents in self.generator.group_weights_by_birth(is_power).items():
                shares = compute_shares(average, position, before - self.starts[birth], images)
                for name, share in zip(average.names, shares, strict=True):
                    own = self._averages[name].group_weights_by_birth(is_power)[birth]
                    torch._foreach_lerp_(own, currents, share)
        for name in copies:
            if self.generator.frozen:
                own_weights = list[Tensor](self._averages[name].weights())
                torch._foreach_copy_(own_weights, list[Tensor](self.generator.weights()))

        # Buffers are copied as they are.
        for name, net in self._averages.items():
            has_statistics = name in copies
            average_buffers = net.list_followed_buffers(statistics=has_statistics)
            current_buffers = self.generator.list_followed_buffers(statistics=has_statistics)
            for kept, current in zip(average_buffers, current_buffers, strict=True):
                kept.copy_(current)

    def take_average_snapshot(self, averages: Sequence[PowerAverage], copier: Copier) -> PendingCopy[AverageSnapshot]:
        """Return a copy of power functions among the averages as they are now, on the CPU.

        Args:
            averages: those of the experiment's averages that are copied.
            copier: the copier for the device of the state.
        """
        exponents: dict[str, float] = {}
        weights: dict[str, dict[str, Tensor]] = {}
        for average in averages:
            for name, exponent in zip(average.names, average.exponents, strict=True):
                exponents[name] = float(exponent)
                weights[name] = copy_tensors(self._averages[name].name_weights(), copier.begin)
        return PendingCopy(AverageSnapshot(self.images, exponents, weights), copier.mark())

    def take_snapshot(self) -> Snapshot:
        """Return the whole state, without copies of tensors; what belongs to the run is left out."""
        return Snapshot(
            images=self.images,
            steps=self.steps,
            starts=tuple(self.starts),
            discriminator_updates=self.discriminator_updates,
            generator_updates=self.generator_updates,
            last_tick=self.last_tick,
            phase=self.phase,
            bridged={name: self.network(name).bridge is not None for name in NETS},
            generator=self.generator.state_dict(),
            discriminator=self.discriminator.state_dict(),
            encoder={} if self.encoder is None else self.encoder.state_dict(),
            # Each is read, so that its batch normalisation is calibrated.
            averages={name: self.read_average(name).state_dict() for name in self._averages},
            optimizers=self.save_optimizers(),
            optimizer_classes={name: type(optimizer).__qualname__ for name, optimizer in self.optimizers.items()},
            scalers={name: scaler.state_dict() for name, scaler in self.scalers.items() if scaler.is_enabled()},
            means=SavedMeans(self.means.sums, dict(self.means.counts)),
            dropped=self.dropped,
            rewinds=self.rewinds,
            warned_stage=self.warned_stage,
            ended=self.ended,
            calibration_labels=self._calibration_labels,
            best=self.best,
        )

    def load_snapshot(
        self, saved: Snapshot, other_optimizers: bool = False, own_settings: bool = False
    ) -> dict[str, str]:
        """Load a snapshot, into a new state of the same experiment.

        Args:
            saved: the snapshot, as `take_snapshot` returned it.
            other_optimizers: whether optimizers may be of other classes or have other parameters; these start from
                scratch.
            own_settings: whether optimizers keep the settings of this experiment (rates, decays) instead of the
                snapshot's.

        Returns:
            Optimizers that start from scratch, and why.

        Raises:
            RunError: a checkpoint of other networks.
        """
        with refuse_unfit_snapshot():
            return self._load(saved, other_optimizers, own_settings)

    def _load(self, saved: Snapshot, other_optimizers: bool, own_settings: bool) -> dict[str, str]:
        # The networks grow to the stage; only the last may have its old path.
        last = saved.stage
        require_same_nets(saved, self.encoder is not None)
        require_stage_in_schedule(saved, self.schedule)
        for index in range(1, last + 1):
            self.starts = [0] * (index + 1)
            bridged: Mapping[str, bool] = {}
            if index == last:
                bridged = saved.bridged
            self._grow_networks(bridged)

        # The clock and the counters.
        self.starts = list(saved.starts)
        self.images = saved.images
        self.steps = saved.steps
        self.discriminator_updates = saved.discriminator_updates
        self.generator_updates = saved.generator_updates
        self.last_tick = saved.last_tick
        self.phase = saved.phase
        self.dropped = saved.dropped
        self.rewinds = saved.rewinds
        self.warned_stage = saved.warned_stage
        self.ended = saved.ended
        self.best = dict(saved.best)

        # The weights; the averages were calibrated when they were saved.
        load_weights(self.generator, saved.generator, "generator")
        load_weights(self.discriminator, saved.discriminator, "discriminator")
        if self.encoder is not None:
            load_weights(self.encoder, saved.encoder, "encoder")
        for name, origin in match_averages(self.experiment.averages, saved).items():
            load_weights(self._averages[name], saved.averages[origin], f"average {origin}")
        self._calibrated = set(self._averages)
        self._calibration_labels = saved.calibration_labels

        # What trains the networks, and the means of the running tick.
        self._build_optimizers()
        reset_optimizers = self._load_optimizers(saved, other_optimizers, own_settings)
        self.set_learning_factors()
        for name, scaler in saved.scalers.items():
            self.scalers[name].load_state_dict(scaler)
        self.means.sums = {name: value.to(self.device, copy=True) for name, value in saved.means.sums.items()}
        self.means.counts = dict(saved.means.counts)
        return reset_optimizers

    def replace_pieces(self, saved: Snapshot) -> None:
        """Replace the pieces of the stages up to a snapshot's by the snapshot's; later pieces stay.

        The layers to and from the image are replaced where the networks have grown no further than the snapshot's.
        Optimizers forget the moments of the parameters that were replaced.

        Raises:
            RunError: a piece is of another architecture; the message names it.
        """
        pairs: list[tuple[str, GrowingNetwork, Mapping[str, Tensor]]] = [
            ("generator", self.generator, saved.generator),
            ("discriminator", self.discriminator, saved.discriminator),
        ]
        require_same_nets(saved, self.encoder is not None)
        if self.encoder is not None:
            pairs.append((ENCODER, self.encoder, saved.encoder))
        for name, origin in match_averages(self.experiment.averages, saved).items():
            pairs.append((f"average {origin}", self._averages[name], saved.averages[origin]))
        for label, net, weights in pairs:
            replaced = load_pieces(net, weights, label)
            for optimizer in self.optimizers.values():
                for param in replaced:
                    optimizer.state.pop(param, None)
        # Their batch normalisation was calibrated for features of other pieces.
        self._calibrated.clear()

    def _load_optimizers(self, saved: Snapshot, other_optimizers: bool, own_settings: bool) -> dict[str, str]:
        """Load the state of optimizers; return those that start from scratch, and why."""
        reset: dict[str, str] = {}
        for name, optimizer in self.optimizers.items():
            own_class = type(optimizer).__qualname__
            noted_class = saved.optimizer_classes.get(name)
            if noted_class != own_class:
                if not other_optimizers:
                    there = f"the checkpoint's optimizer {name} is {noted_class}"
                    if noted_class is None:
                        there = f"the checkpoint has no optimizer {name}"
                    raise RunError(
                        f"{there}, and this config's is {own_class}: change it back, or begin a new run from this one: "
                        "pggan-kit train CONFIG --from RUN"
                    )
                reset[name] = f"{noted_class} there, {own_class} now"
                if noted_class is None:
                    reset[name] = "that run kept no state of it"
                continue

            own_groups = [_settings_of_group(group) for group in optimizer.param_groups]
            own_capturable = [group.get("capturable") for group in optimizer.param_groups]
            try:
                # A copy, because torch would go on working in the tensors that it is given.
                load_optimizer(optimizer, copy_tensors(saved.optimizers[name]))
            except ValueError as error:
                if not other_optimizers:
                    raise RunError(f"the checkpoint's optimizer {name} does not fit: {error}") from error
                reset[name] = "it has other parameters"
                continue

            match_strides(optimizer)
            # Where the run was saved, there may have been another kind of device.
            for group, capturable in zip(optimizer.param_groups, own_capturable, strict=True):
                if capturable is not None:
                    group["capturable"] = capturable
            make_capturable(optimizer, self.device)
            if own_settings:
                for group, settings in zip(optimizer.param_groups, own_groups, strict=True):
                    # A rate that moved there, or was slowed down, leaves nothing behind here.
                    params = group["params"]
                    group.clear()
                    group.update({"params": params, **settings})
        return reset

    def _grow_networks(self, bridged: Mapping[str, bool]) -> None:
        averages = self._averages.values()
        for generator in (self.generator, *averages):
            generator.grow(self.stage, bridged.get("generator", False))
            self._place(generator)
        for average in averages:
            average.requires_grad_(False)
        self._grow_discriminator(bridged.get("discriminator", False))
        if self.encoder is not None:
            self.encoder.grow(self.stage, bridged.get("discriminator", False))
            self._place(self.encoder)
        self._calibrated.clear()

    def _grow_discriminator(self, bridged: bool) -> None:
        """Grow D to its stage, which need not be that of G, and prepare it for images of G's size."""
        ahead: list[Stage] = []
        stage: Stage | None = self.stage.of("discriminator")
        while stage is not None and stage.index > self.discriminator.stage.index:
            ahead.append(stage)
            stage = stage.previous
        for stage in reversed(ahead):
            self.discriminator.grow(stage, bridged)
        self.discriminator.expect_images_of(self.stage)
        self._place(self.discriminator)

    def _place(self, net: N) -> N:
        return place_network(net, self.experiment, self.device)


def _require_optimizers(built: object, method: str) -> dict[str, torch.optim.Optimizer]:
    """Return what a method of an update returned, `optimizers` or `encoder_optimizers`.

    Raises:
        PluginError: It is no dict of torch optimizers.
    """
    if not isinstance(built, dict) or not built:
        raise PluginError(
            f"train.update: {method}() returned {built!r:.100}, and must return a dict of torch optimizers by name"
        )
    for name, optimizer in built.items():
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise PluginError(
                f"train.update: {method}() returned a {type(optimizer).__name__} under {name!r}, which must be a "
                "torch.optim.Optimizer: what does the build() of that optimizer return?"
            )
    return built


def _settings_of_group(group: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in group.items() if name != "params"}
