"""Write a trained generator as an ONNX file, and check what it draws."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pggan_kit.errors import RunError, first_line, iterate_causes
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.system.json_text import json_text
from pggan_kit.system.seeding import fork_random_numbers, torch_generator

LARGEST_DIFFERENCE = 1e-4
"""Maximum difference of an image of the file from that of the generator; rounding makes some of 1e-5.

Of images with numbers beyond [-1, 1] it is that share of the largest number.
"""

VALUES = "values"
CLASS_NAMES = "class_names"
"""Keys of the file's metadata: the type and the ranges of the data's numbers, and the names of classes, as JSON."""

TRACED_BATCH = 2
CHECKED_BATCH = 3
"""Numbers of latents with which the generator is traced, and with which the file is checked: any number must do."""


class _Images(nn.Module):
    """A generator as the file has it: latents (N, Z), and labels (N,) of a conditional one, to images."""

    def __init__(self, generator: TrainedGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.generator(latents, labels)
        return images


class _DivisorsAsFactors(TorchFunctionMode):
    """A mode in which an average pool with a divisor of its own is one without, times a factor.

    torch's exporter drops the divisor (2.10 to 2.13).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        divisor = options.pop("divisor_override", None)
        if func is not F.avg_pool2d or divisor is None:
            return func(*args, **(kwargs or {}))

        # The sum over a window, which counts what was padded as zeros.
        options["count_include_pad"] = True
        kernel = args[1]
        if isinstance(kernel, int):
            kernel = (kernel, kernel)
        return func(*args, **options) * (kernel[0] * kernel[1] / divisor)


def encode_onnx(generator: TrainedGenerator) -> tuple[bytes, float | None]:
    """Return the content of an ONNX file, and the largest difference of its images from the generator's.

    The file has the inputs `latents` (N, Z), float32, and, of a conditional generator, `labels` (N,), int64, and the
    output `images` (N, C, h, w), float32, for any N. Its metadata have what turns images into the data's own numbers,
    `values`, and `class_names` where classes have names. The difference is None for a network that draws noise, whose
    images differ from call to call.

    Args:
        generator: The generator, on the CPU.

    Raises:
        RunError: A library is missing, an operation cannot be exported, or the file draws other images.
    """
    runtime = _import_library("onnxruntime")
    _import_library("onnxscript")
    model = _Images(generator).eval()
    inputs = draw_inputs(generator, TRACED_BATCH)
    batch = torch.export.Dim("batch")
    names = ["latents", "labels"][: len(inputs)]

    # Trace the generator; the file takes batches of any size.
    try:
        with _silence_exporter(), torch.no_grad(), _DivisorsAsFactors():
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                input_names=names,
                output_names=["images"],
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props.update(describe_images(generator))
            content: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # the exporter documents none of what it raises
        name = type(generator.generator.architecture).__name__
        *_, first = iterate_causes(error)
        raise RunError(
            f"the generator of {name} has an operation that cannot be exported to ONNX: {first_line(first)}; export it "
            "to safetensors instead"
        ) from error
    return content, _check_images(runtime, content, model, generator, names)


def describe_images(generator: TrainedGenerator) -> dict[str, str]:
    """Return the metadata of a file, each entry as JSON.

    `values` has the `type` and the `ranges` of the data: -1 and 1 are the ends (low, high) of a channel's range, and a
    single range is that of all channels.
    """
    metadata = {VALUES: json_text(generator.values.record())}
    if generator.class_names:
        metadata[CLASS_NAMES] = json_text(list(generator.class_names))
    return metadata


def draw_inputs(generator: TrainedGenerator, count: int) -> tuple[Tensor, ...]:
    """Return latents that are always the same and, for a conditional generator, all labels in turn."""
    latents = torch.randn(count, generator.latent_size, generator=torch_generator(0, "onnx"))
    if not generator.classes:
        return (latents,)
    return latents, torch.arange(count) % generator.classes


def _check_images(
    runtime: Any, content: bytes, model: nn.Module, generator: TrainedGenerator, names: Sequence[str]
) -> float | None:
    """Return the largest difference of the file's images from the model's; None for a network that draws noise."""
    inputs = draw_inputs(generator, CHECKED_BATCH)
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (drawn,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    except Exception as error:  # the runtime has many errors of its own
        raise RunError(f"the ONNX file cannot be run by onnxruntime: {first_line(error)}") from error

    images = []
    for seed in range(2):
        with torch.no_grad(), fork_random_numbers(seed=seed):
            images.append(model(*inputs))
    if not torch.equal(images[0], images[1]):
        return None
    difference = float((torch.from_numpy(drawn) - images[0]).abs().max())
    limit = LARGEST_DIFFERENCE * max(1.0, float(images[0].abs().max()))
    # NaN is no difference either.
    if not difference <= limit:
        raise RunError(
            f"the ONNX file draws other images than the generator: they differ by {difference:.2g}, since an operation "
            "of its networks was exported wrongly. Nothing was written; export it to safetensors instead"
        )
    return difference


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Keep the exporter from warning of libraries that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _import_library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RunError(
            f"to export to ONNX takes the library `{name}` ({error}): pip install 'pggan_kit[onnx]'"
        ) from error
