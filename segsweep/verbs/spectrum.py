"""The verb `spectrum`: is tuning low-rank? Singular values of attention weights, or their updates.

    python -m segsweep spectrum 3f2a91                      what training changed in three blocks
    python -m segsweep spectrum 3f2a91 77b0c2 --of weight --layers 1,5,9
    python -m segsweep spectrum run=3f2a91 at=ffn           of other weights: a role or a pattern

Weights that a method edits are merged; what it adds at places is no weight, and is named. Queries,
keys and values are told apart and together. Writes below results/spectrum a list, histograms, and
how much of the squared mass a rank holds; all singular values of each run into a folder of its own,
which `report` reads. docs/analysis.md says what each number means.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, verb_parser
from segsweep.base.terminal import printer
from segsweep.sweeps.names import chosen, spoken

if TYPE_CHECKING:
    from segsweep.analysis.spectrum import Spectra

GROUP = "results"
ALSO = ("svd", "rank", "singular", "low-rank")


def main(argv: list[str] | None = None) -> int:
    """Decompose weights of the chosen runs; those that have none are named with the reason.

    Raises UserError when no run has.
    """
    from segsweep.analysis.spectrum import OF, spectra
    from segsweep.pages import spectrum as page

    parser = verb_parser("spectrum", __doc__)
    parser.add_argument("runs", nargs="+", help="names or ids of runs, sweeps or folders")
    add_results(parser)
    about = "tuned minus base weights (update, the default), or the weights"
    parser.add_argument("--of", choices=OF, default=OF[0], help=about)
    about = "layers or blocks, from 1 on: 1,5,9 (default: the first of each third)"
    parser.add_argument("--layers", type=_numbers, default=[], help=about)
    about = "a role or pattern of weights; default: attention, of the backbone if it has some"
    parser.add_argument("--at", default="", help=about)
    parser.add_argument("--out", type=Path, help="default: spectrum below the results")
    options = spoken(parser, argv)
    found: list[Spectra] = []
    reasons: dict[str, UserError] = {}
    for directory in chosen(options.results, options.runs):
        try:
            found.append(spectra(directory, options.of, options.layers, options.at, options.words))
        except UserError as error:
            reasons[directory.name] = error
    if not found:
        raise next(iter(reasons.values()), UserError("spectrum: no runs"))
    console = printer()
    for error in reasons.values():
        console.print(f"skipped {error}", style="yellow", markup=False, soft_wrap=True)
    for one in found:
        console.print(page.table(one))
    for text in page.remarks(found):
        console.print(text, markup=False, soft_wrap=True)
    for path in page.write(found, options.out or options.results / "spectrum"):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return 0


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_numbers.__name__ = "list of numbers"  # what argparse calls it
