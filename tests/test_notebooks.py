"""The notebooks run from top to end, say what they said when they were stored, and hold no number typed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))


def book(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, 4)  # type: ignore[no-untyped-call, no-any-return]  # typed, says nbformat, and is not


def printed(book: nbformat.NotebookNode) -> list[str]:
    """What the cells print and the tables that they show, in order."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return [text for text in texts if text and not text.startswith("<Figure")]


def test_there_are_two() -> None:
    assert [file.name for file in BOOKS] == ["factorial.ipynb", "tour.ipynb"]


@pytest.mark.parametrize("file", BOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_says_what_it_said(file: Path) -> None:
    stored, now = book(file), book(file)
    NotebookClient(now, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    assert len(printed(stored)) > 4
    assert printed(now) == printed(stored)


@pytest.mark.parametrize("file", BOOKS, ids=lambda file: file.stem)
def test_a_notebook_holds_no_number_typed_by_hand(file: Path) -> None:
    texts = [cell.source for cell in book(file).cells if cell.cell_type == "markdown"]
    assert texts
    for text in texts:
        assert not re.search(r"(?<![A-Za-z])\d", text), text
