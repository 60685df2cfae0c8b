"""Tests of the tutorial's components one by one; their recipe is tested in `test_tutorial_recipe.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import DuePenalty, Reals, Scores
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import ScheduleSettings
from pggan_plugins.architectures import tutorial
from pggan_plugins.architectures.tutorial import Tutorial
from pggan_plugins.losses import BinaryCrossEntropy, NonSaturating
from pggan_plugins.optimizers import SharedAdam
from pggan_plugins.updates import joint_batch

Tensors = dict[str, Tensor]


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def list_keras_windows(size: int, kernel: int, stride: int) -> list[list[int]]:
    """Return the inputs under the kernel for each output, -1 outside: TensorFlow's `SAME`."""
    outputs = math.ceil(size / stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    windows = []
    for output in range(outputs):
        places = [output * stride - before + k for k in range(kernel)]
        windows.append([place if 0 <= place < size else -1 for place in places])
    return windows


@pytest.mark.parametrize(("size", "kernel", "stride"), [(14, 4, 2), (7, 4, 2), (9, 6, 3), (8, 6, 3), (5, 4, 4)])
def test_same_padding_is_keras(size: int, kernel: int, stride: int, double: None) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, size, size)
    windows = list_keras_windows(size, kernel, stride)
    conv = tutorial.SameConv2d(1, 1, kernel, stride, bias=False)
    back = tutorial.SameConvTranspose2d(1, 1, kernel, stride, bias=False)

    # Window by window; row and column -1 are zeros.
    padded = F.pad(x[0, 0], (0, 1, 0, 1))
    sums = torch.empty(len(windows), len(windows))
    means = torch.empty(len(windows), len(windows))
    for i, rows in enumerate(windows):
        for j, columns in enumerate(windows):
            sums[i, j] = (padded[rows][:, columns] * conv.weight[0, 0]).sum()
            rows_inside = [row for row in rows if row >= 0]
            columns_inside = [column for column in columns if column >= 0]
            means[i, j] = x[0, 0][rows_inside][:, columns_inside].mean()
    torch.testing.assert_close(conv(x)[0, 0], sums)
    torch.testing.assert_close(tutorial.pool_average_same(x, kernel, stride)[0, 0], means)

    # The transposed convolution is the convolution's adjoint.
    if size % stride == 0:
        back.weight = conv.weight
        y = torch.randn(1, 1, size // stride, size // stride)
        torch.testing.assert_close((conv(x) * y).sum(), (x * back(y)).sum())


def grow_networks(
    architecture: Tutorial, sizes: Any, channels: int = 1
) -> Iterator[tuple[Generator, Discriminator, Any]]:
    """Yield both networks at each stage, with bridges until the next."""
    stages = ScheduleSettings(sizes, 8, 8, 4).resolve(8, channels, 0).stages
    pair = (architecture, Area(), Area(), 0)
    g = Generator(*pair, 10, stages[0])
    d = Discriminator(*pair, stages[0])
    for stage in stages:
        if stage.index:
            for net in (g, d):
                net.end_fade()
                net.grow(stage, bridged=True)
        yield g.eval(), d.eval(), stage


@pytest.mark.parametrize("sizes", [(7, 14, 28), ((2, 3), (6, 9)), (4, 16), (5, 10, 20, 40)])
@pytest.mark.parametrize("bridge", tutorial.BRIDGES)
def test_shapes_and_whether_growing_preserves_the_function(sizes: Any, bridge: str) -> None:
    architecture = Tutorial(bridge=bridge)
    zero = torch.zeros(())
    before = None
    z = torch.randn(4, 10)
    for g, d, stage in grow_networks(architecture, sizes, channels=3):
        alpha = zero if stage.index else None
        image = g(z, None, alpha)
        score = d(image, None, alpha).score
        assert image.shape == (4, 3, stage.height, stage.width) and score.shape == (4,)

        # At alpha 0, against the networks before this growth.
        if before is not None:
            larger = F.interpolate(before[0], scale_factor=stage.factor, mode="nearest")
            assert torch.allclose(image, larger, atol=1e-6) == architecture.preserves_function
            assert torch.allclose(score, before[1], atol=1e-5) == architecture.preserves_function
        before = g(z), d(g(z)).score


def test_initial_weights_are_keras() -> None:
    for g, d, _ in grow_networks(Tutorial(), (7, 14, 28)):
        for module in [*g.modules(), *d.modules()]:
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                ins, outs, *kernel = module.weight.shape
                limit = math.sqrt(6 / ((ins + outs) * math.prod(kernel)))
                assert module.weight.abs().max() <= limit and not module.bias.any()
                if module.weight.numel() > 1000:
                    assert module.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)


