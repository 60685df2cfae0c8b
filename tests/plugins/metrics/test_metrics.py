"""The shipped metrics against independent formulas in float64, and their conformance suites."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.stats
import torch
from torch import Tensor

from pggan_kit.components import Metric
from pggan_kit.errors import ConfigError
from pggan_kit.testing import MetricSuite
from pggan_plugins.datasets import StackedMNIST
from pggan_plugins.features import DigitClasses
from pggan_plugins.metrics import (
    MSSSIM,
    ClassCoverage,
    DensityCoverage,
    FrechetDistance,
    KernelDistance,
    Modes,
    PrecisionRecall,
    RadialSpectrum,
    SlicedWasserstein,
    VendiScore,
)
from pggan_plugins.metrics.neighbours import find_points_in_balls, measure_distances
from pggan_plugins.metrics.similarity import compute_ms_ssim
from pggan_plugins.metrics.spectrum import compute_radial_spectra
from pggan_plugins.metrics.wasserstein import build_laplacian_pyramid


class Means:
    """Features that need no weights: the means of the images' rows."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((1, 3))[:, :8]

    def fingerprint(self) -> str:
        return "means of rows"


class Odds:
    """Probabilities of three classes."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3].softmax(1)

    def fingerprint(self) -> str:
        return "odds"


class TestFrechetDistance(MetricSuite):
    def make(self) -> FrechetDistance:
        return FrechetDistance(Means())


class TestKernelDistance(MetricSuite):
    def make(self) -> KernelDistance:
        return KernelDistance(Means())


class TestPrecisionRecall(MetricSuite):
    def make(self) -> PrecisionRecall:
        return PrecisionRecall(Means())


class TestDensityCoverage(MetricSuite):
    def make(self) -> DensityCoverage:
        return DensityCoverage(Means())

    @pytest.mark.parametrize("neighbours", [0, 2.5])
    def test_bad_neighbours(self, neighbours: Any) -> None:
        for metric in (DensityCoverage, PrecisionRecall):
            with pytest.raises(ValueError, match=r"^neighbours must be a whole number of at least 1, and is"):
                metric(Means(), neighbours)


class TestVendiScore(MetricSuite):
    def make(self) -> VendiScore:
        return VendiScore(Means())


class TestRadialSpectrum(MetricSuite):
    bad_arguments = ({"levels": 1}, {"levels": 2.5})
    sizes = ((28, 28), (16, 20), (7, 7))

    def make(self) -> RadialSpectrum:
        return RadialSpectrum()


class TestModes(MetricSuite):
    def make(self) -> Modes:
        return Modes(Odds())


class TestSlicedWasserstein(MetricSuite):
    def make(self) -> SlicedWasserstein:
        return SlicedWasserstein()


class TestMSSSIM(MetricSuite):
    sizes = ((176, 180),)
    count = 4
    image_by_image = False

    def make(self) -> MSSSIM:
        return MSSSIM()


class TestClassCoverage(MetricSuite):
    def make(self) -> ClassCoverage:
        return ClassCoverage(Odds())

    @pytest.mark.parametrize("rare", [0, 1.5, math.nan])
    def test_bad_shares(self, rare: float) -> None:
        with pytest.raises(ValueError, match=r"^rare must be in \(0, 1\], and is"):
            ClassCoverage(Odds(), rare)


@pytest.fixture
def sides() -> tuple[np.ndarray, np.ndarray]:
    """Return features (120, 6) and (90, 6), correlated, with different means and spreads."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    return rng.normal(size=(120, 6)) @ mixing + 1, rng.normal(size=(90, 6)) @ mixing.T * 1.3


def is_close(actual: float, wanted: float) -> bool:
    return abs(actual - wanted) <= 1e-4 * max(1e-3, abs(wanted))


