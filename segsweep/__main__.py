"""The command line: pick the verb, import only that verb's module.

A bare `python -m segsweep [overrides]` trains; with `--dry-run` it plans. With every verb,
`--config-dir FOLDER` adds words of yours. Hydra's own words (`-m`, `--cfg job`, `--info`) stay
whole, because all this is taken off before Hydra looks.
"""

from __future__ import annotations

import os
import re
import sys
from difflib import get_close_matches
from importlib import import_module

from segsweep import __version__, verbs
from segsweep.base.errors import UserError, told
from segsweep.base.overrides import hint
from segsweep.base.remarks import loading_told, plainly
from segsweep.base.terminal import printable
from segsweep.base.words import GROUPS, files, without_folders

VERBS = sorted(verbs.known())
"""The words of the command line: the files of segsweep/verbs."""


def main() -> None:
    """Run the verb named by the first word; no verb means `train`."""
    try:
        sys.argv[1:] = without_folders(sys.argv[1:])
        with plainly(), loading_told():
            status = act(sys.argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"segsweep: {printable(str(error))}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("segsweep: interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # somebody reads the first lines only, as in `| head`
        status = 141
        _unheard()
    except OSError as error:
        if not (sentence := told(error)):
            raise
        print(f"segsweep: {printable(sentence)}", file=sys.stderr)
        status = 2
        _unheard()
    sys.exit(status)


def _unheard() -> None:
    """Print what is left; where it has no place, let it go before Python tries again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def act(argv: list[str]) -> int:
    """Do what a command line says; return the status."""
    match argv[1:3]:
        case ["--version", *_]:
            print(f"segsweep {__version__}")
            return 0
        case ["--help" | "-h", *_] | ["help"]:
            choices = {group: [*files(group)] for group in GROUPS}
            print(verbs.overview(verbs.known(), choices | {"+sweep": [*files("sweep")]}))
            return 0
    return import_module(f"segsweep.verbs.{verb(argv)}").main()


def verb(argv: list[str]) -> str:
    """Take the verb off a command line; return its file.

    Raises UserError for a first word that is neither a verb nor a word of a run.
    """
    if argv[1:2] == ["help"]:
        argv[1:] = [*argv[2:], "--help"]
    word = argv[1] if len(argv) > 1 else ""
    if word in VERBS:
        del argv[1]
    elif _bare(word) in VERBS or not re.match("$|[-+~]|.*=", word):
        raise UserError(f"there is no verb {word!r}{near(word)}")
    else:
        word = "train"
    if word == "train" and "--dry-run" in argv:
        argv.remove("--dry-run")
        word = "plan"
    return word.replace("-", "_")


def near(word: str) -> str:
    """Return the hint for a first word that is no verb: what others call one, or a typo."""
    names = {name: verb for verb in verbs.known().values() for name in (verb.name, *verb.also)}
    meant = names.get(_bare(word))
    if not meant and (said := hint(word)):
        return said
    for name in get_close_matches(_bare(word), names, n=1):
        meant = meant or names[name]
    if meant:
        return f"; did you mean {meant.name!r}: {meant.line}?"
    return "; --help lists all"


def _bare(word: str) -> str:
    return word.strip("-").replace("_", "-").lower()


if __name__ == "__main__":
    main()
