"""The verb `experts`: which expert the gates of a run choose, by block, by window, by mask size.

    python -m segsweep experts run=3f2a91
    python -m segsweep experts run=3f2a91 split=test image=scene_00003.png image=17 blocks=0,2

Sends a split through a run of peft=conv_lora, and counts the expert that every window of every
image is sent to (in blocks of global attention, every image). Writes lists and pictures below
results/experts: shares by block and expert, the same by the size of the mask that a window holds,
and the windows of some blocks over some images, coloured by the scale of their expert. Of equal
logits, as those of a gate that has not learnt, the lowest scale is chosen. docs/pictures.md says
what each number means.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, add_run, verb_parser
from segsweep.base.terminal import printer
from segsweep.sweeps.names import single_run, spoken

if TYPE_CHECKING:
    from segsweep.data.base import DataSet, Record

GROUP = "results"
ALSO = ("routing", "gates", "moe")
PANELS = 6  # blocks that are drawn if none are said
Block = TypeVar("Block")


def main(argv: list[str] | None = None) -> int:
    """Count and draw what the gates of one run choose."""
    parser = verb_parser("experts", __doc__)
    add_run(parser)
    add_results(parser)
    parser.add_argument(
        "--split", default="val", help="of the run's data: train, val or test (val)"
    )
    about = "file name or id of an image to draw; may be repeated; default: the first of the split"
    parser.add_argument("--image", action="append", default=[], help=about)
    about = (
        f"to draw, places in the list of those with experts, from 0: 0,2 (all, {PANELS} of many)"
    )
    parser.add_argument("--blocks", type=_numbers, help=about)
    parser.add_argument("--out", type=Path, help="default: experts below the results")
    options = spoken(parser, argv)
    directory = single_run(options.results, options.run)
    from segsweep.run.restore import finished, restore, same

    config, record = finished(directory, options.words)
    same(directory, config, record)  # before the model is built
    records = drawn(config.data, options.split, options.image)
    from segsweep.analysis.experts import routings
    from segsweep.pages import experts

    restored = restore(directory, words=options.words)
    found = routings(restored, options.split, [record.image_id for record in records])
    blocks = some(found.blocks, options.blocks)
    show(experts.share_rows(found), experts.remarks(found))
    out = options.out or options.results / "experts" / directory.name
    pictures = [(record, config.data.image(record)) for record in records]
    for path in experts.write(found, pictures, blocks, out):
        print(f"wrote {path}")
    return 0


def drawn(data: DataSet, split: str, names: Sequence[str]) -> list[Record]:
    """Return the images that are named, the first of the split if none are.

    Raises UserError for a split or an image that there is not.
    """
    if split not in data.splits():
        raise UserError(f"split={split}: data={data.name} has {', '.join(data.splits())}")
    records = data.records(split)
    known = {str(record.image_id): record for record in records}
    known |= {record.file: record for record in records}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the first is {records[0].file!r}"
            raise UserError(f"image={name}: no file or id of the {len(records)} of {split}; {hint}")
    return [known[name] for name in names] or records[:1]


def some(blocks: Sequence[Block], places: Sequence[int] | None) -> list[Block]:
    """Return the blocks at places, or all, or a few of many that are evenly apart.

    Raises UserError for a place that there is not.
    """
    last = len(blocks) - 1
    if places is None:
        few = min(PANELS, len(blocks))
        places = [round(k * last / max(few - 1, 1)) for k in range(few)]
    for place in places:
        if place > last:
            raise UserError(f"blocks={place}: the run has experts in {last + 1}, 0 to {last}")
    return [blocks[place] for place in places]


def show(rows: Sequence[Sequence[Any]], remarks: Sequence[str]) -> None:
    """Print shares by block and expert."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console, table = printer(highlight=False), Table(box=SIMPLE_HEAD)
    heads, *rest = rows
    for k, column in enumerate(heads):
        table.add_column(column, justify="right" if k > 1 else "left")
    for row in rest:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row))
    console.print(table)
    for remark in remarks:
        console.print(remark, markup=False, soft_wrap=True)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_numbers.__name__ = "list of numbers"  # what argparse calls it
