"""Export the generator of a run: as a safetensors file, an ONNX file, or a folder for a hub of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.average import load_average
from pggan_kit.api.generator_file import describe_generator, encode_generator
from pggan_kit.api.hub_folder import ExportedGenerator, write_hub_folder
from pggan_kit.api.image_writers import make_folder
from pggan_kit.api.onnx_file import encode_onnx
from pggan_kit.api.prepare import prepare_run
from pggan_kit.errors import RunError, SettingError, check_choice, require_path
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.exported import GENERATOR_SUFFIX, find_exported_generator
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.run import Run
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.system.files import require_replaceable, write_atomically

SAFETENSORS = "safetensors"
ONNX = "onnx"
HUB_FOLDER = "hub-folder"
FORMATS = {SAFETENSORS: GENERATOR_SUFFIX, ONNX: ".onnx", HUB_FOLDER: ""}
"""Suffixes of what is written, by format."""


def export(
    run: str | Path | Run,
    to: str = SAFETENSORS,
    target: str | Path | None = None,
    *,
    stage: str | int | None = None,
    average: str | float | Path | None = None,
    checkpoint: str = "last",
    dtype: str = "float32",
    licence: str | None = None,
    data_licence: str | None = None,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    say: Say | None = None,
) -> Path:
    """Write the averaged generator of a run where the run itself is not needed any more.

    Args:
        run: a run or its directory.
        to: the format: `safetensors`, a file that `load_generator` reads; `onnx`, a file for other software, with any
            number of latents; or `hub-folder`, a folder with the first, a config and a model card.
        target: the file or folder; None: named after the run, in the working folder.
        stage, average, checkpoint, plugins, parts: see `load_generator`.
        dtype: the precision of the weights in safetensors files, `float32`, `float16` or `bfloat16`.
        licence: the licence of the generator, for the model card; None where it is not decided.
        data_licence: the licence of the training data, likewise.
        say: the receiver of sentences on what was written, and on how to publish it.

    Returns:
        The file or folder.

    Raises:
        SettingError: there is no such format or precision, or a licence is no text. It is a ValueError, and no
            UserError.
        RunError: there is no such run, stage or average, a library is missing, the network cannot be exported, or the
            target cannot be written.
    """
    check_choice("to", to, tuple(FORMATS))
    for name_of_licence, text in (("licence", licence), ("data_licence", data_licence)):
        if text is not None and not isinstance(text, str):
            raise SettingError(name_of_licence, f"must be a text or None, not {text!r}")
    if not isinstance(run, Run) and find_exported_generator(require_path("run", run)) is not None:
        raise RunError(f"{run} is exported already: name a run's folder")
    prepared, files = prepare_run(run, plugins, parts, needs_data=False)

    # The target is checked before anything is loaded.
    path = _name_after_run(files.path, to) if target is None else require_path("target", target)
    _require_target(path, to)
    schedule = prepared.resolve_schedule()
    generator, saved, name = load_average(prepared, files, schedule, stage, average, checkpoint)
    if checkpoint == "best":
        generator.chosen = saved.best
    lines = [f"wrote the generator of {schedule.stages[saved.stage].size}, average {name}, to {path}"]

    # The file or folder.
    if to == ONNX:
        lines.append(_write_onnx(path, generator))
    else:
        record = describe_generator(prepared, generator, saved.stage, name, files.read_data_record())
        exported = ExportedGenerator(generator, record, prepared, files, saved, checkpoint, licence, data_licence)
        lines += _write_weights(path, to, exported, dtype)
    for line in lines:
        if say is not None:
            say(line)
    return path


def _name_after_run(run_dir: Path, to: str) -> Path:
    """Return the file or folder of an export that nobody named."""
    name = run_dir.resolve().name
    if to == HUB_FOLDER:
        return Path(f"{name}-hub")
    return Path(f"{name}{FORMATS[to]}")


def _require_target(path: Path, to: str) -> None:
    """Check that an export can be written to a file or folder.

    Raises:
        RunError: A file has another suffix, or the place is taken or in a run.
    """
    if to != HUB_FOLDER and path.suffix != FORMATS[to]:
        raise RunError(f"--out {path}: name a {FORMATS[to]} file")
    require_target_outside_runs("--out", path)
    if to != HUB_FOLDER:
        require_replaceable(path)


def _write_onnx(path: Path, generator: TrainedGenerator) -> str:
    """Write a generator as ONNX; return how its images there compare with its own."""
    content, difference = encode_onnx(generator)
    _write_file(path, content)
    if difference is None:
        return "it draws noise, so its images were not compared"
    return f"its images in onnxruntime differ by at most {difference:.1g}"


def _write_weights(path: Path, to: str, exported: ExportedGenerator, dtype: str) -> list[str]:
    """Write a safetensors file, alone or in a folder for a hub; return sentences on how to publish it."""
    weights = encode_generator(exported.generator, exported.record, dtype)
    if to == HUB_FOLDER:
        return write_hub_folder(path, weights, exported)
    _write_file(path, weights)
    return []


def _write_file(path: Path, content: bytes) -> None:
    make_folder(path, path.parent)
    write_atomically(path, content)
