"""Tests of labels: the modules that architectures share, the auxiliary classifier's loss, and conditional training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from helpers.networks import make_networks
from helpers.paths import ROOT
from helpers.variants import train_once

from pggan_kit import Component, Scores
from pggan_kit.api import prepare as api
from pggan_kit.api.train import train
from pggan_kit.errors import ConfigError
from pggan_kit.growth.networks import Discriminator
from pggan_kit.schedule import Stage
from pggan_kit.testing import ArchitectureSuite, LossSuite, make_stages
from pggan_kit.testing.support import draw_noise
from pggan_kit.testing.toys import ToyDataset
from pggan_kit.ticks import Tick
from pggan_plugins.architectures import PGGAN, R3GAN, ResNet, StyleGAN2
from pggan_plugins.architectures.labels import LabelledLatents
from pggan_plugins.losses import WGANGP, Hinge, NonSaturating, Relativistic
from pggan_plugins.losses.auxiliary_classifier import AuxiliaryClassifier
from pggan_plugins.penalties import R1

pytestmark = pytest.mark.usefixtures("few_calibrations")

MAKERS: dict[str, Callable[..., Any]] = {
    "PGGAN": lambda **options: PGGAN(channels=4, **options),
    "R3GAN": lambda **options: R3GAN(channels=4, group_size=4, **options),
    "ResNet": lambda **options: ResNet(channels=4, **options),
    "StyleGAN2": lambda **options: StyleGAN2(channels=4, style_size=6, mapping_layers=2, noise=False, **options),
}
BOTH = ("projection", "auxiliary")


class ConditionalSuite(ArchitectureSuite):
    geometries = (((4, 6), (8, 12)),)
    image_channels = (3,)
    batch_sizes = (1, 6)
    classes = 3

    def choose_arguments(self, part: Any) -> dict[str, Any]:
        components = {"architecture": part, "dataset": ToyDataset(self.classes)}
        if part.conditioning.kind == "auxiliary":
            components["loss"] = AuxiliaryClassifier(Hinge())
        return components


class TestPGGANProjection(ConditionalSuite):
    def make(self) -> PGGAN:
        return PGGAN(channels=4, conditioning="projection", minibatch="discrimination")


@train_once
class TestR3GANProjection(ConditionalSuite):
    def make(self) -> R3GAN:
        return R3GAN(channels={4: 6, 8: 4}, group_size=4, conditioning="projection")


@train_once
class TestResNetProjection(ConditionalSuite):
    def make(self) -> ResNet:
        return ResNet(channels=4, conditioning="projection")


@train_once
class TestStyleGAN2Auxiliary(ConditionalSuite):
    def make(self) -> StyleGAN2:
        return StyleGAN2(channels=4, style_size=6, mapping_layers=2, conditioning="auxiliary")


make_labelled = functools.partial(make_networks, classes=3, training=False)


@pytest.mark.parametrize("normalise", [True, False])
def test_generators_input_against_the_formula(normalise: bool) -> None:
    """Latents and the row of the label, each divided by the root of its mean square."""
    torch.manual_seed(0)
    module = LabelledLatents(5, 3, 4, normalise).double()
    latents = draw_noise(6, 5, dtype=torch.float64).numpy()
    labels = [2, 0, 1, 1, 2, 0]
    rows = module.embedding.weight.detach().numpy()[labels]
    if normalise:
        latents_by_hand, rows = (x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-8) for x in (latents, rows))
    else:
        latents_by_hand = latents

    output = module(torch.from_numpy(latents), torch.tensor(labels)).detach().numpy()
    np.testing.assert_allclose(output, np.concatenate([latents_by_hand, rows], 1), rtol=1e-12)
    assert module.size == output.shape[1] == 9


@pytest.mark.parametrize("name", MAKERS)
def test_the_generator_looks_at_labels(name: str) -> None:
    generator, _ = make_labelled(MAKERS[name](conditioning="projection"))
    latents = draw_noise(1, 5, dtype=torch.float64).expand(6, 5)
    labels = torch.arange(6) % 3
    images = generator(latents, labels)
    torch.testing.assert_close(images[:3], images[3:])
    for i in range(3):
        assert not torch.allclose(images[i], images[(i + 1) % 3])


def judge(
    discriminator: Discriminator, images: torch.Tensor, labels: torch.Tensor
) -> tuple[Scores, torch.Tensor, torch.Tensor]:
    """Return the scores of images, the features that the head's layer to scores reads, and what it returns."""
    head: Any = discriminator.head
    seen: list[torch.Tensor] = []
    head.score.register_forward_hook(lambda module, given, output: seen.extend((given[0], output)))
    scores = discriminator(images, labels)
    features, plain = seen
    return scores, features, plain


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"R3GAN"}))
def test_projection_against_the_formula(name: str) -> None:
    """psi(phi(x)) + <embedding of y, phi(x)>: Miyato and Koyama 2018, equation 3. R3GAN's is in `test_r3gan.py`."""
    _, discriminator = make_labelled(MAKERS[name](conditioning="projection"))
    head: Any = discriminator.head
    images = draw_noise(4, 3, 8, 8, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 2])
    scores, features, plain = judge(discriminator, images, labels)

    # The projection's weights are scaled at run time; ResNet's are divided by their largest singular value instead.
    embeddings = head.labels.by_class.weight / (1 if name == "ResNet" else math.sqrt(features.shape[1]))
    wanted = [(plain[i, 0] + features[i] @ embeddings[labels[i]]).item() for i in range(4)]
    assert scores.score.tolist() == pytest.approx(wanted, rel=1e-10)
    assert head.labels.by_class.bias is None
    assert scores.class_logits is None
    assert scores.labels is labels
    assert embeddings.shape == (3, features.shape[1])


