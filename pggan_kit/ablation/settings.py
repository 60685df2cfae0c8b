"""The settings that an ablation's gin file binds as `ablate.*`, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from pggan_kit.ablation.sources import EVERYTHING, check_sources
from pggan_kit.ablation.statistics import ALPHA, compute_smallest_p, count_pairs_needed
from pggan_kit.components import Launcher
from pggan_kit.errors import SettingError, check_above, check_between, check_finite, check_seed
from pggan_kit.growth.power_functions import LARGEST_WIDTH

TRUNK = "trunk"
"""Name of the run before the first difference; no variant may have it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


@dataclass
class Ablation:
    """Variants of one experiment, trained with the same seeds, and the questions that they answer.

    Args:
        base: Gin file of the experiment, relative to this one.
        variants: Bindings in which each variant differs from the base, by its name, e.g. `{'linear': [], 'hard':
            ['train.switch = @switches.Hard()']}`. The config of the first one is also trained up to the first
            difference.
        seeds: Seeds of the runs of each variant, each from 0 to 2**63 - 1; variants with one seed see the same images
            and latents. At least as many as it takes to find a difference at all: 6 for one confirmatory contrast, 7
            for two or three, 8 for four to six.
        contrasts: Pairs (variant, against) that are compared. Those without a control are confirmatory: Holm's
            correction covers them.
        primary: Name of the one value that answers, as `evaluate` gives it, for the averaged generator at the last
            checkpoint. Its metric states whether values or their logarithms are compared, and which are better.
        margin: Largest difference of the primary that counts as none in the test of equivalence, above 0; of its
            logarithm if logarithms are compared (0.1 is about 10 %).
        launcher: Launcher that runs the trials.
        controls: Variants that only help to read the others, each with the number of seeds (the first ones) that it
            is trained with.
        bindings: Bindings of all variants, before their own.
        evaluation: Bindings with which finished runs are evaluated, e.g. of the held-out data.
        average: Average of the generator that is evaluated: its name, or a width of a power function, such as 0.05.
            None for the first of each variant's `train.averages`.
        resample: What varies between the trials of a variant: bindings in which `{seed}` is the trial's seed, by the
            name of what they drive, e.g. `{'networks': 'train.network_seed = {seed}'}`. All else is the same in all
            trials. Default: `{'everything': 'train.seed = {seed}'}`.

    Raises:
        SettingError: A value is out of range.
    """

    _: KW_ONLY
    base: str
    variants: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    contrasts: Sequence[tuple[str, str]]
    primary: str
    margin: float
    launcher: Launcher
    controls: Mapping[str, int] = field(default_factory=dict)
    bindings: Sequence[str] = ()
    evaluation: Sequence[str] = ()
    average: str | float | None = None
    resample: Mapping[str, str] = field(default_factory=lambda: dict(EVERYTHING))

    def __post_init__(self) -> None:
        self._check_variants()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", f"must be at least one, each once, not {list(self.seeds)}")
        for seed in self.seeds:
            check_seed("seeds", seed)

        # Controls and contrasts refer to variants and seeds.
        for name, count in self.controls.items():
            self._require_variant("controls", name)
            if not 1 <= count <= len(self.seeds):
                raise SettingError(
                    "controls", f"must give {name} from 1 to {len(self.seeds)} of the seeds, and gives it {count}"
                )
        self._check_contrasts()

        check_sources(self.resample)
        check_above("margin", self.margin, 0)
        check_finite("margin", self.margin)
        if isinstance(self.average, (int, float)):
            check_between("average", self.average, 0, LARGEST_WIDTH, low_included=False, instead="a name")

    def _check_variants(self) -> None:
        if len(self.variants) < 2:
            raise SettingError("variants", f"must name at least two, not {list(self.variants)}")
        for name in self.variants:
            if not _NAME.fullmatch(name) or name == TRUNK:
                raise SettingError(
                    "variants",
                    f"names folders: {name!r} must begin with a letter or digit, go on with these and . - _, "
                    f"and not be {TRUNK!r}",
                )

    def _check_contrasts(self) -> None:
        for pair in self.contrasts:
            for name in pair:
                self._require_variant("contrasts", name)
            if pair[0] == pair[1] or self.contrasts.count(pair) > 1:
                raise SettingError(
                    "contrasts", f"must compare two different variants, each pair once, not {tuple(pair)}"
                )
        if not self.contrasts:
            raise SettingError("contrasts", "must hold at least one pair (variant, against)")

    def require_enough_seeds(self, exploratory: Sequence[Sequence[str]] = ()) -> None:
        """Refuse a plan whose corrected p-values cannot fall below the level, whatever the runs give.

        Args:
            exploratory: Contrasts that were added to the plan after the first start, and are not corrected for.

        Raises:
            SettingError: There are too few seeds.
        """
        planned = [pair for pair in self.contrasts if list(pair) not in [list(added) for added in exploratory]]
        confirmatory = sum(not set(pair) & set(self.controls) for pair in planned)
        if not confirmatory:
            return
        pairs = len(self.seeds)
        needed = count_pairs_needed(confirmatory)
        if pairs < needed:
            noun = "contrast" if confirmatory == 1 else "contrasts"
            raise SettingError(
                "seeds",
                f"must be at least {needed} for {confirmatory} confirmatory {noun}, and are {pairs}: with these, the "
                f"corrected p is at least {confirmatory * compute_smallest_p(pairs):.3g}, and never below {ALPHA:g}. "
                "Name variants in `controls` to compare them without a verdict",
            )

    def _require_variant(self, setting: str, name: str) -> None:
        if name not in self.variants:
            raise SettingError(
                setting, f"names {name!r}, which is not a variant; the variants are {', '.join(self.variants)}"
            )
