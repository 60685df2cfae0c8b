"""Who is measured: variants of an experiment, and training code of others."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.errors import UserError
from pggan_kit.schedule import Schedule, Stage

ARGUMENTS = ("size", "alpha", "width", "batch", "colours")


@dataclass(frozen=True)
class Variant:
    """An experiment under a name, and its stages."""

    name: str
    prepared: Prepared
    schedule: Schedule


def variants(
    config: str | Path, bindings: Sequence[str], plugins: Sequence[Any], others: Mapping[str, Sequence[str]]
) -> list[Variant]:
    """The experiment of a config under its file's name, and others of it with further bindings.

    Raises:
        UserError: a config is wrong, or a variant has other stages, batches or colours.
    """
    found: list[Variant] = []
    for name, further in [(Path(config).stem, ()), *others.items()]:
        prepared = prepare(config, [*bindings, *further], plugins)
        found.append(Variant(name, prepared, prepared.schedule()))
        mine, first = (
            [(s.size, s.batch_size, s.image_channels) for s in variant.schedule.stages]
            for variant in (found[-1], found[0])
        )
        if mine != first:
            raise UserError(f"--variant {name}: it must have the stages, batch sizes and colours of {config}")
        for setting in ("device", "tf32"):
            if getattr(prepared.built.experiment, setting) != getattr(found[0].prepared.built.experiment, setting):
                raise UserError(f"--variant {name}: train.{setting} is one for all that is measured: bind it with -b")
    return found


def named_variant(text: str) -> tuple[str, tuple[str, ...]]:
    """`NAME=BINDING[;BINDING...]`, taken apart.

    Raises:
        UserError: it is not of this form.
    """
    name, equals, bindings = text.partition("=")
    parts = tuple(part.strip() for part in bindings.split(";") if part.strip())
    if not name.strip() or not equals or not parts:
        raise UserError(f"--variant {text!r}: write NAME=BINDING[;BINDING], as bf16=train.precision='bfloat16'")
    return name.strip(), parts


@dataclass(frozen=True)
class Foreign:
    """A training iteration that is not ours: `make(size, alpha, width, batch, colours)`.

    It returns `(step, parameters_g, parameters_d)`: a function that runs one iteration on noise, and the parameters of
    both networks. `size` is the height of square images that doubled from the base on, `alpha` the new layers' share or
    None, `width` the maps at each size up to this one, `{4: 64, 8: 64}`. There are as many latents as maps at the base.
    """

    name: str
    make: Callable[..., tuple[Callable[[], object], Iterable[Any], Iterable[Any]]]

    def at(
        self, variant: Variant, stage: Stage, fading: bool, device: torch.device
    ) -> tuple[Callable[[], object], int]:
        """The iteration at a stage, and the number of parameters.

        Raises:
            UserError: the experiment cannot be put to it.
        """
        stages = variant.schedule.stages[: stage.index + 1]
        architecture = variant.prepared.built.experiment.architecture
        if not hasattr(architecture, "width"):
            raise UserError(f"--against: {type(architecture).__name__} has no width(stage) to tell {self.name} of")
        width = {each.height: architecture.width(each) for each in stages}
        latents, base = variant.prepared.built.experiment.latent_size, stages[0]
        if any(each.height != each.width or each.factor not in (1, 2) for each in stages):
            raise UserError("--against needs square images that double in size: see schedule.sizes")
        if latents != width[base.height]:
            raise UserError(
                f"--against needs as many latents as maps at the base, and train.latent_size is {latents}, not "
                f"{width[base.height]}"
            )
        with torch.device(device):
            step, *networks = self.make(
                size=stage.height,
                alpha=0.5 if fading else None,
                width=width,
                batch=stage.batch_size,
                colours=stage.image_channels,
            )
        return step, sum(param.numel() for network in networks for param in network)


def foreign(text: str) -> Foreign:
    """`FILE.py:FUNCTION`, loaded; its name is the file's.

    Raises:
        UserError: no such file or function, or one that takes other arguments.
    """
    path, colon, function = text.rpartition(":")
    if not colon or not path.endswith(".py") or not function:
        raise UserError(f"--against {text!r}: write FILE.py:FUNCTION, as benchmarks/reference.py:make")
    make = getattr(_imported(Path(path)), function, None)
    if not callable(make):
        raise UserError(f"--against {text}: {path} has no function {function}")
    try:
        inspect.signature(make).bind(**dict.fromkeys(ARGUMENTS))
    except TypeError:
        raise UserError(f"--against {text}: {function} must take {', '.join(ARGUMENTS)}") from None
    return Foreign(Path(path).stem, make)


def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"--against: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"pggan_kit_contender_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"--against: {path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
