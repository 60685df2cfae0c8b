"""Tests of the generator penalties against float64 formulas, in steps of training, and of their conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compiled_steps import Steps
from helpers.variants import train_once
from torch import Tensor

from pggan_kit.components import Fakes
from pggan_kit.errors import ConfigError, SettingError
from pggan_kit.schedule import Position
from pggan_kit.testing import GeneratorPenaltySuite
from pggan_kit.testing.generator_penalties import StyledToyArchitecture
from pggan_kit.testing.support import are_equal, draw_noise, measure_difference
from pggan_kit.testing.tiny_runs import load_mid_fade, make_tiny_experiment, summarize_run, train_tiny
from pggan_plugins.architectures import PGGAN, SkipPGGAN, StyleGAN2
from pggan_plugins.generator_penalties import ModeSeeking, PathLength, ScaleConsistency
from pggan_plugins.losses import Hinge

RNG = np.random.default_rng(0)
A = RNG.normal(size=(2, 3))  # latents (3) to styles (2)
B = RNG.normal(size=(6, 2))  # the first layer's style to pixels
C = RNG.normal(size=(6, 2))  # the second layer's style to pixels
LATENTS = RNG.normal(size=(4, 3))
NOISE = RNG.normal(size=(4, 1, 2, 3))

Formula = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"""A penalty as a function of the weights A, B and C, in numpy."""


def draw_by_hand(z: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return one image as 6 pixels."""
    w = np.tanh(a @ z)
    return np.asarray(np.tanh(b @ w) * (1 + np.tanh(c @ w)))


