"""The plan of an ablation: read from its gin file, fixed at the first start, compared at each later one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pggan_kit.ablation.answers import complete_quantities, find_endpoints, require_answers, require_averages
from pggan_kit.ablation.contrasts import Contrast, find_role, make_pair
from pggan_kit.ablation.first_difference import find_first_difference
from pggan_kit.ablation.sequential import FUTILITY, SPENDING
from pggan_kit.ablation.settings import TRUNK, Ablation
from pggan_kit.ablation.sources import EVERYTHING, bind_sources, require_free_sources
from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.components import ImageMetric, Launcher, Metric, RunMetric, StageEnd, find_quantity
from pggan_kit.config import gin_files
from pggan_kit.config.bindings import Place
from pggan_kit.config.builder import BuiltConfig, build_from_config
from pggan_kit.config.gin_files import OVERRIDE, Config
from pggan_kit.errors import ConfigError, PluginError, RunError, SettingError, UserError, require_list
from pggan_kit.experiment import Experiment
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.plugin_host.plugin_files import RecordedFile, locate_plugin_file
from pggan_kit.runs.directory import ROOT as RUNS
from pggan_kit.runs.generators import count_classes
from pggan_kit.schedule import Stage
from pggan_kit.system.activities import track_items
from pggan_kit.system.files import read_text, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.seeding import torch_generator

PLAN = "plan.json"
"""Name of the plan's file in an ablation's folder."""

CONFIGS = "configs"
"""Name of the folder with the config of each variant."""

ROOT = {"ablate": Ablation}
"""The class that the bindings of a plan build, by its name in configs."""

NOT_FIXED = ("name", "base", "exploratory", "exploratory_variants", "exploratory_contrasts", "adopted")
"""Fields of a plan that may change after the first start."""

ADOPTED_KEYS = {"variant", "seed", "run", "checkpoint", "started", "revision", "hardware"}
"""Entries of what a plan records of an adopted run."""

LONGEST_SHOWN = 120
"""Maximum characters of a value in an error message."""

_PLAN_BINDING = re.compile(r"\s*(\w+/)*(ablate|launchers)\b")
_MACRO_BINDING = re.compile(r"\s*([\w/]+)\s*=")


@dataclass(frozen=True)
class Plan:
    """All that the runs of an ablation and their comparison depend on.

    Attributes:
        name: Stem of the gin file.
        base: Gin file of the experiment, as written.
        variants: Bindings of each variant, those of all variants included.
        seeds: Seeds of the confirmatory analysis, fixed at the first start.
        controls: Variants that are controls, with their numbers of seeds.
        contrasts, primary, margin, evaluation, average, averages, confirm, curves, quality, resample, spending,
            futility: See `Ablation`.
        looks: Number of pairs of each look; none if the results are looked at once, in the end.
        quantities: `direction` and `scale` of each value of the evaluation's metrics, as they state them, and of the
            endpoints of curves.
        shared: Variants that begin from one trunk for each seed; first the one whose config the trunk has.
        branch: Stage after whose end they begin; None if each variant is trained from scratch.
        configs: Whole experiment of each variant as gin text, without the seed.
        plugins: SHA-256 of each file beside the installed plugins, by its absolute path.
        exploratory: Seeds added after the first start.
        exploratory_variants: Variants added after the first start. They are in `variants`, `configs` and so on as
            well, after the others.
        exploratory_contrasts: Contrasts added after the first start, which are not in `contrasts`.
        adopted: Runs trained before that take the places of trials: `variant`, `seed`, `run` (the directory),
            `checkpoint` (SHA-256 of its last one), `started`, `revision` and `hardware`.
        effects: Contrasts of factors, see `designs.Design`.
        design: What made the variants, see `description` of `designs.Design`; empty if they were written one by one.
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
    exploratory_variants: list[str] = dataclasses.field(default_factory=list)
    exploratory_contrasts: list[list[str]] = dataclasses.field(default_factory=list)
    adopted: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    average: str | float | None = None
    averages: list[str | float] = dataclasses.field(default_factory=list)
    confirm: list[str] = dataclasses.field(default_factory=list)
    curves: list[str] = dataclasses.field(default_factory=list)
    quality: dict[str, float] = dataclasses.field(default_factory=dict)
    resample: dict[str, str] = dataclasses.field(default_factory=lambda: dict(EVERYTHING))
    effects: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    design: dict[str, Any] = dataclasses.field(default_factory=dict)
    looks: list[int] = dataclasses.field(default_factory=list)
    spending: str = SPENDING[0]
    futility: float = FUTILITY

    @property
    def fixed_fields(self) -> dict[str, Any]:
        """The fields that may not change once a trial has begun, by name.

        The names of gin files are none of them: what was written in them is in the other fields. What was added later
        is left out as well.
        """
        fields = dataclasses.asdict(self)
        for name in NOT_FIXED:
            del fields[name]
        for name in ("variants", "configs", "controls"):
            planned = {key: value for key, value in fields[name].items() if key not in self.exploratory_variants}
            fields[name] = planned
        fields["shared"] = [name for name in self.shared if name not in self.exploratory_variants]

        # A field that says nothing is left out: hashes of older plans, which have no such field, stay what they are.
        for name, default in list_defaults(type(self)).items():
            if name in fields and fields[name] == default:
                del fields[name]
        return fields

    @property
    def hash(self) -> str:
        """The SHA-256 of `fixed_fields`."""
        return hashlib.sha256(json.dumps(self.fixed_fields, sort_keys=True, allow_nan=False).encode()).hexdigest()

    @property
    def confirmatory(self) -> list[Contrast]:
        """The contrasts that get a verdict."""
        return [contrast for contrast in self.list_contrasts() if contrast.role == "confirmatory"]

    @property
    def all_seeds(self) -> list[int]:
        """The planned seeds, then those added later."""
        return [*self.seeds, *self.exploratory]

    @property
    def planned_variants(self) -> list[str]:
        """The variants that the first start had."""
        return [name for name in self.variants if name not in self.exploratory_variants]

    def is_exploratory(self, name: str, seed: int) -> bool:
        """Return whether a trial was added after the first start, or its run was trained before."""
        is_added = seed in self.exploratory or name in self.exploratory_variants
        return is_added or self.find_adopted(name, seed) is not None

    def find_adopted(self, name: str, seed: int) -> dict[str, Any] | None:
        """Return what is recorded of the run that takes the place of a trial; None if the trial has its own."""
        return next((row for row in self.adopted if (row["variant"], row["seed"]) == (name, seed)), None)

    def list_contrasts(self) -> list[Contrast]:
        """Return all planned contrasts, in the order in which they are shown."""
        contrasts = []
        for name, effect in self.effects.items():
            weights = effect["weights"]
            contrasts.append(Contrast(name, weights, find_role(weights, self.controls, effect["role"])))
        return contrasts + [make_pair(variant, against, self.controls) for variant, against in self.contrasts]

    def list_added_contrasts(self) -> list[Contrast]:
        """Return the contrasts that were added after the first start."""
        pairs = [make_pair(variant, against, ()) for variant, against in self.exploratory_contrasts]
        return [dataclasses.replace(pair, role="exploratory") for pair in pairs]

    def get_quantity(self, metric: str) -> dict[str, str]:
        """Return `direction` and `scale` of a value, by the name that `evaluate` gives it."""
        quantity = find_quantity(self.quantities, metric)
        assert quantity is not None, "an evaluation gives no value whose metric states nothing about it"
        return quantity

    def bind_seed(self, seed: int) -> list[str]:
        """Return the bindings in which the trials of a seed differ from those of others."""
        return bind_sources(self.resample, seed)

    def select_seeds(self, variant: str) -> list[int]:
        """Return the seeds that a variant is trained with, those added later last."""
        if variant in self.controls:
            return self.seeds[: self.controls[variant]]
        return self.all_seeds

    def list_trunks(self) -> Iterator[tuple[str, int]]:
        """Yield the runs up to the first difference, as (TRUNK, seed)."""
        if self.branch is None:
            return
        wanted: set[int] = set()
        for variant in self.shared:
            wanted.update(seed for seed in self.select_seeds(variant) if self.find_adopted(variant, seed) is None)
        for seed in self.all_seeds:
            if seed in wanted:
                yield TRUNK, seed

    def list_runs(self) -> Iterator[tuple[str, int]]:
        """Yield the runs of variants as (name, seed): seed by seed, so that pairs are complete early."""
        for seed in self.all_seeds:
            for variant in self.variants:
                if seed in self.select_seeds(variant):
                    yield variant, seed