def test_late_parameters_get_the_shared_counter_and_those_without_gradients_stay(double: None) -> None:
    stage = ScheduleSettings((7,), 0, 8, 4).resolve(8, 1, 0).stages[0]
    early, late, idle = (nn.Parameter(torch.tensor(1.0)) for _ in range(3))
    optimizer = SharedAdam(lr=0.1).build([early, late, idle], stage)
    for step in range(1, 51):
        early.grad = torch.tensor(2.0)
        late.grad = torch.tensor(2.0) if step == 50 else None
        optimizer.step()
    rate = 0.1 * math.sqrt(1 - 0.999**50) / (1 - 0.5**50)
    assert late.item() == pytest.approx(1.0 - rate * 0.5 * 2.0 / (math.sqrt(0.001 * 4.0) + 1e-7), rel=1e-12)
    assert idle.item() == 1.0 and idle not in optimizer.state and optimizer.state[late]["step"] == 50


def test_cross_entropy_is_the_mean_over_the_joint_batch() -> None:
    real = Scores(torch.tensor([0.3, -2.0]))
    fake = Scores(torch.tensor([1.5, 0.1]))
    ours = BinaryCrossEntropy()
    sums = NonSaturating()

    half = sums.discriminator(real, fake)["logistic"] / 2
    torch.testing.assert_close(ours.discriminator(real, fake)["cross_entropy"], half)
    torch.testing.assert_close(ours.generator(fake, None)["cross_entropy"], sums.generator(fake, None)["logistic"])
    more = ours.discriminator(real, Scores(torch.zeros(6)))["cross_entropy"]
    torch.testing.assert_close(more, (F.softplus(-real.score).sum() + 6 * math.log(2)) / 8)


def test_joint_terms_hand_losses_their_halves_with_labels_and_add_penalties() -> None:
    class Seen(BinaryCrossEntropy):
        def discriminator(self, real: Scores, fake: Scores) -> Tensors:
            assert real.score.tolist() == [1, 2] and fake.score.tolist() == [3, 4]
            assert real.labels.tolist() == fake.labels.tolist() == [5, 6]
            return {"seen": real.score.sum()}

    class Constant:
        weight = 2.0
        every = 4

        def __call__(self, critic: Any, real: Tensor, *rest: Any) -> Tensor:
            return critic(real).score.sum()

    # A penalty of every fourth step weighs four times as much: 2 * 4 * 3.
    part = {"real": torch.tensor([1.0, 2.0]), "fake": torch.tensor([3.0, 4.0])}
    part = {name: values.reshape(2, 1, 1, 1) for name, values in part.items()}
    part |= {"mix": torch.zeros(2), "labels": torch.tensor([5, 6])}
    penalties = [Constant()]
    terms, kept = joint_batch.discriminator_terms(
        None,
        lambda x, labels: Scores(x.flatten(), labels=labels),
        part,
        Seen(penalties),
        [DuePenalty(penalties[0], number=0, height=1, moves=False)],
    )
    assert terms == {"seen": 3.0, "Constant": 24.0} and kept["fake"].tolist() == [3, 4]


def test_generator_terms_pair_each_fake_with_a_real_where_the_loss_asks() -> None:
    class Paired(BinaryCrossEntropy):
        needs_real = True

        def generator(self, fake: Scores, real: Scores | None) -> Tensors:
            assert real is not None and real.score.tolist() == [1, 2, 1, 2] and fake.score.tolist() == [1, 1, 1, 1]
            return {"paired": fake.score.sum()}

    class Ctx:
        stage = type("Stage", (), {"batch_size": 2})
        loss = Paired()

        def reals(self) -> Reals:
            return Reals(torch.tensor([1.0, 2.0]), None)

        def latents(self, stream: str, count: int) -> Tensor:
            return torch.ones(count)

        def uniform(self, stream: str) -> Tensor:
            return torch.zeros(2)

        def due(self, penalties: Any) -> tuple[()]:
            return ()

        def minimise(self, name: str, net: str, terms: Any, part: Any, *, inference: bool = False) -> Any:
            assert name == "both" and inference == (net == "generator")
            return terms(lambda z, labels: z, lambda x, labels: Scores(x), part)

    # Two fakes for each real, in the order of the reals.
    logged = joint_batch.JointBatch(SharedAdam()).step(Ctx())
    assert logged["Loss/generator/paired"] == 4
    assert logged["Scores/real"] == 1.5
    assert logged["Scores/fake"] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tutorial(bridge="paper"), "bridge must"),
        (lambda: Tutorial(dropout=1.0), "dropout must"),
        (lambda: Tutorial(generator_channels={7: 0}), "generator_channels must"),
        (lambda: SharedAdam(beta1=1.0), "beta1 must"),
    ],
)
def test_errors_name_the_argument_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
