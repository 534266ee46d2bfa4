"""Sentences about a table, held against its cells.

A claims file has one claim a line: `source`, `claim` (a short paraphrase), `kind`, `cells`,
`against`, `stated`, `tolerance`, `wording` (`exact`, `loose` for words such as "slightly",
`definition`, or `silent` for what no sentence says).
`cells` and `against` select cells, as in `mean: table=2a; method=lora; r=4|8; metric=AP`: the
source is that of the claim if not named, `!=` excludes, names of a method's parameters are columns
too, and `min:`, `max:`, `mean:`, `sum:` make one number of many. `= 2 * 2201` stands for itself.

    value, ratio, difference   of `cells` (and `against`) is `stated`: a number, or `low..high`
    reduction                  100 · (1 − cells / against) is `stated`
    count, range, within       how many cells, from where to where, all inside `low..high`
    best                       `cells` has the best of `against`, which is `stated`
    above                      cells are better than `against` in `all`, `most` or `any` pairs of
                               the same model, backbone, data set and metric
    rising, falling            along the parameter `stated`, in every column
    base                       the model has `stated` million parameters, by equation 10
    unit                       the numbers have the unit `stated`
    slowing                    the last step along `stated` brings less than any before
    saturating                 it brings a smaller share of the whole gain than in `against`
    front                      none of `against` is better with fewer parameters
    apart                      better than `against` by more than both printed spreads
    told                       the table names what is `stated`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from segsweep.audit.cells import PrintedCell, table
from segsweep.audit.findings import CUT, Certainty, Contradiction
from segsweep.audit.kinds import CALCULATED, KINDS, WORDS, judge
from segsweep.audit.numbers import printed
from segsweep.audit.sentences import Claim, Verdict
from segsweep.base.errors import UserError

WORDINGS = {
    "exact": Certainty.CERTAIN,
    "loose": Certainty.UNCLEAR,
    "definition": Certainty.DEFINITION,
    "silent": Certainty.UNCLEAR,
}


def read_claims(path: Path) -> list[Claim]:
    """Read a claims file.

    Raises:
        UserError: missing columns, an unknown kind, or a stated value that is none, by line.
    """
    names = [field.name for field in fields(Claim)][:-1]
    claims = [
        Claim(**{name: row[name] for name in names}, line=line) for line, row in table(path, names)
    ]
    for claim in claims:
        where = f"{path}, line {claim.line}"
        for name, value, choices in (
            ("kind", claim.kind, KINDS),
            ("wording", claim.wording, WORDINGS),
        ):
            if value not in choices:
                choices_text = ", ".join(choices)
                raise UserError(f"{where}: no {name} {value!r} (choices: {choices_text})")
        try:
            if claim.kind not in WORDS and (claim.stated or claim.kind != "best"):
                claim.bounds()
        except ValueError as error:
            raise UserError(f"{where}: stated is {claim.stated!r}, not a number") from error
    return claims


def claims(
    statements: Sequence[Claim], cells: Sequence[PrintedCell], mended: Sequence[PrintedCell]
) -> Iterator[Contradiction]:
    """Sentences agree with the cells they speak of, also after the misprints are mended."""
    resting_on_misprints: dict[str, list[tuple[Claim, Verdict]]] = {}
    first_source: dict[str, str] = {}  # which source told the same
    for claim in statements:
        verdict, after = judge(claim, cells), judge(claim, mended)
        if verdict.holds is not False and after.holds is False:
            resting_on_misprints.setdefault(claim.source, []).append((claim, after))
        elif verdict.holds is False and after.holds is False:
            certainty, why = WORDINGS[claim.wording], "The sentence and the cells disagree."
            if certainty == Certainty.CERTAIN and _is_cut(claim, cells):
                certainty, why = Certainty.LIKELY, why + CUT
            if claim.wording == "silent":
                why = "No sentence says otherwise, but a reader would take it so."
            source = first_source.setdefault(verdict.follows, claim.source)
            if source != claim.source:
                why += f" It repeats source {source}."
            yield _finding([(claim, verdict)], certainty, why)
        elif verdict.holds is None:
            why = "The printed digits just miss the sentence; unprinted ones may meet it."
            yield _finding([(claim, verdict)], Certainty.EXPLAINED, why)
    for group in resting_on_misprints.values():
        why = "True of the table as printed only: the sentence rests on a misprint."
        yield _finding(group, Certainty.CERTAIN, why)


def _is_cut(claim: Claim, cells: Sequence[PrintedCell]) -> bool:
    """Say whether a calculated number is the stated one with digits cut off."""
    if claim.kind not in CALCULATED or ".." in claim.stated:
        return False
    cut = printed(claim.stated, cut=True)
    return judge(replace(claim, stated=f"{cut.low}..{cut.high}"), cells).holds is not False


def _finding(
    judged: Sequence[tuple[Claim, Verdict]], certainty: Certainty, why: str
) -> Contradiction:
    kinds = {claim.wording for claim, _ in judged}
    loose = " Its words are loose." if kinds == {"loose"} else ""
    return Contradiction(
        certainty=certainty,
        cells=list(dict.fromkeys(cell for _, verdict in judged for cell in verdict.cells)),
        printed="; ".join(claim.claim for claim, _ in judged),
        follows="; ".join(verdict.follows for _, verdict in judged),
        explanation=why + loose,
        source=judged[0][0].source,
        table="text",
    )
