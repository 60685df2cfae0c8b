"""The plan of an ablation: read from its gin file, fixed at the first start, compared at each later one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from pggan_kit.ablation.first_difference import first_difference
from pggan_kit.ablation.settings import TRUNK, Ablation
from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.components import Launcher
from pggan_kit.config import gin_files as configs
from pggan_kit.config.builder import build
from pggan_kit.errors import ConfigError, PluginError, RunError, UserError
from pggan_kit.plugin_host.files import RecordedFile
from pggan_kit.plugin_host.loading import load
from pggan_kit.system.files import write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.seeding import torch_generator

PLAN = "plan.json"
ROOT = {"ablate": Ablation}

_OF_THE_PLAN = re.compile(r"\s*(\w+/)*(ablate|launchers)\b")


@dataclass(frozen=True)
class Plan:
    """All that the runs and their comparison depend on.

    Attributes:
        name: the gin file's stem.
        base: the experiment's file, as written.
        variants: the bindings of each, those of all variants included.
        seeds: of the confirmatory analysis, fixed at the first start.
        controls: variants that are controls, with their numbers of seeds.
        contrasts, primary, margin, evaluation: see `Ablation`.
        quantities: `direction` and `scale` of each value of the evaluation's metrics, as they state them.
        shared: the variants that begin from one trunk for each seed, with the trunk's own config first.
        branch: the stage whose end they begin from; None where each is trained from the start.
        configs: of each variant its whole experiment as gin text, but for the seed.
        plugins: the absolute paths of files beside the installed plugins, with their SHA-256.
        exploratory: seeds added after the first start.
    """

    name: str
    base: str
    variants: dict[str, list[str]]
    seeds: list[int]
    controls: dict[str, int]
    contrasts: list[list[str]]
    primary: str
    margin: float
    evaluation: list[str]
    quantities: dict[str, dict[str, str]]
    shared: list[str]
    branch: int | None
    configs: dict[str, str]
    plugins: dict[str, str]
    exploratory: list[int] = dataclasses.field(default_factory=list)

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change once a run has begun, by name."""
        found = dataclasses.asdict(self)
        del found["exploratory"]
        return found

    @property
    def hash(self) -> str:
        """SHA-256 of `fixed`."""
        return hashlib.sha256(json.dumps(self.fixed, sort_keys=True, allow_nan=False).encode()).hexdigest()

    @property
    def confirmatory(self) -> list[list[str]]:
        """The contrasts without a control."""
        return [pair for pair in self.contrasts if not set(pair) & set(self.controls)]

    def seeds_of(self, variant: str) -> list[int]:
        """The seeds that a variant is trained with, those added later last."""
        if variant in self.controls:
            return self.seeds[: self.controls[variant]]
        return [*self.seeds, *self.exploratory]

    def trunks(self) -> Iterator[tuple[str, int]]:
        """Runs up to the first difference, as (TRUNK, seed)."""
        if self.branch is not None:
            wanted = {seed for variant in self.shared for seed in self.seeds_of(variant)}
            yield from ((TRUNK, seed) for seed in [*self.seeds, *self.exploratory] if seed in wanted)

    def runs(self) -> Iterator[tuple[str, int]]:
        """Runs of variants as (name, seed): seed by seed, so that pairs are complete early."""
        for seed in [*self.seeds, *self.exploratory]:
            yield from ((variant, seed) for variant in self.variants if seed in self.seeds_of(variant))