def list_defaults(record: type) -> dict[str, Any]:
    """Return the default of each field of a dataclass that has one, by the field's name."""
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def split_bindings(bindings: Sequence[str], macros: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of the plan (`ablate.*`, `launchers.*` and its macros), and those of all its experiments."""
    plan_bindings = [text for text in bindings if _PLAN_BINDING.match(text) or _find_macro(text) in macros]
    experiment_bindings = [text for text in bindings if text not in plan_bindings]
    return plan_bindings, experiment_bindings


def _find_macro(text: str) -> str | None:
    """Return the name of the macro that an override defines, or None."""
    match = _MACRO_BINDING.match(text)
    return None if match is None else match[1]


def _list_macros(config: Config) -> list[str]:
    return [binding.name for binding in config.bindings if binding.is_macro]


def choose_folder(file: str | Path, out: str | Path | None) -> Path:
    """Return the folder of a gin file's ablation: the one that was named, or `runs/NAME`."""
    return RUNS / Path(file).stem if out is None else Path(out)


def read_plan(
    file: str | Path, bindings: Sequence[str] = (), plugins: Sequence[str | Path] = (), folder: Path | None = None
) -> tuple[Plan, Launcher]:
    """Read and check an ablation's gin file and the experiment of each variant; train nothing.

    Args:
        file: The gin file that binds `ablate.*`.
        bindings: Overrides of the plan, and of the experiments of all variants.
        plugins: Files of plugins beside the installed ones.
        folder: The ablation's folder. What the plan there lacks, if there is one, was added later.

    Raises:
        UserError: Something is wrong; the message says what, where and in which variant.
    """
    require_list("bindings", bindings)
    macros = _list_macros(gin_files.read_config(file))
    plan_bindings, experiment_bindings = split_bindings(bindings, macros)
    loaded = load_plugins(plugins)

    # All variants are built by the code whose SHA-256 is recorded, even if a file is edited meanwhile.
    sha256 = {plugin.origin: plugin.sha256 for plugin in loaded.loaded if plugin.sha256 is not None}
    files = list_recorded_files(Path(file), sha256, named=plugins)

    built = build_from_config(gin_files.read_config(file, plan_bindings), loaded, ROOT)
    settings: Ablation = built.experiment
    base = Path(file).parent / settings.base
    _require_one_meaning(plan_bindings, _read_base(base, built), file, base)
    added_variants, added_contrasts = _find_additions(settings, folder)
    try:
        settings.require_enough_seeds(added_contrasts)
    except SettingError as error:
        raise ConfigError(f"{_find_place(built, 'seeds')}: ablate.{error}") from None

    variants = {}
    experiments = {}
    planned_names = [name for name in settings.all_variants if name not in added_variants]
    names = [*planned_names, *added_variants]
    for name in track_items(names, "checking", len(names), "variants"):
        own_bindings = settings.all_variants[name]
        variants[name] = [*settings.bindings, *experiment_bindings, *own_bindings]
        shared = [*settings.bindings, *experiment_bindings]
        place = settings.find_setting(name)
        require_free_sources(settings.resample, shared, "the bindings of all variants hold")
        require_free_sources(settings.resample, own_bindings, f"variant {name} of {place} binds")
        experiments[name] = _prepare_variant(name, place, base, shared, own_bindings, files)
        _require_sources(settings, name, base, variants[name], files)

    # A list of bindings is as a file: it binds nothing twice.
    lists = {f"variant {name}": own_bindings for name, own_bindings in settings.all_variants.items()}
    lists |= {"ablate.bindings": settings.bindings, "ablate.evaluation": settings.evaluation}
    lists["ablate.resample"] = bind_sources(settings.resample, settings.seeds[0])
    for name, texts in lists.items():
        gin_files.parse_text("\n".join(texts), name)

    # What the comparison needs is checked now, and not after hours of training.
    _require_different(settings, experiments)
    require_averages(settings, experiments)
    quantities = _find_quantities(settings, base, variants, files, find_endpoints(settings, experiments))
    branch, shared = _find_trunk({name: experiments[name] for name in planned_names})
    for name in added_variants:
        if branch is not None and (find_first_difference(experiments[shared[0]], experiments[name]) or 0) > branch:
            shared.append(name)
    plan = Plan(
        name=Path(file).stem,
        base=settings.base,
        variants=variants,
        seeds=list(settings.seeds),
        controls=dict(settings.controls),
        contrasts=[list(pair) for pair in settings.all_pairs if list(pair) not in added_contrasts],
        primary=settings.primary,
        margin=float(settings.margin),
        evaluation=list(settings.evaluation),
        quantities=quantities,
        shared=shared,
        branch=branch,
        configs={name: experiment.built.config.text() for name, experiment in experiments.items()},
        plugins=sha256,
        exploratory_variants=added_variants,
        exploratory_contrasts=added_contrasts,
        average=settings.average,
        averages=list(settings.averages),
        confirm=list(settings.confirm),
        curves=list(settings.curves),
        quality={name: float(quality) for name, quality in settings.quality.items()},
        resample=dict(settings.resample),
        effects=settings.design.effects,
        design=settings.design.description,
        looks=list(settings.looks) if len(settings.looks) > 1 else [],
        spending=settings.spending,
        futility=float(settings.futility),
    )
    return plan, settings.launcher


def _find_additions(settings: Ablation, folder: Path | None) -> tuple[list[str], list[list[str]]]:
    """Return the variants and the contrasts that the plan of a folder lacks; none if it is another plan."""
    if folder is None or not (folder / PLAN).exists():
        return [], []
    fixed = load_plan(folder)
    variants = list(settings.all_variants)
    contrasts = [list(pair) for pair in settings.all_pairs]

    # Without something that was planned it is another plan, whose difference is named later.
    if not set(fixed.planned_variants) <= set(variants) or any(pair not in contrasts for pair in fixed.contrasts):
        return [], []
    added_variants = [name for name in variants if name not in fixed.planned_variants]
    return added_variants, [pair for pair in contrasts if pair not in fixed.contrasts]


def _find_place(built: BuiltConfig[Any], name: str) -> Place:
    """Return where a setting of the ablation is bound."""
    (place,) = [binding.place for binding in built.config.bindings if binding.key == ("", "ablate", name)]
    return place


def _read_base(base: Path, built: BuiltConfig[Any]) -> Config:
    """Return the config of the experiment as its file has it.

    Raises:
        ConfigError: The file is missing or cannot be read; the message says where it is named.
    """
    try:
        return gin_files.read_config(base)
    except ConfigError as error:
        place = _find_place(built, "base")
        raise ConfigError(f"{place}: ablate.base, which is relative to the ablation's file: {error}") from None


def _require_one_meaning(plan_bindings: Sequence[str], base_config: Config, file: str | Path, base: Path) -> None:
    """Check that no override defines a macro of the plan that the experiment has too.

    Raises:
        ConfigError: One does; the message says what to write instead.
    """
    macros = _list_macros(base_config)
    for text in plan_bindings:
        name = _find_macro(text)
        if name in macros:
            raise ConfigError(
                f"{OVERRIDE} '{text}': {file} and {base} both define {name}; give the macro another name in one of "
                "them, or override the setting that uses it"
            )


def list_recorded_files(record: Path, sha256: Mapping[str, str], named: Sequence[str | Path]) -> list[RecordedFile]:
    """Return the plugin files of a plan, each with the content that it must have.

    Args:
        record: The file that the plan comes from, for error messages.
        sha256: SHA-256 of each file, by its path.
        named: Files that the user named.

    Raises:
        PluginError: A path is relative, or has no SHA-256; or a named file is not in the plan.
    """
    # A file that the user named may run, even if it was never named on this machine before.
    named_paths = {locate_plugin_file(path) for path in named}
    remedy = "begin another ablation with the new one: ablate --out FOLDER"
    files = []
    for text, value in sha256.items():
        path = Path(text)
        files.append(RecordedFile(path, value, record, remedy, path in named_paths))

    unknown = named_paths - {file.path for file in files}
    for path in sorted(unknown):
        raise PluginError(f"--plugin {path}: {record} names no such plugin file")
    return files


def _prepare_variant(
    name: str, place: str, base: Path, shared: Sequence[str], own: Sequence[str], plugins: Sequence[RecordedFile]
) -> Prepared:
    """Return the experiment of a variant, with a schedule that can be made.

    Args:
        name: The variant.
        place: Name of the setting that makes it, for error messages.
        base: Gin file of the experiment.
        shared: Bindings of all variants.
        own: Bindings of this one.
        plugins: The plan's plugin files.

    Raises:
        UserError: The experiment is wrong; the message names the variant, unless all variants have the fault.
    """
    try:
        prepared = prepare(base, [*shared, *own], plugins)
        prepared.schedule()
    except UserError as error:
        owner = f"variant {name}"
        if str(error) == _find_fault(base, shared, plugins):
            owner = "all variants"
        raise type(error)(f"{owner} of {place}: {error}") from error
    return prepared


def _find_fault(base: Path, bindings: Sequence[str], plugins: Sequence[RecordedFile]) -> str | None:
    """Return what is wrong with an experiment, or None."""
    try:
        prepare(base, bindings, plugins).schedule()
    except UserError as error:
        return str(error)
    return None


def _require_sources(
    settings: Ablation, name: str, base: Path, bindings: Sequence[str], plugins: Sequence[RecordedFile]
) -> None:
    """Check that a variant has the settings that vary between its trials.

    Raises:
        UserError: It has not; the message names the variant.
    """
    # Every experiment has the seed of everything, and building it again takes time.
    if settings.resample == EVERYTHING:
        return
    try:
        prepare(base, [*bindings, *bind_sources(settings.resample, settings.seeds[0])], plugins).schedule()
    except UserError as error:
        raise type(error)(f"ablate.resample, in variant {name}: {error}") from error


def _find_quantities(
    settings: Ablation,
    base: Path,
    variants: Mapping[str, Sequence[str]],
    plugins: Sequence[RecordedFile],
    endpoints: Mapping[str, dict[str, str]],
) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of each value that runs are compared by, after a trial comparison of noise.

    Args:
        settings: The ablation's settings.
        base: Gin file of the experiment.
        variants: Bindings of each variant.
        plugins: The plan's plugin files.
        endpoints: `direction` and `scale` of the endpoints of curves.

    Raises:
        ConfigError: The primary or a confirming value is not among the values, or two values have one name.
    """
    first_variant = next(iter(variants.values()))
    try:
        prepared = prepare(base, [*first_variant, *settings.evaluation], plugins)
    except UserError as error:
        raise type(error)(f"ablate.evaluation: {error}") from error
    stages = prepared.schedule().stages
    stage = stages[-1]
    experiment = prepared.built.experiment
    metrics = experiment.metrics

    # The names of a metric's values are known when it has compared something.
    images = _draw_noise(stage, 16)
    ends = [_make_noise_end(stage, experiment) for stage in stages if stage.budget > 0]
    of_images: list[str] = []
    of_runs: list[str] = []
    with warnings.catch_warnings():
        # What a metric says of so few images is not true of the experiment.
        warnings.simplefilter("ignore", UserWarning)
        for metric in metrics:
            if isinstance(metric, ImageMetric):
                descriptions = metric.describe(images)
                if descriptions is not None:
                    of_images += metric.compare(descriptions[:8], descriptions[8:])
            elif isinstance(metric, RunMetric):
                of_runs += metric.measure_run(ends)
    require_answers(settings, stage.size, of_images, [*of_runs, *endpoints])

    return complete_quantities(settings, list_quantities(metrics), endpoints)


def list_quantities(metrics: Iterable[Metric]) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of each value of metrics, by which the analysis compares values.

    Raises:
        ConfigError: Two values have one name.
    """
    quantities: dict[str, dict[str, str]] = {}
    for metric in metrics:
        for name, quantity in metric.quantities.items():
            if name in quantities:
                raise ConfigError(f"ablate.evaluation: two metrics give a value {name}; give one of them a `suffix`")
            quantities[name] = {"direction": quantity.direction, "scale": quantity.scale}
    return quantities


def _draw_noise(stage: Stage, count: int) -> Tensor:
    """Return images of noise (count, C, h, w) in [-1, 1], always the same."""
    shape = (count, stage.image_channels, stage.height, stage.width)
    return torch.rand(shape, generator=torch_generator(0, "noise")) * 2 - 1


def _make_noise_end(stage: Stage, experiment: Experiment) -> StageEnd:
    """Return the end of a stage whose generator draws noise."""

    def generate(latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return _draw_noise(stage, len(latents))

    return StageEnd(stage, 0, experiment.latent_size, count_classes(experiment, stage), generate)


def _require_different(settings: Ablation, experiments: Mapping[str, Prepared]) -> None:
    for one, other in combinations(experiments, 2):
        if find_first_difference(experiments[one], experiments[other]) is None:
            raise ConfigError(f"{settings.find_setting(other)}: {one} and {other} are the same experiment")


def _find_trunk(experiments: Mapping[str, Prepared]) -> tuple[int | None, list[str]]:
    """Return the last stage that variants have in common with the first one, and these variants.

    Returns:
        The stage, and the names, the first variant's before the others; None and no names if nothing is shared.
    """
    # A difference at stage 0 leaves nothing to share.
    first, *others = experiments
    first_stages = {}
    for name in others:
        stage = find_first_difference(experiments[first], experiments[name])
        if stage:
            first_stages[name] = stage
    if not first_stages:
        return None, []
    return min(first_stages.values()) - 1, [first, *first_stages]


def compare_with_fixed(plan: Plan, folder: Path) -> Plan:
    """Compare a plan with the one that was fixed in a folder at the first start, if there is one.

    Returns:
        The plan that is fixed there, with what was added since.

    Raises:
        RunError: The folder holds another plan; the message names what differs.
    """
    path = folder / PLAN
    if not path.exists():
        return plan

    # Seeds, variants and contrasts that the first start did not have are exploratory; all else must be the same.
    fixed = load_plan(folder)
    planned = [seed for seed in plan.seeds if seed in fixed.seeds]
    added = [seed for seed in plan.seeds if seed not in fixed.seeds]
    current = dataclasses.replace(plan, seeds=planned, exploratory=added, adopted=fixed.adopted)
    missing = set(fixed.exploratory) - set(added)
    if missing:
        raise RunError(f"{path}: seeds {sorted(missing)} were run there and are missing in ablate.seeds now")
    gone = [name for name in fixed.exploratory_variants if name not in current.exploratory_variants]
    if gone:
        raise RunError(f"{path}: variants {gone} were run there and are missing in ablate.variants now")
    for name in fixed.exploratory_variants:
        if fixed.configs[name] != current.configs[name]:
            change = _describe_change(fixed.configs[name], current.configs[name])
            raise RunError(
                f"{folder} has runs of another variant {name} (its config {change}). Change it back, or add the new "
                "one under another name"
            )
    additions = {"seeds": added, "variants": current.exploratory_variants, "contrasts": current.exploratory_contrasts}
    for kind, names in additions.items():
        if names and fixed.looks:
            raise RunError(f"{path}: {kind} {names} cannot be added: its looks decide when to stop, and are fixed")
    if current.hash != fixed.hash:
        raise RunError(
            f"{folder} was begun with another plan ({_describe_difference(fixed, current)}). Change it back, or start "
            "from scratch in another folder with --out"
        )
    return current


def _describe_difference(old_plan: Plan, new_plan: Plan) -> str:
    """Return which field of a plan changed, and how; of mappings the first entry that changed."""
    defaults = list_defaults(Plan)
    old_fields = {**defaults, **old_plan.fixed_fields}
    new_fields = {**defaults, **new_plan.fixed_fields}
    name = next(name for name in old_fields if old_fields[name] != new_fields[name])
    old: Any = old_fields[name]
    new: Any = new_fields[name]
    while isinstance(old, Mapping) and isinstance(new, Mapping):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        name = f"{name}: {key}"
        old = old.get(key)
        new = new.get(key)

    return f"{name} {_describe_change(old, new)}"


def _describe_change(old: Any, new: Any) -> str:
    """Return how a value changed; of a config the first line that differs, which says more than its head."""
    if isinstance(old, str) and isinstance(new, str) and "\n" in old:
        old_lines = old.splitlines()
        new_lines = new.splitlines()
        if sorted(old_lines) == sorted(new_lines):
            pairs = zip(old_lines, new_lines, strict=True)
            old, new = next(pair for pair in pairs if pair[0] != pair[1])
            return f"has its lines in another order: where it had `{_shorten(old)}`, it has `{_shorten(new)}`"
        old = next((line for line in old_lines if line not in new_lines), None)
        new = next((line for line in new_lines if line not in old_lines), None)
    return f"was {_shorten(old)} and is {_shorten(new)}"


def _shorten(value: Any) -> str:
    """Return a value as text of at most `LONGEST_SHOWN` characters."""
    if value is None:
        return "not there"
    text = str(value)
    if len(text) > LONGEST_SHOWN:
        return f"{text[:LONGEST_SHOWN]}..."
    return text


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `plan.json`, and each variant's config beside it for trials and for people."""
    (folder / CONFIGS).mkdir(parents=True, exist_ok=True)
    for name, text in plan.configs.items():
        write_atomically(locate_config(folder, name), text.encode())
    content = {**dataclasses.asdict(plan), "hash": plan.hash}
    write_atomically(folder / PLAN, (json_text(content, indent=1) + "\n").encode())


def locate_config(folder: Path, variant: str) -> Path:
    """Return the path of a variant's config."""
    return folder / CONFIGS / f"{variant}.gin"


def check_config(plan: Plan, folder: Path, variant: str) -> Path:
    """Check that a variant's config has the content that the plan records; return its path.

    Raises:
        RunError: It has another content, or cannot be read.
    """
    path = locate_config(folder, variant)
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if text != plan.configs[variant]:
        raise RunError(f"{path} is not what {PLAN} holds: it was changed by hand; `pggan-kit ablate` writes it again")
    return path


def load_plan(folder: Path) -> Plan:
    """Load the plan that `plan.json` holds.

    Raises:
        RunError: The file is missing, or is not what was written.
    """
    path = folder / PLAN
    try:
        content = json.loads(read_text(path))
        recorded_hash = content.pop("hash")
        plan = Plan(**content)
        if not isinstance(plan.plugins, dict):
            raise TypeError("`plugins` is not a mapping from paths to SHA-256")
        if not all(row.keys() >= ADOPTED_KEYS for row in plan.adopted):
            raise TypeError("a row of `adopted` lacks an entry")
    except FileNotFoundError:
        raise RunError(f"{folder} holds no ablation (it has no {PLAN})") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    # A plan edited after the first start would no longer be the one that was fixed.
    if plan.hash != recorded_hash:
        raise RunError(f"{path} was changed by hand: its hash is not that of its content")
    return plan
