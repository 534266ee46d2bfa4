"""What the command lines of the verbs have in common."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from segsweep.base.errors import UserError


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


def add_sources(parser: ArgumentParser) -> None:
    """Let a verb that makes tables read the results of several sites; see `sources`."""
    add_results(parser)
    about = "unite these results folders, instead of --results: each run once"
    parser.add_argument("--from", nargs="+", type=Path, dest="sources", metavar="DIR", help=about)


def sources(options: Namespace) -> list[Path]:
    """Return the results folders that a verb is to read.

    Raises UserError for one that `--from` names and that is none.
    """
    for folder in options.sources or ():
        if not (folder / "runs").is_dir():
            raise UserError(f"--from {folder}: no folder of results, for it has no folder runs")
    return options.sources or [options.results]


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
