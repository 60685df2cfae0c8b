"""Show an ablation's analysis as tables of text."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from pggan_kit.ablation.designs import list_design_notes
from pggan_kit.ablation.estimators import MOST_PAIRS
from pggan_kit.ablation.statistics import ALPHA, EXACT_UP_TO, POWER
from pggan_kit.ablation.tuning import list_tuning_notes
from pggan_kit.ablation.wide_tables import WideTable

WIDTH = 100
"""Characters of a line of `table.txt`."""


def render_text(analysis: Mapping[str, Any]) -> str:
    """Return the content of `table.txt`: the note of an analysis, its tables, and what their columns mean."""
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, color_system=None, markup=False, highlight=False)
    if "note" in analysis:
        console.print(f"{analysis['note']}\n", soft_wrap=True)
    for table in build_tables(analysis):
        for part in table.stack(WIDTH):
            console.print(part)
    console.print("\n".join(list_notes(analysis)), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def build_tables(analysis: Mapping[str, Any]) -> list[WideTable]:
    """Return the tables of variants, contrasts and estimates, and of checks and other metrics if there are any."""
    quantity = analysis["metric"]
    if analysis["scale"] == "log":
        quantity = f"log {quantity}"

    # Tables that every analysis has.
    tables = [
        _build_variant_table(analysis),
        _build_contrast_table(f"paired differences in {quantity}", analysis["contrasts"]),
        _build_estimate_table(f"other estimates of the differences in {quantity}", analysis["contrasts"]),
    ]

    # Tables that only some have.
    if any("checks" in entry for entry in analysis["contrasts"]):
        tables.append(_build_check_table(analysis["contrasts"]))
    if "looks" in analysis:
        tables.append(_build_look_table(analysis))
    if analysis["secondary"]:
        tables.append(_build_contrast_table("other metrics, not corrected for their number", analysis["secondary"]))
    return tables


def _build_variant_table(analysis: Mapping[str, Any]) -> WideTable:
    headers = ("variant", "runs", "failed", analysis["metric"], "floor")
    table = WideTable(headers, keys=1, title=analysis["name"])
    for name, entry in analysis["variants"].items():
        table.add_row(
            name,
            str(entry["trials"]),
            str(entry["failed"]),
            _format_number(entry["mean"]),
            _format_number(entry["floor"]),
        )
    return table


def _build_contrast_table(title: str, entries: list[Mapping[str, Any]]) -> WideTable:
    headers = ("contrast", "role", "n", "mean [95 %]", "p", "Holm", "TOST", "detectable", "r", "failed", "verdict")
    table = WideTable(headers, keys=2, title=title)

    for entry in entries:
        name = entry["name"]
        equivalence = _format_p(entry.get("equivalence_holm", entry["equivalence"]))
        if entry["role"] == "secondary":
            name = f"{entry['metric']}: {name}"
            if entry["scale"] != "log":
                name += " (no log)"
            equivalence = ""  # of metrics that have a margin it is among the checks
        p = _format_p(entry["p"])
        if entry["ranks"]:
            p += " (ranks)"

        # What a column has no value for stays empty.
        table.add_row(
            name,
            entry["role"],
            str(entry["n"]),
            _format_mean(entry),
            p,
            _format_p(entry.get("holm")),
            equivalence,
            _format_number(entry["smallest_effect"]),
            "" if entry["correlation"] is None else f"{entry['correlation']:.2f}",
            _format_failures(entry["failures"]),
            _format_verdict(entry),
        )
    return table


def _build_estimate_table(title: str, entries: list[Mapping[str, Any]]) -> WideTable:
    headers = ("contrast", "role", "IQM [95 %]", "P(better), paired", "unpaired", "better / within / worse")
    table = WideTable(headers, keys=2, title=title)
    for entry in entries:
        estimates = entry["estimates"]
        iqm = estimates["iqm"]
        posterior = estimates["posterior"]
        # With too few pairs there is no posterior.
        shares = ""
        if posterior is not None:
            shares = " / ".join(f"{posterior[name]:.3f}" for name in ("better", "within", "worse"))
        table.add_row(
            entry["name"],
            entry["role"],
            "-" if iqm is None else _format_with_interval(iqm["value"], iqm["interval"], entry["scale"]),
            _format_share(estimates["improvement"]["paired"]),
            _format_share(estimates["improvement"]["unpaired"]),
            shares,
        )
    return table


def _build_check_table(entries: list[Mapping[str, Any]]) -> WideTable:
    """Return a table of the confirmatory contrasts with other averages and metrics, below the verdict to agree with."""
    headers = ("contrast", "metric", "average", "n", "mean [95 %]", "Holm", "TOST", "verdict", "agrees")
    table = WideTable(headers, keys=3, title="does the verdict depend on the average or the metric?")
    for entry in entries:
        if "checks" not in entry:
            continue
        # The first row is the verdict itself, and those below it are its checks.
        own = {"metric": entry["metric"], "average": None, "agrees": None, **entry}
        for row in (own, *entry["checks"]):
            agrees = entry["robustness"]
            if row["agrees"] is not None:
                agrees = "yes" if row["agrees"] else "NO"
            table.add_row(
                entry["name"],
                row["metric"],
                row["average"] or "the endpoint's",
                str(row["n"]),
                _format_mean({**row, "scale": entry["scale"]}),
                _format_p(row["holm"]),
                _format_p(row["equivalence_holm"]),
                row["verdict"],
                agrees,
            )
    return table


def _build_look_table(analysis: Mapping[str, Any]) -> WideTable:
    headers = "contrast,look,pairs,abs mean,from,p,spent,TOST,below,predicted,decision"
    table = WideTable(headers.split(","), keys=2, title="looks")
    for entry in analysis["contrasts"]:
        for look in entry.get("looks", ()):
            table.add_row(
                entry["name"],
                f"{look['look']} of {len(analysis['looks']['pairs'])}",
                str(look["pairs"]),
                _format_number(look["statistic"]),
                "never" if look["boundary"] is None else _format_number(look["boundary"]),
                _format_p(look["p"]) + (" (ranks)" if look["ranks"] else ""),
                _format_p(look["spent"]),
                _format_p(look["equivalence"]),
                _format_p(look["equivalence_boundary"]),
                "" if look["predicted"] is None else f"{look['predicted']:.0%}",
                look["decision"],
            )
    return table


def _describe_pairing(entry: Mapping[str, Any], margin: float) -> str:
    """Return a sentence on what the pairing was worth, and on how many pairs a next plan would need."""
    estimates = entry["estimates"]
    clauses = []

    # What it was worth.
    saved = estimates["pairing_saved"]
    if saved is not None:
        verb = "cost" if round(saved, 2) < 0 else "saved"
        clauses.append(f"pairing {verb} {abs(saved):.0%} of the trials")

    # What a next plan would need.
    spread = entry["sd"]
    if spread is not None:
        equivalence = _format_pairs(estimates["pairs_for_equivalence"])
        difference = _format_pairs(estimates["pairs_for_difference"])
        clauses.append(
            f"at this spread, equivalence within +-{margin:g} takes {equivalence}, and a difference as large as the "
            f"observed one {difference}"
        )
    return f"{entry['name']}, {entry['role']}: {'; '.join(clauses) or 'too few pairs for a spread'}."


def _describe_censored(entry: Mapping[str, Any]) -> str:
    """Return a sentence on the runs that never reached a quality."""
    runs = ", ".join(f"{count} of {name}" for name, count in entry["censored"]["runs"].items())
    text = f"{entry['metric']}, {entry['name']}: not reached by {runs}"
    if entry["censored"]["logrank"] is not None:
        text += f"; log-rank test (unpaired): p {_format_p(entry['censored']['logrank'])}"
    return f"{text}."


def _list_notes_on_looks(looks: Mapping[str, Any]) -> list[str]:
    """Return lines that explain the table of looks, and say which runs were not needed."""
    # What the columns mean.
    rows = zip(looks["spent"], looks["pairs"], strict=True)
    spent = ", ".join(f"{error:.2%} by {pairs} pairs" for error, pairs in rows)
    notes = [
        f"looks: the error of all confirmatory contrasts that may be spent is {spent} ({looks['spending']}). A "
        "confirmatory contrast is compared over the pairs of its last look; its interval is the repeated one, which "
        "holds at all looks together. A check is compared over the pairs of its own last look, which may be an earlier "
        "one. The mean of a contrast that stopped early is on average too far from 0, and the intervals of "
        "its other estimates are naive: those of a single look, as if it could not have stopped.",
        "abs mean: of the differences, or of the signed ranks where a run has no value; a difference is found "
        "from the value `from` on. spent: the share of all sign patterns that were rejected by this look. below: "
        "equivalent if TOST is below.",
        "predicted: the predicted probability that the last look decides; a contrast stops as futile below "
        f"{looks['futility']:.0%}. Neither error counts on such a stop.",
    ]

    # Runs that were saved.
    if looks["not_run"]:
        runs = ", ".join(f"{count} of {name}" for name, count in looks["not_run"].items())
        notes.append(f"planned and not run, since no look needed them: {runs}.")
    return notes


def _explain_columns(analysis: Mapping[str, Any], differences: str, flips: str) -> dict[str, str]:
    """Return a line on each column that needs one, by its header.

    Args:
        analysis: The analysis.
        differences: What is averaged, and by which interval.
        flips: Which sign patterns are used.
    """
    mean = f"mean [95 %]: mean of the pairs' {differences}"

    # A mean of those that reached a quality says nothing about the others.
    every_entry = [*analysis["contrasts"], *analysis["secondary"]]
    if any("order" in entry for entry in every_entry):
        mean += (
            " Where a run never reached a quality, or its value is 0 and compared by its logarithm, there is no mean: "
            "the number of pairs above and below 0 takes its place, in which a run without a value is the worst."
        )

    # Failures of two variants, or of the sides of an effect.
    failed = "failed: runs that failed or gave no finite value, with McNemar's exact test."
    if any("variant" not in entry for entry in every_entry):
        failed += " Of an effect those with weights above 0 : below 0, tested by sign flips."

    # The margin, and whether p of equivalence is corrected.
    margin = f"+-{analysis['margin']:g}"
    is_corrected = any(entry.get("equivalence_holm") is not None for entry in analysis["contrasts"])
    corrected = ", corrected as p is" if is_corrected else ""
    return {
        "mean [95 %]": mean,
        "p": f"p: from sign flips ({flips}); where a run has no value, from signed ranks, in which it is the worst.",
        "Holm": "Holm: p corrected for the number of confirmatory contrasts.",
        "TOST": f"TOST: p of equivalence within {margin}{corrected}.",
        "detectable": "detectable: the smallest mean that sign flips of this number of pairs detect in "
        f"{POWER:.0%} of cases: of confirmatory contrasts at {ALPHA:g} over all of them, of others at {ALPHA:g} each.",
        "r": "r: correlation between the runs of a pair.",
        "failed": failed,
        "IQM [95 %]": "IQM: interquartile mean, with a bootstrap interval over seeds. Where ranks decide, it is left "
        "out, and so is the posterior: those of the pairs that have values may say the opposite.",
        "P(better), paired": "P(better): the share of seeds with a better value (paired), and of all pairs of runs "
        "(unpaired).",
        "better / within / worse": "better / within / worse: posterior probability that the mean is better than the "
        f"margin, within {margin}, or worse (Student's, reference prior).",
    }


def _describe_without_value(entry: Mapping[str, Any]) -> str:
    """Return a sentence on the runs that trained to their end and have no finite value."""
    runs = [f"{name} {seed}" for name, seeds in entry["without_value"].items() for seed in seeds]
    verb = "counts" if len(runs) == 1 else "count"
    return f"{entry['metric']}, {entry['name']}: {', '.join(runs)} ended without a finite value, and {verb} as failed."


def _describe_without_logarithm(entry: Mapping[str, Any]) -> str:
    """Return a sentence on the runs whose value of 0 is compared by its logarithm."""
    runs = ", ".join(f"{len(seeds)} of {name}" for name, seeds in entry["without_logarithm"].items())
    return f"{entry['metric']}, {entry['name']}: 0 in {runs}, which has no logarithm: it ranks below all other values."


def list_failures(analysis: Mapping[str, Any]) -> list[str]:
    """Return a line for each reason for which runs failed, with these runs: `failed: never 0: ended at 7x7, ...`."""
    runs: dict[str, list[str]] = {}
    for name, seed, reason in analysis.get("failed", ()):
        runs.setdefault(reason, []).append(f"{name} {seed}")
    return [f"failed: {', '.join(names)}: {reason}" for reason, names in runs.items()]


def list_notes(analysis: Mapping[str, Any]) -> list[str]:
    """Return lines that explain the columns, and those bootstrap intervals that the tables have no room for."""
    means = "means"
    differences = "differences, with Student's interval."
    if analysis["scale"] == "log":
        means = "geometric means"
        differences = "log differences, with Student's interval; 0.1 is about 10 %."

    # Tests of many pairs draw their sign patterns.
    tests = [entry["sign_flip"] for entry in analysis["contrasts"] if entry["sign_flip"]]
    drawn = sorted({test["patterns"] for test in tests if not test["exact"]})
    flips = f"all patterns up to {EXACT_UP_TO} pairs"
    if drawn:
        flips += f", else {drawn[0]:,} drawn ones"

    notes = [
        *list_design_notes(analysis["design"]),
        f"{analysis['metric']}: {means}; {analysis['direction']} is better; floor: the same metric between two halves "
        "of the real data.",
    ]
    filled = {header for table in build_tables(analysis) for header in table.list_filled_headers()}
    notes += [note for header, note in _explain_columns(analysis, differences, flips).items() if header in filled]
    notes += [
        "varies between the trials of a variant: "
        f"{'; '.join(f'{name} ({binding})' for name, binding in analysis['resample'].items())}.",
        f"revision: {', '.join(analysis['revisions'])}. hardware: {'; '.join(analysis['hardware'])}.",
    ]
    notes += list_failures(analysis)
    notes += list_tuning_notes(analysis)
    if "not_compared" in analysis:
        notes.append(
            "not compared, since the plan states no direction and scale of them: "
            f"{', '.join(analysis['not_compared'])}."
        )

    # What only some analyses have: looks, bootstraps, pairs, and runs without a value.
    if "looks" in analysis:
        notes += _list_notes_on_looks(analysis["looks"])
    for entry in analysis["contrasts"]:
        if entry["bootstrap"]:
            low, high = entry["bootstrap"]
            name = entry["name"]
            form = choose_digits(entry["bootstrap"], entry["scale"])
            notes.append(f"bootstrap (BCa) of {name}, {entry['role']}: [{low:{form}}, {high:{form}}]")
    if any(entry["bootstrap"] for entry in analysis["contrasts"]):
        notes.append(
            "bootstrap (BCa): with few pairs it is too narrow: of 8 normal differences it contains the mean in less "
            "than 90 % of cases, and Student's interval in 95 %."
        )
    described = [entry for entry in analysis["contrasts"] if not entry["ranks"]]
    notes += [_describe_pairing(entry, analysis["margin"]) for entry in described]
    every_entry = [*analysis["contrasts"], *analysis["secondary"]]
    notes += [_describe_without_value(entry) for entry in every_entry if "without_value" in entry]
    notes += [_describe_without_logarithm(entry) for entry in every_entry if "without_logarithm" in entry]
    notes += [_describe_censored(entry) for entry in every_entry if "censored" in entry]
    return notes


def choose_digits(values: Sequence[float], scale: str) -> str:
    """Return the format of differences and their interval: three decimal places of logarithms; on a plain scale, whose
    unit may be any, as many as show three digits of the widest distance between two of the values."""
    places = 3
    if scale == "plain":
        width = max(values) - min(values) or max(abs(value) for value in values)
        if width > 0:
            places = max(0, 2 - math.floor(math.log10(width)))
    return f"+.{places}f"


def _format_mean(entry: Mapping[str, Any]) -> str:
    order = entry.get("order")
    if order is not None:
        return f"above in {order['above']}, below in {order['below']} of {sum(order.values())}"
    if entry["mean"] is None:
        return "-"
    return _format_with_interval(entry["mean"], entry["interval"], entry["scale"])


def _format_with_interval(value: float, interval: Sequence[float] | None, scale: str) -> str:
    """Return a value of a difference and its interval, if it has one."""
    form = choose_digits([value, *(interval or ())], scale)
    text = format(value, form)
    if interval is not None:
        low, high = interval
        text += f" [{low:{form}}, {high:{form}}]"
    return text


def _format_share(estimate: Mapping[str, Any] | None) -> str:
    """Return a probability and its interval, where there are any."""
    if estimate is None:
        return "-"
    text = f"{estimate['value']:.2f}"
    if estimate["interval"] is not None:
        low, high = estimate["interval"]
        text += f" [{low:.2f}, {high:.2f}]"
    return text


def _format_pairs(pairs: int | None) -> str:
    if pairs is None:
        return f"more than {MOST_PAIRS:,} pairs"
    return f"{pairs:,} pairs"


def _format_number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}"


def _format_p(value: float | None) -> str:
    if value is None:
        return ""
    if value < 1e-4:
        return "<1e-4"
    # Two digits, unless they hide on which side of the level it is.
    digits = 2
    while float(f"{value:.{digits}g}") == ALPHA != value:
        digits += 1
    return f"{value:.{digits}g}"


def _format_verdict(entry: Mapping[str, Any]) -> str:
    """Return a contrast's verdict, and what it depends on if other averages or metrics disagree."""
    verdict = str(entry.get("verdict", ""))
    robustness = str(entry.get("robustness", ""))
    return f"{verdict}, {robustness}" if robustness.startswith("depends") else verdict


def _format_failures(failures: Mapping[str, Any]) -> str:
    """Return the failed runs of both variants, with the test's p-value if they differ."""
    text = f"{failures['variant']}:{failures['against']}"
    if failures["p"] < 1:
        text += f" (p {_format_p(failures['p'])})"
    return text
