"""The plan of an ablation, and its file: fixed at the first start, the same at each later one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.ablation.contrasts import Contrast, find_role, make_pair
from pggan_kit.ablation.error_spending import SPENDING
from pggan_kit.ablation.sequential import FUTILITY
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.sources import EVERYTHING, bind_sources
from pggan_kit.components import find_quantity
from pggan_kit.sweeps.plan import SweepPlan
from pggan_kit.system.files import write_atomically
from pggan_kit.trials.plan_files import list_defaults, load_plan_file, require_planned_config, write_plan_file

PLAN = "plan.json"
"""Name of the plan's file in an ablation's folder."""

CONFIGS = "configs"
"""Name of the folder with the config of each variant."""

NOT_FIXED = ("name", "base", "exploratory", "exploratory_variants", "exploratory_contrasts", "adopted")
"""Fields of a plan that may change after the first start."""

ADOPTED_KEYS = {"variant", "seed", "run", "checkpoint", "started", "revision", "hardware"}
"""Entries of what a plan records of an adopted run."""


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
        tune: The search within each variant before the comparison, as `SweepPlan` has it; empty if there is none.
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
    tune: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def fixed_fields(self) -> dict[str, Any]:
        """The fields that may not change once a trial has begun, by name.

        The names of gin files are none of them: what was written in them is in the other fields. What was added later
        is left out as well.
        """
        fields = dataclasses.asdict(self)
        for name in NOT_FIXED:
            del fields[name]
        for name in ("variants", "configs", "controls", "tune"):
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

    @property
    def searches(self) -> dict[str, SweepPlan]:
        """The search within each variant."""
        return {name: SweepPlan(**fields) for name, fields in self.tune.items()}

    def bind_seed(self, seed: int) -> list[str]:
        """Return the bindings in which the trials of a seed differ from those of others."""
        return bind_sources(self.resample, seed)

    def select_seeds(self, variant: str) -> list[int]:
        """Return the seeds that a variant is trained with, those added later last.

        A control that was planned has no more than the planned ones; one that was added may have others too.
        """
        if variant in self.controls:
            return self.all_seeds[: self.controls[variant]]
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


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `plan.json`, and each variant's config beside it for trials and for people."""
    (folder / CONFIGS).mkdir(parents=True, exist_ok=True)
    for name, text in plan.configs.items():
        write_atomically(locate_config(folder, name), text.encode())
    write_plan_file(plan, folder / PLAN)


def locate_config(folder: Path, variant: str) -> Path:
    """Return the path of a variant's config."""
    return folder / CONFIGS / f"{variant}.gin"


def check_config(plan: Plan, folder: Path, variant: str) -> Path:
    """Check that a variant's config has the content that the plan records; return its path.

    Raises:
        RunError: It has another content, or cannot be read.
    """
    path = locate_config(folder, variant)
    require_planned_config(path, plan.configs[variant], PLAN)
    return path


def load_plan(folder: Path) -> Plan:
    """Load the plan that `plan.json` holds.

    Raises:
        RunError: The file is missing, of another version, or not what was written.
    """
    remains = "Its results.csv, analysis.json and table.txt can be read without it, and `pggan-kit report` shows them"
    return load_plan_file(folder / PLAN, Plan, "ablation", remains, _require_whole_rows)


def _require_whole_rows(plan: Plan) -> None:
    """Check what a plan records of plugin files and of adopted runs.

    Raises:
        TypeError: It is no record of these.
    """
    if not isinstance(plan.plugins, dict):
        raise TypeError("`plugins` is not a mapping from paths to SHA-256")
    if not all(row.keys() >= ADOPTED_KEYS for row in plan.adopted):
        raise TypeError("a row of `adopted` lacks an entry")
