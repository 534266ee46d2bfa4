"""What the command lines of the verbs have in common."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path


def verb_parser(verb: str, description: str | None) -> ArgumentParser:
    """Return the parser of a verb; its help begins with the docstring of its file as it stands."""
    return ArgumentParser(
        f"python -m segsweep {verb}",
        description=description,
        formatter_class=RawDescriptionHelpFormatter,
    )


def add_results(parser: ArgumentParser) -> None:
    """Let a verb be told where the results are."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")


def add_run(parser: ArgumentParser, optional: bool = False) -> None:
    """Let a verb be given one run."""
    about = "name or id of a run, also its beginning, or its folder"
    parser.add_argument("run", nargs="?" if optional else None, help=about)


def add_runs(parser: ArgumentParser) -> None:
    """Let a verb be given any runs or all, and where the results are."""
    parser.add_argument("what", nargs="*", help="sweeps, runs or folders; default: all runs")
    add_results(parser)


def add_overrides(parser: ArgumentParser, about: str) -> None:
    """Let a verb take the words of a sweep."""
    parser.add_argument("overrides", nargs="*", help=about)
    parser.add_argument("-m", "--multirun", action="store_true", help="as there; implied")
