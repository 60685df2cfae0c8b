"""Compare a recorded step with the eager one, and tell recordings apart by what they were made of.

Two right ways to compute a step differ in rounding. How much depends on the step: on sums whose terms cancel, on
activations near the kink of a leaky ReLU, on the sizes of everything. So the allowed difference is measured. The
eager step is taken again with every result of an operation changed at random, several times as much as the order of a
summation may change it (`RoundingNoise`, `choose_rounding`), and the response of each term and gradient is its scale.
This is Monte Carlo arithmetic (Parker, Pierce and Eggert 2000, "Monte Carlo arithmetic: how to gamble with floating
point and win").

A compiled step is compared with the eager one in two surroundings: near the batch and the weights at hand, and far from
them, where weights, batch and alpha are others. Only there does a weight or an alpha show that is a constant.
A step is refused where it exceeds `FACTOR` times a scale at each of `ATTEMPTS` places of one surrounding.

Why a right step is refused less than once in 10^4: since the noise is larger than rounding, the ratio of difference and
scale is typically 0.03 to 0.5. It can be larger for three reasons.

1. The scale is too small by chance. A single number's response is below a share s of the typical one with a probability
   of about s, and the median of 5 responses with about 10 s^3; that of a tensor much more rarely.
2. Rounding moved an activation across a kink, which changes a gradient at once. The median leaves such outliers out of
   the scale as long as they are rare. A place has one with a probability of some per cent, and places are independent:
   five per cent at each of five places are 3 in 10^7.
3. The order of summation is worse than the noise assumes: it assumes one accumulator for all pixels of a batch.

`tests/training/test_parity.py` counts how often steps exceed the bound at a place that are computed in other orders of
summation, or in float64 and then rounded, over seeds, sizes and losses.
"""

from __future__ import annotations

import functools
import math
import statistics
import types
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pggan_kit.components import DuePenalty
from pggan_kit.training.attributes import open_attributes
from pggan_kit.training.step import Work

TF32_EPS = 2.0**-10
"""Distance of 1 from the next number of TensorFloat-32."""

SUBNORMAL = torch.finfo(torch.float16).smallest_normal * torch.finfo(torch.float16).eps
"""Distance of the smallest numbers of float16."""

SAMPLES = 5
"""Number of noisy steps whose median response is the scale of a term or gradient."""

FACTOR = 4.0
"""Factor on the scale, up to which a difference is taken for rounding."""

ATTEMPTS = 5
"""Number of places in each surrounding at which a step may turn out to be right."""

NEAR = 1e-3
"""Relative change of batch and weights from one place near those at hand to the next."""

FAR = 0.1
"""The same far from them."""

DEPTH = 3
"""Maximum depth of components within components that `collect_settings` looks into: a loss's inner loss, and its
penalties."""

Result = dict[str, Tensor]
"""Terms, kept tensors and gradients, each by a name for people."""

Evaluate = Callable[[Work], Result]
"""A function that takes a backward pass and returns its results; it changes nothing."""


