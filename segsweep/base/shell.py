"""The one way that a template becomes text, and the shell that all pages extend.

A page is one file that asks for nothing: `shell.html` with `shell.css` inside. Templates go by
their path below the package, as in `pages/compare.html`; HTML is escaped, Markdown is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from segsweep.base.package import PACKAGE

MARKS = re.compile(r"[\\`<|]|(?<=\])(?=\()")  # of Markdown, that make code, tags, cells, links


def markdown_text(text: str) -> str:
    """Return anybody's text as one line of Markdown that says it, and does nothing else."""
    return MARKS.sub(lambda mark: f"\\{mark[0]}", " ".join(text.splitlines()))


def render(
    template: str, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any
) -> str:
    """Return the text of a template; what it names and is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PACKAGE),
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(**values)
