"""Write a folder for a hub of models: a generator, a config, samples and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pggan_kit.api.generator_file import GeneratorRecord
from pggan_kit.api.prepare import Prepared
from pggan_kit.api.sample import draw
from pggan_kit.config.gin_files import Config, parse_text
from pggan_kit.errors import RunError, quote_path
from pggan_kit.growth.averages import list_names
from pggan_kit.pictures.encoding import encode_png
from pggan_kit.pictures.grid import image_grid
from pggan_kit.runs.checkpoint_identity import read_noted_fingerprint
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.exported import HUB_FILE
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system.files import make_whole_folder
from pggan_kit.system.hidden_paths import hide_folders
from pggan_kit.system.json_text import json_text

SAMPLES = 64
COLUMNS = 8
METRICS = "Metrics/"
FLOOR = "_floor"

CHANNELS = {1: "gray", 3: "colour"}
"""What images of a number of channels are called; others by their number."""

CARD = """\
---
library_name: pggan_kit
license: {licence_field}
pipeline_tag: unconditional-image-generation
tags:
- gan
- progressive-growing
---

# {name}

A generator of {size} images ({channels}), grown stage by stage with
[pggan_kit](https://github.com/pggan-kit/pggan_kit): {sizes}.

![{count} images of the generator](samples.png)

```python
import torch
from pggan_kit import load_generator

generator = load_generator("{folder}")
images = generator({call})    # (16, {channel_count}, {height}, {width}), nominally in [-1, 1]
```

{units}{needs}## Training

| | |
|---|---|
| real images shown | {images:,} |
| average of the weights | {average} |
| architecture | {architecture} |
| checkpoint | {chosen} |
| pggan_kit | {version} |

## Data

| | |
|---|---|
| images | {data_images} |
| classes | {classes} |
| fingerprint | {fingerprint} |
| licence | {data_licence} |

## Metrics

{metrics}

A floor is the same metric between two halves of the real images: what a perfect generator would have.

## Licence of the generator

{licence}

## Configuration

```gin
{config}
```
"""


@dataclass(frozen=True)
class ExportedGenerator:
    """A generator that is exported, and what its card says of it.

    Attributes:
        generator: The generator.
        record: What its safetensors file says about it.
        prepared, files, saved: The run, and the checkpoint that the generator is of.
        checkpoint: How that checkpoint was chosen; see `load_generator`.
        licence, data_licence: Licences of the generator and of the training data; None where they are not given.
    """

    generator: TrainedGenerator
    record: GeneratorRecord
    prepared: Prepared
    files: RunDirectory
    saved: Snapshot
    checkpoint: str
    licence: str | None
    data_licence: str | None

    @property
    def architecture(self) -> str:
        """Name of the architecture's class."""
        return type(self.generator.generator.architecture).__name__


def write_hub_folder(folder: Path, weights: bytes, exported: ExportedGenerator) -> list[str]:
    """Write the folder, which must be new or empty, and return sentences on how to publish it.

    Args:
        folder: The folder.
        weights: Content of its safetensors file.
        exported: The generator.

    Raises:
        RunError: It cannot be written, or is not empty.
    """
    # All contents exist before the folder does.
    picture = image_grid(draw(exported.generator, SAMPLES, 0), COLUMNS)
    config = {
        "library_name": "pggan_kit",
        "architectures": [exported.architecture],
        **json.loads(exported.record.text()),
    }
    contents = {
        HUB_FILE: weights,
        "config.json": f"{json_text(config, indent=1)}\n".encode(),
        "samples.png": encode_png(picture),
        "README.md": _write_card(folder, exported).encode(),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with make_whole_folder(folder) as aside:
            for name, content in contents.items():
                (aside / name).write_bytes(content)
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be written ({error.strerror}); name a new folder") from error

    lines = []
    if exported.licence is None or exported.data_licence is None:
        lines.append("its card says that a licence is not given: see --licence and --data-licence")
    lines.append(
        f"to publish it: pip install huggingface_hub, and then: hf upload NAME/{folder.resolve().name} "
        f"{quote_path(folder)} ."
    )
    return lines


def _write_card(folder: Path, exported: ExportedGenerator) -> str:
    generator = exported.generator
    record = exported.record
    stage = exported.prepared.resolve_schedule().stages[record.stage]
    sizes = " to ".join(exported.saved.sizes[: record.stage + 1])
    if record.bridged:
        sizes += f", within the fade of the last at alpha {record.alpha:.3g}"
    needs = ""
    if record.plugins:
        needs = f"It needs plugins: {', '.join(record.plugins)}.\n\n"
    units = ""
    if not generator.values.is_plain:
        units = f"`generator.draw_numbers` gives them in the data's own units: {generator.values}.\n\n"
    call = f"torch.randn(16, {generator.latent_size})"
    if generator.classes:
        call += f", torch.arange(16) % {generator.classes}"

    # Which checkpoint it is of: that of the best metric may also be the end of a stage.
    chosen = "within the stage"
    if exported.saved.stage_over:
        chosen = "at the end of the stage"
    if record.chosen:
        chosen = f"chosen by {record.chosen['metric']} = {record.chosen['value']:.4g}, the best of its run"

    # A run that began from imported networks does not know what these were trained on.
    known = record.data["images"] > 0
    return CARD.format(
        licence_field=json_text(exported.licence or "unknown"),
        licence=exported.licence or "Not given.",
        name=exported.files.path.resolve().name,
        folder=folder.name,
        size=stage.size,
        channels=CHANNELS.get(stage.image_channels, f"{stage.image_channels} channels"),
        channel_count=stage.image_channels,
        height=stage.height,
        width=stage.width,
        sizes=sizes,
        count=SAMPLES,
        call=call,
        units=units,
        needs=needs,
        images=record.images,
        average=record.average,
        architecture=exported.architecture,
        chosen=chosen,
        version=record.version,
        data_images=f"{record.data['images']:,}" if known else "not known: its networks were imported",
        classes=_describe_classes(record),
        fingerprint=f"`{read_noted_fingerprint(exported.saved.identity) or 'none'}`",
        data_licence=exported.data_licence or "not given",
        metrics=_write_metrics(exported),
        config=_read_config(exported.files).text().strip(),
    )


def _describe_classes(record: GeneratorRecord) -> str:
    if not record.data["classes"]:
        return "none"
    names = f": {', '.join(record.class_names)}" if record.class_names else ""
    return f"{record.data['classes']}{names}"


def _write_metrics(exported: ExportedGenerator) -> str:
    """Return a table of the metrics that the run measured last of this average in this stage, with their floors."""
    stage = exported.prepared.resolve_schedule().stages[exported.record.stage]
    own = exported.record.average
    evaluation = f"`{_name_evaluation(exported, stage.size)}` measures it"
    first = list_names(exported.prepared.built.experiment.averages)[0]
    if own != first:
        return f"Training measured the average {first}, and this generator is another one, {own}: {evaluation}."

    # The row at a stage's start is of the one before it.
    measured: Mapping[str, Any] = {}
    start = exported.saved.starts[stage.index]
    for row in exported.files.stats():
        if start < row["images"] <= exported.record.images and any(tag.startswith(METRICS) for tag in row):
            measured = row
    if not measured:
        return f"None was measured at {stage.size} in training: {evaluation}."

    lines = [f"Measured at {measured['images']:,} images, of {stage.size}:", ""]
    lines += ["| metric | value | floor |", "|---|---|---|"]
    for tag, value in measured.items():
        if tag.startswith(METRICS) and not tag.endswith(FLOOR):
            floor = measured.get(f"{tag}{FLOOR}")
            lines.append(f"| {tag.removeprefix(METRICS)} | {_format_value(value)} | {_format_value(floor)} |")
    return "\n".join(lines)


def _name_evaluation(exported: ExportedGenerator, size: str) -> str:
    """Return the command that measures the generator of a run, which is at images of this size."""
    words = ["pggan-kit evaluate RUN"]
    if exported.checkpoint != "last":
        words.append(f"--checkpoint {exported.checkpoint}")
    is_end_of_stage = exported.checkpoint == "last" and exported.saved.stage_over
    if exported.checkpoint == "fade" or is_end_of_stage:
        words.append(f"--stage {size}")
    words.append(f"--average {exported.record.average.removeprefix('width_')}")

    # What is only drawn of is built without the metrics that its run measures.
    own = {binding.name: binding.value for binding in _read_config(exported.files).bindings}
    if not own.get("train.metrics"):
        words.append("--metric NAME")
    return " ".join(words)


def _format_value(value: float | None) -> str:
    """Return a value of a row; a row has None in place of NaN."""
    return "" if value is None else f"{value:.4g}"


def _read_config(files: RunDirectory) -> Config:
    """Return a run's own config, without the folders of the machine."""
    config = parse_text(files.read_config(), str(files.path / "config.gin"))
    bindings = [replace(binding, value=hide_folders(binding.value)) for binding in config.bindings]
    return replace(config, bindings=tuple(bindings))
