"""pggan_kit: a plugin-based experiment framework for progressive growing of GANs.

Authors of plugins find what they need here, and in `pggan_kit.components` (the contract of each kind),
`pggan_kit.pictures` and `pggan_kit.testing`. Modules below these may move from one version to the next.

A name is imported when it is first asked for: a command that prints its help does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pggan_kit.api.evaluate import evaluate
    from pggan_kit.api.export import export
    from pggan_kit.api.generator import load_generator
    from pggan_kit.api.import_weights import import_weights
    from pggan_kit.api.train import resume, train
    from pggan_kit.components import (
        MOMENTS,
        ChosenOptimizers,
        Component,
        Critic,
        DiscriminatorCall,
        DuePenalty,
        EncoderCall,
        EncoderTerms,
        Fakes,
        ForeignNetworks,
        GeneratorCall,
        GeneratorPenalty,
        Importer,
        Loss,
        Penalty,
        Piece,
        Quantity,
        Reals,
        Resampling,
        Scores,
        StepContext,
        TensorBatch,
        Trial,
    )
    from pggan_kit.errors import (
        ConfigError,
        DataError,
        DivergedError,
        Interrupted,
        PluginError,
        RunError,
        SettingError,
        SkipImage,
        TrainingError,
        UserError,
        check_above,
        check_at_least,
        check_between,
        check_choice,
        check_finite,
        did_you_mean,
        suggest,
    )
    from pggan_kit.experiment import Experiment
    from pggan_kit.growth.averages import HalfLife, check_average_name, list_plain_values
    from pggan_kit.growth.fade import ENCODER, NETS
    from pggan_kit.growth.learning_rates import set_rate
    from pggan_kit.growth.moving_settings import follow_clock
    from pggan_kit.growth.power_functions import LARGEST_WIDTH, compute_power_share, convert_width_to_exponent
    from pggan_kit.hookspecs import hookimpl
    from pggan_kit.layers.batches import count_batches
    from pggan_kit.layers.derivatives import conv2d, leaky_relu
    from pggan_kit.layers.resampling import Area, AreaDownsample, Downsample, NearestUpsample, Upsample
    from pggan_kit.layers.tensors import at_least_float32, images_from_uint8, images_to_uint8
    from pggan_kit.layers.value_maps import ValueMap, hold_in_tensor
    from pggan_kit.runs.generators import TrainedGenerator
    from pggan_kit.runs.optimizer_state import save_without
    from pggan_kit.runs.run import Run, Stats
    from pggan_kit.runs.state import TrainState
    from pggan_kit.schedule import (
        FADE,
        STABLE,
        Curve,
        PerStage,
        Position,
        Schedule,
        Stage,
        Varying,
        at_height,
        constant_at,
        is_moving,
        value_at,
        values_per_stage,
    )
    from pggan_kit.system.activities import Activity, receive_activities, report_activity, track_items
    from pggan_kit.system.content_hashes import hash_files, hash_once
    from pggan_kit.system.distributed import rank, share_from_rank_0, world_size
    from pggan_kit.system.files import write_atomically
    from pggan_kit.system.json_lines import JsonLines
    from pggan_kit.system.processes import count_cores
    from pggan_kit.system.seeding import torch_generator
    from pggan_kit.ticks import Interval, Tick, check_interval, resolve_interval
    from pggan_kit.training.generator_penalties import generator_gradients
    from pggan_kit.training.step import image_gradients, scores_of_each
    from pggan_kit.version import __version__

_HOMES: dict[str, tuple[str, ...]] = {
    "api.evaluate": ("evaluate",),
    "api.export": ("export",),
    "api.generator": ("load_generator",),
    "api.import_weights": ("import_weights",),
    "api.train": ("resume", "train"),
    "components": (
        "MOMENTS",
        "ChosenOptimizers",
        "Component",
        "Critic",
        "DiscriminatorCall",
        "DuePenalty",
        "EncoderCall",
        "EncoderTerms",
        "Fakes",
        "ForeignNetworks",
        "GeneratorCall",
        "GeneratorPenalty",
        "Importer",
        "Loss",
        "TensorBatch",
        "Penalty",
        "Piece",
        "Quantity",
        "Reals",
        "Resampling",
        "Scores",
        "StepContext",
        "Trial",
    ),
    "errors": (
        "ConfigError",
        "DataError",
        "DivergedError",
        "Interrupted",
        "PluginError",
        "RunError",
        "SkipImage",
        "TrainingError",
        "SettingError",
        "UserError",
        "check_above",
        "check_at_least",
        "check_between",
        "check_choice",
        "check_finite",
        "did_you_mean",
        "suggest",
    ),
    "experiment": ("Experiment",),
    "growth.averages": ("HalfLife", "check_average_name", "list_plain_values"),
    "growth.fade": ("ENCODER", "NETS"),
    "growth.learning_rates": ("set_rate",),
    "growth.moving_settings": ("follow_clock",),
    "growth.power_functions": ("LARGEST_WIDTH", "compute_power_share", "convert_width_to_exponent"),
    "hookspecs": ("hookimpl",),
    "layers.batches": ("count_batches",),
    "layers.derivatives": ("conv2d", "leaky_relu"),
    "layers.resampling": ("Area", "AreaDownsample", "Downsample", "NearestUpsample", "Upsample"),
    "layers.tensors": ("at_least_float32", "images_from_uint8", "images_to_uint8"),
    "layers.value_maps": ("ValueMap", "hold_in_tensor"),
    "runs.generators": ("TrainedGenerator",),
    "runs.optimizer_state": ("save_without",),
    "runs.run": ("Run", "Stats"),
    "runs.state": ("TrainState",),
    "schedule": (
        "FADE",
        "STABLE",
        "Curve",
        "PerStage",
        "Position",
        "Schedule",
        "Stage",
        "Varying",
        "at_height",
        "constant_at",
        "is_moving",
        "value_at",
        "values_per_stage",
    ),
    "system.activities": ("Activity", "receive_activities", "report_activity", "track_items"),
    "system.content_hashes": ("hash_files", "hash_once"),
    "system.distributed": ("rank", "share_from_rank_0", "world_size"),
    "system.files": ("write_atomically",),
    "system.json_lines": ("JsonLines",),
    "system.processes": ("count_cores",),
    "system.seeding": ("torch_generator",),
    "ticks": ("Interval", "Tick", "check_interval", "resolve_interval"),
    "training.generator_penalties": ("generator_gradients",),
    "training.step": ("image_gradients", "scores_of_each"),
    "version": ("__version__",),
}
"""Names by the module that defines them, as the imports above tell type checkers."""

_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

_ROOMS = ("components", "pictures", "testing")
"""Modules for authors, which `import pggan_kit` alone makes reachable."""

__all__ = [
    "ENCODER",
    "FADE",
    "LARGEST_WIDTH",
    "MOMENTS",
    "NETS",
    "STABLE",
    "Activity",
    "Area",
    "AreaDownsample",
    "ChosenOptimizers",
    "Component",
    "ConfigError",
    "Critic",
    "Curve",
    "DataError",
    "DiscriminatorCall",
    "DivergedError",
    "Downsample",
    "DuePenalty",
    "EncoderCall",
    "EncoderTerms",
    "Experiment",
    "Fakes",
    "ForeignNetworks",
    "GeneratorCall",
    "GeneratorPenalty",
    "HalfLife",
    "Importer",
    "Interrupted",
    "Interval",
    "JsonLines",
    "Loss",
    "NearestUpsample",
    "Penalty",
    "PerStage",
    "Piece",
    "PluginError",
    "Position",
    "Quantity",
    "Reals",
    "Resampling",
    "Run",
    "RunError",
    "Schedule",
    "Scores",
    "SettingError",
    "SkipImage",
    "Stage",
    "Stats",
    "StepContext",
    "TensorBatch",
    "Tick",
    "TrainState",
    "TrainedGenerator",
    "TrainingError",
    "Trial",
    "Upsample",
    "UserError",
    "ValueMap",
    "Varying",
    "__version__",
    "at_height",
    "at_least_float32",
    "check_above",
    "check_at_least",
    "check_average_name",
    "check_between",
    "check_choice",
    "check_finite",
    "check_interval",
    "compute_power_share",
    "constant_at",
    "conv2d",
    "convert_width_to_exponent",
    "count_batches",
    "count_cores",
    "did_you_mean",
    "evaluate",
    "export",
    "follow_clock",
    "generator_gradients",
    "hash_files",
    "hash_once",
    "hold_in_tensor",
    "hookimpl",
    "image_gradients",
    "images_from_uint8",
    "images_to_uint8",
    "import_weights",
    "is_moving",
    "leaky_relu",
    "list_plain_values",
    "load_generator",
    "rank",
    "receive_activities",
    "report_activity",
    "resolve_interval",
    "resume",
    "save_without",
    "scores_of_each",
    "set_rate",
    "share_from_rank_0",
    "suggest",
    "torch_generator",
    "track_items",
    "train",
    "value_at",
    "values_per_stage",
    "world_size",
    "write_atomically",
]


def __getattr__(name: str) -> Any:
    """Import a name of the front door when it is first asked for."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    # From now on Python finds it without asking here.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what the front door gives, whether it is imported already or not."""
    return sorted({*globals(), *__all__, *_ROOMS})
