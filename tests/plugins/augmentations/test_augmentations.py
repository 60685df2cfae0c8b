"""Tests of DiffAugment against a transcription, of both augmentations' gradients, and of ADA's p in a run.

What ADA does to images is tested in `test_ada_transforms.py`.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cut_runs import remove_checkpoints_after
from torch import Tensor

from pggan_kit import Component, Run, Scores, hookimpl, image_gradients
from pggan_kit.api.train import resume
from pggan_kit.errors import ConfigError
from pggan_kit.runs.tick_means import TickMeans
from pggan_kit.testing import AugmentationSuite
from pggan_plugins import augmentations
from pggan_plugins.augmentations import ADA, DiffAugment
from pggan_plugins.curves import Linear
from pggan_plugins.losses import Hinge
from pggan_plugins.updates import Alternating

SHAPES = ((3, 3, 7, 7), (3, 1, 8, 12), (2, 2, 6, 4))


class TestDiffAugment(AugmentationSuite):
    bad_arguments = (
        {"policy": ()},
        {"policy": ("colour", "color")},
        {"policy": ("cutout", "cutout")},
        {"policy": "colour"},
        {"translation": -0.1},
        {"translation": 1.1},
        {"translation": float("nan")},
        {"cutout": -0.1},
        {"cutout": 1.5},
    )

    def make(self) -> DiffAugment:
        return DiffAugment()


class TestADA(AugmentationSuite):
    bad_arguments = (
        {"policy": ()},
        {"policy": ("blit", "noise")},
        {"policy": ("blit", "blit")},
        {"target": 1.0},
        {"target": -1.5},
        {"target": float("nan")},
        {"p": -0.1},
        {"p": 1.1},
        {"interval": 0},
        {"adjust_images": 0},
        {"interval": 2.5},
        {"adjust_images": 2.5},
    )

    def make(self) -> ADA:
        return ADA(p=0.7, interval=8, adjust_images=100)

    def choose_arguments(self, part: Any) -> dict[str, Any]:
        """With an update that reports the signs of scores, as ADA asks of it."""
        return {"augmentation": part, "update": Alternating()}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_both_are_components() -> None:
    assert {(row.kind, row.name) for row in augmentations.components()} == {
        ("augmentations", "DiffAugment"),
        ("augmentations", "ADA"),
    }


# DiffAugment


@pytest.mark.parametrize("shape", SHAPES)
def test_colour_by_transcription(shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    torch.manual_seed(1)
    augmented = DiffAugment(["colour"])(images)

    # The same random numbers, and the paper's formulas sample by sample.
    torch.manual_seed(1)
    draws = torch.rand(3, shape[0], 1, 1, 1, dtype=torch.float64).numpy().reshape(3, -1)
    for n, image in enumerate(images.numpy()):
        brightness, saturation, contrast = draws[:, n]
        image = image + brightness - 0.5
        gray = image.mean(0)
        image = gray + (image - gray) * 2 * saturation
        image = image.mean() + (image - image.mean()) * (contrast + 0.5)
        np.testing.assert_allclose(augmented[n].numpy(), image, atol=1e-12)


def test_saturation_leaves_gray_images() -> None:
    """Only brightness and contrast change a gray image, and together they are a linear function of its pixels."""
    images = noise(4, 1, 5, 5)
    torch.manual_seed(0)
    augmented = DiffAugment(["colour"])(images)
    assert augmented.std((1, 2, 3)).ge(0.5 * images.std((1, 2, 3)) * 0.999).all()
    for n in range(4):
        slope, offset = np.polyfit(images[n].flatten().numpy(), augmented[n].flatten().numpy(), 1)
        np.testing.assert_allclose(augmented[n].numpy(), slope * images[n].numpy() + offset, atol=1e-9)


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(8, 16, 1, 2), (4, 4, 1, 1), (3, 20, 0, 3)])
def test_translation_shifts_by_all_whole_pixels_up_to_its_share(
    height: int, width: int, rows: int, columns: int
) -> None:
    images = torch.rand(400, 2, height, width) + 1.0
    torch.manual_seed(0)
    augmented = DiffAugment(["translation"])(images)

    # Exactly one shift explains each result, and all shifts up to the share occur.
    seen = set()
    for image, moved in zip(images.numpy(), augmented.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (rows, rows), (columns, columns)))
        fits = [
            (dy, dx)
            for dy, dx in itertools.product(range(-rows, rows + 1), range(-columns, columns + 1))
            if np.array_equal(padded[:, rows - dy : rows - dy + height, columns - dx : columns - dx + width], moved)
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == (2 * rows + 1) * (2 * columns + 1)


BOXES = [(8, 8, 0.5), (7, 5, 0.5), (4, 12, 0.3), (6, 6, 1.0), (5, 5, 0.0)]


@pytest.mark.parametrize(("height", "width", "share"), BOXES)
def test_cutout_hides_one_box_with_its_centre_anywhere(height: int, width: int, share: float) -> None:
    images = torch.rand(600, 3, height, width) + 1.0
    torch.manual_seed(0)
    augmented = DiffAugment(["cutout"], cutout=share)(images)
    hidden = (augmented == 0).all(1).numpy()
    np.testing.assert_array_equal(augmented.numpy(), np.where(hidden[:, None], 0, images.numpy()))

    # What is hidden is a box of the right size, unless the border cuts it.
    seen = set()
    for mask in hidden:
        lines = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
        for line, size in zip(lines, (height, width), strict=True):
            box = int(size * share + 0.5)
            assert len(line) <= box
            assert len(line) == box or not box or line[0] == 0 or line[-1] == size - 1
        assert mask.sum() == len(lines[0]) * len(lines[1])
        seen.add(tuple(tuple(line) for line in lines))

    # All places occur.
    boxes = [int(size * share + 0.5) for size in (height, width)]
    starts = [size + 1 - box % 2 for size, box in zip((height, width), boxes, strict=True)]
    if share == 0.5:  # each start shows a box of its own, while at least one pixel of it is inside
        assert len(seen) == starts[0] * starts[1]


def test_policy_chooses_and_orders() -> None:
    images = noise(3, 3, 8, 8)
    torch.manual_seed(0)
    augmented = DiffAugment(["cutout", "translation"])(images)
    torch.manual_seed(0)
    wanted = DiffAugment(["translation"])(DiffAugment(["cutout"])(images))
    torch.testing.assert_close(augmented, wanted, rtol=0, atol=0)


# Both, differentiated


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [DiffAugment, lambda: ADA(p=1.0), lambda: ADA(p=0.5)])
def test_gradients_of_both_orders(make: Callable[[], Any], channels: int) -> None:
    augmentation = make()

    def square_augmented(images: Tensor) -> Tensor:
        torch.manual_seed(0)
        return augmentation(images).square()

    images = noise(2, channels, 4, 4).requires_grad_(True)
    torch.autograd.gradcheck(square_augmented, images, fast_mode=True)
    torch.autograd.gradgradcheck(square_augmented, images, fast_mode=True)


@pytest.mark.parametrize("make", [DiffAugment, lambda: ADA(p=1.0)])
def test_r1_goes_through(make: Callable[[], Any]) -> None:
    """R1 of D behind the augmentation trains D: gradients against differences, with the random numbers fixed."""
    augmentation = make()
    images = noise(3, 3, 6, 6)
    weight = noise(3 * 36, seed=1).requires_grad_(True)

    def penalty(w: Tensor) -> Tensor:
        def critic(x: Tensor) -> Scores:
            torch.manual_seed(0)
            return Scores((augmentation(x).flatten(1) * w).sum(1).tanh())

        return image_gradients(critic, images).square().sum((1, 2, 3)).mean()

    torch.autograd.gradcheck(penalty, weight, fast_mode=True)
    (grad,) = torch.autograd.grad(penalty(weight), weight)
    assert grad.abs().max() > 0


# ADA's p


class Clock:
    """The fields of a run's state that ADA reads."""

    def __init__(self) -> None:
        self.images = 0
        self.means = TickMeans()


