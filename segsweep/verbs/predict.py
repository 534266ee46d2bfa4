"""The verb `predict`: what a finished run finds on pictures of yours, or on its validation images.

    python -m segsweep predict run=3f2a91 images=my/pictures
    python -m segsweep predict run=3f2a91 images=my/pictures threshold=0.3 out=somewhere
    python -m segsweep predict run=3f2a91 images=my/pictures annotations=my/val.json threshold=0
    python -m segsweep predict run=3f2a91 split=val
    python -m segsweep predict split=val

A folder gives overlays, COCO results and a page (label maps where the run predicts these). With
annotations=FILE the results have the ids of this COCO file, which can score them then.
`split=val` writes the predictions.jsonl.gz of runs that have none, so that `analyse` and `compare`
work for them; of all such runs where none is named.
Where data have moved, say where to: data.root=FOLDER.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.sweep.names import chosen, single_run, spoken


def main(argv: list[str] | None = None) -> int:
    """Predict on a folder with one run, or on the validation split with any number of them."""
    parser = _parser()
    options = spoken(parser, argv)
    if (options.images is None) == (options.split is None):
        raise UserError("predict: say images=FOLDER, or split=val for the run's own images")
    if options.annotations and options.split:
        raise UserError("predict: annotations= goes with images=, not with split=")
    if options.split:
        runs = chosen(options.results, options.runs)
        return missing(runs, options.words, everything=not options.runs)
    if len(options.runs) != 1:
        raise UserError(f"predict: images= needs one run, as in run=3f2a91, not {options.runs}")
    if not 0 <= options.threshold <= 1:
        raise UserError(f"threshold={options.threshold}: must lie in [0, 1]")
    directory = single_run(options.results, options.runs[0])
    place = options.images.expanduser()
    out = options.out or options.results / "predictions" / directory.name / place.resolve().name
    file = options.annotations and options.annotations.expanduser()
    on_folder(directory, place, out, options.threshold, options.words, file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m segsweep predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="*", help="names or ids of runs, or folders")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--images", type=Path, help="a folder of pictures, or one picture")
    parser.add_argument("--annotations", type=Path, help="a COCO file whose ids results shall have")
    parser.add_argument("--split", choices=["val"], help="the run's own images")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score (0.5)")
    parser.add_argument("--out", type=Path, help="default: predictions below the results")
    return parser


def on_folder(
    directory: Path,
    place: Path,
    out: Path,
    threshold: float,
    words: list[str],
    annotations: Path | None = None,
) -> None:
    """Predict on every picture below a folder, and draw what is found.

    Or on those of an annotation file: with its ids and in its order, so that batches are those of
    an evaluation. Without one, ids count the files. Raises UserError where there is no picture, and
    whatever keeps the model from being restored.
    """
    from segsweep.base.terminal import watched
    from segsweep.pages import annotated
    from segsweep.pages.folder import Folder, files
    from segsweep.pages.gallery import Gallery
    from segsweep.run.evaluate import predict_batches
    from segsweep.run.restore import finished, restore

    found = files(place, out)
    data = finished(directory, words)[1]["data"]
    known, category_ids = {}, data["category_ids"]
    if annotations:  # before the model is built
        file = annotated.opened(annotations)
        known = annotated.records(file, place, found)
        category_ids = annotated.category_ids(file, data)
        found = [*known]
    restored = restore(directory, words=words)
    config = restored.config
    folder = Folder(found, config.data, config.hparams.batch_size, known)
    gallery = Gallery(restored, place, out, threshold, category_ids)
    batches = watched(folder, len(folder), place.name)
    for batch, instances in predict_batches(config, restored.model, batches, threshold):
        for number, own in zip(batch.image_ids, instances, strict=True):
            path = found[number - 1]
            image_id = known[path].image_id if path in known else number
            gallery.add(image_id, path, folder.pixels[number], own)
    for path, reason in folder.skipped.items():
        print(f"skipped {path}: {reason}")
    if not gallery.pictures:
        raise UserError(f"images={place}: none of {len(found)} files is a picture")
    for path in gallery.close(folder.skipped):
        print(f"wrote {path}")


def missing(runs: list[Path], words: list[str], everything: bool) -> int:
    """Give runs their file of predictions; those that have it are left as they are.

    Raises UserError for a run that cannot have one, unless all runs are meant.
    """
    from segsweep.run.predictions import FILE

    lacking = [run for run in runs if not (run / FILE).exists()]
    print(f"{len(runs)} runs: {len(runs) - len(lacking)} have predictions")
    for run in lacking:
        try:
            print(f"{run.name}: {backfill(run, words)}", flush=True)
        except UserError as error:
            if not everything:
                raise
            print(f"skipped {error}", flush=True)
    return 0


def backfill(directory: Path, words: list[str]) -> str:
    """Write the file of predictions that training would have written; say what follows from it.

    Nothing else is written. Raises UserError where the run predicts label maps, its model or its
    data are not what they were, or other bytes come out than its record names.
    """
    from segsweep.base.owner import owned
    from segsweep.run.evaluate import evaluate
    from segsweep.run.predictions import FILE
    from segsweep.run.restore import finished, restore, same

    config, record = finished(directory, words)
    if config.data.task == "semantic":
        raise UserError(f"{directory}: predicts label maps, which are not kept in a file")
    same(directory, config, record)  # before the model is built
    restored = restore(directory, words=words)
    run = restored.run
    run.config.io.predictions = True
    with owned(directory):
        evaluation = evaluate(run, restored.model, run.name)
    known = record.get("predictions")
    if known is not None and evaluation.predictions and evaluation.predictions.facts() != known:
        (directory / FILE).unlink()
        raise UserError(
            f"{directory}: predicts other bytes here than on {record['device']['name']}, where it "
            f"was evaluated; copy {FILE} from there"
        )
    key = config.metrics.key
    return (
        f"{key} {_text(evaluation.values[key])}, recorded {_text(record['metrics'][key]['value'])}"
    )


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
