"""Get the generator of a run, as it is now, at a checkpoint or at a stage's end, and draw its images."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pggan_kit.errors import ConfigError, RunError, SettingError, check_at_least, check_between, check_choice
from pggan_kit.experiment import NOTHING
from pggan_kit.growth.fade import Fade
from pggan_kit.layers.value_maps import BYTES
from pggan_kit.pictures.channels import PictureSettings
from pggan_kit.runs.average import calibrate_batch_norm, draw_calibration_labels, list_copies
from pggan_kit.runs.checkpoint_identity import Identity, require_branch_fits, require_same_networks
from pggan_kit.runs.checkpoints import Checkpoints, Entry
from pggan_kit.runs.network_building import build_generator, place_network
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.snapshot_loading import load_weights, refuse_unfit_snapshot, require_stage_in_schedule
from pggan_kit.runs.state import TrainState
from pggan_kit.system.seeding import fork_random_numbers, torch_generator

if TYPE_CHECKING:
    from pggan_kit.experiment import Experiment
    from pggan_kit.growth.networks import Generator
    from pggan_kit.plugin_host.hooks import Hooks
    from pggan_kit.schedule import Schedule, Stage

FADING = "fade"
"""Name of the last checkpoint within a fade, whose generator has the old path beside the new one."""

CHECKPOINTS = ("last", "best", FADING)
"""Names of checkpoints that a generator may be loaded from."""

CHUNK = 256
"""Maximum number of images that are drawn at once."""

CENTRE_COUNT = 10_000
"""Number of latents whose styles' mean truncation pulls styles towards."""


class StyleMixing(NamedTuple):
    """The styles that a network with styles reads from other latents (Karras et al. 2019, section 3.1).

    Attributes:
        latents: other latents (N, Z) ~ N(0, 1).
        first_layer: number, from 0, of the first layer that reads their styles; all later layers do. Of a network with
            fewer layers none does.
    """

    latents: Tensor
    first_layer: int


def check_inputs(net: nn.Module, latents: object, labels: object, size: int, classes: int) -> None:
    """Check what a generator is given.

    Args:
        net: the generator's network.
        latents: a tensor (N, Z) of the type of its weights.
        labels: a tensor (N,) of int64, or None where the generator is unconditional.
        size: Z.
        classes: number of classes that it is conditioned on; 0 for none.

    Raises:
        SettingError: they are something else. Labels on another device than the CPU may be no classes: reading them
            would wait for it.
    """
    _check_latents(net, latents, size)
    assert isinstance(latents, Tensor)
    if classes:
        _check_labels(labels, len(latents), classes)
    elif labels is not None:
        raise SettingError("labels", "must be left out: the generator is unconditional")


def _check_latents(net: nn.Module, latents: object, size: int) -> None:
    """Check that latents are a tensor (N, Z) of the type of a network's weights.

    Raises:
        SettingError: They are not.
    """
    if not isinstance(latents, Tensor):
        raise SettingError("latents", f"must be a tensor (N, {size}), not a {type(latents).__name__}")
    if latents.dim() != 2 or latents.shape[1] != size or not latents.is_floating_point():
        shape = tuple(latents.shape)
        raise SettingError("latents", f"must be a tensor (N, {size}) of floats, and are {shape} of {latents.dtype}")
    dtypes = {weight.dtype for weight in net.parameters()}
    if dtypes and latents.dtype not in dtypes:
        wanted = next(net.parameters()).dtype
        raise SettingError(
            "latents",
            f"must be of {wanted}, as the generator's weights are, and are of {latents.dtype}: give them .to({wanted})",
        )


def _check_labels(labels: object, count: int, classes: int) -> None:
    """Check that labels are a tensor (N,) of int64 with numbers of classes.

    Raises:
        SettingError: They are not. Values on another device than the CPU are not checked: that would wait for it.
    """
    if not isinstance(labels, Tensor):
        given = "are missing" if labels is None else f"are a {type(labels).__name__}"
        raise SettingError(
            "labels", f"must be a tensor ({count},) of int64 with classes from 0 to {classes - 1}, and {given}"
        )
    if labels.shape != (count,) or labels.dtype != torch.int64:
        shape = tuple(labels.shape)
        raise SettingError(
            "labels", f"must be a tensor ({count},) of int64, one for each latent, and are {shape} of {labels.dtype}"
        )

    if labels.device.type != "cpu":
        return
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong) > 0:
        raise SettingError("labels", f"must be from 0 to {classes - 1}, and one is {int(wrong[0])}")


