"""Show the rows of `plan` as a table, with a caption of what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from pggan_kit.benchmarking.stage_rows import compute_outside_shares
from pggan_kit.data.cached_copies import format_size
from pggan_kit.runs.average import format_percent

COLUMNS = (
    *("stage", "size", "batch", "fade", "stable", "steps", "G", "D", "weights", "act.", "fits"),
    *("img/s fading", "img/s", "time"),
)


def build_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows of `plan` as a table."""
    shown = Table(*COLUMNS)
    for column in shown.columns[2:]:
        column.justify = "right"
    for row in rows:
        shown.add_row(*_format_cells(row))
    shown.title = "G, D: parameters; weights: with gradients, average and moments; act.: what a step adds (MiB)"
    shown.caption = _build_caption(rows)
    return shown


def _format_cells(row: dict[str, Any]) -> list[str]:
    size = row["size"]
    if row["discriminator_size"] != size:
        size += f", D {row['discriminator_size']}"
    cells = [str(row["stage"]), size, str(row["batch_size"])]
    for name in ("fade_images", "stable_images", "steps", "generator_parameters", "discriminator_parameters"):
        cells.append(format_count(row[name]))
    if row["encoder_parameters"]:
        cells[-1] += f", E {format_count(row['encoder_parameters'])}"

    # Memory.
    activations = row["activations_mib"]
    cells.append(f"{row['weights_mib']:.0f}")
    cells.append("?" if activations is None else f"{activations:.0f}")
    if row["micro_batch"] is not None:
        cells.append(f"with micro_batch {row['micro_batch']}")
    else:
        cells.append({True: "yes", False: "no", None: "?"}[row["fits"]])

    # Time.
    if row["hours"] is None:
        return [*cells, "", "?", "?"]
    cells.append(f"{row['fade_images_per_second']:.3g}" if row["fade_images"] else "")
    cells.append(f"{row['images_per_second']:.3g}")
    extrapolated = "" if row["measured"] else " (extrapolated)"
    cells.append(format_duration(row["hours"] * 3600) + extrapolated)
    return cells


def _build_caption(rows: Sequence[dict[str, Any]]) -> str:
    """Return totals, what is compiled, how old the average will be, and the groups of statistics, a line each."""
    # The time of the stages that could be measured, and which could not.
    known = [row["hours"] for row in rows if row["hours"] is not None]
    duration = format_duration(sum(known) * 3600)
    if not known:
        duration = "an unknown time"
    elif len(known) < len(rows):
        duration += f" beside {', '.join(row['size'] for row in rows if row['hours'] is None)}"

    # Compiling makes it less, by an unknown factor.
    images = sum(row["fade_images"] + row["stable_images"] for row in rows)
    total = f"{images:,} images, about {duration} on this machine"
    compiled = [f"{row['size']} ({' and '.join(row['compiled'])})" for row in rows if row["compiled"]]
    if compiled:
        total += f"; less, as train.compile compiles {', '.join(compiled)}"

    return "\n".join(
        [
            total,
            *_describe_bfloat16(rows),
            *_describe_memory(rows),
            _describe_copies(rows),
            *_describe_storage(rows),
            *_describe_averages(rows),
            *_describe_moving_settings(rows),
            *_describe_groups(rows),
            *_describe_learning(rows),
        ]
    )