class RoundingNoise(TorchDispatchMode):
    """Change each result of an operation at random, within a block, about as much as rounding may have changed it.

    Args:
        rounding: Maximum relative change by type; results of other types stay as they are.
        seed: Seed of the changes. Torch's own random numbers are not touched.
    """

    def __init__(self, rounding: Mapping[torch.dtype, float], seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rounding = rounding
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and change its results."""
        results = func(*args, **(kwargs or {}))
        # Views share their memory with what has been changed already; what is changed in place belongs to the caller.
        if any(returned.alias_info is not None for returned in func._schema.returns):
            return results
        return tree_map_only(Tensor, self._change, results)

    def _change(self, result: Tensor) -> Tensor:
        size = self._rounding.get(result.dtype)
        if size is None:
            return result
        generator = self._generators.get(result.device)
        if generator is None:
            generator = torch.Generator(result.device).manual_seed(self._seed)
            self._generators[result.device] = generator

        # A change of one unit in the last place has to be computed in a wider type.
        factors = torch.empty_like(result, dtype=torch.promote_types(result.dtype, torch.float32))
        factors.uniform_(1.0 - size, 1.0 + size, generator=generator)
        changed = factors.mul_(result)
        # Below its normal numbers, which unscaled gradients reach, float16 rounds by an absolute amount.
        if result.dtype == torch.float16:
            changed.add_(torch.empty_like(changed).uniform_(-SUBNORMAL, SUBNORMAL, generator=generator))
        return changed.to(result.dtype)


@dataclass
class Place:
    """Inputs at which steps are compared, and what the eager step returns there, once it has been taken.

    Attributes:
        work: The pass, with the batch and the alpha of this place.
        size: Relative change of the weights.
        seed: Seed of that change.
    """

    work: Work
    size: float
    seed: int
    wanted: Result | None = None
    scales: dict[str, float] | None = None


class Difference(NamedTuple):
    """A difference of two results, and what rounding may explain of it: root mean squares over a tensor's elements."""

    error: float
    scale: float


class Comparison:
    """The comparison of other ways to compute a backward pass with the eager one.

    Args:
        eager: The right way.
        work: The pass.
        parameters: The weights of both networks, which are changed and restored.
        rounding: See `RoundingNoise`.

    Attributes:
        near: Places near the batch and the weights at hand; the first one is there.
        far: Places far from them.
    """

    def __init__(
        self, eager: Evaluate, work: Work, parameters: Sequence[nn.Parameter], rounding: Mapping[torch.dtype, float]
    ) -> None:
        self._eager = eager
        self._parameters = list(parameters)
        self._rounding = rounding
        self.near = [_make_place(work, number * NEAR, number) for number in range(ATTEMPTS)]
        elsewhere = work._replace(alpha={path: (alpha + 0.5) % 1 for path, alpha in work.alpha.items()})
        self.far = [_make_place(elsewhere, FAR, ATTEMPTS + number) for number in range(ATTEMPTS)]

    def find_problem(self, other: Evaluate) -> str | None:
        """Return where another way differs by more than rounding, in words; None where it does not."""
        for places in (self.near, self.far):
            problem = None
            for place in places:
                problem = describe_excess(self.measure(place, other))
                if problem is None:
                    break
            if problem is not None:
                return problem
        return None

    def measure(self, place: Place, other: Evaluate) -> dict[str, Difference]:
        """Return the differences of another way at a place, by name, without those that are zero; wait for the device.

        What only one of the two returns differs by infinity, and what is NaN in only one of them, by NaN.
        """
        with self._move_weights(place):
            if place.wanted is None:
                place.wanted = self._eager(place.work)
            wanted = place.wanted
            actual = other(place.work)
            errors = measure_errors(wanted, actual)

            # Equal results, as those of a recording that is run as it is, need no scale.
            if errors and place.scales is None:
                place.scales = self._measure_scales(place.work, wanted)

        scales = place.scales or {}
        return {name: Difference(error, scales.get(name, 0.0)) for name, error in errors.items()}

    def _measure_scales(self, work: Work, wanted: Result) -> dict[str, float]:
        """Return each result's median response to the noise, at the present weights."""
        responses = []
        for sample in range(SAMPLES):
            with RoundingNoise(self._rounding, sample):
                noisy = self._eager(work)
            responses.append(measure_errors(wanted, noisy))
        return {name: statistics.median(response.get(name, 0.0) for response in responses) for name in wanted}

    @contextmanager
    def _move_weights(self, place: Place) -> Iterator[None]:
        """Let a block use the weights of a place, and restore them bit for bit."""
        if place.size == 0:
            yield
            return
        generator = torch.Generator().manual_seed(place.seed)
        saved = [parameter.detach().clone() for parameter in self._parameters]
        try:
            with torch.no_grad():
                for parameter in self._parameters:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                    # Biases, which begin as zeros, are moved as far as features are large.
                    scale = compute_rms(parameter)
                    if parameter.dim() <= 1:
                        scale = max(1.0, scale)
                    parameter.add_(noise.to(parameter.device), alpha=place.size * scale)
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters, saved, strict=True):
                    parameter.copy_(value)


def _make_place(work: Work, size: float, seed: int) -> Place:
    """Return a place whose batch differs from that of `work` by a relative size; numbers stay within their bounds."""
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Tensor | None] = {}
    for name, rows in work.batch.items():
        batch[name] = rows
        if size > 0 and rows is not None and rows.is_floating_point():
            shrink = 1.0 - size * torch.rand(rows.shape, generator=generator, dtype=rows.dtype)
            batch[name] = rows * shrink.to(rows.device)
    return Place(work._replace(batch=batch), size, seed)