def _make_share(alpha: object, net: Generator, images: int, device: torch.device) -> Tensor:
    """Return alpha as a network takes it: 0-dim.

    Args:
        alpha: a number in [0, 1], or such a tensor.
        net: the network, which must have an old path.
        images: the clock at which the run had it.
        device: the device of latents.

    Raises:
        SettingError: it is something else. A tensor on another device than the CPU is not read: that would wait for it.
        RunError: the network has no old path.
    """
    if not isinstance(alpha, Tensor):
        # None is no number either, and is not asked for.
        check_between("alpha", alpha, 0, 1)  # type: ignore[arg-type]
        alpha = torch.tensor(float(alpha), device=device)  # type: ignore[arg-type]
    elif alpha.dim() != 0 or not alpha.is_floating_point():
        raise SettingError(
            "alpha", f"must be a number or a 0-dim tensor of floats, and is {tuple(alpha.shape)} of {alpha.dtype}"
        )
    elif alpha.device.type == "cpu":
        check_between("alpha", float(alpha), 0, 1)
    if net.bridge is None:
        raise RunError(f"alpha: {describe_no_old_path(images)}")
    return alpha


def describe_no_old_path(images: int) -> str:
    """Return a sentence that says that the generator at a clock has no old path."""
    return f"the generator at images {images} has no old path to fade from"


