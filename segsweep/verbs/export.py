"""The verb `export`: a run as a program, as HF LoRA files, or as a bundle to hand on.

    python -m segsweep export run=3f2a91                        torch.export: model.pt2
    python -m segsweep export run=3f2a91 format=onnx batch=1    model.onnx
    python -m segsweep export run=3f2a91 format=hf_lora         for the package peft
    python -m segsweep export run=3f2a91 format=bundle          weights, labels, card, how to load
    python -m segsweep export verify=FOLDER                     is it as it was exported?

Each makes a folder, whole or not at all, with SHA256SUMS. docs/export.md says what lies in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, add_run, verb_parser
from segsweep.exporting.place import seal, staged, vacant, verify
from segsweep.sweeps.names import single_run, spoken

if TYPE_CHECKING:
    from segsweep.run.restore import Restored

GROUP = "hand on"
ALSO = ("onnx", "convert", "deploy", "bundle")
PROGRAMS = ("torch_export", "onnx")
FORMATS = (*PROGRAMS, "hf_lora", "bundle")


def main(argv: list[str] | None = None) -> int:
    """Export one run, or verify an export."""
    parser = verb_parser("export", __doc__)
    add_run(parser, optional=True)
    parser.add_argument("--format", choices=FORMATS, default="torch_export", help="torch_export")
    add_results(parser)
    parser.add_argument("--out", type=Path, help="a folder; default: exports below the results")
    parser.add_argument("--batch", type=int, default=1, help="images at once, of programs (1)")
    parser.add_argument(
        "--partial", action="store_true", help="hf_lora without what it cannot express"
    )
    parser.add_argument("--force", action="store_true", help="replace the folder")
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="an export")
    options = spoken(parser, argv)
    if options.verify:
        print(f"{options.verify}: all {verify(options.verify)} files are as they were exported")
        return 0
    if options.run is None:
        raise UserError("export: name a run, as in run=3f2a91")
    if options.batch < 1:
        raise UserError(f"batch={options.batch}: must be at least 1")
    directory = single_run(options.results, options.run)
    out = options.out or options.results / "exports" / directory.name / options.format
    vacant(out, options.force)
    check(directory, options)
    from segsweep.run.restore import restore

    restored = restore(directory, words=options.words)
    with staged(out, options.force) as folder:
        folder.mkdir()
        lines = fill(restored, folder, options)
        seal(folder)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    print("\n".join([f"wrote {out}: {', '.join(files)}", *lines]))
    return 0


def check(directory: Path, options: argparse.Namespace) -> None:
    """Raise UserError for what cannot be exported, before a model is built."""
    from segsweep.exporting import hf_lora, program
    from segsweep.run.restore import finished

    config, _ = finished(directory, options.words)
    if options.format in PROGRAMS:
        program.check(options.format)
    if options.format == "hf_lora":
        hf_lora.check(config.peft)


def fill(restored: Restored, folder: Path, options: argparse.Namespace) -> list[str]:
    """Fill a folder in the chosen format; return what there is to say."""
    from segsweep.exporting import bundle, hf_lora, program

    if options.format == "bundle":
        return bundle.write(restored, folder)
    if options.format == "hf_lora":
        return hf_lora.write(restored, folder, options.partial)
    return program.write(restored, folder, options.format, options.batch)
