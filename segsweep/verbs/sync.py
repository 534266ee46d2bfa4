"""The verb `sync`: send finished runs to Weights & Biases, each once, replayed from their files.

    python -m segsweep sync table2

Only finished runs are sent, from `metrics.jsonl` and `record.json`, under the run's own id: what
the server has already is not sent twice. `wandb.json` in the folder of a run says that it is
there. Give it where there is a network; jobs need none.
"""

from __future__ import annotations

from segsweep.base.files import sound
from segsweep.base.parser import add_runs, verb_parser
from segsweep.sweeps.names import chosen
from segsweep.sweeps.sync import check, send, unsent

GROUP = "results"
ALSO = ("wandb", "upload", "push")


def main(argv: list[str] | None = None) -> int:
    """Send the chosen runs that are finished and not sent yet; 1 if one of them is damaged.

    Raises UserError without key or network, before anything is sent.
    """
    parser = verb_parser("sync", __doc__)
    add_runs(parser)
    parser.add_argument("--project", help="default: that of the run's logger, else segsweep")
    parser.add_argument("--entity", help="default: that of the run's logger, else your own")
    parser.add_argument("--group", help="default: that of the run's logger")
    options = parser.parse_args(argv)
    runs = chosen(options.results, options.what)
    finished = [run for run in runs if (run / "record.json").exists()]
    waiting = unsent(finished)
    print(f"{len(runs)} runs: {len(finished)} finished, {len(waiting)} of them not sent yet")
    if waiting:
        check()
    changes = {key: getattr(options, key) for key in ("project", "entity", "group")}
    said = {key: value for key, value in changes.items() if value}
    sent = 0
    for run, url in sound(waiting, lambda run: send(run, said)):
        print(f"sent {run.name}: {url}", flush=True)
        sent += 1
    return 1 if sent < len(waiting) else 0
