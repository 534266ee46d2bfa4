"""The verb `predict`: what a finished run finds on pictures of yours, on its val or test images.

    python -m segsweep predict run=3f2a91 images=my/pictures
    python -m segsweep predict run=3f2a91 images='my/*.jpg' threshold=0.3 out=somewhere
    python -m segsweep predict run=3f2a91 images=https://example.org/a.jpg crops=true
    python -m segsweep predict run=3f2a91 images=clip.mp4 every=5
    python -m segsweep predict run=3f2a91 images=my/pictures annotations=my/val.json threshold=0
    python -m segsweep predict run=3f2a91 split=val
    python -m segsweep predict split=val
    python -m segsweep predict run=3f2a91 split=test

Pictures are folders, files, patterns or addresses; videos, of which each `every`-th picture counts,
need `pip install 'segsweep[video]'`. They give overlays, COCO results and a page (label maps where
the run predicts these); crops=true cuts out each object. The least score is that of the run's best
F1 on its validation images. With annotations=FILE the results have the ids of this COCO file, which
can score them then.
`split=val` writes the predictions.jsonl.gz of runs that have none, so that `analyse` and `compare`
work for them; of all such runs where none is named. `split=test` evaluates a run once on the test
part of its data (data.test=, or what its folder calls test) and writes test.json.
Where data have moved, say where to: data.root=FOLDER.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, verb_parser
from segsweep.data import inputs
from segsweep.sweeps.names import chosen, single_run, spoken

GROUP = "results"
ALSO = ("infer", "inference", "detect", "segment", "test", "val", "validate")


def main(argv: list[str] | None = None) -> int:
    """Predict on pictures or on test with one run, or on val with any number of them."""
    parser = verb_parser("predict", __doc__)
    parser.add_argument("runs", nargs="*", help="names or ids of runs, or folders; pictures")
    add_results(parser)
    about = "a folder, file, pattern or address of pictures or videos; may be repeated"
    parser.add_argument(
        "--images", "--source", action="extend", type=listed, default=[], help=about
    )
    parser.add_argument("--annotations", type=Path, help="a COCO file whose ids results shall have")
    parser.add_argument("--split", choices=["val", "test"], help="the run's own images")
    about = "least score; default: that of the best F1 on the run's validation images"
    parser.add_argument("--threshold", "--score", type=float, help=about)
    parser.add_argument("--every", type=int, default=1, help="picture of a video that counts (1)")
    parser.add_argument("--crops", action="store_true", help="cut out each object, too")
    parser.add_argument("--out", type=Path, help="default: predictions below the results")
    options = spoken(parser, argv)
    for line in asked(options):
        print(line, flush=True)
    return 0


def asked(options: Namespace) -> Iterable[str]:
    """Do what is asked for; return what to tell of it. Raises UserError where that is not clear."""
    pictures = [word for word in options.runs if inputs.is_input(word)]  # bare, as a shell expands
    places, runs = [*options.images, *pictures], [w for w in options.runs if w not in pictures]
    if bool(places) == bool(options.split):
        raise UserError("predict: say images=FOLDER, or split=val for the run's own images")
    if options.annotations and options.split:
        raise UserError("predict: annotations= goes with images=, not with split=")
    if options.split == "val":
        from segsweep.run.backfill import backfill

        return backfill(chosen(options.results, runs), options.words, everything=not runs)
    if len(runs) != 1:
        what = "split=test" if options.split else "images="
        told = f", not {' '.join(runs)}" if runs else " (`status` lists them)"
        raise UserError(f"predict: {what} needs one run, as in run=3f2a91{told}")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UserError(f"threshold={options.threshold}: must lie in [0, 1]")
    if options.every < 1:
        raise UserError(f"every={options.every}: must be 1 or more")
    directory = single_run(options.results, runs[0])
    default = options.results / "predictions" / directory.name
    if options.split:
        from segsweep.run.tested import on_test

        return on_test(directory, options.out or default, options.words)
    return on_pictures(directory, places, options.out or default / inputs.title(places), options)


def on_pictures(directory: Path, places: list[str], out: Path, options: Namespace) -> Iterable[str]:
    """Predict on pictures of anybody; all that needs no model is looked at first."""
    found = inputs.find(places, out)
    if options.crops and (out / "crops").is_dir():
        cure = "delete it, or name another folder with out="
        raise UserError(f"{out / 'crops'}: has the objects of an earlier call; {cure}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror}") from error
    from segsweep.pages.gallery import predict_inputs

    return predict_inputs(
        directory,
        found,
        out,
        options.words,
        threshold=options.threshold,
        annotations=options.annotations and options.annotations.expanduser(),
        every=options.every,
        crops=options.crops,
    )


def listed(word: str) -> list[str]:
    """Return the places that one word names: `[a.jpg,b.jpg]` are two."""
    several = word[:1] == "[" and word[-1:] == "]" and not Path(word).exists()
    return word[1:-1].split(",") if several else [word]
