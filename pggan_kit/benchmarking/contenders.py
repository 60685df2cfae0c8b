"""Load what is measured: variants of an experiment, and training code of others."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.errors import UserError, require_list
from pggan_kit.schedule import Schedule, Stage

ARGUMENTS = ("size", "alpha", "width", "batch", "colours")
"""The arguments of a foreign contender's function; see `Foreign`."""

SHARED_SETTINGS = ("device", "tf32", "deterministic")
"""Settings of `train` that belong to the process, and so must be the same in all variants."""

_BINDING = re.compile(r"""(?:[^;'"]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|['"])+""")
"""A text up to a semicolon outside of quotes."""


@dataclass(frozen=True)
class Variant:
    """An experiment under a name, and its stages."""

    name: str
    prepared: Prepared
    schedule: Schedule


def load_variants(
    config: str | Path, bindings: Sequence[str], plugins: Sequence[Any], others: Mapping[str, Sequence[str]]
) -> list[Variant]:
    """Return the experiment of a config under its file's name, and its variants with further bindings.

    Args:
        config: See `api.prepare`.
        bindings: See `api.prepare`.
        plugins: See `api.prepare`.
        others: Further bindings by the name of the variant.

    Raises:
        UserError: A config is wrong, or a variant has other stages, batches or colours.
    """
    first = _load_variant(Path(config).stem, config, bindings, plugins)

    # The others are measured in the same rounds, so they must do comparable work.
    comparable = [first]
    for name, further in others.items():
        require_list(f"others[{name!r}]", further)
        variant = _load_variant(name, config, [*bindings, *further], plugins)
        _require_comparable(variant, first, config)
        comparable.append(variant)
    return comparable


def _load_variant(name: str, config: str | Path, bindings: Sequence[str], plugins: Sequence[Any]) -> Variant:
    prepared = prepare(config, bindings, plugins)
    return Variant(name, prepared, prepared.schedule())


def _require_comparable(variant: Variant, first: Variant, config: str | Path) -> None:
    if _list_sizes(variant) != _list_sizes(first):
        raise UserError(f"--variant {variant.name}: it must have the stages, batch sizes and colours of {config}")
    own = variant.prepared.built.experiment
    shared = first.prepared.built.experiment
    for setting in SHARED_SETTINGS:
        if getattr(own, setting) != getattr(shared, setting):
            raise UserError(
                f"--variant {variant.name}: train.{setting} is one for all that is measured: bind it with -b"
            )


def _list_sizes(variant: Variant) -> list[tuple[str, int, int]]:
    return [(stage.size, stage.batch_size, stage.image_channels) for stage in variant.schedule.stages]


def parse_variant(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the name and the bindings in `NAME=BINDING[;BINDING...]`.

    Raises:
        UserError: The text is not of this form.
    """
    name, _, rest = text.partition("=")
    bindings = tuple(binding.strip() for binding in _BINDING.findall(rest) if binding.strip())
    if not name.strip() or not bindings:
        raise UserError(f"--variant {text!r}: write NAME=BINDING[;BINDING], as bf16=train.precision='bfloat16'")
    return name.strip(), bindings


@dataclass(frozen=True)
class Foreign:
    """A training iteration that is not ours: `make(size, alpha, width, batch, colours)`.

    It returns `(step, parameters_g, parameters_d)`: a function that runs one iteration on noise, and the parameters of
    both networks. `size` is the height of square images that doubled from the base on, `alpha` the new layers' share or
    None, `width` the maps at each size up to this one, `{4: 64, 8: 64}`. There are as many latents as maps at the base.
    """

    name: str
    make: Callable[..., tuple[Callable[[], object], Iterable[Any], Iterable[Any]]]

    def require_fit(self, variant: Variant, stage: Stage) -> None:
        """Check that the iteration can be built for a stage of an experiment.

        Raises:
            UserError: It cannot, and why.
        """
        experiment = variant.prepared.built.experiment
        if experiment.discriminator_architecture is not None:
            raise UserError(
                f"--against {self.name} needs one architecture for both networks: leave "
                "train.discriminator_architecture out"
            )
        if experiment.encoder_architecture is not None:
            raise UserError(
                f"--against {self.name} needs an update of two networks: leave train.encoder_architecture out"
            )
        if not hasattr(experiment.architecture, "width"):
            name = type(experiment.architecture).__name__
            raise UserError(f"--against {self.name} needs an architecture with a method width(stage); {name} has none")

        # The function is given one number for a size, and one for maps and latents of the base.
        stages = variant.schedule.stages[: stage.index + 1]
        if any(each.discriminator is not None for each in stages):
            raise UserError(
                "--against needs a discriminator of the generator's size: leave schedule.discriminator_height out"
            )
        if any(each.height != each.width or each.factor not in (1, 2) for each in stages):
            raise UserError("--against needs square images that double in size: see schedule.sizes")

        latents = experiment.latent_size
        maps = experiment.architecture.width(stages[0])
        if latents != maps:
            raise UserError(
                f"--against needs as many latents as maps at the base, and train.latent_size is {latents}, not {maps}"
            )

    def build(
        self, variant: Variant, stage: Stage, fading: bool, device: torch.device
    ) -> tuple[Callable[[], object], int]:
        """Return the iteration at a stage, which must fit, and the number of parameters."""
        architecture: Any = variant.prepared.built.experiment.architecture
        stages = variant.schedule.stages[: stage.index + 1]
        # A contender need not know of devices: its tensors are made on this one.
        with torch.device(device):
            step, *networks = self.make(
                size=stage.height,
                alpha=0.5 if fading else None,
                width={each.height: architecture.width(each) for each in stages},
                batch=stage.batch_size,
                colours=stage.image_channels,
            )
        parameters = sum(param.numel() for network in networks for param in network)
        return step, parameters


def load_foreign(text: str) -> Foreign:
    """Return the contender that `FILE.py:FUNCTION` names.

    Its name is that of its file, and of what follows in the function's name after `make_`: `reference bfloat16`.

    Raises:
        UserError: There is no such file or function, or the function takes other arguments.
    """
    path, _, function = text.rpartition(":")
    if not path.endswith(".py") or not function:
        raise UserError(f"--against {text!r}: write FILE.py:FUNCTION, as benchmarks/reference.py:make")

    # The function must be there, and take what it will be given.
    make = getattr(_import_file(Path(path)), function, None)
    if not callable(make):
        raise UserError(f"--against {text}: {path} has no function {function}")
    try:
        inspect.signature(make).bind(**dict.fromkeys(ARGUMENTS))
    except TypeError:
        raise UserError(f"--against {text}: {function} must take {', '.join(ARGUMENTS)}") from None
    name = Path(path).stem
    if function.startswith("make_"):
        name += f" {function.removeprefix('make_')}"
    return Foreign(name, make)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"--against: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"pggan_kit_contender_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    # A script finds what lies beside it, and its classes find their module.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise UserError(f"--against: {path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