def _describe_bfloat16(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line on what bfloat16 would save, where it was measured and is faster."""
    lines = []
    for row in rows:
        rate = row["bfloat16_images_per_second"]
        if rate is not None and rate > row["images_per_second"]:
            hours = sum(each["hours"] or 0.0 for each in rows) * row["images_per_second"] / rate
            duration = format_duration(hours * 3600)
            lines.append(
                f"this device multiplies bfloat16 natively: with train.precision = 'auto' it is {rate:.3g} img/s "
                f"instead of {row['images_per_second']:.3g} at {row['size']}, and about {duration} in all if the other "
                "stages gain as much"
            )
    return lines


def _describe_memory(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each stage that does not fit: `memory ends at 64x64 with a batch of 16: ...`."""
    lines = []
    for row in rows:
        if row["fits"] is False:
            advice = f"bind train.micro_batch = {row['micro_batch']}"
            if row["micro_batch"] is None:
                advice = "choose narrower networks, smaller images or a smaller batch"
            lines.append(f"memory ends at {row['size']} with a batch of {row['batch_size']}: {advice}")
    return lines


def _describe_copies(rows: Sequence[dict[str, Any]]) -> str:
    """Return a line about the resized copies of the data."""
    size = format_size(int(sum(row["copies_mib"] for row in rows) * 2**20))
    duration = format_duration(sum(row["copies_hours"] for row in rows) * 3600)
    return f"resized copies of the data: {size} on disk; making them, where they are not there yet, takes {duration}"


def _describe_storage(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line about what the run writes, and one about the time beside updates, where each cost is known."""
    if any(row["written_mib"] is None for row in rows):
        return []
    written = format_size(int(sum(row["written_mib"] for row in rows) * 2**20))
    kept = format_size(int(sum(row["kept_mib"] for row in rows) * 2**20))
    count = sum(row["checkpoints"] for row in rows)
    largest = format_size(int(rows[-1]["checkpoint_mib"] * 2**20))
    lines = [f"the run's folder: {written} written, {kept} kept; {count} checkpoints of up to {largest}"]

    parts = compute_outside_shares(rows)
    listed = ", ".join(f"{name} {format_percent(share)}" for name, share in parts.items())
    line = f"outside updates: {format_percent(sum(parts.values()))} of the time"
    if listed:
        line += f" ({listed})"
    if rows[0]["unmeasured"]:
        line += f"; not measured: {', '.join(rows[0]['unmeasured'])}"
    return [*lines, line]


def _describe_averages(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each average with its age at each stage's end, and one with the size of what is kept."""
    shares: dict[str, list[str]] = {}
    for row in rows:
        for name, share in row["averages_before_stage"].items():
            shares.setdefault(name, []).append(f"{format_percent(share)} at {row['size']}")

    lines = []
    for name, old in shares.items():
        lines.append(f"share of G's average {name}, at the stage's end, from before the stage: {', '.join(old)}")
    kept = sum(row["snapshots_mib"] for row in rows)
    if kept:
        lines.append(f"snapshots of averages for other widths: {kept:,.3g} MiB in the run's folder at its end")
    return lines


def _describe_moving_settings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each setting that moves: `train.loss.penalties.0.weight: 10 -> 8 at 4x4, 8 -> 1 at 8x8`."""
    stages: dict[str, list[str]] = {}
    for row in rows:
        for name, (begin, end) in row["moving_settings"].items():
            texts = dict.fromkeys((f"{begin:.3g}", f"{end:.3g}"))
            value = " -> ".join(texts)
            stages.setdefault(name, []).append(f"{value} at {row['size']}")
    return [f"{name}: {', '.join(values)}" for name, values in stages.items()]


def _describe_groups(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each statistic of a batch: `... compares 4 samples (4x4, 8x8), 2 (16x16)`."""
    sizes: dict[str, dict[int, list[str]]] = {}
    for row in rows:
        for name, group in row["batch_statistics"].items():
            sizes.setdefault(name, {}).setdefault(group, []).append(row["size"])

    lines = []
    for name, groups in sizes.items():
        described = [f"{group} ({', '.join(where)})" for group, where in groups.items()]
        described[0] = described[0].replace(" (", " samples (", 1)
        lines.append(f"{name} compares {', '.join(described)}")
    return lines


def _describe_learning(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each stage in which something does not learn at its optimizer's rate."""
    lines = []
    for row in rows:
        parts = [f"{part['text'] or 'everything learns'} from images {part['images']:,}" for part in row["growth"]]
        if any(part["text"] for part in row["growth"]):
            lines.append(f"learning at {row['size']}: {'; then '.join(parts)}")
    return lines


def format_count(count: int) -> str:
    """Return a count in short: `950`, `12.8k`, `23.1M`."""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)


def format_duration(seconds: float) -> str:
    """Return a duration in short: `45 s`, `12 min`, `3.4 h` or `5.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
