"""The verb `merge`: a run as one plain checkpoint under the official program's names.

    python -m segsweep merge run=3f2a91
    python -m segsweep merge run=3f2a91 out=model.pth      in the layout that this program reads

Edits of weights (LoRA, IA3, SSF) are folded into them, and so are fillings of seams that a linear
layer alone reads (ARC). Others (adapters) cannot be: they stay, under names that the official
program does not have. The file is written only if a base model that loads it gives the outputs of
the run. docs/export.md says more.
"""

from __future__ import annotations

from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, add_run, verb_parser
from segsweep.exporting.checkpoint import SUFFIXES, write
from segsweep.exporting.place import vacant
from segsweep.sweeps.names import single_run, spoken

GROUP = "hand on"
ALSO = ("fuse",)


def main(argv: list[str] | None = None) -> int:
    """Merge one run."""
    parser = verb_parser("merge", __doc__)
    add_run(parser)
    add_results(parser)
    parser.add_argument("--out", type=Path, help="default: exports below the results")
    parser.add_argument("--force", action="store_true", help="replace the file")
    options = spoken(parser, argv)
    directory = single_run(options.results, options.run)
    out = options.out or options.results / "exports" / directory.name / "merged.safetensors"
    if out.suffix not in SUFFIXES:
        raise UserError(f"out={out}: must end in one of {', '.join(SUFFIXES)}")
    from segsweep.run.restore import restore

    vacant(out, options.force)
    for line in write(restore(directory, words=options.words), out, options.force):
        print(line)
    return 0
