"""What the command lines of the verbs have in common."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from segsweep.base.errors import UserError


class VerbParser(ArgumentParser):
    """A parser whose errors are the user's, in a sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError, with the near options of one that there is not."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        if unknown:
            message = f"there is no {words}"
            options = [option for option in self._option_string_actions if option[:2] == "--"]
            if words[:2] != "--":  # said as key=value
                options = [f"{option[2:].replace('-', '_')}=" for option in options]
            near = get_close_matches(words.partition("=")[0], options, n=1)
            message += f"; did you mean {near[0]}?" if near else f" (options: {', '.join(options)})"
        raise UserError(f"{self.prog}: {message}; --help says more")


def verb_parser(verb: str, description: str | None) -> ArgumentParser:
    """Return the parser of a verb; its help begins with the docstring of its file as it stands."""
    return VerbParser(
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