def run_steps(ada: ADA, signs: list[float], batch: int = 10) -> list[float]:
    """Return p after each step, given the mean signs that the steps report."""
    state: Any = Clock()
    ada.before_run(SimpleNamespace(device=torch.device("cpu")))  # type: ignore[arg-type]
    ada.before_stage(state)
    values = []
    for sign in signs:
        state.images += batch
        ada.after_step(state, {"Scores/real_sign": torch.tensor(sign)})
        values.append(ada.p.item())
    return values


def test_p_rises_while_all_scores_are_positive_at_its_speed() -> None:
    """500,000 images from 0 to 1 as published; here 1,000, in steps of 10."""
    values = run_steps(ADA(interval=10, adjust_images=1000), [1.0] * 120)
    assert values[:100] == pytest.approx([(i + 1) / 100 for i in range(100)], abs=1e-5)
    assert values[100:] == [1.0] * 20
    default = ADA()
    assert run_steps(default, [1.0] * 1000, batch=256)[-1] == pytest.approx(256_000 / 500_000, abs=1e-4)


def test_p_falls_while_scores_are_negative_and_stops_at_0() -> None:
    values = run_steps(ADA(p=0.5, interval=10, adjust_images=1000), [-1.0] * 60)
    assert values[:50] == pytest.approx([0.5 - (i + 1) / 100 for i in range(50)], abs=1e-5)
    assert values[51:] == [0.0] * 9


