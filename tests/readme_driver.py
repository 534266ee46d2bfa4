"""Run by tests/test_wheel.py away from the checkout: README's Python, then its commands.

What is to be done comes as JSON; how each command ended and what it said goes out as JSON.
"""

import contextlib
import io
import json
import sys
import traceback
from typing import Any

import segsweep
from segsweep.__main__ import main


def ended(words: list[str]) -> tuple[object, str]:
    """Do one command line in this process: its status and what it printed."""
    sys.argv, out = ["segsweep", *words], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as end:
            return end.code, out.getvalue()
        except BaseException:
            return "a traceback", out.getvalue() + traceback.format_exc()
    return 0, out.getvalue()


def all_ended(todo: dict[str, Any]) -> list[tuple[str, object, str]]:
    """Do the Python, train the runs, do the commands with the ids of these runs."""
    with contextlib.redirect_stdout(sys.stderr):
        exec(todo["python"], {"SHORT": todo["short"]})
        runs = {name: segsweep.train(*words) for name, words in todo["runs"].items()}
    text = json.dumps(todo["commands"])
    for name, run in runs.items():
        text = text.replace(name, run.record["id"][:8])
    return [(" ".join(words), *ended(words)) for words in json.loads(text)]


if __name__ == "__main__":  # not in processes that draw figures
    print(json.dumps(all_ended(json.load(sys.stdin))))
