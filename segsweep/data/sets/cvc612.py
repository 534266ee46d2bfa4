"""CVC-612, also called CVC-ClinicDB: polyps in 612 frames of 29 colonoscopy sequences.

    CVC-ClinicDB/{Original,Ground Truth}/<n>.tif      or below PNG/ or TIF/, as mirrors have it

Frames of a sequence look alike, so a rule parts whole sequences. PraNet and the packed archive
`polyp` drew 62 test frames at random: their scores are too good, and ours stand below them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import ClassVar

from segsweep.base.errors import UserError
from segsweep.data.items import Facts, Item
from segsweep.data.sets.paired import Pooled
from segsweep.data.splits import Rule

# first frame of each sequence, by the table of the database's page, as code of mirrors has it too
FIRST = [1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364, 384]
FIRST += [409, 429, 448, 467, 479, 504, 529, 547, 572, 592]
FRAMES = 612


@dataclass
class CVC612(Pooled):
    """Polyps in 612 frames of 384x288 pixels; no sequence is in both parts."""

    facts: ClassVar[Facts] = Facts(
        title="CVC-612 (CVC-ClinicDB)",
        licence="academic use only; ask the Computer Vision Center for any other",
        citation="Bernal et al. 2015, WM-DOVA maps for accurate polyp highlighting in colonoscopy, "
        "Computerized Medical Imaging and Graphics 43",
        obtain="unpack CVC-ClinicDB of polyp.grand-challenge.org: folders Original, Ground Truth",
        images={"train": 550, "val": 62},
        unverified="the borders of the 29 sequences, compared with one other source; here train "
        "has 544 frames: 6 of the sequence that fills val are in neither part",
    )
    foreground: ClassVar[str] = "polyp"
    test: ClassVar[str] = "test_CVC-ClinicDB"
    division: ClassVar[Rule] = Rule("cvc612", val=62)

    def pool(self) -> list[Item]:
        """Return all frames, each with its sequence."""
        base = self.base("CVC-ClinicDB")
        kind = next((name for name in ("PNG/", "TIF/") if (base / name).is_dir()), "")
        items = self.pairs(base, f"{kind}Original", masks=f"{kind}Ground Truth")
        # the same keys whatever the mirror's form, hence the same split
        return [
            replace(item, key=item.image.stem, group=sequence(item.image.stem)) for item in items
        ]


def sequence(stem: str) -> str:
    """Return the sequence of a frame, 1 to 29. Raises UserError for names that are no frames."""
    if not stem.isdecimal() or not 1 <= int(stem) <= FRAMES:
        raise UserError(
            f"{stem!r} is no frame number (1 to {FRAMES}), so its sequence is unknown; "
            "keep the archive's own file names, or write train.csv and test.csv"
        )
    return f"sequence {bisect_right(FIRST, int(stem))}"