def test_p_stays_where_the_signs_are_on_target_and_moves_on_either_side() -> None:
    assert run_steps(ADA(p=0.5, interval=10, adjust_images=1000), [0.6]) == pytest.approx([0.5])
    assert run_steps(ADA(p=0.5, interval=10, adjust_images=1000), [0.61]) == pytest.approx([0.51])
    assert run_steps(ADA(p=0.5, interval=10, adjust_images=1000), [0.59]) == pytest.approx([0.49])
    assert run_steps(ADA(p=0.5, target=-0.2, interval=10, adjust_images=1000), [-0.1]) == pytest.approx([0.51])


def test_p_moves_once_an_interval_by_the_mean_sign() -> None:
    """An interval of 25 in batches of 10 is over after 30: the mean of three signs against 0.6, moving by all 30."""
    signs = [1.0, 1.0, 0.0, 1.0, 1.0, -0.3, 1.0, 1.0]
    values = run_steps(ADA(p=0.5, interval=25, adjust_images=1000), signs)
    assert values == pytest.approx([0.5, 0.5, 0.53, 0.53, 0.53, 0.5, 0.5, 0.5], abs=1e-6)


def test_without_a_target_p_stays() -> None:
    state: Any = Clock()
    ada = ADA(target=None, p=0.25)
    state.images = 1000
    ada.after_step(state, {})
    assert ada.p.item() == 0.25
    assert state.means.read() == {"Progress/augmentation": 0.25}


MOVING = (
    "train.augmentation = @augmentations.ADA()",
    "augmentations.ADA.target = None",
    "augmentations.ADA.p = {4: 0.5, 8: @curves.Linear()}",
    "curves.Linear.begin = 0.0",
    "train.tick = 4",
)


def test_without_a_target_p_follows_a_curve(train: Callable[..., Any]) -> None:
    run = train(*MOVING, "curves.Linear.end = 0.4", "train.keep = 100")
    wanted = [0.5 if images < 8 else 0.4 * images / 40 for images in range(0, 40, 4)]
    assert [row["Progress/augmentation"] for row in run.files.stats()] == pytest.approx(wanted)


