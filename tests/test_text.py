"""Text is text: a name that anybody may have written is shown in every sink as it is, and does nothing there."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from driftsim.cli.app import main
from driftsim.figures import key as legend_key
from driftsim.figures import label, legend, panels, save
from driftsim.formatting import html_table, plain_console, show_table
from driftsim.records import parsed_json
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.text import (
    LONGEST_CELL,
    LONGEST_LINE,
    for_csv,
    for_html,
    for_markdown,
    for_shell,
    for_xml,
    one_line,
    short,
    shown,
    shown_lines,
)
from driftsim.trace.trace import Trace
from tests.commands import Run, driftsim
from tests.strategies import engine, profile, workload
from tests.test_page import in_a_browser, rendered

NAMES = (
    "[red]x[/red]", "[/b]", "[", "`code`", "*a* _b_ __c__", "a|b", "# head", "- item", "1. item", "1) item", "---",
    "===", "<script>document.title='run'</script>", "<img src=x onerror=alert(1)>", "</script><!--", "]]>", "&amp;&lt;",
    "'\"`", "new\nline\r\nhere", "tab\there", "\x1b[31mred\x1b[0m\x1b]0;owned\x07", "\x9b31m", "\x00", "\x7f",
    "\u202eltr", "\u2066\u200f", "a\u2028b\u2029c", "=1+1", "+1", "-1+1", "@SUM(A1)", " =1", "\t=1", "\uff1d1+1",
    "$\\frac$", "$x^2$", "$", "{{7*7}}", "%s{0}", ":smile:", "https://a.example", "www.a.example", "a@b.example",
    "@all", "#1", "_hidden", "", " ", "  two  ", "0", "\\", "~", "größe 大きさ 😀 नमस्ते", "\ufeffa", "\uffff", "x" * 400,
    "other tenants",
)  # fmt: skip
TEXTS = st.sampled_from(NAMES) | st.text(
    st.sampled_from("ab1 \n\r\t\0\x1b\x9b\u202e\u2028`*_[]()<>&\"'|#~$\\@:/.+-=!{}%,;é😀")
)


def acts(text: str) -> list[str]:
    """The characters of ``text`` that do something instead of being seen; a line break between our lines is none."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return [
        one
        for one in text
        if one != "\n"
        and (unicodedata.category(one) in kinds or (unicodedata.category(one) == "Cf" and one not in "\u200c\u200d"))
    ]


@given(TEXTS)
def test_what_is_shown_is_one_line_on_which_nothing_acts(text: str) -> None:
    line = shown(text)
    assert not acts(line)
    assert "\n" not in line
    assert shown(line) == line
    assert not acts(shown_lines(text))
    assert line == text or acts(text.replace("\n", "\r"))


@given(TEXTS)
def test_a_message_has_one_line_of_bounded_length(text: str) -> None:
    for made, most in ((one_line(text * 50), LONGEST_LINE), (short(text * 50), LONGEST_CELL), (label(text * 50), 40)):
        assert len(made) <= most
        assert "\n" not in made
        assert not acts(made)


@given(st.lists(TEXTS, min_size=1))
def test_no_cell_of_a_csv_file_is_computed_or_broken(texts: list[str]) -> None:
    out = io.StringIO()
    csv.writer(out).writerow(["x", *map(for_csv, texts)])
    assert out.getvalue().count("\n") == 1
    (read,) = csv.reader(io.StringIO(out.getvalue()))
    for text, cell in zip(texts, read[1:], strict=True):
        assert cell.removeprefix("'") == shown(text).removeprefix("'")
        assert not re.match(r"\s*[=+\-@\uff1d]", cell) or re.fullmatch(r"[-+]?\d+", cell)


