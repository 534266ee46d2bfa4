"""The report: a decision that keeps every limit, in Python and in a browser, on one page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from segsweep.analysis.study import recorded
from segsweep.base.config import compose
from segsweep.base.content import content_of
from segsweep.base.errors import UserError
from segsweep.data.formats import masks
from segsweep.pages.report import content
from segsweep.pages.report.charts import groups, short
from segsweep.pages.report.page import MOST
from segsweep.pages.report.pictures import galleries
from segsweep.results.candidates import Contest, contests
from segsweep.results.decision import decide
from segsweep.results.frame import read
from segsweep.results.grounds import brief
from segsweep.results.tables import ablation
from segsweep.results.typeset import html
from segsweep.results.wishes import Limit, Wishes
from segsweep.results.wording import ROW
from segsweep.run import predictions
from segsweep.run.folder import file_facts
from segsweep.run.identity import Run
from segsweep.run.record import data_facts
from segsweep.sweeps.names import remember
from segsweep.sweeps.sweeper import composing, configs
from segsweep.verbs.report import main
from tests.contests import EVIL, EXAMPLES, NOISY, UNSTABLE, analysis, cases
from tests.records import record, write


def test_axes_have_round_ticks_inside(tmp_path: Path) -> None:
    write(tmp_path, record("full_head", 50.0, trainable=300_000))
    write(tmp_path, record("lora", 49.5, rank=2, trainable=20_000))
    runs = read(tmp_path).runs
    group = groups(ablation(runs), runs, tmp_path)["Against trained parameters"]
    (svg,) = group.svgs
    assert group.caption.startswith("δ: difference to the full head")
    assert "Bars: 95 %" not in group.caption  # one run each has none
    assert "Crossed out" not in group.caption
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert [text for text in texts if text.endswith("k")] == ["30k", "100k", "300k"]
    assert {"−1.0", "−0.5", "0.0", "0.5"} <= set(texts)
    assert short(2_500_000) == "2.5M"


def found_all(folder: Path, *words: str) -> Run:
    """Leave a run of the frozen base as if it had found every object of its two images."""
    few = ["peft=frozen", "data.train=4", "data.val=2", f"io.results={folder}"]
    run = Run(compose([*few, *words]))
    data = run.config.data
    run.directory.mkdir(parents=True)
    run.prepare()
    head = {"run": run.id, "split": "val", "classes": data.classes(), "data": data.fingerprint()}
    with predictions.writing(run.directory / predictions.FILE, head) as writer:
        for image in data.records("val"):
            size = (image.height, image.width)
            found = [
                {"category_id": a.category, "score": 0.9, "bbox": a.bbox,
                 "segmentation": masks.encode(masks.to_mask(a.segmentation, size)[None])[0]}
                for a in image.annotations
            ]  # fmt: skip
            writer.add(image.image_id, found)
    file = predictions.read(run.directory / predictions.FILE)
    known = {"files": file_facts(run.directory), "analysis": recorded(run.config, file)}
    facts = {"status": "done", "data": data_facts(data)}
    write(folder, record("frozen", 99.0, trainable=0) | run.head() | facts | known)
    return run


def test_pictures_are_found_whatever_a_data_set_is_called(tmp_path: Path) -> None:
    real = found_all(tmp_path)
    other = found_all(tmp_path, "data.train=5")  # so that both are named with their number
    runs = read(tmp_path).runs
    found = contests(runs, {})
    assert sorted(task.name for task in found) == [
        "digits (clean, train=4)",
        "digits (clean, train=5)",
    ]
    assert [one.runs for task in found for one in task.candidates] == [[real.name], [other.name]]
    (table,) = galleries(found[:1], [decide(found[0], Wishes())], tmp_path)
    assert (len(table.rows), table.remark) == (2, "")


def _words(method: str, data: str, rank: int) -> list[str]:
    return [f"peft={method}", f"data={data}", "seed=0", *[f"peft.rank={rank}"] * (method == "lora")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of a sweep, with three seeds, a failure and hostile words."""
    folder = tmp_path_factory.mktemp("report") / "results"
    real = found_all(folder)
    runs = []
    for seed in range(3):
        for method, ap, size, found in (
            ("lora", 40.0, 400_000, (60.0, 90.0)),
            ("adapter", 41.0, 900_000, (90.0, 40.0)),
            ("full_head", 45.0, 9_000_000, (80.0, 70.0)),
        ):
            one = record(method, ap + seed / 4, trainable=size, seed=seed)
            runs.append(one | {"analysis": analysis(*found, value=ap - 10)})
    failed = record("lora", None, rank=4)
    failed["error"]["message"] = f"CUDA out of memory {EVIL}"
    runs += [failed, record("adapter", 30.0, data="coco", domain=f"a/{EVIL}")]
    directories = write(folder, *runs)
    curve = [{"step": k, "epoch": k, "time": 1.0, "segm_AP": 30.0 + k} for k in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in curve)
    (directories[0] / "metrics.jsonl").write_text(text)
    names = [real.name, *(path.name for path in directories), "maskdino_tiny-lora-digits-0123"]
    words = [_words(*name.split("-")[1:3], rank=8) for name in names]
    words[0].append("data.domain=clean")  # the others are of another domain
    words[names.index(f"{failed['name']}")] = _words("lora", "digits", rank=4)
    remember(folder, "half", dict(zip(names, words, strict=True)))
    return folder


