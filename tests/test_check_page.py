"""The page of check-data in a real browser: nothing but itself, wide and narrow, text as text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segsweep.verbs.check_data import main
from tests.small_coco import content, write

EVIL = "<script>document.title = 'hacked'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a skipped test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a set with findings of all levels and hostile names."""
    folder = tmp_path_factory.mktemp("set")
    what = content()
    what["categories"][0]["name"] = EVIL
    what["categories"] += [{"id": 1, "name": "<img src=x onerror=alert(1)>"}]
    block = what["annotations"][0]
    what["annotations"] += [
        {**block, "id": "<b>13</b>", "segmentation": [[1, 1]]},
        {**block, "id": 14, "bbox": [1, 2, 3, 4]},
        {**block, "id": 15, "category_id": EVIL},
    ]
    write(folder, train=what, val=json.dumps(what))
    words = ["data=coco", f"data.root={folder}", "--quiet", "--out", str(folder / "out")]
    assert main(words) == 1
    return folder / "out/report.html"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stands_alone(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told, asked = [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert told == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.title().startswith("check-data: coco-")
    assert page.locator("script, img[onerror]").count() == 0
    assert page.get_by_text(EVIL, exact=True).count() >= 2  # a class of both splits
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert page.evaluate(shown)
    assert page.evaluate("document.images.length") >= 6
    for level in ("fatal", "warning", "note"):
        assert page.locator(f"section.finding.{level}").count() >= 1
    page.close()
