"""Read tables of results that another program saved."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pggan_kit.errors import RunError
from pggan_kit.evaluation.results_table import read_results

HEAD = "variant,seed,stage,images,metric,value,failed,revision,hardware,exploratory,censored"
ROWS = (
    "a,0,2,40,FID,1.5,0,r,h,0,",
    "a,0,2,40,FID_floor,0.5,0,r,h,0,",
    "b,0,,40,FID,,1,r,h,0,",
)
TEXT = "\n".join((HEAD, *ROWS, ""))


def read_text(folder: Path, text: str) -> list[dict[str, str]]:
    (folder / "results.csv").write_text(text)
    return read_results(folder / "results.csv")


def test_a_table_of_another_program_is_read_as_the_same(tmp_path: Path) -> None:
    """Spreadsheets and data frames write whole numbers as floats, where a cell of the column is empty, and words."""
    rows = read_text(tmp_path, TEXT)
    assert [row["failed"] for row in rows] == ["0", "0", "1"] and rows[2]["value"] == rows[2]["stage"] == ""
    other = TEXT.replace(",2,40,", ",2.0,40.0,").replace(",0,r,", ",False,r,").replace(",1,r,", ",True,r,")
    assert other != TEXT and read_text(tmp_path, other) == rows
    assert read_text(tmp_path, TEXT.replace("1.5", "nan"))[0]["value"] == ""
    assert read_text(tmp_path, TEXT.replace("a,0", "a,9223372036854775807.0"))[0]["seed"] == "9223372036854775807"
    assert read_text(tmp_path, "") == [] == read_results(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(",", ";"), "line 1 lacks variant, seed, stage.*separated by commas"),
        (lambda text: text.replace("1.5", "1,5"), "line 2: it has more cells than the head"),
        (
            lambda text: text[: text.index(",1,r,h")],
            "line 4: it ends before the column failed; the file may have been cut",
        ),
        (lambda text: text.replace("FID,1.5", "FID,good"), "line 2: 'good' in the column value is no number"),
        (
            lambda text: text.replace("FID_floor,0.5,0", "FID_floor,0.5,x"),
            "line 3: 'x' in the column failed is neither 0 nor",
        ),
        (lambda text: text.replace("a,0", "a,0.5", 1), "line 2: '0.5' in the column seed is no whole number"),
        (
            lambda text: text + ROWS[0].replace("1.5", "9.5") + "\n",
            "line 5: variant a has FID of seed 0 already, in line 2",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_column(
    change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=re.escape(str(tmp_path)) + f".*{message}"):
        read_text(tmp_path, change(TEXT))


def test_a_text_of_another_encoding_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(RunError, match="is no text in UTF-8"):
        read_results(tmp_path / "results.csv")