class FailsAt:
    """A hinge whose term of G is NaN in the step that begins at this clock."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.state: Any = None

    def make_rows(self) -> list[Any]:
        fails = self

        class Failing(Hinge):
            def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
                factor = math.nan if fails.state.images == fails.images else 1.0
                return {name: term * factor for name, term in super().generator(fake, real).items()}

        return [Component("losses", "Failing", Failing), fails]

    @hookimpl
    def before_run(self, run: Run) -> None:
        self.state = run.state


def test_a_p_that_moves_follows_its_curve_past_a_step_that_was_skipped(train: Callable[..., Any], stub: str) -> None:
    lines = ("train.loss = @losses.Failing()", "train.non_finite = 'skip'", "train.keep = 100")
    rows = FailsAt(28).make_rows()
    run = train(*MOVING, "curves.Linear.end = 0.4", *lines, plugins=tuple(rows), run_dir="whole")
    assert run.state.dropped == 1
    seen = {row["images"] - 4: row.get("Progress/augmentation") for row in run.files.stats()}
    assert seen.pop(28) is None
    assert seen == pytest.approx({images: 0.5 if images < 8 else 0.4 * images / 40 for images in seen})

    # Resumed behind the skipped step, it ends as the whole run does.
    remove_checkpoints_after(Path("whole"), 32)
    again = resume("whole", plugins=[stub, *FailsAt(28).make_rows()])
    assert again.state.images == run.state.images
    for name, value in run.state.generator.state_dict().items():
        assert torch.equal(value, again.state.generator.state_dict()[name])


def test_a_p_that_moves_is_a_probability_and_has_no_target(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"ADA\.p must be in \[0, 1\], and is 1\.2 at images 24 \(16x16, fade\)"):
        train(*MOVING, "curves.Linear.end = 2.0")
    for p in (Linear(0.0, 1.0), {4: 0.5}):
        with pytest.raises(ValueError, match=r"^p is corrected towards the target, so it is a number: or bind target"):
            ADA(p=p)


def test_an_update_without_the_signs_is_an_error(train: Callable[..., Any]) -> None:
    class WithoutSigns(Alternating):
        def step(self, ctx: Any) -> dict[str, Tensor]:
            return {name: value for name, value in super().step(ctx).items() if "sign" not in name}

    lines = ("train.augmentation = @augmentations.ADA()", "train.update = @updates.WithoutSigns()")
    with pytest.raises(ConfigError, match=r"augmentations\.ADA needs the tag Scores/real_sign"):
        train(*lines, plugins=(Component("updates", "WithoutSigns", WithoutSigns),))


ADAPTING = (
    "train.augmentation = @augmentations.ADA()",
    "augmentations.ADA.interval = 12",
    "augmentations.ADA.adjust_images = 100",
    "augmentations.ADA.p = 0.3",
    "train.tick = 4",
    "train.keep = 1000",
)


def test_p_is_logged_and_moves_in_a_run(train: Callable[..., Any]) -> None:
    run = train(*ADAPTING)
    rows = run.files.stats()
    seen = [row["Progress/augmentation"] for row in rows]
    assert len(seen) == 10 and seen[0] == pytest.approx(0.3)

    # The same rule by hand: p moves by 12 / 100 at every third tick of 4 images.
    expected = 0.3
    gathered = []
    for row, p in zip(rows, seen, strict=True):
        assert p == pytest.approx(expected, abs=1e-6)  # the tag is noted before the step's own correction
        gathered.append(row["Scores/real_sign"])
        if len(gathered) == 3:
            expected += math.copysign(0.12, sum(gathered) / 3 - 0.6)
            expected = min(1.0, max(0.0, expected))
            gathered = []
    assert seen[-1] != seen[0]


def test_a_resumed_run_adapts_as_if_it_had_never_stopped(train: Callable[..., Any], stub: str) -> None:
    run = train(*ADAPTING, run_dir="whole")
    wanted = run.files.stats()
    # Resumed at 8 as the first stage ends, at 16 in a fade, and at 32: in p's turn after 2 steps, 1 step and 2 steps.
    for images in (8, 16, 32):
        # A copy whose last checkpoints are missing, as after a run that was stopped earlier.
        folder = Path(f"cut{images}")
        shutil.copytree("whole", folder)
        remove_checkpoints_after(folder, images)
        again = resume(folder, plugins=[stub])
        for name, value in run.state.generator.state_dict().items():
            assert torch.equal(value, again.state.generator.state_dict()[name])
        for row, other in zip(wanted, again.files.stats(), strict=True):
            assert row["Progress/augmentation"] == other["Progress/augmentation"]


@pytest.mark.parametrize("name", ["ADA", "DiffAugment"])
def test_trains_on_rectangles_with_r1(train: Callable[..., Any], name: str) -> None:
    run = train(
        f"train.augmentation = @augmentations.{name}()",
        "schedule.sizes = ((4, 6), (8, 12))",
        "datasets.Stub.channels = 3",
        "losses.Hinge.penalties = [@penalties.R1()]",
    )
    assert run.state.images == run.schedule.total
    assert all(p.isfinite().all() for p in run.state.discriminator.parameters())


def test_a_saved_state_counts_the_images_of_a_dropped_step_like_a_run_that_went_on() -> None:
    """A dropped step calls no `after_step`: the next one counts its images, too, also after a stop between them."""

    def begin(images: int) -> ADA:
        ada = ADA(interval=1000)
        ada.before_run(SimpleNamespace(device=torch.device("cpu")))
        ada.before_stage(make_state(images))
        return ada

    def make_state(images: int) -> Any:
        return SimpleNamespace(images=images, means=SimpleNamespace(add=lambda values: None))

    def take_step(ada: ADA, images: int) -> None:
        ada.after_step(make_state(images), {"Scores/real_sign": torch.tensor(0.5)})

    whole = begin(0)
    take_step(whole, 4)
    resumed = begin(8)
    resumed.load_state(whole.save_state())
    for ada in (whole, resumed):
        take_step(ada, 12)
    assert resumed.save_state() == whole.save_state()
    assert whole.save_state()["gathered"] == 12