@pytest.mark.parametrize("name", MAKERS)
def test_the_auxiliary_classifier_does_not_touch_the_score(name: str) -> None:
    _, discriminator = make_labelled(MAKERS[name](conditioning="auxiliary"))
    head: Any = discriminator.head
    images = draw_noise(4, 3, 8, 8, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 2])
    scores, features, plain = judge(discriminator, images, labels)

    torch.testing.assert_close(scores.score, plain[:, 0], rtol=0, atol=0)
    layer = head.labels.by_class
    torch.testing.assert_close(scores.class_logits, features @ layer.weight.T * layer.scale + layer.bias)
    assert scores.labels is labels
    assert torch.equal(discriminator(images).score, scores.score)


def test_only_the_rows_of_labels_in_the_batch_learn() -> None:
    generator, discriminator = make_labelled(PGGAN(channels=4, conditioning="projection"))
    labels = torch.tensor([0, 2, 2, 0])
    discriminator(generator(draw_noise(4, 5, dtype=torch.float64), labels), labels).score.sum().backward()
    for weight in (generator.stem.latents.embedding.weight, discriminator.head.labels.by_class.weight):
        assert weight.grad.abs().sum(1).gt(0).tolist() == [True, False, True]


@pytest.mark.parametrize("name", MAKERS)
def test_without_conditioning_labels_change_nothing(name: str) -> None:
    """On a data set with labels, the default networks are those for one without, and ignore labels."""
    with_labels = make_labelled(MAKERS[name]())
    without = make_networks(MAKERS[name](), training=False)
    given = draw_noise(4, 5, dtype=torch.float64), draw_noise(4, 3, 8, 8, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0])
    for one, other, x in zip(with_labels, without, given, strict=True):
        assert one.state_dict().keys() == other.state_dict().keys()
        outputs = [one(x, labels), one(x, None), other(x, None)]
        tensors = [out.score if isinstance(out, Scores) else out for out in outputs]
        assert torch.equal(tensors[0], tensors[1])
        assert torch.equal(tensors[0], tensors[2])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("conditioning", BOTH)
def test_a_conditional_network_needs_classes_and_labels(name: str, conditioning: str) -> None:
    architecture = MAKERS[name](conditioning=conditioning)
    stage: Stage = make_stages((4,), 3)[0]
    for make in (lambda: architecture.generator_stem(5, stage), lambda: architecture.discriminator_head(stage)):
        with pytest.raises(ValueError, match=rf"^conditioning '{conditioning}' needs a data set with labels"):
            make()
    generator, discriminator = make_labelled(architecture)
    with pytest.raises(ValueError, match=r"^labels: this generator"):
        generator(draw_noise(2, 5, dtype=torch.float64))
    if conditioning == "projection":
        with pytest.raises(ValueError, match=r"^labels: this discriminator"):
            discriminator(draw_noise(2, 3, 8, 8, dtype=torch.float64))