@pytest.mark.parametrize(
    ("metric", "least"),
    [
        (FrechetDistance(Means()), 2),
        (KernelDistance(Means()), 2),
        (PrecisionRecall(Means(), neighbours=2), 3),
        (DensityCoverage(Means(), neighbours=2), 3),
        (VendiScore(Means()), 2),
    ],
)
def test_too_few_images_are_refused(metric: Any, least: int) -> None:
    """One image has no covariance and no pair, and `neighbours` images have no ball: the value would be 0 or NaN."""
    generator = torch.Generator().manual_seed(0)
    enough, few = (torch.randn(count, 3, generator=generator) for count in (least, least - 1))
    for side, given in (("real", (few, enough)), ("fake", (enough, few))):
        with pytest.raises(ConfigError, match=f"needs at least {least} {side} images, and there .* {least - 1}"):
            metric.compare(*given)
    assert all(map(math.isfinite, metric.compare(enough, enough.flip(0)).values()))


def test_frechet_distance(sides: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = sides
    means = [side.mean(0) for side in sides]
    a, b = (np.cov(side, rowvar=False) for side in sides)
    wanted = ((means[0] - means[1]) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    actual = FrechetDistance(Means(), suffix="_x").compare(torch.tensor(x).float(), torch.tensor(y).float())
    assert actual.keys() == {"FID_x"}
    assert is_close(actual["FID_x"], wanted)


def test_frechet_distance_of_fewer_images_than_features(sides: tuple[np.ndarray, np.ndarray]) -> None:
    """Singular covariances: along one direction each, the distance of two normal distributions is known."""
    real = torch.zeros(2, 6).double()
    fake = torch.zeros(2, 6).double()
    real[:, 0] = torch.tensor([-1.0, 1.0])
    fake[:, 0] = torch.tensor([1.0, 5.0])  # variances 2 and 8
    actual = FrechetDistance(Means()).compare(real, fake)["FID"]
    assert is_close(actual, 3**2 + (math.sqrt(8) - math.sqrt(2)) ** 2)
    assert FrechetDistance(Means()).compare(real, real)["FID"] == pytest.approx(0, abs=1e-9)


def test_kernel_distance(sides: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = sides

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return (one @ other / 6 + 1) ** 3

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    wanted = sum(within) - 2 * np.mean([kernel(one, other) for one in x for other in y])
    assert is_close(KernelDistance(Means()).compare(torch.tensor(x), torch.tensor(y))["KID"], wanted)


def test_kernel_distance_in_pieces(sides: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = map(torch.tensor, sides)
    whole = KernelDistance(Means()).compare(real, fake)["KID"]
    monkeypatch.setattr("pggan_plugins.metrics.kernel.ROWS", 7)
    assert KernelDistance(Means()).compare(real, fake)["KID"] == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall(sides: tuple[np.ndarray, np.ndarray], k: int) -> None:
    x, y = sides

    def measure_coverage(points: np.ndarray, centres: np.ndarray) -> float:
        radii = [sorted(np.linalg.norm(centre - centres, axis=1))[k] for centre in centres]
        inside = [any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
        return float(np.mean(inside))

    actual = PrecisionRecall(Means(), k).compare(torch.tensor(x), torch.tensor(y))
    assert actual == {"Precision": measure_coverage(y, x), "Recall": measure_coverage(x, y)}
    assert 0 < actual["Precision"] < 1


def test_a_collapsed_generator_recalls_nothing() -> None:
    real = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert PrecisionRecall(Means()).compare(real, real[:1].expand(50, -1)) == {"Precision": 1.0, "Recall": 1 / 50}


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("rows", [7, 2048])
def test_density_and_coverage(
    sides: tuple[np.ndarray, np.ndarray], k: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against loops over all pairs, whether distances are computed a few rows at a time or at once."""
    monkeypatch.setattr("pggan_plugins.metrics.neighbours.ROWS", rows)
    real, fake = sides
    radii = [sorted(np.linalg.norm(centre - real, axis=1))[k] for centre in real]
    inside = np.array(
        [[np.linalg.norm(x - c) < r for c, r in zip(real, radii, strict=True)] for x in fake]
    )  # (fakes, reals)
    actual = DensityCoverage(Means(), k, suffix="_x").compare(torch.tensor(real), torch.tensor(fake))
    wanted = {"Density_x": inside.sum() / (k * len(fake)), "Coverage_x": inside.any(0).mean()}
    assert actual == pytest.approx(wanted, rel=1e-12)
    assert 0 < actual["Coverage_x"] < 1


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_fakes_that_are_the_reals_have_density_1(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """k of the N fakes lie within each of the N balls, the real itself among them; one more lies on the edge."""

    def measure(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return distances as of a machine that sums each of them in another order."""
        distances = measure_distances(points, others)
        return distances * (1 + 1e-12 * torch.randn(distances.shape, generator=noise, dtype=torch.float64))

    noise = torch.Generator().manual_seed(1)
    monkeypatch.setattr("pggan_plugins.metrics.neighbours.measure_distances", measure)
    real = torch.randn(100, 97, generator=torch.Generator().manual_seed(0)) + offset
    fake = real.flip(0)
    points = real.double().numpy()
    distances = np.sqrt(np.square(points[:, None] - points[None]).sum(-1))
    radii = np.sort(distances, axis=1)[:, [5]]
    assert (distances < radii).sum() / (5 * 100) == 1 and (distances <= radii).sum() / (5 * 100) == 1.2
    assert DensityCoverage(Means(), 5).compare(real, fake) == {"Density": 1.0, "Coverage": 1.0}
    assert PrecisionRecall(Means(), 5).compare(real, fake) == {"Precision": 1.0, "Recall": 1.0}
    inside = find_points_in_balls(fake.double(), real.double(), torch.tensor(radii[:, 0]), with_edge=True)
    assert sum(int(rows.sum()) for rows in inside) / (5 * 100) == 1.2

    # Balls of reals that are there seven times have no radius: no fake lies within them, and each on their edge.
    copies = real.repeat(7, 1)
    assert DensityCoverage(Means(), 5).compare(copies, fake) == {"Density": 0.0, "Coverage": 0.0}
    assert PrecisionRecall(Means(), 5).compare(copies, fake)["Precision"] == 1.0


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distances_are_those_of_differences(offset: float) -> None:
    points = torch.randn(30, 97, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + offset
    others = torch.cat([points[:10], points.flip(0) + 1e-3])
    wanted = np.sqrt(np.square(points.numpy()[:, None] - others.numpy()[None]).sum(-1))
    actual = measure_distances(points, others).numpy()
    np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=0)
    assert (actual == 0).sum() == 10, "equal points are 0 apart"


def test_coverage_of_equal_distributions() -> None:
    """The expected values that the docstring states: 1, and 1 - (M - 1)...(M - k) / ((M + N - 1)...(M + N - k))."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(count, 3, generator=generator) for count in (3000, 1500))
    actual = DensityCoverage(Means()).compare(real, fake)
    wanted = 1 - math.prod((3000 - i) / (4500 - i) for i in range(1, 6))
    assert actual["Coverage"] == pytest.approx(wanted, abs=0.03)
    assert actual["Density"] == pytest.approx(1, abs=0.05)


def test_one_outlier_among_the_reals_raises_precision_and_hardly_density() -> None:
    """The reason for density: the ball of a real far from all others holds every fake."""
    generator = torch.Generator().manual_seed(0)
    real = torch.cat([torch.randn(200, 4, generator=generator), torch.full((1, 4), 50.0)])
    fake = torch.randn(200, 4, generator=generator) + 20
    assert PrecisionRecall(Means()).compare(real, fake)["Precision"] == 1
    density = DensityCoverage(Means()).compare(real, fake)["Density"]
    assert density == pytest.approx(1 / 5, abs=0.01)  # one ball of 5 neighbours


@pytest.mark.parametrize("count", [4, 90])
def test_vendi_score(sides: tuple[np.ndarray, np.ndarray], count: int) -> None:
    """From the singular values of the features instead of the kernel, with fewer images than features and with more."""
    features = sides[1][:count]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    shares = np.linalg.svd(unit, compute_uv=False) ** 2 / count
    actual = VendiScore(Means(), suffix="_x").compare(torch.tensor(sides[0]), torch.tensor(features))
    assert actual == {"Vendi_x": pytest.approx(math.exp(scipy.stats.entropy(shares)), rel=1e-9)}


@pytest.mark.parametrize("different", [1, 3, 5])
def test_vendi_score_counts_different_images(different: int) -> None:
    fake = torch.eye(6)[torch.arange(60) % different] * torch.arange(1.0, 61)[:, None]
    assert VendiScore(Means()).compare(fake, fake)["Vendi"] == pytest.approx(different, rel=1e-9)


def compute_spectrum_by_numpy(image: np.ndarray) -> np.ndarray:
    """Compute the radial spectrum of an image (C, h, w) from the definition of the Fourier transform."""
    _, height, width = image.shape
    waves = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (height, width)]
    rings: dict[int, list[float]] = {}
    for v in range(height):
        for u in range(width):
            transformed = np.einsum("chw,h,w->c", image, waves[0][v], waves[1][u])
            frequency = math.sqrt((min(v, height - v) / height) ** 2 + (min(u, width - u) / width) ** 2)
            power = np.mean(np.abs(transformed) ** 2) / (height * width)
            ring = max(1, round(frequency * min(height, width))) if (v, u) != (0, 0) else 0
            rings.setdefault(ring, []).append(power)
    return np.array([np.mean(rings[k]) for k in range(len(rings))])


@pytest.mark.parametrize(("channels", "size"), [(1, (7, 7)), (3, (16, 16)), (3, (12, 21)), (1, (2, 3)), (1, (1, 9))])
def test_radial_spectra(channels: int, size: tuple[int, int]) -> None:
    images = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    wanted = [compute_spectrum_by_numpy(image.double().numpy()) for image in images]
    np.testing.assert_allclose(compute_radial_spectra(images).numpy(), wanted, rtol=1e-4)


@pytest.mark.parametrize("size", [(16, 64), (64, 16), (1, 16), (16, 1), (1, 2)])
def test_the_spectrum_sees_the_slowest_wave_of_each_side(size: tuple[int, int]) -> None:
    """A wave with one period over the longer side is slower than any over the shorter one."""
    generator = torch.Generator().manual_seed(0)
    real = 0.05 * torch.randn(20, 1, *size, generator=generator)
    metric = RadialSpectrum()
    sides = [(torch.arange(n) * 2 * math.pi / n).cos() for n in size]
    for wave in (sides[0][:, None], sides[1]):
        if wave.numel() > 1:
            described = [metric.describe(images) for images in (real, real + 0.5 * wave)]
            assert described[0] is not None and described[1] is not None
            assert metric.compare(described[0], described[1])["SpectralDistance"] > 1


def test_spectral_distance() -> None:
    """Against the formula, and white noise of another variance, whose spectra differ by a known number everywhere."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(500, 3, 16, 16, generator=generator) * scale for scale in (0.5, 0.05))
    metric = RadialSpectrum("_x")
    described = [metric.describe(images) for images in (real, fake)]
    assert described[0] is not None and described[1] is not None
    actual = metric.compare(described[0], described[1])
    powers = [side.double().numpy().mean(0)[1:] + (2 / 255) ** 2 / 12 for side in described if side is not None]
    wanted = np.sqrt(np.mean((10 * np.log10(powers[0] / powers[1])) ** 2))
    assert actual == {"SpectralDistance_x": pytest.approx(wanted, rel=1e-9)}
    assert actual["SpectralDistance_x"] == pytest.approx(20, abs=0.1)
    assert metric.compare(described[0], described[0])["SpectralDistance_x"] == 0

    # What lies below the levels of bytes is resolved where the data have more of them.
    faint = [metric.describe(images * 1e-4) for images in (real, fake)]
    assert faint[0] is not None and faint[1] is not None
    assert metric.compare(faint[0], faint[1])["SpectralDistance_x"] < 0.01
    assert RadialSpectrum(levels=1 << 20).compare(faint[0], faint[1])["SpectralDistance"] == pytest.approx(20, abs=0.2)


def test_spectral_distance_of_black_images_is_finite() -> None:
    black = RadialSpectrum().describe(torch.full((4, 1, 8, 8), -1.0))
    noise = RadialSpectrum().describe(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert black is not None and noise is not None
    assert RadialSpectrum().describe(torch.zeros(2, 1, 1, 1)) is None
    assert 50 < RadialSpectrum().compare(noise, black)["SpectralDistance"] < 60  # power 1 against (2 / 255)^2 / 12


def test_repeated_pixels_have_another_spectrum() -> None:
    """What the metric is for: images enlarged by repeating pixels stand out beside those enlarged smoothly."""
    small = torch.randn(300, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic")
    repeated = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    metric = RadialSpectrum()
    sides = [metric.describe(images) for images in (smooth[:150], smooth[150:], repeated)]
    assert all(side is not None for side in sides)
    floor = metric.compare(sides[0], sides[1])["SpectralDistance"]  # type: ignore[arg-type]
    assert metric.compare(sides[0], sides[2])["SpectralDistance"] > 10 * floor  # type: ignore[arg-type]


def build_pyramid_by_scipy(image: np.ndarray) -> list[np.ndarray]:
    """Build the Laplacian pyramid of one channel (h, w) with scipy."""
    taps = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    levels = [image]
    while min(-(-n // 2) for n in levels[-1].shape) >= 16:
        levels.append(scipy.ndimage.convolve(levels[-1], taps, mode="mirror")[::2, ::2])
    for index, (larger, smaller) in enumerate(pairwise(levels)):
        spread = np.zeros_like(larger)
        spread[::2, ::2] = smaller
        levels[index] = larger - scipy.ndimage.convolve(spread, 4 * taps, mode="mirror")
    return levels


@pytest.mark.parametrize(("size", "levels"), [((16, 16), 1), ((28, 28), 1), ((31, 45), 2), ((64, 80), 3)])
def test_laplacian_pyramid(size: tuple[int, int], levels: int) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    actual = build_laplacian_pyramid(images)
    wanted = build_pyramid_by_scipy(images[1, 2].numpy())
    assert len(actual) == len(wanted) == levels
    for level, other in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(level[1, 2].numpy(), other, atol=1e-12)


def test_patches_are_cut_from_the_image() -> None:
    """At 28x28 there is one level, the image itself; each pixel here says where it comes from."""
    places = torch.arange(28.0)[:, None] * 28 + torch.arange(28.0)
    images = torch.stack([places, places + 1000]).expand(2, 2, 28, 28) + torch.tensor([0.0, 5000.0]).view(2, 1, 1, 1)
    patches = SlicedWasserstein().describe(images)
    assert patches is not None and patches.shape == (2, 1, 128, 2, 7, 7)
    corner = patches[..., :1, :1, :1]
    offsets = (torch.arange(7.0)[:, None] * 28 + torch.arange(7.0)) + torch.tensor([0.0, 1000.0]).view(2, 1, 1)
    assert torch.equal(patches, corner + offsets)
    tops = ((corner - 5000 * torch.arange(2).view(2, 1, 1, 1, 1, 1)) // 28).unique()
    assert tops.tolist() == list(range(22))


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (40, 33))])
def test_sliced_wasserstein(channels: int, size: tuple[int, int]) -> None:
    """Against scipy's distance in one dimension, over other directions: equal up to their choice."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    metric = SlicedWasserstein()
    sides = []
    for power in (1, 3):
        described = metric.describe(torch.randn(12, channels, *size, generator=generator) ** power)
        assert described is not None
        sides.append(described)
    means = []
    rng = np.random.default_rng(1)
    for level in range(sides[0].shape[1]):
        flat = [side[:, level].double().numpy().reshape(-1, channels, 49) for side in sides]
        flat = [(s - s.mean((0, 2), keepdims=True)) / s.std((0, 2), keepdims=True) for s in flat]
        directions = rng.normal(size=(512, channels * 49))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        one, other = (s.reshape(len(s), -1) @ directions.T for s in flat)
        means.append(np.mean([scipy.stats.wasserstein_distance(one[:, i], other[:, i]) for i in range(512)]))
    assert metric.compare(*sides)["SWD"] == pytest.approx(1000 * np.mean(means), rel=0.03)


def test_sliced_wasserstein_with_given_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It equals scipy's distance to 1e-4."""
    directions = torch.randn(128, 49, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: directions.clone())
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.rand(3, 1, 128, 1, 7, 7, generator=generator) ** power for power in (1, 2))
    flat = [side.double().numpy().reshape(-1, 49) for side in (real, fake)]
    flat = [(side - side.mean()) / side.std() for side in flat]
    unit = directions.double().numpy() / np.linalg.norm(directions.double().numpy(), axis=1, keepdims=True)
    one, other = (side @ unit.T for side in flat)
    wanted = np.mean([scipy.stats.wasserstein_distance(one[:, i], other[:, i]) for i in range(128)])
    assert is_close(SlicedWasserstein().compare(real, fake)["SWD"], 1000 * wanted)


def test_sliced_wasserstein_is_not_defined_below_16_pixels() -> None:
    assert SlicedWasserstein().describe(torch.zeros(2, 1, 15, 64)) is None


def compute_ms_ssim_by_scipy(x: np.ndarray, y: np.ndarray) -> float:
    """Compute MS-SSIM (Wang et al. 2003) of images (C, h, w) in [0, 1], with means over channels too."""
    places = np.arange(-5, 6)
    window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        return np.stack([scipy.signal.convolve2d(channel, window, mode="valid") for channel in values])

    result = 1.0
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    for scale, weight in enumerate(weights):
        mx = mean(x)
        my = mean(y)
        vx = mean(x * x) - mx**2
        vy = mean(y * y) - my**2
        cov = mean(x * y) - mx * my
        structure = (2 * cov + 9e-4) / (vx + vy + 9e-4)
        luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
        result *= max(0.0, float((structure * luminance if scale == 4 else structure).mean())) ** weight
        count = len(x)
        height, width = (2 * (n // 2) for n in x.shape[1:])
        x, y = (v[:, :height, :width].reshape(count, height // 2, 2, width // 2, 2).mean((2, 4)) for v in (x, y))
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_ms_ssim(channels: int) -> None:
    """In colour one channel differs in its large shapes, so that it matters where channels are averaged."""
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.rand(2, channels, 177, 200, generator=generator).double() for _ in range(2))
    other[:, 2:] = other[:, 2:, ::16, ::16].repeat_interleave(16, 2).repeat_interleave(16, 3)[:, :, :177, :200]
    y = 0.4 * x + 0.6 * other
    wanted = [compute_ms_ssim_by_scipy(x[i].numpy(), y[i].numpy()) for i in range(2)]
    np.testing.assert_allclose(compute_ms_ssim(x, y).numpy(), wanted, rtol=1e-6)
    assert all(0.1 < value < 0.999 for value in wanted)
    if channels == 3:
        one_by_one = [compute_ms_ssim_by_scipy(x[0, [c]].numpy(), y[0, [c]].numpy()) for c in range(3)]
        assert abs(np.mean(one_by_one) - wanted[0]) > 0.02, "the images do not distinguish the two means"


@pytest.mark.parametrize("count", [2, 3, 4])
def test_ms_ssim_is_of_neighbours_round_the_batch(count: int) -> None:
    """Whether the batch is even or odd, each image is compared with another one, and never with itself."""
    images = torch.rand(count, 1, 176, 176, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shares = ((images + 1) / 2).double().numpy()
    wanted = [compute_ms_ssim_by_scipy(shares[i], shares[(i + 1) % count]) for i in range(count)]
    actual = MSSSIM().describe(images)
    assert actual is not None
    np.testing.assert_allclose(actual.numpy(), wanted, rtol=1e-3)
    assert all(value < 0.5 for value in wanted)


def test_ms_ssim_is_near_1_of_one_image_again_and_again() -> None:
    images = (torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(0)) * 2 - 1).repeat(3, 1, 1, 1)
    actual = MSSSIM().describe(images)
    assert actual is not None and actual.tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert MSSSIM().describe(torch.zeros(2, 1, 175, 300)) is None


def test_ms_ssim_leaves_out_an_image_alone_in_its_batch() -> None:
    images = torch.rand(3, 1, 176, 176, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pair = MSSSIM().describe(images[:2])
    alone = MSSSIM().describe(images[2:])
    assert pair is not None and alone is not None and len(alone) == 1
    actual = MSSSIM().compare(pair, torch.cat([pair, alone]))
    assert actual == {"MSSSIM": pytest.approx(float(pair.double().mean()))}
    with pytest.raises(ConfigError, match=r"each was alone in its batch: set evaluation.batch_size to 2 or more"):
        MSSSIM().compare(pair, alone)


def one_hot(*counts: int) -> Tensor:
    """Return probabilities by which class i is most likely `counts[i]` times, with 0.8."""
    labels = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)])
    return torch.nn.functional.one_hot(labels, len(counts)) * 0.7 + 0.1


def test_class_coverage() -> None:
    real = one_hot(50, 30, 20)
    fake = one_hot(70, 29, 1)
    actual = ClassCoverage(Odds(), suffix="_x").compare(real, fake)
    shares = np.array([71, 30, 2]) / 103
    wanted = {
        "ClassesCovered_x": 2 / 3,
        "ClassDivergence_x": scipy.stats.entropy(shares, np.array([51, 31, 21]) / 103),
        "ClassEntropy_x": scipy.stats.entropy([0.7, 0.29, 0.01], base=3),
        "Confidence_x": 0.8,
    }
    assert actual == pytest.approx(wanted, rel=1e-6)
    assert ClassCoverage(Odds(), rare=0.04).compare(real, fake)["ClassesCovered"] == 1


def test_class_coverage_of_one_class() -> None:
    actual = ClassCoverage(Odds()).compare(one_hot(50, 50, 0), one_hot(100, 0, 0))
    assert actual["ClassesCovered"] == 0.5  # the reals have two classes
    assert actual["ClassEntropy"] == 0


def test_class_coverage_of_a_classifier_with_one_class() -> None:
    """The entropy of equal shares is 0 there, which may not divide."""
    actual = ClassCoverage(Odds()).compare(torch.ones(7, 1), torch.ones(9, 1))
    assert actual == {"ClassesCovered": 1.0, "ClassDivergence": 0.0, "ClassEntropy": 1.0, "Confidence": 1.0}


def draw_odds(classes: np.ndarray) -> Tensor:
    """Return probabilities (N, C, 3) in which these classes (N, C) are most likely."""
    return torch.nn.functional.one_hot(torch.from_numpy(classes), 3) * 0.7 + 0.1


def test_modes() -> None:
    """Against counts by mode, and scipy's divergence from the product of each channel's shares."""
    rng = np.random.default_rng(0)
    real = rng.choice(3, (400, 2), p=[0.5, 0.3, 0.2])
    fake = rng.choice(3, (70, 2), p=[0.3, 0.7, 0])
    shares = [(np.bincount(real[:, channel], minlength=3) + 1) / 403 for channel in range(2)]
    counts = np.zeros((3, 3))
    for first, second in fake:
        counts[first, second] += 1
    actual = Modes(Odds(), suffix="_x").compare(draw_odds(real), draw_odds(fake))
    divergence = scipy.stats.entropy(counts.flatten(), np.outer(*shares).flatten())
    assert actual == {"ModesCovered_x": 4.0, "ModeDivergence_x": pytest.approx(divergence, rel=1e-9)}


def test_mode_divergence_of_a_perfect_generator() -> None:
    """It is about (K - 1) / (2 N), as the docstring states, and one mode alone has the logarithm of their number."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (
        torch.nn.functional.one_hot(torch.randint(10, (26_000, 3), generator=generator), 10).float() for _ in range(2)
    )
    actual = Modes(Odds()).compare(real, fake)
    assert actual["ModesCovered"] == 1000
    assert actual["ModeDivergence"] == pytest.approx(999 / 52_000, rel=0.1)
    collapsed = Modes(Odds()).compare(real, fake[:1].expand(500, -1, -1))
    assert collapsed == {"ModesCovered": 1.0, "ModeDivergence": pytest.approx(math.log(1000), abs=0.1)}


def test_modes_of_stacked_digits() -> None:
    """The classifier of digits, on each channel, finds the modes that the data set states, at each of its sizes."""
    digits = StackedMNIST(length=60, labels=True)
    images = torch.from_numpy(np.stack([digits.image(i) for i in range(60)])).permute(0, 3, 1, 2) / 127.5 - 1
    for size in (28, 14):
        described = Modes(DigitClasses()).describe(torch.nn.functional.adaptive_avg_pool2d(images, size))
        numbers = described.argmax(2) @ torch.tensor([100, 10, 1])
        right = sum(int(number) == digits.label(i) for i, number in enumerate(numbers))
        assert right >= 55, f"{right} of 60 at {size}x{size}"


@pytest.mark.parametrize("make", [ClassCoverage, Modes])
def test_metrics_of_classes_need_probabilities(make: Callable[..., Any]) -> None:
    """Whichever side has none, since the reals' descriptions may come from the cache or from another metric."""
    metric = make(Means())
    features = metric.describe(torch.randn(4, 3, 8, 8))
    odds = torch.full_like(features, 1 / features.shape[-1])
    missing = odds.clone()
    missing[0] = math.nan
    for sides in ((odds, features), (features, odds), (odds, missing)):
        with pytest.raises(ConfigError, match=rf"^metrics\.{make.__name__}\.features must give probabilities"):
            metric.compare(*sides)


def test_quantities_of_metrics() -> None:
    """Distances are compared by logarithms, except for KID, which is unbiased and so may be negative."""
    of_features = (FrechetDistance, KernelDistance, PrecisionRecall, DensityCoverage, VendiScore)
    metrics: list[Metric] = [make(Means(), suffix="_x") for make in of_features]
    metrics += [make(Odds(), suffix="_x") for make in (ClassCoverage, Modes)]
    metrics += [MSSSIM("_x"), SlicedWasserstein("_x"), RadialSpectrum("_x")]
    stated = {name: quantity for metric in metrics for name, quantity in metric.quantities.items()}
    assert {name for name, quantity in stated.items() if quantity.scale == "log"} == {
        "FID_x",
        "SWD_x",
        "SpectralDistance_x",
    }
    assert {name for name, quantity in stated.items() if quantity.direction == "higher"} == {
        "Precision_x",
        "Recall_x",
        "Density_x",
        "Coverage_x",
        "Vendi_x",
        "ModesCovered_x",
        "ClassesCovered_x",
        "ClassEntropy_x",
        "Confidence_x",
    }
    assert stated["KID_x"].range == (-math.inf, math.inf) and stated["Recall_x"].range == (0.0, 1.0)


@pytest.mark.parametrize(
    "make", [FrechetDistance, KernelDistance, PrecisionRecall, DensityCoverage, VendiScore, ClassCoverage]
)
def test_metrics_of_the_same_features_share_them(make: Callable[..., FrechetDistance]) -> None:
    assert make(Means()).fingerprint() == FrechetDistance(Means(), suffix="_x").fingerprint()
    assert make(Means()).fingerprint() != make(Odds()).fingerprint() != Modes(Odds()).fingerprint()


def test_fid_warns_once_of_fewer_images_than_features(recwarn: pytest.WarningsRecorder) -> None:
    features = torch.randn(40, 20, generator=torch.Generator().manual_seed(0))
    metric = FrechetDistance(Means(), "_x")
    metric.compare(features[:20], features[20:])
    assert not recwarn.list
    with pytest.warns(UserWarning, match="^FID_x of 20 real and 19 other images with 20 features: .* noise floor"):
        metric.compare(features[:20], features[21:])
    metric.compare(features[:5], features[5:])
    assert not recwarn.list, "once"