@pytest.fixture(scope="module")
def page_file(results: Path) -> Path:
    assert main(["half", "--results", str(results), "--miss-cost", "0", "--size-mb", "20"]) == 0
    return results / "report.html"


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, whose errors and requests are collected."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.told, page.asked = [], []
    page.on("console", lambda message: page.told.append(message.text))
    page.on("pageerror", lambda error: page.told.append(str(error)))
    page.on("dialog", lambda dialog: page.told.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(page_file.as_uri())
    yield page
    assert page.told == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_repeats_of_a_seed_are_one_value(tmp_path: Path) -> None:
    for seed, repeat, ap in ((0, 0, 40.0), (0, 1, 42.0), (1, 0, 44.0)):
        write(tmp_path, record("lora", ap, seed=seed, repeat=repeat))
    (task,) = contests(read(tmp_path).runs, {})
    (candidate,) = task.candidates
    assert sorted(candidate.values) == [41.0, 44.0]


def test_the_summary_says_what_is_done_and_what_to_choose(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = results / "other" / "page.html"
    words = ["half", "--results", str(results), "--size-mb", "5", "--no-pictures"]
    assert main([*words, "--out", str(out), "--must-pass", f"site={EVIL}>=25"]) == 0
    said = capsys.readouterr().out
    assert "13 runs: 11 done, 1 new, 1 failed" in said
    assert re.search(r"digits \(xray\).*\n  3 of 4 settings are done.\n  Choose", said)
    assert "chosen on the very images that are reported" in said
    assert "  Choose LoRA" not in said.partition("digits (xray)")[0]
    assert re.search(r"digits \(xray\).*\n.*\n  Choose Adapters", said)
    assert f"wrote {out}" in said
    assert out.stat().st_size < MOST
    with pytest.raises(UserError, match="no finished run has"):
        main([*words, "--must-pass", "night>=3"])


def test_everything_stands_on_one_small_page(page: Any, page_file: Path) -> None:
    assert page_file.stat().st_size < MOST
    assert page.locator("h1").inner_text() == "half"
    assert page.locator("script[src], link[rel=stylesheet], img[onerror]").count() == 0
    assert page.locator("body").inner_text().count("alert(1)") >= 3  # class, path, message: text
    states = page.locator("ul.counts").inner_text()
    assert re.sub(r"\s+", " ", states) == "11 done 1 not begun 1 failed"
    assert "r: peft.rank" in page.locator("body").inner_text()
    failure = page.locator("[aria-label=Failures] tbody tr").inner_text()
    assert "CUDA out of memory" in failure
    assert "python -m segsweep retry maskdino_tiny-lora-digits-" in failure
    assert (
        "maskdino_tiny-lora-digits-0123" in page.locator("[aria-label='Not finished']").inner_text()
    )
    assert page.locator("figure svg g[data-tip]").count() >= 3
    assert page.locator("img").count() >= 2  # ground truth and the base
    assert page.evaluate("[...document.images].every(i => i.src.startsWith('data:image/jpeg'))")
    heads = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert all(b - a <= 1 for a, b in pairwise(heads))


def test_headings_sort_by_mouse_and_keyboard(page: Any) -> None:
    table = page.locator("article.task table").last
    cells = table.locator("tbody td:nth-child(2)")
    values = lambda: [float(v.split()[0]) for v in cells.all_inner_texts()]  # noqa: E731
    head = table.locator("thead th").nth(1)
    head.locator("button").click()
    assert values() == sorted(values(), reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert values() == sorted(values())
    table.locator("thead th").first.locator("button").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert head.get_attribute("aria-sort") is None


def test_tooltips_name_the_runs(page: Any, results: Path) -> None:
    cell = page.locator("#tables ~ .scroll a[data-tip]").first
    cell.hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    named = re.search(r"runs/([\w-]+)/config.yaml", tip.inner_text())
    assert named
    assert (results / "runs" / named[1]).is_dir()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.locator("figure svg g[data-tip]").first.focus()
    assert "parameters trained" in tip.inner_text()
    cell.click()
    assert page.locator("#runs").get_attribute("open") is not None


def wishes_on(page: Any, wishes: Wishes) -> None:
    """Type wishes into the form."""
    texts = {"latency": wishes.latency, "size": wishes.size, "miss": wishes.miss_cost,
             "false": wishes.false_alarm_cost, "margin": wishes.margin}  # fmt: skip
    for name, value in texts.items():
        page.fill(f"#{name}", "" if value is None else str(value))
    for limit in wishes.must:
        row = page.locator(".must").last
        row.locator("select").first.select_option(limit.what)
        row.locator("select").nth(1).select_option("most" if limit.at_most else "least")
        row.locator("input").fill(str(limit.bound))
        page.click("#more")


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(size=20.0),
        Wishes(size=2.0),
        Wishes(size=20.0, margin=0.25),
        Wishes(margin=6.0, miss_cost=1.0),
        Wishes(size=5.0, miss_cost=50, false_alarm_cost=1),
        Wishes(miss_cost=1, false_alarm_cost=10),
        Wishes(latency=20.0),
        Wishes(size=2.0, must=[Limit("segm_AP50", False, 64.0), Limit("recall", False, 70.0)]),
        Wishes(must=[Limit(f"site={EVIL}", False, 30.5), Limit("dAP missed", True, 8.0)]),
    ],
)
def test_inputs_decide_as_the_terminal_does(page: Any, results: Path, wishes: Wishes) -> None:
    wishes_on(page, wishes)
    found = content.gather(results, ["half"], results / "report.html", False)
    for i, task in enumerate(found.contests):
        article, decision = page.locator("article.task").nth(i), decide(task, wishes)
        shown = article.locator(".decision p").all_inner_texts()
        assert shown == decision.words
        marked = article.locator("tr.chosen").evaluate_all("rows => rows.map(r => r.dataset.name)")
        assert marked == ([decision.chosen] if decision.chosen else [])
        losses = article.locator("tbody tr").evaluate_all(
            "rows => rows.map(r => [r.dataset.name, r.querySelector('.worse').textContent])"
        )
        known = {name: f"{loss:.2f}" for name, loss in decision.worse.items() if loss is not None}
        assert {name: text for name, text in losses if text != "—"} == known
        if wishes.priced() and (own := [one for one in task.candidates if one.outcomes]):
            cost = wishes.price(own[0])
            rows = article.locator("tbody tr")
            row = rows.nth(task.candidates.index(own[0]))
            assert row.locator(".cost").inner_text() == f"{cost:.2f}"


def test_the_browser_decides_as_python_does(page: Any) -> None:
    seen = [(task, Wishes(margin=margin)) for task in EXAMPLES for margin in (0.25, 1.0, 2.0, 7.0)]

    @given(cases())
    @settings(max_examples=50, deadline=None, database=None)
    def gather(case: tuple[Contest, Wishes]) -> None:
        seen.append(case)

    gather()
    asked = [[brief(task, wishes.floor), asdict(wishes)] for task, wishes in seen]
    told = page.evaluate("asked => asked.map(([task, wishes]) => decide(task, wishes))", asked)
    for (task, wishes), answer in zip(seen, told, strict=True):
        assert answer == asdict(decide(task, wishes))


def test_what_is_unstable_reads_alike_in_terminal_and_browser(
    browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for domain, task in (("xray", UNSTABLE), ("night", NOISY)):
        for method, c in zip(("lora", "adapter", "full_head"), task.candidates, strict=True):
            size = {"trainable": round(c.trained), "domain": domain}
            write(tmp_path, *(record(method, ap, seed=k, **size) for k, ap in c.by_seed.items()))
    assert main(["--results", str(tmp_path)]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    for _ in range(2):
        assert page.locator(".decision p").all_inner_texts() == said
        page.fill("#margin", "1")  # the script says it anew
    page.close()
    assert [words.partition(":")[0] for words in said if words.startswith("Choose")] == [
        "Choose Adapters (I=1, κ+λ)"
    ] * 2
    assert any("hides nearly everything" in words for words in said)
    assert any(words.startswith("LoRA (r=8) is unstable") for words in said)


def test_runs_without_a_sweep_are_counted_by_their_configs(tmp_path: Path) -> None:
    mine = tmp_path / "mine.pth"  # is known by its content once a run has ended
    mine.write_bytes(b"weights")
    words = ["data.train=4", "data.val=2", f"io.results={tmp_path}", f"model.weights={mine}"]
    for method in ("frozen", "lora", "adapter"):
        for seed in (0, 1):
            run = Run(compose([f"peft={method}", f"seed={seed}", *words]))
            run.directory.mkdir(parents=True)
            run.prepare()
            if method == "lora" and seed == 0:
                known = {"sha256": content_of(mine)}
                write(tmp_path, record() | run.head() | {"status": "done", "weights": known})
    report = content.gather(tmp_path, [], tmp_path / "report.html", False)
    assert [task.missing for task in report.contests] == [2]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_wide_and_narrow_windows_show_all(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_long_names_are_elided_and_what_stands_above_tables_is_seen_at_once(
    browser: Any, tmp_path: Path
) -> None:
    """The whole name is a tooltip; nothing but tables scrolls, and their captions do not."""
    long = "a_very_long_name_as_programs_write_it_" * 4
    settings = (("lora", 40.0, long), ("lora", 41.0, long[::-1]), ("full_head", 45.0, ""))
    runs = [
        record(method, ap, data="coco", domain=long, where=where, seed=seed)
        for method, ap, where in settings
        for seed in range(2)
    ]
    write(tmp_path, *runs)
    assert main(["--results", str(tmp_path)]) == 0
    page_of_tables = tmp_path / "tables.html"
    page_of_tables.write_text(html(ablation(read(tmp_path).runs)), encoding="utf-8")
    page = browser.new_page(viewport={"width": 420, "height": 900})
    for file in (tmp_path / "report.html", page_of_tables):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        ends = "e => e.map((each) => each.getBoundingClientRect().right)"
        assert all(end <= 420 for end in page.locator("caption span").evaluate_all(ends))
        heads = page.locator("th").all_inner_texts()
        assert max(map(len, heads)) <= ROW + len(" ↕↑")
        assert page.locator(f"th[title*='{long}']").count() >= 2
    page.close()


def test_an_empty_folder_says_how_to_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", str(tmp_path)]) == 0
    assert "+sweep=pilot" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="neither a sweep nor a run"):
        main(["nothing", "--results", str(tmp_path)])


def test_a_sweep_that_has_not_begun_has_a_page(tmp_path: Path) -> None:
    remember(tmp_path, "pilot", {"a-b-c-0123": ["peft=lora", "seed=0"]})
    assert main(["pilot", "--results", str(tmp_path)]) == 0
    assert "No run has finished yet" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_published_tables_stand_beside_ours_on_request(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    published = Path(__file__).parents[1] / "results" / "reported"
    shutil.copytree(published, tmp_path / "results" / "reported")
    words = ["half", "--results", str(tmp_path / "results"), "--reported", "--no-pictures"]
    assert main(words) == 0
    text = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert "Published tables" in text
    assert len(text.encode()) < MOST


def test_the_pilot_is_staged_and_has_three_seeds() -> None:
    with composing(["+sweep=pilot", "data=coco", "data.root=x"]) as (_, runs):
        pass
    stages = ["frozen", "lora peft.rank=4", "lora peft.rank=8"]
    stages += ["adapter peft.repeats=2", "adapter peft.repeats=3", "full_head"]
    words = [f"peft={stage} seed={seed} data=coco data.root=x" for stage in stages
             for seed in range(3)]  # fmt: skip
    assert [" ".join(run) for run in runs] == words
    assert next(configs(["+sweep=pilot", "data=digits"]))[1].peft.name == "frozen"


def test_the_verb_starts_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from segsweep.verbs.report import main; "
        f"main(['--results', {str(tmp_path)!r}]); "
        "sys.exit(bool({'torch', 'pandas', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