class TrainedGenerator(nn.Module):
    """A run's averaged generator, in inference mode.

    Attributes:
        latent_size: Z.
        classes: number of classes it is conditioned on; 0 for none.
        images: the clock at which the run had this generator.
        alpha: the new path's share where it stands within a fade (0-dim, in [0, 1]; may be filled with another), None
            where it has no old path.
        chosen: what it was chosen by among those of a run, where it is the best by `train.keep_best`: `metric`,
            `value`, `images`, `stage`, `size`; empty for others.
        values: map of [-1, 1] to the data's own numbers, which `draw_numbers` gives.
        pictures: how its images are shown.
        class_names: names of the classes by their numbers; empty without names, and in a run's own process.
    """

    alpha: Tensor | None
    chosen: Mapping[str, Any]
    class_names: Sequence[str]

    def __init__(
        self,
        generator: Generator,
        alpha: float,
        classes: int,
        images: int,
        pictures: PictureSettings | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.latent_size = generator.latent_size
        self.classes = classes
        self.images = images
        self.chosen = {}
        self.values = BYTES
        self.pictures = pictures or PictureSettings()
        self.class_names = ()

        # A buffer, so that alpha moves to the device with the weights.
        share = None
        if generator.bridge is not None:
            share = torch.tensor(alpha)
        self.register_buffer("alpha", share)
        self._centre: Tensor | None = None
        self._reads_lengths: bool | None = None
        self.eval().requires_grad_(False)

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        alpha: Tensor | float | None = None,
        truncation: float | None = None,
        mixing: StyleMixing | None = None,
    ) -> Tensor:
        """Return images (N, C, h, w), nominally in [-1, 1].

        Args:
            latents: (N, Z) ~ N(0, 1), of the type of the weights.
            labels: (N,) int64, where the generator is conditional.
            alpha: a number or a 0-dim tensor in [0, 1], instead of the generator's own where it stands within a fade.
            truncation: share psi of each style's distance from the mean style that is kept, in [0, 1]: less variety,
                fewer failures (Karras et al. 2019, section 2 of the appendix). Of a network without styles it is that
                of each latent's distance from the mean latent, which is zero. None for all of it.
            mixing: the styles that are those of other latents; None for none.

        Raises:
            SettingError: `latents`, `labels` or `alpha` are no tensors of these shapes, a label on the CPU is no class
                (others are not read, which would wait for a device), the generator is unconditional and there are
                labels, `mixing` is no `StyleMixing`, or `alpha`, `truncation` or the layer of `mixing` is out of range.
            RunError: there is an alpha, and the generator has no old path.
            ConfigError: the network has no styles, and there is `mixing`, or it reads nothing of a latent but its
                direction.
        """
        # An exporter traces shapes and labels that have no values.
        share = self.alpha
        if isinstance(alpha, Tensor):
            share = alpha
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
            self._require_fitting(latents, labels, mixing)
            if alpha is not None:
                share = _make_share(alpha, self.generator, self.images, latents.device)
        if truncation is None and mixing is None:
            pictures: Tensor = self.generator(latents, labels, share)
            return pictures

        # Styles, if the network has any: mixed first, and then drawn towards the mean one.
        if truncation is not None:
            check_between("truncation", truncation, 0, 1)
        styles = self.generator.map_latents(latents, labels)
        if mixing is not None:
            check_at_least("first_layer", mixing.first_layer, 0, whole=True)
            others = self.generator.map_latents(mixing.latents, labels)
            if styles is None or others is None:
                raise ConfigError(f"{self._describe()} has no styles that could be mixed; leave mixing out")
            styles = torch.cat([styles[:, : mixing.first_layer], others[:, mixing.first_layer :]], 1)

        # Of a network without styles the latents themselves are shortened.
        if styles is None:
            assert truncation is not None
            if not self.can_truncate():
                raise ConfigError(
                    f"truncation shortens latents, and {self._describe()} has no styles and normalises its latents: "
                    "their lengths change nothing; leave it out"
                )
            pictures = self.generator(truncation * latents, labels, share)
            return pictures
        if truncation is not None:
            centre = self._measure_centre(latents).to(styles.dtype)
            styles = torch.lerp(centre, styles, truncation)
        return self.generator.synthesise(latents, labels, share, styles).images

    def _require_fitting(self, latents: Tensor, labels: Tensor | None, mixing: StyleMixing | None) -> None:
        """Check what the generator is given; see `forward`."""
        check_inputs(self.generator, latents, labels, self.latent_size, self.classes)
        if mixing is None:
            return
        if not isinstance(mixing, StyleMixing):
            raise SettingError("mixing", f"must be a StyleMixing, not {mixing!r}")
        check_inputs(self.generator, mixing.latents, labels, self.latent_size, self.classes)

    @torch.no_grad()
    def count_style_layers(self) -> int:
        """Return the number L of layers that read a style; 0 for a network without styles."""
        styles = self.generator.map_latents(*self._draw_probe())
        return 0 if styles is None else styles.shape[1]

    @torch.no_grad()
    def can_truncate(self) -> bool:
        """Return whether truncation changes images: the network has styles, or reads how long its latents are."""
        if self._reads_lengths is None:
            latents, labels = self._draw_probe()
            images = []
            for factor in (1.0, 0.5):
                # Both with the same noise.
                with fork_random_numbers(latents.device, 0):
                    images.append(self.generator(factor * latents, labels, self.alpha))
            self._reads_lengths = not torch.allclose(images[0], images[1], rtol=0, atol=1e-4)
        return self._reads_lengths or self.count_style_layers() > 0

    def _describe(self) -> str:
        return f"the generator of {type(self.generator.architecture).__name__}"

    def _draw_probe(self) -> tuple[Tensor, Tensor | None]:
        """Return one latent (1, Z), and its label where the generator is conditional, on the generator's device."""
        weight = next(self.generator.parameters())
        latents = torch.randn(1, self.latent_size, generator=torch_generator(0, "probe")).to(weight)
        labels = None
        if self.classes:
            labels = torch.zeros(1, dtype=torch.int64, device=weight.device)
        return latents, labels

    @property
    def size(self) -> tuple[int, int]:
        """Return the height and the width of its images."""
        stage = self.generator.stages[-1]
        return stage.height, stage.width

    def draw_numbers(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        alpha: Tensor | float | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Return images (N, C, h, w) in the units and the type of the data that the run was trained on.

        Args:
            latents, labels, alpha, truncation: see `forward`.
        """
        return self.values.to_units(self(latents, labels, alpha, truncation))

    def _measure_centre(self, like: Tensor) -> Tensor:
        """Return the mean style (1, L, W) of the same latents each time, and of all classes alike.

        Args:
            like: latents of the device and the precision of the generator.
        """
        # In low precision a sum of thousands is worth nothing.
        precision = torch.promote_types(like.dtype, torch.float32)
        device = like.device
        if self._centre is None or (self._centre.device, self._centre.dtype) != (device, precision):
            seeded = torch_generator(0, "truncation")
            # The sum of styles, a chunk of latents at a time.
            total = torch.zeros((), dtype=precision, device=device)
            for start in range(0, CENTRE_COUNT, CHUNK):
                rows = min(CHUNK, CENTRE_COUNT - start)
                latents = torch.randn(rows, self.latent_size, generator=seeded).to(like)
                labels = None
                if self.classes:
                    labels = torch.arange(start, start + rows, device=device) % self.classes
                styles = self.generator.map_latents(latents, labels)
                assert styles is not None
                total = total + styles.to(precision).sum(0, keepdim=True)
            self._centre = total / CENTRE_COUNT
        return self._centre


def copy_generator(state: TrainState, alpha: float, average: str | None = None) -> TrainedGenerator:
    """Return a copy, on the CPU, of a state's averaged generator.

    Args:
        state: the run's.
        alpha: the new path's share, in [0, 1], where there is an old path.
        average: the average's name; None for the first.

    Raises:
        RunError: there is no such average.
    """
    classes = count_classes(state.experiment, state.stage)
    net = copy.deepcopy(state.read_average(average)).cpu()
    return TrainedGenerator(net, alpha, classes, state.images, state.experiment.pictures)


def restore_generator(
    experiment: Experiment,
    schedule: Schedule,
    hooks: Hooks,
    saved: Snapshot,
    own: Identity,
    grown: bool = False,
    average: str | None = None,
) -> TrainedGenerator:
    """Return the averaged generator of a checkpoint, on the CPU. Neither data nor optimizers are needed.

    Args:
        experiment, schedule, hooks: the run's, or those of a branch that goes on from it.
        saved: the checkpoint's content; of a stage's end where `grown` is asked for.
        own: the experiment's identity; empty where a run was made by hand.
        grown: whether it is returned as it was right after the stage's end, when the next stage had begun and nothing
            was trained yet.
        average: the average's name; None for the first.

    Warns:
        Weights are NaN or infinite.

    Raises:
        RunError: the checkpoint does not fit the experiment, is of other networks, or has no such average.
    """
    weights = saved.select_average(average)
    problem = _describe_non_finite(weights)
    if problem:
        warnings.warn(f"the averaged generator of the checkpoint at images {saved.images} {problem}", stacklevel=2)
    if grown:
        # A branch may have begun here, whose next stage is its own.
        require_branch_fits(saved.identity, own, saved.stage, any(saved.bridged.values()))
    else:
        require_same_networks(saved.identity, own)
    require_stage_in_schedule(saved, schedule)

    device = torch.device("cpu")
    with fork_random_numbers(), refuse_unfit_snapshot():  # networks are initialised under seeds of their own
        net = regrow_generator(experiment, schedule, saved)
        load_weights(net, weights, "average")

        stage = schedule.stages[saved.stage]
        alpha = saved.alpha
        if grown:
            # Grow to the next stage, as the loop does after this checkpoint.
            name = average or next(iter(saved.averages))
            was_copy = name in list_copies(experiment.averages, schedule.at(saved.images, saved.starts))
            stage = schedule.stages[saved.stage + 1]
            alpha = Fade(hooks).compute_alpha(stage, saved.images, saved.images, "generator")
            net.end_fade()
            net.grow(stage, alpha != 1.0)
            place_network(net, experiment, device)
            if not was_copy:
                calibrate_if_normed(net, experiment, stage, saved)
    return TrainedGenerator(net, alpha, count_classes(experiment, stage), saved.images, experiment.pictures)


def regrow_generator(experiment: Experiment, schedule: Schedule, saved: Snapshot) -> Generator:
    """Return a generator on the CPU, with initial weights, that has grown as far as that of a checkpoint."""
    net = build_generator(experiment, schedule.stages[0])
    for stage in schedule.stages[1 : saved.stage + 1]:
        net.grow(stage, stage.index == saved.stage and saved.bridged["generator"])
    return place_network(net, experiment, torch.device("cpu"))


def calibrate_if_normed(net: Generator, experiment: Experiment, stage: Stage, saved: Snapshot) -> None:
    """Calibrate the batch normalisation of an averaged generator on the CPU, where it has any."""
    if not net.find_batch_norms():
        return
    labels = saved.calibration_labels
    if labels is None:
        labels = draw_calibration_labels(experiment, stage)
    calibrate_batch_norm(net, labels, experiment.seed, torch.device("cpu"))


def count_classes(experiment: Experiment, stage: Stage) -> int:
    """Return the number of classes that an experiment's generator is conditioned on; 0 for none."""
    if not experiment.find_architecture("generator").conditional:
        return 0
    return stage.classes


def _describe_non_finite(weights: Mapping[str, Tensor]) -> str:
    """Return what is wrong with weights of which some are NaN or infinite; nothing where none is."""
    names = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if not names:
        return ""
    listed = ", ".join(names[:3])
    if len(names) > 3:
        listed += ", ..."
    return f"has NaN or infinite numbers in {len(names)} of {len(weights)} tensors: {listed}. Its images are of no use"


@torch.no_grad()
def draw_images(
    net: nn.Module, latents: Tensor, labels: Tensor | None, alpha: Tensor | None, seed: int, device: torch.device
) -> Tensor:
    """Return images (N, C, h, w), float32 on the CPU: those of `net(latents, labels, alpha)`, a chunk at a time.

    The net is used in inference mode. Noise that it draws comes from `seed`; other random numbers are not disturbed.

    Args:
        net: the network, on `device`.
        latents, labels: (N, Z) and (N,) or None, on any device.
        alpha: 0-dim on `device`, or None.
        seed: the seed of the network's noise.
        device: the device to draw on.
    """
    # A network need not take alpha: it is passed only where there is one.
    shares = () if alpha is None else (alpha,)
    was_training = net.training
    net.eval()

    # Where an observer's draw fails, training goes on, and not in inference mode.
    pictures = []
    try:
        with fork_random_numbers(device, seed):
            # Of no latents too, there are images of no rows.
            for start in range(0, max(1, len(latents)), CHUNK):
                chunk = slice(start, start + CHUNK)
                chunk_labels = None
                if labels is not None:
                    chunk_labels = labels[chunk].to(device)
                drawn = net(latents[chunk].to(device), chunk_labels, *shares)
                pictures.append(drawn.float().cpu())
    finally:
        net.train(was_training)
    return torch.cat(pictures)


def load_place(checkpoints: Checkpoints, stage: str | int | None, checkpoint: str) -> Snapshot:
    """Return the checkpoint that is asked for: of a stage's end, the last, the best, or that of a fade.

    Args:
        checkpoints: the run's checkpoints.
        stage: see `load_stage_end`; None for none.
        checkpoint: `last`; `best` for the one that `train.keep_best` kept; or `fade` for the last within a fade, that
            of the stage where there is one.

    Raises:
        RunError: there is no such choice or checkpoint, or both a stage and the best are asked for.
    """
    # Fades and the best checkpoint have files of their own.
    try:
        check_choice("checkpoint", checkpoint, CHECKPOINTS)
    except SettingError as error:
        raise RunError(str(error)) from None
    if checkpoint == FADING:
        return load_fade(checkpoints, stage)
    if checkpoint == "best":
        if stage is not None:
            raise RunError(f"stage {stage} and the best checkpoint are two places: ask for one of them")
        return checkpoints.load_best()

    # The last one, or the end of a stage.
    if stage is None:
        return checkpoints.load_last()
    return load_stage_end(checkpoints, stage)[1]


def load_fade(checkpoints: Checkpoints, stage: str | int | None) -> Snapshot:
    """Return the last checkpoint that was saved while a generator had its old path: usually at the end of the fade.

    Args:
        checkpoints: the run's checkpoints.
        stage: the stage that fades in, by its number from 0 or its size; None for the last one.

    Raises:
        RunError: there is none; the message lists the stages that have one.
    """
    # The newest that is wanted.
    for saved in checkpoints.load_kept(newest_first=True):
        is_wanted = stage is None or str(stage) in (str(saved.stage), saved.size)
        if is_wanted and saved.bridged["generator"]:
            return saved

    # There is none: the message lists what there is.
    fades = ", ".join(list_fades(checkpoints))
    raise RunError(
        "no checkpoint within such a fade was kept; the stages that have one: "
        f"{fades or 'none (a hard switch has no fade, and train.keep_stages may leave them out)'}"
    )


def list_fades(checkpoints: Checkpoints) -> list[str]:
    """Return the stages of which a checkpoint with the old path was kept, as `1 (8x8)`, in their order."""
    sizes = {saved.stage: saved.size for saved in checkpoints.load_kept() if saved.bridged["generator"]}
    return [f"{stage} ({sizes[stage]})" for stage in sorted(sizes)]


def load_stage_end(checkpoints: Checkpoints, stage: str | int) -> tuple[Entry, Snapshot]:
    """Return the checkpoint that was kept as a stage ended: its row in `read_entries()`, and its content.

    Args:
        checkpoints: the run's checkpoints.
        stage: its number from 0, or its size, as `28x28`.

    Raises:
        RunError: no such stage has ended, or its checkpoint is damaged; the message lists those that have.
    """
    ended: list[str] = []
    damaged = ""
    entries = checkpoints.read_entries()
    for entry in entries:
        if not entry.forever:
            continue
        # The one that is asked for may be whole.
        try:
            saved = checkpoints.load(entry)
        except RunError as error:
            damaged += f". {error}"
            continue
        # The end of a fade is kept forever too.
        if saved.stage_over:
            if str(stage) in (str(saved.stage), saved.size):
                return entry, saved
            ended.append(f"{saved.stage} ({saved.size})")
    note = damaged
    if entries and not damaged and _keeps_no_stages(checkpoints.load_last()):
        note = "; nothing was kept of others (train.keep_stages = 'nothing')"
    raise RunError(f"no such stage has ended there; the stages that have ended: {', '.join(ended) or 'none'}{note}")


def _keeps_no_stages(saved: Snapshot) -> bool:
    """Return whether the run of a checkpoint keeps nothing of stages that have ended."""
    return NOTHING in saved.identity.get("settings", {}).get("train.keep_stages", "")
