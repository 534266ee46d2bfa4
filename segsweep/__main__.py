"""The command line: pick the verb, import only that verb's module.

A bare `python -m segsweep [overrides]` trains; with `--dry-run` it plans. With every verb,
`--config-dir FOLDER` adds words of yours. Hydra's own words (`-m`, `--cfg job`, `--help`, `--info`)
stay whole, because all this is taken off before Hydra looks.
"""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

from segsweep import verbs
from segsweep.base.errors import UserError, told
from segsweep.base.terminal import printable
from segsweep.base.words import without_folders

VERBS = sorted(module.name.replace("_", "-") for module in iter_modules(verbs.__path__))
"""The words of the command line: the files of segsweep/verbs."""


def main() -> None:
    """Run the verb named by the first word; no verb means `train`."""
    try:
        sys.argv[1:] = without_folders(sys.argv[1:])
        status = import_module(f"segsweep.verbs.{verb(sys.argv)}").main()
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


def verb(argv: list[str]) -> str:
    """Take the verb off a command line; return its file. Exits for a first word that is no verb."""
    word = argv[1] if len(argv) > 1 else ""
    if word in VERBS:
        del argv[1]
    elif word.isidentifier():
        near = get_close_matches(word, VERBS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        sys.exit(f"segsweep: no verb {word!r}{hint} (verbs: {', '.join(VERBS)})")
    else:
        word = "train"
    if word == "train" and "--dry-run" in argv:
        argv.remove("--dry-run")
        word = "plan"
    return word.replace("-", "_")


if __name__ == "__main__":
    main()
