"""Runs benchmarks and prints their tables: `python -m benchmarks [name ...]`.

A benchmark is a module of this folder with a function `rows()`, which returns one dict per row;
its docstring says what is measured.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import platform
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

NAMES = sorted(
    found.name
    for found in pkgutil.iter_modules([str(Path(__file__).parent)])
    if not found.name.startswith("_")
)


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table; all keys that occur become columns."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["--:" if number(rows, key) else ":--" for key in columns]]
    lines += [[text(row.get(key, "")) for key in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(rows: list[Mapping[str, Any]], key: str) -> bool:
    """Say whether a column holds numbers only."""
    return all(isinstance(row.get(key, 0), int | float) for row in rows)


def text(value: Any) -> str:
    """Return a value with three significant digits if it is a fraction."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def main() -> None:
    """Run the benchmarks named, or all."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))} (choose from {', '.join(NAMES)})")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name in names:
        module = import_module(f"benchmarks.{name}")
        if hasattr(module, "rows"):
            print(f"\n## {name}\n\n{(module.__doc__ or '').strip()}\n")
            print(markdown(module.rows()), flush=True)


if __name__ == "__main__":
    main()