# The loss of the auxiliary classifier.


class TestAuxiliaryClassifier(LossSuite):
    classes = 3
    bad_arguments = ({"weight": -1.0, "loss": Hinge()}, {"generator_weight": -0.1, "loss": Hinge()})

    def make(self) -> AuxiliaryClassifier:
        return AuxiliaryClassifier(NonSaturating(), weight=0.5)

    def scores(self, score: torch.Tensor) -> Scores:
        """Logits that repeat with the labels, as `test_is_a_mean` repeats the batch."""
        labels = torch.arange(len(score)) % self.classes
        return Scores(score, draw_noise(self.classes, self.classes, dtype=score.dtype)[labels], labels)

    def choose_arguments(self, part: Any) -> dict[str, Any]:
        architecture = PGGAN(channels=4, conditioning="auxiliary")
        return {"loss": part, "architecture": architecture, "dataset": ToyDataset(self.classes)}


LOGITS = draw_noise(5, 3, seed=1, dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1, 0])
REAL = Scores(draw_noise(5, seed=2, dtype=torch.float64), LOGITS, LABELS)
FAKE = Scores(draw_noise(5, seed=3, dtype=torch.float64), LOGITS.flip(0), LABELS)


def compute_cross_entropy(logits: torch.Tensor) -> float:
    values = logits.numpy()
    return float(np.mean([math.log(np.exp(row).sum()) - row[label] for row, label in zip(values, LABELS, strict=True)]))


@pytest.mark.parametrize("classify_fakes", [False, True])
@pytest.mark.parametrize("generator_weight", [None, 0.25])
def test_terms_against_the_formula(classify_fakes: bool, generator_weight: float | None) -> None:
    inner = Hinge()
    loss = AuxiliaryClassifier(inner, 2.0, generator_weight, classify_fakes)
    terms = loss.discriminator(REAL, FAKE)
    wanted = compute_cross_entropy(REAL.class_logits)
    if classify_fakes:
        wanted += compute_cross_entropy(FAKE.class_logits)
    assert float(terms["class"]) == pytest.approx(2.0 * wanted, rel=1e-12)
    assert terms["hinge"] == inner.discriminator(REAL, FAKE)["hinge"]

    terms = loss.generator(FAKE, None)
    factor = 2.0 if generator_weight is None else generator_weight
    assert float(terms["class"]) == pytest.approx(factor * compute_cross_entropy(FAKE.class_logits), rel=1e-12)
    assert terms["hinge"] == inner.generator(FAKE, None)["hinge"]


def test_it_passes_on_what_the_loss_needs() -> None:
    penalty = R1()
    assert AuxiliaryClassifier(WGANGP([penalty])).penalties == (penalty,)
    assert AuxiliaryClassifier(Relativistic()).needs_real is True
    assert AuxiliaryClassifier(Hinge()).needs_real is False


def test_it_needs_class_logits_and_labels() -> None:
    loss = AuxiliaryClassifier(Hinge())
    for broken in (REAL._replace(class_logits=None), REAL._replace(labels=None)):
        with pytest.raises(ConfigError, match=r"conditioning = 'auxiliary'"):
            loss.discriminator(broken, FAKE)
        with pytest.raises(ConfigError, match=r"conditioning = 'auxiliary'"):
            loss.generator(broken, None)


# Training.

ROW = Component("losses", "Classifying", AuxiliaryClassifier, {"loss": "@losses.Hinge()"})
LINES = (
    "datasets.Stub.classes = 3",
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 8",
    "schedule.stable_images = 8",
)


@pytest.mark.parametrize("conditioning", BOTH)
@pytest.mark.parametrize("name", MAKERS)
def test_trains_with_a_gradient_penalty(name: str, conditioning: str, tiny: Callable[..., str], stub: str) -> None:
    lines = [*LINES, f"architectures.{name}.conditioning = '{conditioning}'"]
    if conditioning == "auxiliary":
        lines += ["train.loss = @losses.Classifying()", "losses.Classifying.loss = @losses.WGANGP()"]
    else:
        lines += ["train.loss = @losses.WGANGP()"]
    if name == "StyleGAN2":
        lines += ["architectures.StyleGAN2.style_size = 8", "architectures.StyleGAN2.mapping_layers = 2"]
    if name == "R3GAN":
        lines += ["architectures.R3GAN.group_size = 4"]
    run = train(tiny(*lines, base=TINY.replace("PGGAN", name)), plugins=[stub, ROW])
    assert run.state.steps == 6
    for net in (run.state.generator, run.state.ema, run.state.discriminator):
        assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
    terms = [key for key in run.files.stats()[-1] if key.startswith("Loss/discriminator/")]
    wanted = {"Drift", "GradientPenalty", "wasserstein"} | ({"class"} if conditioning == "auxiliary" else set())
    assert {key.rpartition("/")[2] for key in terms} == wanted
    latents = run.fixed_latents(1).expand(3, -1)
    images = run.generate(latents, run.fixed_labels(3))
    assert not torch.equal(images[0], images[1])


