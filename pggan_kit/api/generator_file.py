"""Write a trained generator as one safetensors file, which holds what is needed to build it again, and read it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pggan_kit.api.prepare import Prepared
from pggan_kit.components import Architecture, Resampling
from pggan_kit.config import gin_files as configs
from pggan_kit.config.bindings import Binding, UnknownComponentError
from pggan_kit.config.builder import build_from_config
from pggan_kit.config.gin_files import Config
from pggan_kit.data.recorded import RecordedDataset, read_record
from pggan_kit.errors import ConfigError, RunError, SettingError, check_between, check_choice
from pggan_kit.experiment import MEMORY_FORMATS, Experiment
from pggan_kit.growth.networks import Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.pictures.channels import PictureSettings
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.network_building import place_network
from pggan_kit.runs.snapshot import is_best
from pggan_kit.runs.snapshot_loading import load_weights, refuse_unfit_snapshot
from pggan_kit.schedule import Schedule, ScheduleSettings
from pggan_kit.system.files import read_bytes
from pggan_kit.system.hidden_paths import hide_folders
from pggan_kit.system.json_text import json_text
from pggan_kit.system.seeding import fork_random_numbers
from pggan_kit.version import __version__

FORMAT = 1
"""Number of the format of what the file says about its generator."""

KEY = "pggan_kit"
"""Key of the metadata under which that is."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Precisions of the weights in a file; they are used in float32."""

PLACES = ("architecture", "resampling", "image_resampling", "latent_size", "memory_format")
"""Settings of `train` that decide which function the weights of a generator are, and how it computes."""


@dataclass
class GeneratorSettings:
    """The settings of an experiment that its generator alone needs; see `Experiment`."""

    _: KW_ONLY
    schedule: ScheduleSettings
    architecture: Architecture
    resampling: Resampling
    image_resampling: Resampling = field(default_factory=Area)
    latent_size: int = Experiment.latent_size
    memory_format: str = Experiment.memory_format
    pictures: PictureSettings = field(default_factory=PictureSettings)

    def __post_init__(self) -> None:
        check_choice("memory_format", self.memory_format, MEMORY_FORMATS)


ROOTS = {"train": GeneratorSettings, "schedule": ScheduleSettings, "pictures": PictureSettings}
"""Roots of what a file says about its generator."""


@dataclass(frozen=True)
class GeneratorRecord:
    """What a file says about its generator, besides the weights.

    Attributes:
        config: gin text of `GeneratorSettings` and of the schedule.
        data: The number of images of the training data, their channels and classes, and the map of their numbers where
            they are no plain bytes.
        class_names: Names of the classes by their numbers; none without names.
        stage: Number of the stage that it has grown to.
        bridged: Whether it has its old path beside the new one.
        alpha: Share of the new path.
        images: The clock at which the run had this generator.
        average: Name of the average that it is.
        chosen: What it was chosen by; see `TrainedGenerator`.
        plugins: Distributions or files that its components came from, besides this one.
        version: Version of pggan_kit that wrote it.
    """

    config: str
    data: Mapping[str, Any]
    class_names: Sequence[str]
    stage: int
    bridged: bool
    alpha: float
    images: int
    average: str
    chosen: Mapping[str, Any]
    plugins: Sequence[str]
    version: str = __version__

    def text(self) -> str:
        """Return it as JSON."""
        return json_text({"format": FORMAT, **vars(self)})


def describe_generator(
    prepared: Prepared,
    generator: TrainedGenerator,
    stage: int,
    average: str,
    data: RecordedDataset,
) -> GeneratorRecord:
    """Return what a file has to say about a run's generator.

    Args:
        prepared: The run.
        generator: Its generator.
        stage: Number of the stage that the generator has grown to.
        average: Name of the average that it is.
        data: What the run records of its training data.

    Raises:
        RunError: The networks are objects, which no config describes.
    """
    # Who reads the file builds the networks from a config.
    objects = [place for place in prepared.objects if place.removeprefix("train.") in PLACES]
    if objects:
        raise RunError(
            f"{objects[0]} is an object that was given in Python, which no file can describe: bring its class as a "
            "plugin and name it in the config, or export to onnx"
        )

    # The config, and where the generator is on the clock.
    config, origins = _describe_networks(prepared)
    values = {} if data.values.is_plain else {"values": data.values.record()}
    return GeneratorRecord(
        config=config,
        data={"images": data.images, "channels": data.channels, "classes": data.classes, **values},
        class_names=list(generator.class_names),
        stage=stage,
        bridged=generator.generator.bridge is not None,
        alpha=1.0 if generator.alpha is None else float(generator.alpha),
        images=generator.images,
        average=average,
        chosen=dict(generator.chosen),
        plugins=origins,
    )


def _describe_networks(prepared: Prepared) -> tuple[str, list[str]]:
    """Return the gin text of a run's generator, and the origins of its parts that are no part of this distribution."""
    own = prepared.built.config
    kept = [_mark_as_included(binding) for binding in own.bindings if _may_describe_networks(binding)]
    built = build_from_config(Config(own.name, tuple(kept)), prepared.plugins, ROOTS)
    plugins = [row.plugin for row, _ in built.components.values() if row.plugin.distribution != "pggan_kit"]
    origins = {hide_folders(plugin.origin) for plugin in plugins}
    return built.config.text(), sorted(origins)


def _may_describe_networks(binding: Binding) -> bool:
    if binding.selector == "train":
        return binding.parameter in PLACES
    return binding.selector not in ("data", "evaluation")


