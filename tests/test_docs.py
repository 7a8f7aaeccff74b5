"""The documentation: what it shows runs, what it links to exists, what it names is there."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import driftsim as ds
from driftsim import inputs
from driftsim.calibration.calibrate import fit_own_profile
from driftsim.cli import app
from driftsim.sweeps import tasks
from tests.commands import driftsim

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
WRITTEN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "notebooks/README.md",
           "traces/README.md", "experiments/README.md", "experiments/paper/README.md")  # fmt: skip
PAGES = [*(ROOT / name for name in WRITTEN), *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)
EXAMPLE = re.compile(r"<!-- (example-\w+) -->.*?<!-- end \1 -->", re.S)  # test_examples runs these
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\((?P<target>[^)\s#]*)(?:#(?P<anchor>[^)\s]+))?\)")
ELSEWHERE = {"dask_jobqueue", "dask_kubernetes"}  # what only a cluster has
UNKNOWN = re.compile(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b|\bHOST\b|RESULT\.json")  # stands for what only the reader knows
FEWER = {  # so that a command takes a second
    "compare": ("--replications", "1", "--jobs", "1"), "sweep": ("--jobs", "1"), "check": ("--jobs", "1"),
    "capacity": ("--replications", "1", "--jobs", "1"), "value": ("--replications", "1", "--jobs", "1"),
    "advise": ("--replications", "1", "--jobs", "1"),
}  # fmt: skip


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A code block of a page; ``title`` is the file that it shows, if it shows one."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = EXAMPLE.sub("", page.read_text())
    return [Block(one["language"], one["title"] or "", one["text"]) for one in FENCE.finditer(text)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line of a console block, without what a shell makes of them."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the blocks of all pages run, with the repository's folders in it."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("examples", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "traces").mkdir()
    for trace in (ROOT / "traces").iterdir():
        (folder / "traces" / trace.name).symlink_to(trace)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_fit_of_a_run() -> Iterator[None]:
    """A run is fitted once for all pages: each command would read and fit it anew."""
    fitted: dict[object, Any] = {}

    def once(trace: ds.Trace) -> Any:
        known = trace.source and trace.source.resolve(), trace.digest, len(trace.requests)
        if known not in fitted:
            fitted[known] = fit_own_profile(trace)
        return fitted[known]

    with pytest.MonkeyPatch.context() as patch:
        for module in (inputs, tasks):
            patch.setattr(module, "fit_own_profile", once)
        yield


class Reader:
    """Follows a page from the top, as somebody would who types it in.

    What needs an engine, a server or a cluster is parsed and not run, nor is what works on its result. The demo is run
    by test_package.
    """

    ran: dict[tuple[str, ...], str] = {}  # commands that have run, with the page: the same again need not

    def __init__(self, place: Path) -> None:
        self.place = place
        self.names: dict[str, Any] = {"__name__": "page"}
        self.never_made: list[str] = []  # paths that a command would have made which cannot run here

    def follow(self, block: Block) -> None:
        if block.title and "." in block.title and " " not in block.title:
            text = re.sub(r"^replications = \d+", "replications = 1", block.text, flags=re.M)
            (self.place / block.title).write_text(text)
        if block.language == "python":
            self.python(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "console":
            for words in commands(block.text):
                self.command(words)

    def python(self, text: str) -> None:
        code = compile(text, "page", "exec")
        if any(name in text for name in ELSEWHERE):
            return
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, self.names)

    def command(self, words: list[str]) -> None:
        if words[0] == "make":
            target = words[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"no target {target}"
            return
        if words[0] not in ("driftsim", ".venv/bin/driftsim"):
            assert words[0] in ("pip", ".venv/bin/pip", "dask", "git", ".venv/bin/python"), f"what is {words[0]}?"
            return
        verb, *arguments = words[1:]
        arguments = [path for word in arguments for path in (sorted(map(str, Path().glob(word))) or [word])]
        read = parsed(verb, arguments)
        if verb in ("capture", "demo", "serve") or "--address" in arguments or self.out_of_reach(arguments):
            self.never_made += [str(read[name]) for name in ("out",) if read.get(name)]
            return
        more = FEWER.get(verb, ())
        arguments += [] if not more or more[0] in arguments or "--captured" in arguments else more
        if (verb, *arguments) not in self.ran:
            run = driftsim(verb, *arguments)
            assert run.returncode == 0, (words, run.stderr)
            self.ran[verb, *arguments] = run.stdout

    def out_of_reach(self, arguments: list[str]) -> bool:
        return any(UNKNOWN.search(word) or word in self.never_made for word in arguments)


def parsed(verb: str, arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of ``arguments``; an unknown verb or option is an error."""
    group: Any = app.command()
    assert verb in group.commands, f"no verb {verb}"
    context = group.commands[verb].make_context(verb, list(arguments))
    return dict(context.params)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_what_a_page_shows_runs(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    reader = Reader(place)
    for block in blocks(page):
        reader.follow(block)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("driftsim comprae traces/x", "no verb comprae"),
        ("driftsim compare traces/x --polices fifo", "polices"),
        ("driftsim compare traces/nowhere", "no such trace folder"),
        ("make tea", "no target tea"),
    ],
)
def test_a_planted_mistake_on_a_page_is_caught(
    words: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(Exception, match=message):
        Reader(place).follow(Block("console", "", words))


# -- names, links, the way through the pages


@cache
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link into ``page`` can lead to: its headings, as Python-Markdown and GitHub both name them."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", hooks().with_api(page.read_text())), re.M)
    found = set()
    for heading in headings:
        own = re.search(r"\{#([^}]+)\}", heading)
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(own[1] if own else re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for link in LINK.finditer(text):
        target, anchor = link["target"], link["anchor"]
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "mailto:")), target
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{link[0]}: there is no {target}"
        if DOCS in page.parents and file.is_dir() and DOCS in file.parents:
            pytest.fail(f"{link[0]}: the site has no page for a folder; name its index.md")
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{link[0]}: {name_of(file)} has no heading #{anchor}"


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    assert sorted(re.findall(r"[\w/-]+\.md", navigation)) == sorted(
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")
    )