def split(bindings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of a command line: those of the plan (`ablate.*`, `launchers.*`), and those of all its experiments."""
    of_plan = [text for text in bindings if _OF_THE_PLAN.match(text)]
    return of_plan, [text for text in bindings if text not in of_plan]


def read(file: str | Path, bindings: Sequence[str] = (), plugins: Sequence[str | Path] = ()) -> tuple[Plan, Launcher]:
    """Read and check an ablation's gin file and the experiment of each variant; train nothing.

    Args:
        file: binds `ablate.*`.
        bindings: overrides of the plan, and of the experiments of all variants.
        plugins: files of plugins beside the installed ones.

    Raises:
        UserError: something is wrong; the message says what and where, and of which variant.
    """
    of_plan, of_all = split(bindings)
    loaded = load(plugins)
    # All variants are built by the code whose SHA-256 is noted, also where a file is edited meanwhile.
    sha256 = {p.origin: p.sha256 for p in loaded.loaded if p.sha256 is not None}
    files = recorded_files(Path(file), sha256, named=plugins)
    settings: Ablation = build(configs.read(file, of_plan), loaded, ROOT).experiment
    base = Path(file).parent / settings.base
    variants = {name: [*settings.bindings, *of_all, *own] for name, own in settings.variants.items()}
    experiments = {name: _prepared(name, base, own, files) for name, own in variants.items()}
    _require_different(experiments)
    quantities = _stated_quantities(settings, base, variants, files)
    branch, shared = _trunk(experiments)
    plan = Plan(
        name=Path(file).stem,
        base=settings.base,
        variants=variants,
        seeds=list(settings.seeds),
        controls=dict(settings.controls),
        contrasts=[list(pair) for pair in settings.contrasts],
        primary=settings.primary,
        margin=float(settings.margin),
        evaluation=list(settings.evaluation),
        quantities=quantities,
        shared=shared,
        branch=branch,
        configs={name: experiment.built.config.text() for name, experiment in experiments.items()},
        plugins=sha256,
    )
    return plan, settings.launcher


def recorded_files(record: Path, sha256: Mapping[str, str], named: Sequence[str | Path]) -> list[RecordedFile]:
    """Return the plugin files of a plan, each with the content that it must have.

    Args:
        record: the file that the plan comes from, for errors.
        sha256: of each file, by its path.
        named: those that whoever runs this named.

    Raises:
        PluginError: a path is relative, or has no SHA-256; or a named file is none of the plan's.
    """
    by_hand = {Path(path).resolve() for path in named}
    change = "begin another ablation with the new one: ablate --out FOLDER"
    files = [RecordedFile(Path(p), value, record, change, Path(p) in by_hand) for p, value in sha256.items()]
    for path in sorted(by_hand - {file.path for file in files}):
        raise PluginError(f"--plugin {path}: {record} names no such plugin file")
    return files


def _prepared(name: str, base: Path, bindings: Sequence[str], plugins: Sequence[RecordedFile]) -> Prepared:
    if any(re.match(r"\s*train\.seed\b", text) for text in bindings):
        raise ConfigError(f"variant {name} of ablate.variants binds train.seed; bind ablate.seeds instead")
    try:
        found = prepare(base, bindings, plugins)
        found.schedule()
    except UserError as error:
        raise type(error)(f"variant {name} of ablate.variants: {error}") from error
    return found


def _stated_quantities(
    settings: Ablation, base: Path, variants: Mapping[str, Sequence[str]], plugins: Sequence[RecordedFile]
) -> dict[str, dict[str, str]]:
    """Ask the metrics what they state, before runs are trained for them. They compare noise, to see that they can.

    Raises:
        ConfigError: the primary is not among their values, or two values have one name.
    """
    try:
        prepared = prepare(base, [*next(iter(variants.values())), *settings.evaluation], plugins)
    except UserError as error:
        raise type(error)(f"ablate.evaluation: {error}") from error
    stage, metrics = prepared.schedule().stages[-1], prepared.built.experiment.metrics
    noise = torch_generator(0, "noise")
    images = torch.rand(16, stage.image_channels, stage.height, stage.width, generator=noise) * 2 - 1
    described = [(metric, metric.describe(images)) for metric in metrics]
    names = [name for metric, rows in described if rows is not None for name in metric.compare(rows[:8], rows[8:])]
    if settings.primary not in names:
        raise ConfigError(
            f"ablate.primary is {settings.primary!r}, and the metrics at {stage.size} give "
            f"{', '.join(names) or 'nothing'}: bind train.metrics in ablate.evaluation"
        )
    quantities: dict[str, dict[str, str]] = {}
    for metric in metrics:
        for name, quantity in metric.quantities.items():
            if name in quantities:
                raise ConfigError(f"ablate.evaluation: two metrics give a value {name}; give one of them a `suffix`")
            quantities[name] = {"direction": quantity.direction, "scale": quantity.scale}
    if settings.primary not in quantities:
        raise ConfigError(f"ablate.primary is {settings.primary!r}, about which its metric states no `quantities`")
    return quantities


def _require_different(experiments: Mapping[str, Prepared]) -> None:
    for one, other in combinations(experiments, 2):
        if first_difference(experiments[one], experiments[other]) is None:
            raise ConfigError(f"ablate.variants: {one} and {other} are the same experiment")


def _trunk(experiments: Mapping[str, Prepared]) -> tuple[int | None, list[str]]:
    """The stage at whose end variants part from the first one, and those that are one run with it until then."""
    first, *others = experiments
    parting = {name: first_difference(experiments[first], experiments[name]) or 0 for name in others}
    shared = [name for name in others if parting[name]]
    if not shared:
        return None, []
    return min(parting[name] for name in shared) - 1, [first, *shared]


def opened(plan: Plan, folder: Path) -> Plan:
    """The plan as it was fixed at the first start in a folder; writes it there if this is the first.

    Returns:
        The plan, with the seeds that were added since.

    Raises:
        RunError: another plan was begun there; the message names what differs.
    """
    path = folder / PLAN
    if not path.exists():
        write(plan, folder)
        return plan
    there = load_plan(folder)
    added = [seed for seed in plan.seeds if seed not in there.seeds]
    here = dataclasses.replace(plan, seeds=[seed for seed in plan.seeds if seed in there.seeds], exploratory=added)
    missing = set(there.exploratory) - set(added)
    if missing:
        raise RunError(f"{path}: seeds {sorted(missing)} were run there and are missing in ablate.seeds now")
    if here.hash != there.hash:
        raise RunError(
            f"{folder} was begun with another plan ({_difference(there.fixed, here.fixed)}). Change it back, or begin "
            "anew in another folder with --out"
        )
    write(here, folder)
    return here


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    name = next(name for name in there if there[name] != here[name])
    old, new = there[name], here[name]
    if isinstance(old, Mapping):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        name, old, new = f"{name}: {key}", old.get(key), new.get(key)
    if isinstance(old, str) and isinstance(new, str) and "\n" in old:  # a config: its first line that differs
        lines = old.splitlines(), new.splitlines()
        old, new = (next((line for line in own if line not in other), None) for own, other in (lines, lines[::-1]))
    return f"{name} was {_short(old)} and is {_short(new)}"


def _short(value: Any) -> str:
    text = "not there" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def write(plan: Plan, folder: Path) -> None:
    """Write `plan.json`, and each variant's config beside it for `train` and for people."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    for name, text in plan.configs.items():
        write_atomically(config_path(folder, name), text.encode())
    content = {**dataclasses.asdict(plan), "hash": plan.hash}
    write_atomically(folder / PLAN, (json_text(content, indent=1) + "\n").encode())


def config_path(folder: Path, variant: str) -> Path:
    """Where a variant's config lies."""
    return folder / "configs" / f"{variant}.gin"


def checked_config(plan: Plan, folder: Path, variant: str) -> Path:
    """Return where a variant's config lies.

    Raises:
        RunError: it is not the plan's.
    """
    path = config_path(folder, variant)
    try:
        same = path.read_text(encoding="utf-8") == plan.configs[variant]
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not same:
        raise RunError(f"{path} is not what {PLAN} holds: it was changed by hand; `pggan-kit ablate` writes it again")
    return path


def load_plan(folder: Path) -> Plan:
    """Read `plan.json`.

    Raises:
        RunError: there is none, or it is not what was written.
    """
    path = folder / PLAN
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        told = content.pop("hash")
        plan = Plan(**content)
        if not isinstance(plan.plugins, dict):
            raise TypeError("its plugins are no SHA-256 by path")
    except FileNotFoundError:
        raise RunError(f"{folder} holds no ablation (it has no {PLAN})") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if plan.hash != told:
        raise RunError(f"{path} was changed by hand: its hash is not that of its content")
    return plan
