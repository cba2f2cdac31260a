"""How large what somebody has to read at once may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "imagelane", "producer", "consumer")
AROUND = ("tests", "benchmarks", "examples", "docs")
MAX_FUNCTION_LINES = 50
MAX_FILE_LINES = 300


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of every module."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_functions_are_short() -> None:
    """A function, its arguments and docstring included, is seen without scrolling."""
    long = [
        f"{path}:{node.lineno} {node.name}: {lines} lines"
        for path, text in sources(*PACKAGES, *AROUND)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long


def test_files_are_short() -> None:
    """A file is about one thing."""
    long = [
        f"{path}: {lines} lines"
        for path, text in sources(*PACKAGES)
        if (lines := len(text.splitlines())) > MAX_FILE_LINES
    ]
    assert not long