def test_the_python_reference_has_every_name_of_the_door() -> None:
    page = (DOCS / "reference" / "python.md").read_text()
    asked = [name for line in hooks().ASKED.finditer(page) for name in line["names"].split()]
    assert sorted(asked) == sorted(ds.__all__)
    shown = hooks().with_api(page)
    for name in ds.__all__:
        documentation = inspect.getdoc(getattr(ds, name)) or ""
        first = " ".join(documentation.split("\n\n")[0].replace("``", "`").split())
        assert f"### `{name}` {{#{name}}}" in shown
        assert first.split(".")[0] in shown, name
        value = getattr(ds, name)
        if not inspect.isclass(value):
            for parameter in inspect.signature(value).parameters:
                assert re.search(rf"\b{parameter}\b", shown), (name, parameter)


def test_links_that_leave_the_docs_lead_to_figures_and_to_the_repository() -> None:
    text = "![a](../../experiments/x.png) [b](../../driftsim/engine) [c](code.md) [d](https://e.org) `[e](../../f)`\n"
    text += "```python\n[g](../../README.md)\n```\n[h](../../README.md#citing-and-licence)\n"
    kept: list[Path] = []

    def keep(figure: Path) -> str:
        kept.append(figure)
        return "figures/x.png"

    led = hooks().redirected(text, DOCS / "explanation" / "laws.md", keep)
    home = hooks().HOME
    assert kept == [ROOT / "experiments" / "x.png"]
    assert f"![a](figures/x.png) [b]({home}/tree/main/driftsim/engine) [c](code.md) [d](https://e.org)" in led
    assert "```python\n[g](../../README.md)\n```" in led
    assert f"[h]({home}/blob/main/README.md#citing-and-licence)" in led


def check_names_tests(section: str) -> None:
    """Fail unless ``section`` of a page names tests, each of which is there."""
    title = section.splitlines()[0]
    held = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", section)
    assert held, f"{title}: no test is named"
    for file, name in held:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M), f"{title}: {file} has no {name}"


def test_every_law_names_tests_that_exist() -> None:
    page = (DOCS / "explanation" / "laws.md").read_text()
    sections = page.split("\n## ")[1:]
    assert len(sections) >= 15
    for section in sections:
        check_names_tests(section)
        assert "**What taught it.**" in section, section.splitlines()[0]


def test_every_promise_of_the_threat_model_names_tests_that_exist() -> None:
    page = (DOCS / "explanation" / "threat-model.md").read_text()
    promises = page.split("\n## What is not trusted")[1].split("\n## What is not promised")[0].split("\n## ")[1:]
    assert len(promises) >= 6
    for promise in promises:
        check_names_tests(promise)


def test_every_rule_of_vllm_names_its_file() -> None:
    page = (DOCS / "explanation" / "vllm-rules.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| rule")]
    assert len(rows) > 12
    assert all(re.search(r"`(v1|config)/[\w/]+\.py`", row) for row in rows)


def test_the_traps_that_the_code_speaks_of_are_those_of_the_page() -> None:
    numbers = re.findall(r"^## (\d+) ", (DOCS / "explanation" / "traps.md").read_text(), re.M)
    assert numbers == [str(number) for number in range(1, 12)]
    for file in (ROOT / "driftsim").rglob("*.py"):
        for path in re.findall(r"\bdocs/[\w/.-]+\.md", file.read_text()):
            assert (ROOT / path).is_file(), f"{name_of(file)} speaks of {path}"


def test_options_in_tables_exist() -> None:
    known = {option for verb in typer_commands() for option in verb}
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        table = "".join(line for line in page.read_text().splitlines() if line.startswith("| "))
        for code in re.findall(r"`([^`]+)`", table):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code):
                assert option in known or "vllm bench" in code, f"{name_of(page)}: {option}"


def typer_commands() -> Iterator[list[str]]:
    group: Any = app.command()
    for command in [group, *group.commands.values()]:
        yield [option for one in command.params for option in (*one.opts, *getattr(one, "secondary_opts", ()))]


def test_make_targets_exist_and_ci_runs_what_the_pages_ask_for() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in set(re.findall(r"`make ([a-z]+)\b", page.read_text())):
            assert re.search(rf"^{target}:", makefile, re.M), f"{name_of(page)}: make {target}"
    ran = (ROOT / ".ci" / "run").read_text()
    assert all(f"make {target}" in ran for target in ("lint", "demo", "test", "check", "docs", "live", "bench"))


def test_page_one_is_one_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text) < 7500
    assert text.count("\n") < 140


def test_the_site_asks_nobody_else() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in config
    assert "repo_url" not in config  # the theme would ask GitHub for its stars
    assert not re.findall(r"https?://", config)
    assert os.path.commonpath([ROOT / "out", ROOT / re.findall(r"site_dir: (\S+)", config)[0]]) == str(ROOT / "out")
