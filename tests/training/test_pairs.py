"""Train every architecture with every resampling, loss and switch through a transition: all pairs, not all products.

The components are those of the installed plugins, so a new one joins by itself; one with parameters that need a value
gets them in `VALUES`, and fails here until it does.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest
import torch

from pggan_kit.api.train import train
from pggan_kit.errors import ConfigError
from pggan_kit.plugin_host.loading import load_plugins

KINDS = ("architectures", "resampling", "losses", "switches")

TINY = """\
schedule.sizes = (4, 8)
schedule.fade_images = 8
schedule.stable_images = 4
schedule.batch_size = 4
train.update = @updates.Alternating()
train.dataset = @datasets.Stub()
train.generator_optimizer = @g/optimizers.Adam()
train.discriminator_optimizer = @d/optimizers.Adam()
train.latent_size = 8
train.tick = 4
train.collapse_below = 0.0
train.checkpoint_every = 'phase'
train.device = 'cpu'
"""
"""Config of 4 steps of 4 images: 1 at 4x4, 2 fading, 1 at 8x8."""

VALUES = {
    "switches.Plateau": {"watch": "'Scores/real_sign'", "window": "8", "tolerance": "0.1"},
    "architectures.R3GAN": {"group_size": "4"},
    "losses.Sum": {"losses": "[@losses.Hinge(), @losses.LeastSquares()]"},
    "architectures.StyleGAN2": {"style_size": "8", "mapping_layers": "2"},
}
"""Beside these, every parameter with `channels` in its name is 4."""

Case = tuple[str, ...]


def build_pairwise_cases(axes: Sequence[Sequence[str]], refused: Collection[Case] = ()) -> list[Case]:
    """Return few cases of one value per axis in which each two values of different axes meet at least once.

    The search is greedy: each case begins with a pair that has not met, and takes on the other axes the value that
    meets most others for the first time.

    Args:
        axes: Values by axis.
        refused: Pairs that no case holds.
    """

    def is_allowed(case: Mapping[int, str], value: str) -> bool:
        return not any((chosen, value) in refused or (value, chosen) in refused for chosen in case.values())

    def list_pairs(case: Mapping[int, str]) -> set[tuple[int, str, int, str]]:
        return {(a, case[a], b, case[b]) for a, b in itertools.combinations(sorted(case), 2)}

    waiting = {
        (a, x, b, y): None  # in order, unlike a set's
        for a, b in itertools.combinations(range(len(axes)), 2)
        for x, y in itertools.product(axes[a], axes[b])
        if is_allowed({a: x}, y)
    }
    cases = []
    while waiting:
        a, x, b, y = next(iter(waiting))
        case = {a: x, b: y}
        for axis in range(len(axes)):
            if axis not in case:
                values = [value for value in axes[axis] if is_allowed(case, value)]
                scores = {value: len(list_pairs({**case, axis: value}) & waiting.keys()) for value in values}
                case[axis] = max(values, key=scores.__getitem__)
        for pair in list_pairs(case):
            waiting.pop(pair, None)
        cases.append(tuple(case[axis] for axis in range(len(axes))))
    return cases


ROWS = load_plugins().rows
AXES = [[selector for selector, row in ROWS.items() if row.component.kind == kind] for kind in KINDS]


def list_parameters(selector: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(ROWS[selector].component.factory).parameters


CLASSIFIER = "losses.AuxiliaryClassifier"
"""The one loss that reads class logits, and so wants labels and an architecture that can classify."""

REFUSED = [(name, CLASSIFIER) for name in AXES[0] if CLASSIFIER in ROWS and "conditioning" not in list_parameters(name)]
"""Pairs that must say why they do not go together."""

CASES = build_pairwise_cases(AXES, REFUSED)


def list_bindings(case: Case) -> list[str]:
    """Return the bindings that choose a case's components."""
    bindings = [
        f"train.{name} = @{selector}()"
        for name, selector in zip(("architecture", "resampling", "loss", "switch"), case, strict=True)
    ]
    for selector in case:
        values = {name: "4" for name in list_parameters(selector) if "channels" in name} | VALUES.get(selector, {})
        if CLASSIFIER in case and "conditioning" in list_parameters(selector):
            values["conditioning"] = "'auxiliary'"
        bindings += [f"{selector}.{name} = {value}" for name, value in values.items()]
    if CLASSIFIER in case:
        bindings.append("datasets.Stub.classes = 3")
    return bindings


def test_all_pairs_meet_in_fewer_cases_than_the_product() -> None:
    for sizes in ((2, 2, 2), (4, 5, 7, 7), (3, 1, 6, 2), (1, 1, 1)):
        axes = [[f"{axis}.{value}" for value in range(size)] for axis, size in enumerate(sizes)]
        cases = build_pairwise_cases(axes)
        for a, b in itertools.combinations(range(len(axes)), 2):
            assert {(case[a], case[b]) for case in cases} == set(itertools.product(axes[a], axes[b]))
        least = math.prod(sorted(sizes)[-2:])
        assert len(cases) <= 1.5 * least
        assert len(cases) == len(set(cases))


def test_refused_pairs_are_left_out_and_cost_no_other_pair() -> None:
    axes = [["a", "b"], ["x", "y", "z"], ["1", "2"]]
    cases = build_pairwise_cases(axes, [("a", "x")])
    pairs = {pair for case in cases for pair in itertools.combinations(case, 2)}
    wanted = {pair for one, two in itertools.combinations(axes, 2) for pair in itertools.product(one, two)}
    assert pairs == wanted - {("a", "x")}


def test_every_registered_component_is_there() -> None:
    assert all(AXES)
    assert {selector for case in CASES for selector in case} == {
        selector for selector, row in ROWS.items() if row.component.kind in KINDS
    }


@pytest.mark.usefixtures("few_calibrations")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(name.partition(".")[2] for name in case))
def test_pair_trains_through_a_transition(case: Case, tiny: Callable[..., str], stub: str) -> None:
    state: Any = train(tiny(*list_bindings(case), base=TINY), plugins=[stub]).state
    assert state.steps >= 4 and state.images == state.schedule.total
    assert len(state.starts) == 2 and state.stage.height == 8
    for net in (state.generator, state.discriminator, state.ema):
        for name, value in net.state_dict().items():
            assert value.isfinite().all(), f"{net.kind}.{name}"
    labels = torch.tensor([0, 1, 2, 0]) if CLASSIFIER in case else None
    assert state.ema(torch.randn(4, 8), labels).isfinite().all()


def test_refused_pairs_say_why(tiny: Callable[..., str], stub: str) -> None:
    for architecture, loss in REFUSED:
        config = tiny(*list_bindings((architecture, "resampling.Nearest", loss, "switches.Linear")), base=TINY)
        with pytest.raises(ConfigError, match="conditioning"):
            train(config, plugins=[stub])