@given(TEXTS)
def test_markdown_shows_the_text_and_formats_nothing(text: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    line = for_markdown(text)
    blocks = parser.parse(line)
    assert [block.type for block in blocks] in ([], ["paragraph_open", "inline", "paragraph_close"])
    table = parser.parse(f"| a | b |\n|---|---|\n| {line} | end |\n")
    cells = [block.children or [] for block in table if block.type == "inline"]
    assert len(cells) == 4
    for children in ([block.children or [] for block in blocks if block.type == "inline"] or [[]]) + [cells[2]]:
        assert {child.type for child in children} <= {"text", "text_special", "html_inline"}
        assert {child.content for child in children if child.type == "html_inline"} <= {"<!-- -->"}
        told = "".join(child.content for child in children if child.type != "html_inline")
        assert told.strip(" ") == shown(text).strip(" ")


@pytest.mark.parametrize("called", ["@all", "#1", "a@b.example", ":smile:", "https://a.example", "www.a.example"])
def test_markdown_calls_nobody_and_links_nothing(called: str) -> None:
    line = for_markdown(f"see {called}")
    assert not re.search(r"[@#]\w|:smile:|://|www\.", line)


class Texts(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(TEXTS)
def test_html_and_xml_hold_the_text_and_no_element(text: str) -> None:
    page = Texts(f'<p title="{for_html(text)}">{for_html(text)}</p>')
    assert page.tags == ["p"]
    assert page.text == shown_lines(text)
    case = ElementTree.Element("case", name=for_xml(text))
    case.text = for_xml(text)
    read = ElementTree.fromstring(ElementTree.tostring(case, encoding="utf-8"))
    assert read.get("name") == (read.text or "")
    assert not acts(read.get("name", ""))


def test_a_shell_reads_the_words_of_a_told_command() -> None:
    words = [name for name in NAMES if "\0" not in name]
    command = for_shell(["printf", "%s\\0", *words])
    assert not acts(command)
    assert "\n" not in command
    told = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
    assert told.decode().split("\0")[:-1] == words


def test_a_notebook_shows_names_and_no_formulas() -> None:
    page = Texts(html_table(pd.DataFrame({"tenant": NAMES})))
    assert {"script", "img"}.isdisjoint(page.tags)
    assert not acts(page.text)
    assert "tex2jax_ignore" in html_table(pd.DataFrame({"tenant": ["$x$"]}))


@pytest.mark.parametrize("width", [1, 17, 80, 5000])
def test_a_terminal_of_any_width_shows_names_as_they_are(width: int) -> None:
    out = io.StringIO()
    console = plain_console(file=out, width=width, force_terminal=True, color_system="truecolor")
    show_table(console, "\x1b[31m[red]", ["name\n", "value\ns"], [[name, "1.5"] for name in NAMES])
    rows = [line for line in out.getvalue().split("\n") if "1.5" in line]
    assert len(rows) == len(NAMES)  # a name has one line, and every number is there
    for name, row in zip(NAMES, rows, strict=True):
        assert short(name).strip() in row
    assert not acts(re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()))  # rich's own styles


def test_figures_draw_names_and_no_formulas(tmp_path: Path) -> None:
    figure, (axes,) = panels(1, 1, 6.0)
    axes.set_yticks(range(len(NAMES)), list(map(label, NAMES)))
    axes.set_title(label("$\\frac$\x1b\n"))
    legend(figure, [legend_key("o", label(name)) for name in ("$\\frac$", "_hidden", "\u202e" * 50, "大きさ")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = save(figure, tmp_path, "names").read_text()
    ElementTree.fromstring(text)
    assert not acts(text)
    for seen in ("$\\frac$", "_hidden", "大きさ", "$x^2$", "[/b]", "&lt;script"):
        assert seen in text


# The verbs


def hostile(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A trace whose every name, note and setting is hostile."""
    count = len(names) + 4
    made = workload([0.05 * place for place in range(count)], [5 + place % 7 for place in range(count)])
    run = simulate(Scenario(profile=profile(engine(max_num_seqs=2))), made, record_steps=True)
    table = run.requests.copy()
    for shift, column in enumerate(("tenant", "category", "predicted_category", "scheduling_class", "error")):
        told = [names[(place + shift) % len(names)] for place in range(count)]
        table[column] = [name or "no name" for name in told] if column == "tenant" else told
    table["tier"] = "=1[/b]"  # whose name begins columns of a result
    every = "".join(names)
    header = run.header.changed(
        notes=names, caveats=names, model=every, hardware=every, clocks=every, captured_at=every, ended_why=every,
        software={name: name for name in names}, engine_arguments={name: name for name in names},
        engine=run.header.engine.changed(name=every, version=every),
        workload=run.header.workload.changed(name=every),
    )  # fmt: skip
    return Trace(header, table, run.steps).write(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose own name is hostile, with a hostile trace, its profile and a grid."""
    folder = tmp_path_factory.mktemp("text") / "a b\nc \x1b[31m\u202e`[b]<i>$y$'\"|@all"
    folder.mkdir()
    hostile(folder / "=t[red]")
    profile(engine(max_num_seqs=2)).changed(model="".join(NAMES), hardware="\x1b[/b]<b>").save(folder / "p.json")
    base = '[base]\ntrace = "=t[red]"\nprofile = "p.json"\n'
    (folder / "g.toml").write_text(f'{base}[grid]\npolicy = ["fifo", "sjf"]\n')
    (folder / "s.toml").write_text('trace = "=t[red]"\nprofile = "p.json"\n')
    return folder


def quiet(run: Run, code: int = 0) -> Run:
    """``run``, whose streams hold nothing that acts, and which ended with ``code``."""
    assert run.returncode == code, run.stderr
    assert not acts(run.stdout)
    assert not acts(run.stderr)
    assert "Warning:" not in run.stderr.replace("Warning: ", "")  # Python's own
    return run


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".csv", ".html", ".md", ".svg", ".xml"):
            yield file, file.read_bytes().decode()


def harmless(folder: Path) -> list[str]:
    """The kinds of files in ``folder``, each of which does nothing."""
    found = []
    for file, text in files(folder):
        if file.suffix == ".html":  # the library's own scripts and styles aside
            text = re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.DOTALL)
        assert not acts(text.replace("\r\n", "\n")), file
        if file.suffix in (".svg", ".xml"):
            ElementTree.fromstring(text)
        if file.suffix == ".csv":
            rows = list(csv.reader(io.StringIO(text)))
            assert not [cell for row in rows for cell in row if cell[:1] in "=+@" and cell]
        found.append(file.suffix)
    return found


def test_compare_shows_names_as_they_are(place: Path) -> None:
    chosen = ("--policies", "fifo,sjf", "--estimators", "static", "--replications", 1, "--profile", place / "p.json")
    run = quiet(driftsim("compare", place / "=t[red]", *chosen, "--out", place / "cmp"))
    for note in ("[red]x[/red]", "`code`", "new\\nline\\r\\nhere", "\\x1b[31mred\\x1b[0m\\x1b]0;owned\\x07", "=1+1"):
        assert f"Note: {note}." in run.stdout.splitlines()
    assert set(harmless(place / "cmp")) == {".csv", ".html", ".svg"}
    kept = json.loads((place / "cmp" / "comparison.json").read_text())
    assert kept["trace"] == "=t[red]"


def test_validate_names_each_tenant_as_it_is(place: Path) -> None:
    run = quiet(driftsim("validate", place / "=t[red]", "--profile", place / "p.json", "--by-tenant"))
    for name in NAMES:
        assert any(line.startswith(short(f"=t[red] {name}").rstrip()) for line in run.stdout.splitlines()), name


def test_a_sweep_in_an_odd_place_goes_through_and_tells_commands_that_a_shell_reads(place: Path) -> None:
    store = place / "store"
    run = quiet(driftsim("sweep", place / "g.toml", "--store", store, "--jobs", 1))
    told = run.stdout.splitlines()[0].rpartition("; ")[2]
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {told}"], capture_output=True, check=True).stdout.decode()
    assert words.split("\0")[:-1] == ["driftsim", "show", str(store)]
    run = quiet(driftsim("show", store, "--group", "trace,policy", "--csv", place / "rows.csv"))
    assert "=t[red]" in run.stdout
    assert quiet(driftsim("show", store, "--where", "policy=[/b]\x1b"), 2).stderr.count("\n") == 1
    reason = "why [x](y) <b> | @all\n# \x1b"
    check = ("check", "--baseline", place / "b.json", "--store", store)
    quiet(driftsim("check", place / "g.toml", *check[1:], "--update", "--reason", reason))
    baseline = json.loads((place / "b.json").read_text())
    assert baseline["reason"] == reason
    for one in baseline["runs"]:
        one["metrics"]["e2e_mean_s"] /= 2
    (place / "b.json").write_text(json.dumps(baseline))
    quiet(driftsim(*check, "--junit", place / "j.xml", "--markdown", place / "m.md"), 1)
    assert {".csv", ".xml", ".md"} <= set(harmless(place))
    html = MarkdownIt("commonmark").enable("table").render((place / "m.md").read_text())
    assert {"i", "b", "a"}.isdisjoint(Texts(html).tags)
    assert html.count("<h3>") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("view", "=t[red]", "--out", "v.json"), ("simulate", "s.toml", "--out", "sim"),
        ("calibrate", "=t[red]", "--out", "q.json"), ("export", "=t[red]", "timed-trace", "--out", "e.jsonl"),
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_every_other_verb_shows_names_as_they_are(place: Path, arguments: tuple[str, ...]) -> None:
    quiet(driftsim(*(place / one if "." in one or one in ("=t[red]", "sim") else one for one in arguments)))


@pytest.mark.parametrize("name", ["[/b]", "a\nb", "\x1b[31m", "\u202e", "a  b", "$\\frac$", "x" * 9000])
def test_an_error_is_one_line_that_shows_the_name(name: str, tmp_path: Path) -> None:
    for arguments in (
        ("compare", name), ("conformance", name), ("columns", name), (name,),
        ("sweep", tmp_path / name[:90], "--store", tmp_path / "s"),
    ):  # fmt: skip
        run = quiet(driftsim(*arguments), 2)
        assert run.stderr.count("\n") == 1
        assert shown(name)[:40] in run.stderr or repr(name)[1:40] in run.stderr
        assert len(run.stderr) <= LONGEST_LINE + 200


@pytest.mark.parametrize(
    "settings",
    [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"COLUMNS": "0"}, {"COLUMNS": "1"}, {"COLUMNS": "-3"}],
    ids=str,
)
def test_any_terminal_shows_the_same(settings: dict[str, str], place: Path) -> None:
    if not (place / "store").exists():
        quiet(driftsim("sweep", place / "g.toml", "--store", place / "store", "--jobs", 1))
    arguments = ("show", place / "store", "--group", "trace,policy")
    plain, other = driftsim(*arguments), driftsim(*arguments, **settings)
    assert "=t[red]" in plain.stdout
    assert re.sub(r"\x1b\[[\d;]*m", "", other.stdout) == plain.stdout


def ended(monkeypatch: pytest.MonkeyPatch, streams: dict[str, TextIO | None], *arguments: str) -> int:
    """The exit code of the command line with ``streams`` in place of stdout and stderr."""
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as changed, pytest.raises(SystemExit) as stop:
        changed.setattr(sys, "argv", ["driftsim", *arguments])
        for name, stream in streams.items():
            changed.setattr(sys, name, stream)
        try:
            main()
        finally:
            signal.signal(signal.SIGTERM, handler)
    return int(stop.value.code or 0)


def test_an_encoding_that_lacks_a_character_shows_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of LC_ALL=C does."""
    out, err = io.BytesIO(), io.BytesIO()
    streams: dict[str, TextIO | None] = {
        "stdout": io.TextIOWrapper(out, "ascii"),
        "stderr": io.TextIOWrapper(err, "ascii"),
    }
    assert ended(monkeypatch, streams, "conformance", "größe") == 2
    assert err.getvalue().decode("ascii").startswith("driftsim: 'gr\\xf6\\xdfe' is neither policy nor estimator")
    assert ended(monkeypatch, streams, "columns", "telemetry") == 0
    assert "\\xb0C" in out.getvalue().decode("ascii")  # a unit


@pytest.mark.parametrize("arguments", [("columns", "steps"), ("columns", "--json")], ids=["a table", "JSON"])
def test_a_reader_that_goes_is_no_error(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    err = io.StringIO()
    with os.fdopen(writes, "w") as out:
        assert ended(monkeypatch, {"stdout": out, "stderr": err}, *arguments) == 141
    assert err.getvalue() == ""


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert ended(monkeypatch, {"stdout": None, "stderr": err}, "columns", "steps") == 0
    assert ended(monkeypatch, {"stdout": out, "stderr": None}, "columns", "nope") == 2
    assert out.getvalue() == err.getvalue() == ""


def test_half_a_character_and_an_argument_that_is_no_text_are_refused() -> None:
    assert parsed_json('"\\ud83d\\ude00"') == "😀"
    with pytest.raises(ValueError, match=r"half a character, \\ud83d"):
        parsed_json('{"a": ["\\ud83d"]}')
    run = driftsim("compare", os.fsdecode(b"\xff"))
    assert run.returncode == 2
    assert "no text" in run.stderr


@in_a_browser
def test_no_name_runs_or_breaks_the_page(place: Path) -> None:
    page = place / "cmp" / "report.html"
    if not page.exists():
        test_compare_shows_names_as_they_are(place)
    probe = place.parent / "probe.html"
    script = "<script>document.documentElement.dataset.wide = document.documentElement.scrollWidth;</script></body>"
    before, _, after = page.read_text().rpartition("</body>")
    probe.write_text(before + script + after)
    drawn = rendered(probe, "--window-size=500,900")
    wide = re.search(r'data-wide="(\d+)"', drawn)
    assert wide
    assert int(wide[1]) <= 500
    assert "<title>driftsim: =t[red]</title>" in drawn
    assert 'data-ready="' in drawn  # our own script came to its end
    assert "img" not in Texts(drawn).tags