def choose_rounding(device: torch.device, terms: int) -> dict[torch.dtype, float]:
    """Return by how much the noise may change a result, relatively, by type.

    A sum of n terms, one after the other, is off by 0.14 sqrt(n) eps times the root of the sum of their squares, in the
    mean; changes of each term by at most sqrt(n) eps make four times as much.

    Args:
        device: The device that computes.
        terms: The number of terms of the longest sums: the pixels of a batch.
    """
    growth = math.sqrt(terms)
    rounding = {dtype: growth * torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32)}
    if device.type == "cuda" and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        rounding[torch.float32] = max(TF32_EPS, rounding[torch.float32])
    # Numbers of 16 bits are summed in float32: only the result is rounded, by half of an eps at most.
    for dtype in (torch.float16, torch.bfloat16):
        rounding[dtype] = 2 * torch.finfo(dtype).eps
    return rounding


def measure_errors(wanted: Result, actual: Result) -> dict[str, float]:
    """Return the root mean square differences of two results, by name, without those that are zero."""
    errors: dict[str, float] = {}
    for name in wanted | actual:
        if name not in wanted or name not in actual:
            errors[name] = math.inf
            continue
        one = wanted[name]
        other = actual[name]
        # Where both are NaN or infinite, the guard reports it, and there is nothing to compare.
        if not bool(one.isfinite().all()) and not bool(other.isfinite().all()):
            continue
        error = compute_rms(other.double() - one.double())
        if error != 0:
            errors[name] = error
    return errors


def describe_excess(differences: Mapping[str, Difference]) -> str | None:
    """Return which difference is larger than rounding explains, in words; None for none."""
    for name, (error, scale) in differences.items():
        if error == math.inf:
            return f"{name} is only in one of the compiled and the eager step"
        allowed = FACTOR * scale
        # The comparison is false where something is NaN.
        if not error <= allowed:
            return f"compiled, {name} differs by {error:.2g}, where rounding explains {allowed:.2g}"
    return None


def compute_rms(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's elements; wait for the device."""
    return float(tensor.detach().double().square().mean().sqrt())


def collect_settings(value: Any, seen: tuple[int, ...] = ()) -> Hashable:
    """Return all plain values (numbers, strings, None) in the attributes of components, and of the components in them.

    Args:
        value: A component, a plain value, or a collection of such.
        seen: The ids of the components that this one lies in.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value

    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        return tuple(collect_settings(item, seen) for item in value)

    # What is left is an object: only the attributes of components hold settings.
    if isinstance(value, (type, types.ModuleType, types.FunctionType, nn.Module)):
        return None
    if isinstance(value, PurePath):  # which keeps what it has computed of itself
        return str(value)
    attributes = open_attributes(value)
    if attributes is None or id(value) in seen or len(seen) == DEPTH:
        return None
    inside = (*seen, id(value))
    return tuple((name, collect_settings(attribute, inside)) for name, attribute in attributes.items())


def identify(value: Any) -> Hashable:
    """Return what is equal for the same object, or for the same number or text; tuples and lists go by their items."""
    if isinstance(value, (tuple, list)):
        return tuple(identify(item) for item in value)
    if isinstance(value, (bool, int, float, str)):
        return value
    return id(value)


def take_apart(function: Any) -> tuple[Hashable, tuple[Any, ...]]:
    """Return a function's code, and the values bound in it: those of a partial, of a method or of a closure."""
    if isinstance(function, functools.partial):
        code, values = take_apart(function.func)
        return code, (*values, *function.args, *function.keywords.values())
    if isinstance(function, types.MethodType):
        code, values = take_apart(function.__func__)
        return code, (function.__self__, *values)
    if isinstance(function, types.FunctionType):
        cells = function.__closure__ or ()
        return function.__code__, tuple(cell.cell_contents for cell in cells)
    kind: Any = type(function)
    return kind, (function,)


def name_components(function: Any) -> str:
    """Return the classes of what is bound in a function: `WGANGP, GradientPenalty, Drift`."""
    _, values = take_apart(function)
    names: list[str] = []
    for value in values:
        components = value if type(value) in (tuple, list) else [value]
        for component in components:
            if isinstance(component, DuePenalty):
                component = component.penalty
            names.append(type(component).__name__)
    return ", ".join(names)