def path_length(styled: bool, memory: float) -> Formula:
    def formula(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        total = 0.0
        for z, y in zip(LATENTS, NOISE.reshape(4, 6), strict=True):
            w = np.tanh(a @ z)
            first = np.tanh(b @ w)
            second = np.tanh(c @ w)
            # By each layer's style, then, where it is by the latents, both through the mapping.
            by_first = b.T @ (y * (1 + second) * (1 - first**2))
            by_second = c.T @ (y * first * (1 - second**2))
            if styled:
                squared = ((by_first**2).sum() + (by_second**2).sum()) / 2
            else:
                squared = ((a.T @ ((by_first + by_second) * (1 - w**2))) ** 2).sum()
            total += (np.sqrt(squared / 6) - memory) ** 2
        return total / 4

    return formula


def mode_seeking(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    total = 0.0
    for one, other in ((0, 2), (1, 3)):
        images = np.abs(draw_by_hand(LATENTS[one], a, b, c) - draw_by_hand(LATENTS[other], a, b, c)).mean()
        total += 1 / (images / np.abs(LATENTS[one] - LATENTS[other]).mean() + 1e-5)
    return total / 2


def make_fakes(
    a: Tensor, b: Tensor, c: Tensor, styled: bool = True, memory: float = 0.0, labels: Tensor | None = None
) -> Fakes:
    """Return the fakes of the generator that `draw_by_hand` is a transcription of."""

    def draw(latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return draw_from(latents, torch.tanh(latents @ a.T)[:, None].expand(-1, 2, -1))

    def draw_from(latents: Tensor, styles: Tensor) -> Tensor:
        first = (styles[:, 0] @ b.T).tanh()
        second = (styles[:, 1] @ c.T).tanh()
        return (first * (1 + second)).view(-1, 1, 2, 3)

    latents = torch.from_numpy(LATENTS).requires_grad_(True)
    styles = torch.tanh(latents @ a.T)[:, None].expand(-1, 2, -1)
    return Fakes(
        images=draw_from(latents, styles),
        latents=latents,
        labels=labels,
        styles=styles if styled else None,
        features=(),
        stage_images=(),
        noise=torch.from_numpy(NOISE),
        memory=torch.tensor(memory, dtype=torch.float64),
        generator=draw,
    )


CASES: dict[str, tuple[Any, dict[str, Any], Formula]] = {
    "path length": (PathLength(), {"memory": 0.3}, path_length(True, 0.3)),
    "path length without styles": (PathLength(), {"styled": False, "memory": 0.7}, path_length(False, 0.7)),
    "mode seeking": (ModeSeeking(), {}, mode_seeking),
    "mode seeking with labels": (ModeSeeking(), {"labels": torch.tensor([0, 1, 2, 0])}, mode_seeking),
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_to_the_weights(case: str) -> None:
    """The gradient of a penalty on gradients is compared with differences of its formula: the double backward."""
    penalty, chosen, formula = CASES[case]
    weights = [torch.from_numpy(weight).clone().requires_grad_(True) for weight in (A, B, C)]
    value = penalty(make_fakes(*weights, **chosen))
    assert value.item() == pytest.approx(formula(A, B, C), rel=1e-10)
    gradients = torch.autograd.grad(value, weights)
    for which, gradient in enumerate(gradients):
        wanted = np.zeros_like(gradient.numpy())
        for index in np.ndindex(wanted.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [A.copy(), B.copy(), C.copy()]
                moved[which][index] += step
                ends.append(formula(*moved))
            wanted[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-5, atol=1e-7)


def test_a_pair_of_one_class_is_drawn_where_the_generator_is_conditional() -> None:
    """The second images have the labels of the first: a generator that draws classes alone is at the worst value."""
    latents = torch.from_numpy(LATENTS)
    labels = torch.tensor([0, 1, 2, 3])

    def draw(latents: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return labels.double().view(-1, 1, 1, 1).expand(-1, 1, 2, 3)

    fakes = Fakes(draw(latents, labels), latents, labels, None, (), (), None, None, draw)
    assert float(ModeSeeking()(fakes)) == pytest.approx(1e5)


@pytest.mark.parametrize("architecture", [SkipPGGAN(4), StyleGAN2(4, style_size=4, mapping_layers=1)])
def test_scale_consistency_against_its_formula(architecture: Any) -> None:
    from pggan_kit.growth.networks import Generator
    from pggan_kit.layers.resampling import Area
    from pggan_kit.testing import make_stages
    from pggan_kit.testing.support import perturb
    from pggan_kit.training.generator_penalties import RecordingGenerator

    stages = make_stages((3, 6, 12), 3)
    net = Generator(architecture, Area(), Area(), 0, 5, stages[0])
    net.eval()
    before = []
    for stage in (None, *stages[1:]):
        if stage is not None:
            net.grow(stage, False)
        perturb(net, 0 if stage is None else stage.index)
    net.double()

    # The images of the earlier stages, by the network with fewer blocks.
    latents = draw_noise(4, 5, dtype=torch.float64)
    for blocks in range(2):
        smaller = net.synthesise(latents, record=True).features[blocks].image.detach().numpy()
        before.append(smaller)
    torch.manual_seed(0)
    recorder = RecordingGenerator(net, None)
    final = recorder(latents).detach().numpy()
    value = ScaleConsistency()(recorder.make_fakes(None, None))

    torch.manual_seed(0)
    features = net.synthesise(latents, record=True).features
    total = 0.0
    for blocks, factor in ((0, 4), (1, 2)):
        image = features[blocks].image.detach().numpy()
        n, channels, h, w = image.shape
        reduced = final.reshape(n, channels, h, factor, w, factor).mean((3, 5))
        total += ((reduced - image) ** 2).mean()
    assert float(value) == pytest.approx(total / 2, rel=1e-10)
    assert total > 1e-3


def test_the_running_mean_follows_the_lengths() -> None:
    """In float64: after updates with mean lengths m1, m2, ... it is the sum of their exponentially falling shares."""
    penalty = PathLength(decay=0.1)
    wanted = 0.0
    for length in (3.0, 5.0, 2.0):
        penalty.remember(torch.tensor(length))
        wanted += 0.1 * (length - wanted)
    assert float(penalty.memory) == pytest.approx(wanted, rel=1e-6)
    penalty.remember(torch.tensor(float("nan")))
    assert float(penalty.memory) == pytest.approx(wanted, rel=1e-6)


def test_lengths_are_remembered_of_the_whole_batch_and_once_an_update() -> None:
    """Micro-batches change neither the steps nor the mean; the first update has a mean of 0."""
    means = []
    ends = []
    for micro_batch in (None, 2):
        penalty = PathLength(every=2)
        steps = Steps("never", generator_penalties=[penalty], architecture=StyledToyArchitecture(),
                      micro_batch=micro_batch)  # fmt: skip
        reported = steps.take(3)
        assert ["Loss/generator/PathLength" in each for each in reported] == [True, False, True]
        means.append(penalty.memory)
        ends.append(steps.weights()["generator"])
    assert float(means[0]) > 0
    assert measure_difference(means[1], means[0]) < 1e-6
    for name, value in ends[0].items():
        assert measure_difference(ends[1][name], value) < 1e-4, name


def test_the_log_has_the_term_without_every_and_the_step_with_it() -> None:
    """Weight 1 every 4 moves G as weight 4 does, and is logged as weight 1."""
    ends = []
    logged = []
    for weight, every in ((1.0, 4), (4.0, 1), (2.0, 1)):
        steps = Steps("never", generator_penalties=[ModeSeeking(weight, every)], architecture=StyledToyArchitecture())
        logged.append(steps.take(1)[0]["Loss/generator/ModeSeeking"])
        ends.append(steps.weights()["generator"])
    assert are_equal(ends[0], ends[1]) and not are_equal(ends[0], ends[2])
    assert float(logged[1]) == pytest.approx(4 * float(logged[0]))


def test_a_weight_may_be_a_curve() -> None:
    class Rising:
        def at(self, position: Position) -> float:
            return float(position.images)

    steps = Steps("always", generator_penalties=[ModeSeeking(Rising())], architecture=StyledToyArchitecture())
    values = [float(each["Loss/generator/ModeSeeking"]) for each in steps.take(3)]
    assert values[0] == 0 and values[1] > 0 and values[2] > values[1]
    # A weight that moves is no reason to record the step again.
    assert len(steps.compiler._passes) == 2 and not steps.list_lines("warn")


PENALTIES = {
    "path length": lambda: PathLength(every=2),
    "mode seeking": lambda: ModeSeeking(every=2),
    "scale consistency": lambda: ScaleConsistency(every=2),
    "all": lambda: [PathLength(every=1), ModeSeeking(every=2), ScaleConsistency(every=2)],
}


FADING_OR_ALONE = [(name, fading) for name in PENALTIES for fading in (False, True) if fading or name != "all"]


def as_list(made: Any) -> list[Any]:
    return made if isinstance(made, list) else [made]


@pytest.mark.parametrize(
    ("name", "fading"), [("all", False), *(pytest.param(*each, marks=pytest.mark.slow) for each in FADING_OR_ALONE)]
)
def test_compiled_steps_are_eager_ones(name: str, fading: bool) -> None:
    """The recording is used, and has the numbers of the eager steps bit for bit; it reads the running mean anew."""
    ends = []
    for setting in ("never", "always"):
        penalties = as_list(PENALTIES[name]())
        steps = Steps(setting, fading, generator_penalties=penalties,
                      architecture=StyleGAN2(4, style_size=4, mapping_layers=1))  # fmt: skip
        returned = steps.take(3, 0.2 if fading else None)
        ends.append((returned, steps.weights(), [getattr(each, "memory", None) for each in penalties]))
        assert steps.list_lines("warn") == []
        outcome = {} if setting == "never" else {"generator": "compiled", "discriminator": "compiled"}
        assert steps.compiler.outcome == outcome
    assert are_equal(ends[0], ends[1])


def test_what_cannot_be_recorded_runs_eagerly_and_says_why() -> None:
    class Own(ModeSeeking):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.ones(3)

        def __call__(self, fakes: Fakes) -> Tensor:
            return super().__call__(fakes) * self.scale.sum()

    steps = Steps("always", generator_penalties=[Own()], architecture=StyledToyArchitecture())
    steps.take(1)
    (line,) = [line for line in steps.list_lines("log") if "is not compiled but eager" in line]
    assert "the generator's step" in line and "neither in a network nor in the batch" in line and "Own" in line


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_resumes_in_mid_fade_between_two_turns(micro_batch: int | None, tmp_path: Path) -> None:
    """All penalties at once, lazily, bit for bit."""
    penalties = [PathLength(every=2), ModeSeeking(every=3), ScaleConsistency(every=5)]
    chosen = {"architecture": StyleGAN2(4, style_size=4, mapping_layers=1), "micro_batch": micro_batch, "tick": 4}
    run = train_tiny(penalties[0], "first", tmp_path, {**chosen, "generator_penalties": penalties})
    saved = load_mid_fade(tmp_path)
    assert saved.generator_updates % 2 == 1, "the run must break between two turns"
    again = [PathLength(every=2), ModeSeeking(every=3), ScaleConsistency(every=5)]
    resumed = train_tiny(again[0], "first", tmp_path, {**chosen, "generator_penalties": again}, saved)
    assert are_equal(summarize_run(resumed), summarize_run(run))
    assert torch.equal(again[0].memory, penalties[0].memory) and float(again[0].memory) > 0  # type: ignore[attr-defined]


def test_networks_that_cannot_serve_a_penalty_are_refused() -> None:
    with pytest.raises(SettingError, match="ScaleConsistency compares the images of all stages, and PGGAN makes the"):
        make_tiny_experiment({"generator_penalties": [ScaleConsistency()], "architecture": PGGAN(4)})
    make_tiny_experiment({"generator_penalties": [PathLength(), ModeSeeking()], "architecture": PGGAN(4)})


def test_one_image_at_a_time_has_no_pair() -> None:
    steps = Steps("never", generator_penalties=[ModeSeeking()], micro_batch=1)
    with pytest.raises(ConfigError, match=r"ModeSeeking compares images in pairs.*train\.micro_batch"):
        steps.take(1)


def test_a_term_of_the_loss_with_a_penaltys_name_is_refused() -> None:
    class Clash(Hinge):
        def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
            return {"ModeSeeking": -fake.score.mean()}

    steps = Steps("never", generator_penalties=[ModeSeeking()], loss=Clash())
    with pytest.raises(ConfigError, match="G's terms have a ModeSeeking already"):
        steps.take(1)


def test_two_penalties_of_a_class_have_names_of_their_own() -> None:
    steps = Steps("never", generator_penalties=[ModeSeeking(1.0), ModeSeeking(0.5)])
    (reported,) = steps.take(1)
    first = reported["Loss/generator/ModeSeeking"]
    assert float(reported["Loss/generator/ModeSeeking_2"]) == pytest.approx(float(first) / 2)


def test_without_fakes_there_is_nothing_to_penalise() -> None:
    from pggan_plugins.updates import Alternating

    class Blind(Alternating):
        def step(self, ctx: Any) -> dict[str, Tensor]:
            def terms(G: Any, D: Any, batch: Any) -> Any:
                with torch.no_grad():
                    G(batch["latents"], None)
                return {"none": torch.zeros((), requires_grad=True)}, {}

            ctx.reals()
            return ctx.minimise("generator", "generator", terms, {"latents": ctx.latents("generator")})[0]

    steps = Steps("never", generator_penalties=[ModeSeeking()], update=Blind())
    with pytest.raises(ConfigError, match="without a call of G through which gradients flow"):
        steps.take(1)


def test_in_a_config(train: Any, cli: Any, tiny: Any, stub: str) -> None:
    run = train("train.generator_penalties = [@generator_penalties.PathLength()]",
                "generator_penalties.PathLength.every = 1")  # fmt: skip
    penalty = run.experiment.generator_penalties[0]
    assert float(penalty.memory) > 0
    assert "Loss/generator/PathLength" in (run.files.path / "stats.jsonl").read_text()

    tiny("train.generator_penalties = [@generator_penalties.ScaleConsistency()]")
    refused = cli("config", "check", "tiny.gin", "--plugin", stub)
    assert refused.exit_code == 2
    assert "generator_penalties" in refused.stderr and "PGGAN makes the last one only" in refused.stderr


class TestPathLength(GeneratorPenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"weight": float("nan")}, {"decay": 0.0}, {"decay": 1.5}, {"every": 0})

    def make(self) -> PathLength:
        return PathLength()


@train_once
class TestModeSeeking(GeneratorPenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"every": 0}, {"every": 1.5})

    def make(self) -> ModeSeeking:
        return ModeSeeking()


@train_once
class TestScaleConsistency(GeneratorPenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"every": 0})

    def make(self) -> ScaleConsistency:
        return ScaleConsistency()
