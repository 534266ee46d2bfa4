"""What a language-driven model is told of the classes: texts in templates, as CLIP's token ids.

The texts of the classes are followed by "background", the text of everything else. The tokenizer
and CLIP's templates come with open_clip, which imports torch, so functions import them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background"
CURE = "give the class another text with data.prompts={NAME:text}"

Templates = Enum("Templates", {"all81": "all81", "paper32": "paper32"})

# of the program that the published SEEM numbers come from, for training and evaluation
PAPER = (
    "{}.",
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a photo of a hard to see {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a close-up photo of a {}.",
    "a pixelated photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a photo of the dirty {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a close-up photo of the {}.",
    "a low resolution photo of a {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a pixelated photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "a photo of the large {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
)


def templates(which: Templates, own_templates: Sequence[str] | None = None) -> list[str]:
    """Return the sentences that the texts of the classes are put into, at their "{}".

    `all81` are the text alone and CLIP's 80 templates (Radford 2021), as in the released SEEM;
    `paper32` a selection of them; `own` replaces both.

    Raises:
        UserError: there are no templates of one's own, or one lacks its single "{}".
    """
    if own_templates is None:
        if which is Templates["paper32"]:
            return list(PAPER)
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        return ["{}.", *(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)]
    if not own_templates:
        raise UserError('model.own_templates=[]: name at least one, such as "a photo of a {}."')
    for template in own_templates:
        rest = template.replace("{}", "", 1)
        if rest == template or {"{", "}"} & set(rest):
            raise UserError(
                f"model.own_templates: {template!r} needs one {{}}, the place of the class's "
                'text, and no other braces; for example "a photo of a {}."'
            )
    return list(own_templates)


def token_ids(
    texts: Sequence[str], templates: Sequence[str], context: int
) -> tuple[Tensor, Tensor]:
    """Return the ids of each text in each template for training and for evaluation.

    Both are (K+1, T, context) int64, begin and end tokens included, then zeros. They differ where
    a text has a comma or a plus sign, as in the released program.

    Raises:
        UserError: a text is empty, means background, cannot be told from another, or is too long.
    """
    _refuse_unclear(texts)
    classes = [*texts, BACKGROUND]
    training = _table(classes, templates, context, training_text)
    return training, _table(classes, templates, context, evaluation_text)


def evaluation_text(text: str) -> str:
    """Return a text without the suffixes of COCO's panoptic names, as evaluation tells it."""
    for suffix in ("-other", "-merged", "-stuff"):
        text = text.replace(suffix, "")
    return text


def training_text(text: str) -> str:
    """Return a text as training tells it: also without commas and plus signs."""
    return evaluation_text(text).replace(",", "").replace("+", " ")


@lru_cache(maxsize=2**16)
def encode(text: str) -> tuple[int, ...]:
    """Return the token ids of a text in lower case, between the ids of begin and end."""
    tokenizer = _tokenizer()
    return (tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id)


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _table(
    classes: Sequence[str], templates: Sequence[str], context: int, clean: Callable[[str], str]
) -> Tensor:
    """Ids of all texts in all templates. (K+1, T, context) int64"""
    import torch

    rows = []
    for text in classes:
        for template in templates:
            ids = encode(template.replace("{}", clean(text)))
            if len(ids) > context:
                raise UserError(
                    f"data.prompts: the text {_short(text)} in the template {_short(template)} "
                    f"has {len(ids)} tokens, the model reads {context}; shorten the template or "
                    + CURE
                )
            rows.append([*ids, *[0] * (context - len(ids))])
    return torch.tensor(rows).view(len(classes), len(templates), context)


def _refuse_unclear(texts: Sequence[str]) -> None:
    """Refuse texts that say nothing, and two texts that are the same to the tokenizer."""
    nothing, background = encode(""), encode(BACKGROUND)
    known: dict[tuple[int, ...], int] = {}
    for number, text in enumerate(texts):
        for ids in (encode(training_text(text)), encode(evaluation_text(text))):
            message = f"data.prompts: class {number} is told as {_short(text)}, which"
            if ids == nothing:
                raise UserError(f"{message} says nothing; rename it in the data or {CURE}")
            if ids == background:
                raise UserError(
                    f"{message} is the text of everything that is no class; leave the class out of "
                    f"the data or {CURE}"
                )
            other = known.setdefault(ids, number)
            if other != number:
                raise UserError(
                    f"{message} is the same as {_short(texts[other])} of class {other} to a model "
                    f"that reads (case, commas, plus signs and the ends -other, -merged, -stuff "
                    f"do not count); {CURE}"
                )


def _short(text: str) -> str:
    """Quote a text, or the beginning of a long one."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
