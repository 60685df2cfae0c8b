"""Read checkpoints of the progressive GAN of facebookresearch/pytorch_GAN_zoo.

What its networks compute, and what becomes of it here:

* A layer is `(weight * x + bias) * c` with c = sqrt(2 / fan-in): the bias is scaled at run time, too, and every layer
  has the gain sqrt(2). Here biases are not scaled, and the first layer of G, the layer to images and the score have
  other gains. Both become factors of the weights and biases: the functions are the same, and biases learn faster here.
* The first layer of G has a bias for each pixel of each map: `architectures.PGGAN.stem_bias = 'pixel'`.
* The statistic of the batch is `minibatch = 'neighbour_stddev'`.
* alpha is the share of the old path; here, that of the new one.
* D is not faded at the first growth: `switches.Linear.discriminator_from`.
* Layers to and from images of stages before the last two take no part in any output, and are left out.
* Features lie in memory as there, `train.memory_format = 'contiguous'`: sums are rounded in the same order, and the
  difference to that project's images is half as large.
* Optimizers are not saved there, so they begin without state.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pggan_kit import ForeignNetworks, RunError

PROJECT = "pytorch_GAN_zoo"

BASE_SIZE = 4
"""Height and width of the first stage."""

BATCH_SIZE = 16
FADE_IMAGES = 600 * 32 * BATCH_SIZE
SCALE_IMAGES = 96_000 * BATCH_SIZE
FIRST_SCALE_IMAGES = 48_000 * BATCH_SIZE
"""The default schedule there: 600 changes of alpha, 32 iterations apart, of a scale's 96,000; the first has 48,000."""

STDDEV_GROUP = 4
"""Size of a group of its statistic of the batch, which is no setting there."""

DEFAULT_LEAK = 0.2

LOSSES = {
    "WGANGP": "WGANGP",
    "Logistic": "NonSaturating",
    "DCGAN": "BinaryCrossEntropy",
    "MSE": "LeastSquares",
}
"""The loss here by its name there."""

WITH_TANH = ("DCGAN", "MSE")
"""Losses there with which G's images go through tanh, behind the blend of a fade."""


class InertSettings:
    """What stands in for the class of that project's settings: attributes, and no code of the file or the project."""


class PyTorchGANZoo:
    """The importer of that project's progressive GAN."""

    name = PROJECT

    def read(self, path: Path) -> ForeignNetworks | None:
        """Return the networks of a checkpoint; None where the file is none of this project.

        Raises:
            RunError: The file holds code, is damaged, or is of networks that cannot be expressed here.
        """
        content = load_data(path)
        if content is None:
            return None
        settings = content.get("config")
        is_ours = isinstance(content.get("netG"), dict) and isinstance(content.get("netD"), dict)
        if not is_ours or not isinstance(settings, (InertSettings, dict)):
            return None
        if isinstance(settings, InertSettings):
            settings = vars(settings)
        return _Checkpoint(path, content, settings).convert()


def load_data(path: Path) -> dict[str, Any] | None:
    """Return the content of a file of `torch.save`, as data; None where it is no such file.

    Raises:
        RunError: It holds something other than tensors and plain values, or cannot be read.
    """
    allowed: list[Any] = [(InertSettings, "models.utils.config.BaseConfig")]
    unsafe: list[str] = []
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    if start not in (b"PK", b"\x80\x02"):
        return None

    try:
        if start == b"PK":
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            # The project may have been imported from within another package.
            allowed += [(InertSettings, name) for name in unsafe if name.endswith(".utils.config.BaseConfig")]
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents none of what it raises
        foreign = [name for name in unsafe if not name.endswith(".utils.config.BaseConfig")]
        named = f", {', '.join(foreign[:3])}" if foreign else ""
        raise RunError(
            f"{path} is cut off, or holds something other than tensors and plain values{named}: it was not loaded, "
            f"since a checkpoint is data, never code ({type(error).__name__}). Save its state dicts alone where you "
            "trust it"
        ) from error
    if not isinstance(content, dict):
        return None
    return content


