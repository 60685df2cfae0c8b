"""What an ablation's gin file binds as `ablate.*`, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from pggan_kit.ablation.statistics import ALPHA, pairs_needed, smallest_p
from pggan_kit.components import Launcher
from pggan_kit.errors import SettingError, check_above, check_finite

TRUNK = "trunk"
"""No variant's name: the run before the first difference."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


@dataclass
class Ablation:
    """Variants of one experiment, trained with the same seeds, and what is asked of them.

    Args:
        base: the gin file of the experiment, relative to this one.
        variants: by name the bindings in which each differs from the base, e.g. `{'linear': [], 'hard':
            ['train.switch = @switches.Hard()']}`. The first one's config is also what is trained up to the first
            difference.
        seeds: of the runs of each variant; variants with one seed see the same images and latents. At least
            as many as it takes to find a difference at all: 6 for one confirmatory contrast, 7 for two or three, 8 for
            four to six.
        contrasts: pairs (variant, against) whose difference is asked for. Those without a control are confirmatory:
            Holm's correction goes over them.
        primary: the one metric that answers, as `evaluate` names it: of the averaged generator at the last checkpoint.
            Its metric states whether the values or their logarithms are compared, and which are better.
        margin: differences of the primary (of its logarithm, where these are compared: 0.1 is about 10 %) below this
            count as none in the test of equivalence; above 0.
        launcher: where trials run.
        controls: variants that only help to read the others, each with the number of seeds (the first ones) that it
            is trained with.
        bindings: of all variants, before their own.
        evaluation: bindings with which finished runs are evaluated, e.g. of the held-out data.

    Raises:
        ValueError: a value out of range; the message begins with its name.
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

    def __post_init__(self) -> None:
        if len(self.variants) < 2:
            raise SettingError("variants", f"must name at least two, not {list(self.variants)}")
        for name in self.variants:
            if not _NAME.fullmatch(name) or name == TRUNK:
                raise SettingError(
                    "variants",
                    f"names folders: {name!r} must begin with a letter or digit, go on with these and . - _, "
                    f"and not be {TRUNK!r}",
                )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", f"must be at least one, each once, not {list(self.seeds)}")
        for name, count in self.controls.items():
            self._require_variant("controls", name)
            if not 1 <= count <= len(self.seeds):
                raise SettingError(
                    "controls", f"gives {name} {count} seeds: it must have 1 to {len(self.seeds)} of them"
                )
        for pair in self.contrasts:
            for name in pair:
                self._require_variant("contrasts", name)
            if pair[0] == pair[1] or self.contrasts.count(pair) > 1:
                raise SettingError("contrasts", f"compares two variants once, not {tuple(pair)}")
        if not self.contrasts:
            raise SettingError("contrasts", "must hold at least one pair (variant, against)")
        self._require_enough_seeds()
        check_above("margin", self.margin, 0)
        check_finite("margin", self.margin)

    def _require_enough_seeds(self) -> None:
        confirmatory = sum(not set(pair) & set(self.controls) for pair in self.contrasts)
        if not confirmatory:
            return
        pairs, needed = len(self.seeds), pairs_needed(confirmatory)
        if pairs < needed:
            several = "contrast" if confirmatory == 1 else "contrasts"
            raise SettingError(
                "seeds",
                f"must be at least {needed} for {confirmatory} confirmatory {several}, and are {pairs}: with so "
                f"few, the corrected p is at least {confirmatory * smallest_p(pairs):.3g}, and never below {ALPHA:g}. "
                "Name variants in `controls` to compare them without a verdict",
            )

    def _require_variant(self, setting: str, name: str) -> None:
        if name not in self.variants:
            raise SettingError(setting, f"names {name!r}, which is no variant; they are {', '.join(self.variants)}")