def test_penalties_of_the_wrapped_loss_count_once(tiny: Callable[..., str], stub: str) -> None:
    lines = [
        *LINES,
        "architectures.PGGAN.conditioning = 'auxiliary'",
        "train.loss = @losses.Classifying()",
        "losses.Hinge.penalties = [@penalties.R1()]",
    ]
    prepared = api.prepare(tiny(*lines), plugins=[stub, ROW])
    names = [name for name in prepared.built.components if name.startswith("train.loss")]
    assert names == ["train.loss", "train.loss.loss", "train.loss.loss.penalties.0"]
    assert [type(p).__name__ for p in prepared.built.experiment.loss.penalties] == ["R1"]


def test_the_classifier_learns_the_classes() -> None:
    """D's classifier learns classes that differ in brightness, and then G's term rises for images of a wrong class."""
    torch.manual_seed(0)
    _, discriminator = make_labelled(PGGAN(channels=4, conditioning="auxiliary"))
    loss = AuxiliaryClassifier(Hinge())
    optimizer = torch.optim.Adam(discriminator.parameters(), 0.01)
    labels = torch.arange(12) % 3
    images = (labels - 1.0).view(-1, 1, 1, 1).expand(12, 3, 8, 8).double() + 0.1 * draw_noise(12, 3, 8, 8).double()

    for _ in range(60):
        scores = discriminator(images, labels)
        optimizer.zero_grad()
        sum(loss.discriminator(scores, scores).values()).backward()
        optimizer.step()

    assert discriminator(images, labels).class_logits.argmax(1).tolist() == labels.tolist()
    wrong = discriminator(images, labels.roll(1))
    assert loss.generator(wrong, None)["class"] > 3 * loss.generator(discriminator(images, labels), None)["class"]
    assert F.cross_entropy(wrong.class_logits, wrong.labels) > 1


def test_errors_of_a_config(tiny: Callable[..., str], stub: str) -> None:
    with pytest.raises(ConfigError, match=r"conditioning 'projection' needs a data set with labels"):
        train(tiny("architectures.PGGAN.conditioning = 'projection'"), plugins=[stub])
    lines = ["datasets.Stub.classes = 3", "train.loss = @losses.Classifying()"]
    with pytest.raises(ConfigError, match=r"losses.AuxiliaryClassifier needs a data set with labels and an arch"):
        train(tiny(*lines), plugins=[stub, ROW])


def test_the_experiment_with_digits(tmp_path: Path) -> None:
    """`experiments/demo.gin`, cut to two steps a phase: each row of the samples has one digit."""
    file = ROOT / "experiments" / "demo.gin"
    cut = ["schedule.fade_images = 8", "schedule.stable_images = 8", "schedule.batch_size = 4", "train.tick = 8"]
    wanted: list[list[int]] = []
    run = train(file, [*cut, "train.device = 'cpu'"], run_dir=tmp_path / "run")
    architecture: Any = run.experiment.architecture
    assert architecture.conditioning.kind == "projection"
    assert run.state.images == 40
    assert sorted((tmp_path / "run" / "samples").glob("*-28x28.png"))

    # Record the labels that the averaged generator gets from the observer.
    run.state.ema.register_forward_pre_hook(lambda module, given: wanted.append(given[1].tolist()))
    observer: Any = next(part for part in run.experiment.observers if type(part).__name__ == "Samples")
    observer.after_tick(run=run, stage=run.state.stage, tick=Tick(40, 32, 40, run.state.stage, ends_phase=True))
    assert wanted == [[digit for digit in range(10) for _ in range(8)]]