class _Layer(NamedTuple):
    """A layer, as it is named there and here.

    Attributes:
        there: Its name there, without the ending.
        here: Its name here.
        gain: Its gain here, of which the scale at run time is `gain / sqrt(fan-in)`.
    """

    there: str
    here: str
    gain: float = math.sqrt(2)


class _Checkpoint:
    """A checkpoint of that project.

    Args:
        path: Its file, for messages.
        content: Its content.
        settings: The settings of its networks.
    """

    def __init__(self, path: Path, content: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        # The networks; older files have no average.
        self.path = path
        self.settings = settings
        self.generator = self._read_network(content, "netG")
        self.discriminator = self._read_network(content, "netD")
        self.average = self.generator
        self.has_average = "avgG" in content
        if self.has_average:
            self.average = self._read_network(content, "avgG")

        # What is known of them beside their weights.
        self.equalized = self._read_switch("equalizedlR")
        self.leak = self._read_number("leakyReluLeak", DEFAULT_LEAK)
        self.loss = settings.get("lossCriterion", "WGANGP")
        self.old_share = self._read_number("alpha", 0.0)
        self.channels = self._list_channels()
        self._require_expressible()

    def _read_network(self, content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
        """Return the weights of a network by name; the first versions of that project named them without `module`."""
        weights = content[name]
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise self._fail(f"{name} is no state dict of tensors")
        return {str(key).replace(".module.", "."): value.detach() for key, value in weights.items()}

    def _read_switch(self, name: str) -> bool:
        """Return a setting that is True or False, and True where there is none."""
        value = self.settings.get(name, True)
        if not isinstance(value, bool):
            raise self._fail(f"its {name} is {value!r}, and must be True or False")
        return value

    def _read_number(self, name: str, default: float) -> float:
        """Return a setting that is a finite number of at least 0."""
        value = self.settings.get(name, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= sys.float_info.max:
            raise self._fail(f"its {name} is {value!r}, and must be a finite number of at least 0")
        return float(value)

    def _list_channels(self) -> list[int]:
        """Return the number of maps of each scale."""
        counts = [len(self._take(self.generator, "groupScale0.0.weight"))]
        while f"scaleLayers.{len(counts) - 1}.0.weight" in self.generator:
            counts.append(len(self._take(self.generator, f"scaleLayers.{len(counts) - 1}.0.weight")))
        return counts

    def _require_expressible(self) -> None:
        """Check that the networks are of a kind that can be expressed here."""
        # Networks of a kind for which there is no architecture here.
        if self.settings.get("attribKeysOrder"):
            raise self._fail(
                "its networks are conditioned on attributes (attribKeysOrder), whose codes are normalised together "
                "with the latents: no architecture here does that"
            )
        if not self._read_switch("perChannelNormalization"):
            raise self._fail("perChannelNormalization is False, with which that project's own generator cannot run")

        # Settings that are out of range.
        if not isinstance(self.loss, str) or self.loss not in LOSSES:
            raise self._fail(f"its lossCriterion {self.loss!r} is unknown; known ones are {', '.join(LOSSES)}")
        if self.leak >= 1:
            raise self._fail(f"its leakyReluLeak is {self.leak:g}, and must be in [0, 1)")
        if self.old_share > 1:
            raise self._fail(f"its alpha is {self.old_share:g}, and must be in [0, 1]")
        outputs = len(self._take(self.discriminator, "decisionLayer.weight"))
        if outputs != 1:
            raise self._fail(f"its discriminator has {outputs} outputs, and must have one score")

    @property
    def last(self) -> int:
        """Return the number of the last scale, from 0."""
        return len(self.channels) - 1

    @property
    def is_fading(self) -> bool:
        """Return whether the old path takes part; that project ignores alpha at the first scale."""
        return self.last > 0 and self.old_share > 0

    @property
    def has_stddev(self) -> bool:
        """Return whether D has the statistic of the batch, which is one more map for its 3x3."""
        weight = self._take(self.discriminator, "groupScaleZero.0.weight")
        return weight.shape[1] == weight.shape[0] + 1

    def convert(self) -> ForeignNetworks:
        """Return the networks as this framework has them."""
        last = self.last
        bridged = {"generator": self.is_fading, "discriminator": self.is_fading and last > 1}

        # G
        generator_layers = [
            _Layer("formatLayer", "stem.dense", math.sqrt(2) / BASE_SIZE),
            _Layer("groupScale0.0", "stem.conv"),
            *self._list_block_layers(),
            _Layer(f"toRGBLayers.{last}", "to_image", 1.0),
        ]
        if bridged["generator"]:
            generator_layers.append(_Layer(f"toRGBLayers.{last - 1}", "bridge.old_to_image", 1.0))

        # D
        discriminator_layers = [
            _Layer("groupScaleZero.0", "head.conv"),
            _Layer("groupScaleZero.1", "head.dense"),
            _Layer("decisionLayer", "head.score", 1.0),
            *self._list_block_layers(),
            _Layer(f"fromRGBLayers.{last}", "from_image.0"),
        ]
        if bridged["discriminator"]:
            discriminator_layers.append(_Layer(f"fromRGBLayers.{last - 1}", "bridge.old_from_image.0"))
        discriminator = self._convert_layers(self.discriminator, discriminator_layers)
        discriminator["head.dense.weight"] = self._reorder_pixels_first(discriminator["head.dense.weight"])

        return ForeignNetworks(
            config=self._write_config(),
            image_channels=len(self._take(self.generator, f"toRGBLayers.{last}.weight")),
            stage=last,
            generator=self._convert_generator(self.generator, generator_layers),
            discriminator=discriminator,
            average=self._convert_generator(self.average, generator_layers),
            alpha=1.0 - self.old_share if self.is_fading else 1.0,
            bridged=bridged,
            notes=tuple(self._list_notes()),
        )

    def _list_block_layers(self) -> list[_Layer]:
        """Return the two convolutions of each block, which both networks name alike."""
        layers = []
        for scale in range(self.last):
            layers.append(_Layer(f"scaleLayers.{scale}.0", f"blocks.{scale + 1}.0"))
            layers.append(_Layer(f"scaleLayers.{scale}.1", f"blocks.{scale + 1}.2"))
        return layers

    def _convert_generator(self, weights: Mapping[str, Tensor], layers: Iterable[_Layer]) -> dict[str, Tensor]:
        converted = self._convert_layers(weights, layers)
        # The first layer's bias belongs to the stem here.
        bias = converted.pop("stem.dense.bias")
        converted["stem.bias"] = self._view(bias, "formatLayer.bias", self.channels[0], BASE_SIZE, BASE_SIZE)
        return converted

    def _reorder_pixels_first(self, weight: Tensor) -> Tensor:
        """Return the weight of a dense layer that reads maps pixel by pixel, of one that reads them map by map."""
        outputs = len(weight)
        maps = self._view(weight, "groupScaleZero.1.weight", outputs, -1, BASE_SIZE, BASE_SIZE)
        return maps.permute(0, 2, 3, 1).reshape(outputs, -1)

    def _view(self, tensor: Tensor, name: str, *shape: int) -> Tensor:
        try:
            return tensor.reshape(shape)
        except RuntimeError:
            raise self._fail_at(tensor, name) from None

    def _convert_layers(self, weights: Mapping[str, Tensor], layers: Iterable[_Layer]) -> dict[str, Tensor]:
        """Return the weights and biases with which layers here compute what those there compute."""
        converted = {}
        for layer in layers:
            weight = self._take(weights, f"{layer.there}.weight").double()
            bias = self._take(weights, f"{layer.there}.bias").double()
            if self.equalized:
                fan_in = weight[0].numel()
                weight = weight * (math.sqrt(2) / layer.gain)
                bias = bias * math.sqrt(2 / fan_in)
            converted[f"{layer.here}.weight"] = weight.float()
            converted[f"{layer.here}.bias"] = bias.float()
        return converted

    def _take(self, weights: Mapping[str, Tensor], name: str) -> Tensor:
        if name not in weights:
            raise self._fail(f"it lacks the tensor {name}: it is of other networks than the progressive GAN")
        tensor = weights[name]
        # Convolutions and dense layers, and a bias for each output.
        axes = (1,) if name.endswith(".bias") else (2, 4)
        if tensor.ndim not in axes or not tensor.numel():
            raise self._fail_at(tensor, name)
        return tensor

    def _list_notes(self) -> list[str]:
        """Return what users should know of it."""
        notes = ["biases are scaled at run time there, and not here: they learn faster here, from the same values"]
        if not self.has_average:
            notes.append("it has no averaged generator (avgG): the average begins as a copy of the generator")
        if self.is_fading and self.last == 1:
            notes.append(
                "its discriminator has no old path at the first growth, since that project fades G alone there"
            )
        if self.loss == "MSE":
            notes.append("its loss MSE takes the sigmoid of a score, and losses.LeastSquares the score itself")
        return notes

    def _write_config(self) -> str:
        """Return the experiment: these networks, with that project's recipe as far as its file has it."""
        sizes = [BASE_SIZE * 2**scale for scale in range(self.last + 1)]
        fades = {BASE_SIZE: 0, 2 * BASE_SIZE: FADE_IMAGES}
        stables = {BASE_SIZE: FIRST_SCALE_IMAGES, 2 * BASE_SIZE: SCALE_IMAGES - FADE_IMAGES}
        if self.last == 0:
            fades.pop(2 * BASE_SIZE)
            stables.pop(2 * BASE_SIZE)

        # What that project has fixed, and the settings that its file holds.
        lines = [
            f"schedule.sizes = {tuple(sizes)}",
            f"schedule.fade_images = {fades}",
            f"schedule.stable_images = {stables}",
            f"schedule.batch_size = {BATCH_SIZE}",
            "train.architecture = @architectures.PGGAN()",
            f"architectures.PGGAN.channels = {dict(zip(sizes, self.channels, strict=True))}",
            "architectures.PGGAN.stem_bias = 'pixel'",
            f"architectures.PGGAN.minibatch = {'neighbour_stddev' if self.has_stddev else 'none'!r}",
            f"architectures.PGGAN.stddev_group = {STDDEV_GROUP}",
            f"architectures.PGGAN.leak = {self.leak!r}",
            f"architectures.PGGAN.equalized_lr = {self.equalized}",
            f"architectures.PGGAN.output = {'tanh_after_fade' if self.loss in WITH_TANH else 'linear'!r}",
            f"train.latent_size = {self._take(self.generator, 'formatLayer.weight').shape[1]}",
            "train.memory_format = 'contiguous'",
            "train.resampling = @resampling.Nearest()",
            "train.update = @updates.Alternating()",
            "train.switch = @switches.Linear()",
            f"switches.Linear.discriminator_from = {4 * BASE_SIZE}",
            "train.averages = [@averages.PerUpdate()]",
            "averages.PerUpdate.decay = 0.999",
            "train.generator_optimizer = @g/optimizers.Adam()",
            "train.discriminator_optimizer = @d/optimizers.Adam()",
            f"optimizers.Adam.lr = {self._read_number('learningRate', 0.001)!r}",
            *self._write_loss(),
        ]
        return "\n".join(lines) + "\n"

    def _write_loss(self) -> list[str]:
        name = LOSSES[self.loss]
        lines = [f"train.loss = @losses.{name}()"]
        penalty = self._read_number("lambdaGP", 0.0)
        drift = self._read_number("epsilonD", 0.0)
        r1 = self._read_number("logisticGradReal", 0.0)
        penalties = []
        if penalty > 0:
            penalties.append("@penalties.GradientPenalty()")
            lines.append(f"penalties.GradientPenalty.weight = {penalty!r}")
        if drift > 0:
            penalties.append("@penalties.Drift()")
            lines.append(f"penalties.Drift.weight = {drift!r}")
        if r1 > 0:
            # Half of the squared norm is penalised here, and all of it there.
            penalties.append("@penalties.R1()")
            lines.append(f"penalties.R1.weight = {2 * r1!r}")
        return [*lines, f"losses.{name}.penalties = [{', '.join(penalties)}]"]

    def _fail_at(self, tensor: Tensor, name: str) -> RunError:
        shape = tuple(tensor.shape)
        return self._fail(f"the tensor {name} has the shape {shape}: it is of other networks than the progressive GAN")

    def _fail(self, reason: str) -> RunError:
        return RunError(f"{self.path}, a checkpoint of {PROJECT}, cannot be imported: {reason}")
