"""Count what CONTRIBUTING asks of names and code, over both packages.

    python scripts/measure_style.py [ROOT]

Prints: flat files of the core, functions of 15 lines or more without a comment, pairs of unrelated assignments in one
statement, functions named by a bare participle, file names that say nothing, and docstrings whose first word is no
imperative verb as far as a list can tell.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LONG = 15
"""Minimum lines of a function that needs a comment."""

PARTICIPLE = re.compile(r"_*[a-z]+(ed|wn|ven|ken|osen|itten|idden)")
NO_PARTICIPLES = {"seed", "embed", "feed", "need", "down", "own", "speed", "exceed", "proceed", "open", "token", "even"}
VAGUE_NAMES = (
    *("keeping", "rows", "feeding", "describing", "identity", "objects", "checking", "evaluating", "looking", "shares"),
    *("running", "shared", "counting", "comparing", "budget", "trunk"),
)
NO_VERBS = re.compile(
    r"(a|an|the|those|what|whether|how|which|where|all|each|every|no|none|one|its|their|in|of|from|by|as|to|for|with|"
    r"see|and|it|is|has|uint8|float32|names|sizes|seconds|images|latents|features|lines?|rows?|values?)\b|[^a-z]",
    re.IGNORECASE,
)


def list_files(root: Path) -> list[Path]:
    """List the source files of both packages, templates of plugins left out."""
    files = [*(root / "pggan_kit").rglob("*.py"), *(root / "plugins").rglob("*.py")]
    return sorted(file for file in files if "templates" not in file.parts)


def iterate_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a module, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def has_comment(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a comment stands between a function's lines."""
    assert function.end_lineno is not None
    body = lines[function.lineno - 1 : function.end_lineno]
    return any(re.search(r"(^|\s)# ", line) for line in body)


def is_pair_of_unrelated(node: ast.AST) -> bool:
    """Return whether a statement is `a, b = x, y`: several values side by side, none of which is unpacked."""
    if not isinstance(node, ast.Assign):
        return False
    target = node.targets[0]
    return isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)


def measure(root: Path) -> dict[str, object]:
    """Return the counts by name."""
    long_functions = 0
    without_comment = 0
    pairs = 0
    line_count = 0
    participles: list[str] = []
    nouns = 0
    docstrings = 0
    for file in list_files(root):
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
        tree = ast.parse(text)

        # Count the module's lines and statements, then its functions.
        line_count += len(lines)
        pairs += sum(is_pair_of_unrelated(node) for node in ast.walk(tree))
        for function in iterate_functions(tree):
            assert function.end_lineno is not None
            name = function.name
            if PARTICIPLE.fullmatch(name) and name.strip("_") not in NO_PARTICIPLES:
                participles.append(f"{file.relative_to(root)}:{function.lineno} {name}")
            docstring = ast.get_docstring(function)
            if docstring:
                docstrings += 1
                nouns += bool(NO_VERBS.match(docstring))
            if function.end_lineno - function.lineno + 1 >= LONG:
                long_functions += 1
                without_comment += not has_comment(lines, function)

    stems = Counter(file.stem for file in list_files(root) if file.stem != "__init__")
    return {
        "lines": line_count,
        "flat files in pggan_kit": len(list((root / "pggan_kit").glob("*.py"))),
        f"functions of {LONG} lines or more": long_functions,
        "of them without a comment, %": round(100 * without_comment / long_functions, 1),
        "pairs of unrelated assignments": pairs,
        "the same in 1,000 lines": round(1000 * pairs / line_count, 1),
        "functions named by a participle": len(participles),
        "docstrings of functions": docstrings,
        "docstrings that begin without a verb": nouns,
        "file names that say nothing": sorted(stem for stem in stems if stem in VAGUE_NAMES),
        "participles": participles,
    }


def main() -> None:
    """Print the counts."""
    root = Path(__file__).resolve().parents[1]
    if len(sys.argv) > 1:
        root = Path(sys.argv[1])
    for name, value in measure(root).items():
        if isinstance(value, list):
            print(f"{name}: {len(value)}")
            for item in value:
                print(f"    {item}")
        else:
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
