"""The page of a comparison, in a real browser where there is one: its numbers are those of the JSON."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import driftsim as ds
from driftsim.comparison import views
from driftsim.comparison.result import ComparisonResult
from driftsim.comparison.verdict import LABELS
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=2), decode_request_s=0.001)
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")
ODD = "</script><b>&'\"`é"  # a tenant's name that is markup


def busy(count: int, tenants: tuple[str, ...] = ("a", ODD)) -> ds.Workload:
    random = np.random.default_rng(5)
    return workload(
        np.cumsum(random.exponential(0.3, count)).tolist(), random.geometric(0.06, count).clip(1, 60).tolist(),
        tier=random.choice(["premium", "standard", "batch"], count), tenant=random.choice(tenants, count),
        predicted_category=random.choice(["short_qa", "report"], count),
    )  # fmt: skip


def compared(made: ds.Workload, replications: int = 4) -> ComparisonResult:
    policies, estimators = ["stock", "fifo", "sjf"], ["static", "oracle"]
    return ds.compare(
        made, policies=policies, estimators=estimators, profile=PROFILE, replications=replications, jobs=1
    )


@pytest.fixture(scope="module")
def result() -> ComparisonResult:
    return compared(busy(150))


@pytest.fixture(scope="module")
def folder(result: ComparisonResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.write(tmp_path_factory.mktemp("page") / "out")


CELLS = (("E2E means", "e2e_mean_s", 1), ("vs fifo/static", "e2e_mean_vs_fifo", 1), ("E2E P99s", "e2e_p99_s", 1),
         ("TTFT P99s", "ttft_p99_s", 1), ("TPOT P99ms", "tpot_p99_s", 1000))  # fmt: skip


class Page(HTMLParser):
    """What a reader of the page finds: cells by table, text, attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.table, self.cell, self.value = "", False, None
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.attributes.append((tag, own))
        if tag == "table":
            self.table = own.get("id") or f"table {len(self.tables)}"
            self.tables[self.table] = []
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("td", "th"):
            self.tables[self.table][-1].append(("", own.get("data-value")))
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        if self.cell:
            text, value = self.tables[self.table][-1][-1]
            self.tables[self.table][-1][-1] = (text + data, value)


def rendered(file: Path, *options: str) -> str:
    """The page after its scripts ran."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", *options]
    return subprocess.run(
        [*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_the_table_holds_the_numbers_of_the_json(result: ComparisonResult, folder: Path) -> None:
    rows = {
        f"{row['policy']}/{row['estimator']}": row
        for row in json.loads((folder / "comparison.json").read_text())["rows"]
    }
    table = Page((folder / "report.html").read_text()).tables["schedulers"]
    heading = [text for text, _ in table[0]]
    shown = {f"{cells[0][0].rstrip('=')}/{cells[1][0].removesuffix(' (bound)')}": cells for cells in table[1:]}
    assert set(shown) == {str(group[0]) for group in result.groups}
    for name, cells in shown.items():
        for head, metric, factor in CELLS:
            value = cells[heading.index(head)][1]
            if name != "fifo/static" or metric != "e2e_mean_vs_fifo":
                assert float(str(value)) == pytest.approx(factor * rows[name][metric]), (name, head)


def test_the_page_needs_no_network_and_escapes_names(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    page = Page(text)
    for tag, attributes in page.attributes:
        for name in ("src", "href", "action"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:")), (tag, address)
    assert "@import" not in text
    assert ODD not in text.split("<script type=")[0]
    assert "&lt;/script&gt;&lt;b&gt;" in text


def test_the_page_opens_with_the_verdict_and_folds_the_notes(result: ComparisonResult, folder: Path) -> None:
    text = (folder / "report.html").read_text()
    verdict, rest = text.split("</section>", 1)
    for line in result.answer():
        label, _, said = line.partition(": ")
        assert f"<dt>{label}</dt>" in verdict
        assert label in LABELS
        assert said[:30].replace("&", "&amp;").replace("'", "&#39;") in verdict
    assert "<details" in rest
    assert (
        rest.index('id="changes"')
        < rest.index('id="schedulers"')
        < rest.index('id="trust"')
        < rest.index('id="explore"')
    )


@in_a_browser
def test_the_views_show_the_numbers_of_the_json(folder: Path) -> None:
    page = Page(rendered(folder / "report.html"))
    rows = {
        f"{row['policy']}/{row['estimator']}": row
        for row in json.loads((folder / "comparison.json").read_text())["rows"]
    }
    numbers = page.tables["numbers"][1:]
    assert len(numbers) >= 2
    for cells in numbers:
        row = rows[cells[0][0]]
        for place, metric in ((1, "finished"), (2, "e2e_mean_s"), (3, "e2e_p50_s"), (4, "e2e_p90_s"), (6, "e2e_p99_s")):
            assert float(str(cells[place][1])) == pytest.approx(row[metric], rel=1e-6)
    drawn = [
        attributes
        for tag, attributes in page.attributes
        if tag == "svg" and "bar" not in (attributes.get("class") or "")
    ]
    assert len(drawn) >= 6  # every view
    assert any(ODD in text for row in page.tables["tenants"] for text, _ in row)


@in_a_browser
def test_the_page_fits_a_phone(folder: Path) -> None:
    probe = folder / "probe.html"
    script = "<script>document.documentElement.dataset.wide = document.documentElement.scrollWidth;</script></body>"
    before, _, after = (folder / "report.html").read_text().rpartition("</body>")
    probe.write_text(before + script + after)
    wide = re.search(r'data-wide="(\d+)"', rendered(probe, "--window-size=500,900"))
    assert wide
    assert int(wide[1]) <= 500


def test_a_long_run_makes_a_small_page_whose_numbers_are_of_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_ROWS", 400)
    result = compared(busy(3000), replications=1)
    data = views.plain(result, set())
    assert data["thinned"] == [200, 3000]
    own = data["settings"][0]
    row = result.rows()[0]
    count, mean, median, *_, tail = own["exact"]["e2e"][0]
    assert (count, mean, median, tail) == pytest.approx(
        (row["finished"], row["e2e_mean_s"], row["e2e_p50_s"], row["e2e_p99_s"])
    )
    rows = result.traces[result.plan.settings[0]].requests
    inside = (rows["finish_s"] - rows["scheduled_s"]).sum() / data["last"]
    assert np.mean(own["inflight"][0]) == pytest.approx(inside, abs=0.02)
    waiting = (rows["scheduled_s"] - rows["arrival_s"]).sum() / data["last"]
    assert np.mean(own["waiting"][0]) == pytest.approx(waiting, abs=0.02)
    tenants = [np.mean(series) for series in own["waiting"][1:]]
    assert sum(tenants) == pytest.approx(waiting, abs=0.05)


def test_the_library_is_the_published_one_with_its_licence() -> None:
    page = files("driftsim.comparison") / "page"
    assert "Apache Software Foundation" in (page / "echarts-NOTICE").read_text()
    assert "Apache License" in (page / "echarts-LICENSE").read_text()
    assert '"6.1.0"' in (page / "echarts.common.min.js").read_text()
