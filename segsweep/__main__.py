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

from segsweep.base.errors import UserError
from segsweep.base.words import without_folders

VERBS = {
    "train": "segsweep.verbs.train",
    "work": "segsweep.verbs.work",
    "params": "segsweep.verbs.params",
    "check-data": "segsweep.verbs.check_data",
    "analyse": "segsweep.verbs.analyse",
    "predict": "segsweep.verbs.predict",
    "compare": "segsweep.verbs.compare",
    "merge": "segsweep.verbs.merge",
    "export": "segsweep.verbs.export",
    "bench": "segsweep.verbs.bench",
    "collect": "segsweep.verbs.collect",
    "table": "segsweep.verbs.table",
    "audit": "segsweep.verbs.audit",
    "report": "segsweep.verbs.report",
    "plan": "segsweep.verbs.plan",
    "status": "segsweep.verbs.status",
    "logs": "segsweep.verbs.logs",
    "cancel": "segsweep.verbs.cancel",
    "retry": "segsweep.verbs.retry",
    "sync": "segsweep.verbs.sync",
    "prune": "segsweep.verbs.prune",
}


def main() -> None:
    """Run the verb named by the first word; no verb means `train`."""
    try:
        sys.argv[1:] = without_folders(sys.argv[1:])
        sys.exit(import_module(VERBS[verb(sys.argv)]).main())
    except UserError as error:
        print(f"segsweep: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # somebody reads the first lines only, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def verb(argv: list[str]) -> str:
    """Take the verb off a command line. Exits for a first word that is no verb."""
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
        return "plan"
    return word


if __name__ == "__main__":
    main()