def _mark_as_included(binding: Binding) -> Binding:
    """Return a binding that may have no effect, as one of an included file may."""
    return replace(binding, place=replace(binding.place, included=True))


def encode_generator(generator: TrainedGenerator, record: GeneratorRecord, dtype: str = "float32") -> bytes:
    """Return the content of a file.

    Args:
        generator: The generator.
        record: What the file says about it.
        dtype: Precision of the weights, one of `DTYPES`.

    Raises:
        SettingError: The precision is unknown.
        RunError: The library `safetensors` is missing.
    """
    check_choice("dtype", dtype, tuple(DTYPES))
    weights = {}
    for name, value in generator.generator.state_dict().items():
        # A copy each: two names may share one tensor.
        weights[name] = value.detach().clone(memory_format=torch.contiguous_format)
        if value.is_floating_point():
            weights[name] = weights[name].to(DTYPES[dtype])
    content: bytes = _import_safetensors().save(weights, {"format": "pt", KEY: record.text()})
    return content


def load_generator_file(path: Path, plugins: Sequence[Any] = ()) -> TrainedGenerator:
    """Return the generator of a file, on the CPU.

    Nothing of the file is executed: its config may name components of installed plugins, and of `plugins`, alone.

    Raises:
        RunError: The file is missing, cut off, damaged or of something else; or a plugin or library is missing.
        ConfigError: The file's config names what no plugin brings.
    """
    record, weights = _read_file(path)
    text = f"{path}, whose generator is of {', '.join(record.plugins)}" if record.plugins else str(path)
    loaded = load_plugins(plugins)
    try:
        built = build_from_config(configs.parse_text(record.config, text), loaded, ROOTS)
    except UnknownComponentError as error:
        if not record.plugins:
            raise
        raise ConfigError(
            f"{error.missing}: install what brings it, or name its file with --plugin FILE, in Python plugins=[FILE]"
        ) from error
    settings: GeneratorSettings = built.experiment
    data = read_record(record.data)

    # The network, as it stood at that point of its growth.
    try:
        schedule = settings.schedule.resolve(data.images, data.channels, data.classes)
        net = _grow_generator(settings, schedule, record)
        with refuse_unfit_snapshot():
            load_weights(net, weights, "generator")
    except (RunError, SettingError) as error:
        raise RunError(f"{path}: {error}") from None

    classes = data.classes if settings.architecture.conditional else 0
    generator = TrainedGenerator(net, record.alpha, classes, record.images, settings.pictures)
    generator.values = data.values
    generator.chosen = record.chosen
    generator.class_names = record.class_names
    return generator


def _grow_generator(settings: GeneratorSettings, schedule: Schedule, record: GeneratorRecord) -> Generator:
    """Return a generator with initial weights, at the stage of a record."""
    if record.stage >= len(schedule.stages):
        raise RunError(f"its generator is in stage {record.stage} of a schedule of {len(schedule.stages)} stages")
    with fork_random_numbers(), refuse_unfit_snapshot():
        # The weights are replaced by those of the file: the seed does not matter.
        net = Generator(
            settings.architecture,
            settings.resampling,
            settings.image_resampling,
            0,
            settings.latent_size,
            schedule.stages[0],
        )
        for stage in schedule.stages[1 : record.stage + 1]:
            net.grow(stage, record.bridged and stage.index == record.stage)
        return place_network(net, settings, torch.device("cpu"))


def _read_file(path: Path) -> tuple[GeneratorRecord, dict[str, Tensor]]:
    """Return what a file says about its generator, and the weights, in float32."""
    safetensors = _import_safetensors()
    try:
        content = read_bytes(path)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    try:
        weights = safetensors.load(content)
        # The library checks the header, and gives no metadata of bytes.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
    except Exception as error:  # the library has an error of its own, and json others
        raise RunError(
            f"{path} is cut off, damaged, or no safetensors file ({error}): get it again, or export it again with "
            "`pggan-kit export RUN --to safetensors`"
        ) from error
    if KEY not in metadata:
        raise RunError(
            f"{path} does not say how its network is built: it was not written by `pggan-kit export --to safetensors`"
        )
    record = _parse_record(metadata[KEY], path)
    return record, {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def _parse_record(text: str, path: Path) -> GeneratorRecord:
    try:
        entries = json.loads(text)
        version = entries.pop("format")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: what it says about its generator is no JSON object") from error
    if version != FORMAT:
        raise RunError(f"{path} has format {version!r}; this version of pggan_kit reads format {FORMAT}")

    # The file may be from anybody: each entry is checked before it is used.
    try:
        record = GeneratorRecord(**entries)
        check_between("alpha", record.alpha, 0, 1)
        read_record(record.data)
        kinds = {"config": str, "stage": int, "bridged": bool, "images": int, "chosen": dict, "plugins": list}
        for name, kind in kinds.items():
            if type(getattr(record, name)) is not kind:
                raise TypeError(f"{name} is no {kind.__name__}")
        if record.stage < 0 or record.images < 0:
            raise ValueError("stage or images is below 0")
        if not is_best(record.chosen) or not all(isinstance(name, str) for name in record.class_names):
            raise ValueError("chosen or class_names is no such thing")
    except (TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged: what it says about its generator is incomplete ({error})") from error
    return record


def _import_safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise RunError(
            f"files of generators need the library `safetensors` ({error}): pip install 'pggan_kit[export]'"
        ) from error
