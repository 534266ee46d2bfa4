"""Words of a config group inside of another word: typed and refused as on the command line."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from segsweep.base.config import Choice, class_of
from segsweep.base.errors import UserError
from segsweep.base.explain import explained
from segsweep.base.fields import check, refuse_references
from segsweep.base.words import content_of


def chosen(group: str, place: str, given: dict[str, Any]) -> Choice:
    """Return the typed word of a group that stands at a place of the config inside another word.

    Args:
        group: of the word.
        place: dotted key, for errors.
        given: the word, as `name`, and the options that differ from its file.

    Raises UserError as `typed`, for words, keys and values that there are not.
    """
    refuse_references(given, place)
    try:
        kind, said = class_of(group, given.get("name")), content_of(group, given.get("name"))
        with explained():
            node = OmegaConf.create({place: OmegaConf.structured(kind)})
            node = OmegaConf.merge(node, {place: said}, {place: given})
            assert isinstance(node, DictConfig)
            word = OmegaConf.to_object(node[place])
    except UserError as error:
        raise UserError(error if str(error).startswith(place) else f"{place}: {error}") from error
    assert isinstance(word, Choice)
    check(word, f"{place}.")
    return word
