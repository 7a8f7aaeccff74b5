"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from driftsim.errors import InputError
from driftsim.files import check_place, whole_folder, write_file


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "profile.json"
    write_file(file, "old ü")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_file(file, "new")
    assert error.value.filename == str(file)  # the user's file, not the one beside it
    assert file.read_text(encoding="utf-8") == "old ü"
    assert [one.name for one in tmp_path.iterdir()] == ["profile.json"]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), whole_folder(tmp_path / "deep" / "out") as building:
        (building / "half").write_text("half")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_ours_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="holds 'mine.txt'"):
        check_place(tmp_path / "out", ("rows.csv",))
    with whole_folder(tmp_path / "out", replaces=("mine.txt",)) as building:
        (building / "rows.csv").write_text("new")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["rows.csv"]
