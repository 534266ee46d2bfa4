"""The verb `predict`: what a finished run finds on pictures of yours, on its val or test images.

    python -m segsweep predict run=3f2a91 images=my/pictures
    python -m segsweep predict run=3f2a91 images=my/pictures threshold=0.3 out=somewhere
    python -m segsweep predict run=3f2a91 images=my/pictures annotations=my/val.json threshold=0
    python -m segsweep predict run=3f2a91 split=val
    python -m segsweep predict split=val
    python -m segsweep predict run=3f2a91 split=test

A folder gives overlays, COCO results and a page (label maps where the run predicts these). With
annotations=FILE the results have the ids of this COCO file, which can score them then.
`split=val` writes the predictions.jsonl.gz of runs that have none, so that `analyse` and `compare`
work for them; of all such runs where none is named. `split=test` evaluates a run once on the test
part of its data (data.test=, or what its folder calls test) and writes test.json.
Where data have moved, say where to: data.root=FOLDER.
"""

from __future__ import annotations

from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, verb_parser
from segsweep.sweeps.names import chosen, single_run, spoken


def main(argv: list[str] | None = None) -> int:
    """Predict on a folder or on test with one run, or on val with any number of them."""
    parser = verb_parser("predict", __doc__)
    parser.add_argument("runs", nargs="*", help="names or ids of runs, or folders")
    add_results(parser)
    parser.add_argument("--images", type=Path, help="a folder of pictures, or one picture")
    parser.add_argument("--annotations", type=Path, help="a COCO file whose ids results shall have")
    parser.add_argument("--split", choices=["val", "test"], help="the run's own images")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score (0.5)")
    parser.add_argument("--out", type=Path, help="default: predictions below the results")
    options = spoken(parser, argv)
    if (options.images is None) == (options.split is None):
        raise UserError("predict: say images=FOLDER, or split=val for the run's own images")
    if options.annotations and options.split:
        raise UserError("predict: annotations= goes with images=, not with split=")
    if options.split == "val":
        from segsweep.run.backfill import backfill

        runs = chosen(options.results, options.runs)
        for line in backfill(runs, options.words, everything=not options.runs):
            print(line, flush=True)
        return 0
    if len(options.runs) != 1:
        what = "split=test" if options.split else "images="
        raise UserError(f"predict: {what} needs one run, as in run=3f2a91, not {options.runs}")
    if not 0 <= options.threshold <= 1:
        raise UserError(f"threshold={options.threshold}: must lie in [0, 1]")
    directory = single_run(options.results, options.runs[0])
    if options.split:
        from segsweep.run.tested import on_test

        out = options.out or options.results / "predictions" / directory.name
        print("\n".join(on_test(directory, out, options.words)))
        return 0
    place = options.images.expanduser()
    out = options.out or options.results / "predictions" / directory.name / place.resolve().name
    file = options.annotations and options.annotations.expanduser()
    from segsweep.pages.gallery import predict_folder

    for line in predict_folder(directory, place, out, options.threshold, options.words, file):
        print(line)
    return 0
