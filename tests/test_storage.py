"""What is written is whole or as it was before, wherever the writing stops."""

from __future__ import annotations

import os

import pytest

from geobind import GeoBindError
from geobind.storage import read_json, recover_folder, replace_folder, write_text, writing


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_text_is_replaced_at_once(tmp_path, monkeypatch):
    path = tmp_path / "space.json"
    write_text(path, "old")

    def stop(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(GeoBindError, match=r"cannot write .*space\.json \(No space left on device\)"):
        write_text(path, "new")
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == {"space.json"}


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_folder_is_whole_wherever_the_swap_stops(stop_at, tmp_path, monkeypatch):
    target = tmp_path / "tower"

    def writer(text):
        def write(folder):
            folder.mkdir()
            (folder / "one").write_text(text)
            (folder / "two").write_text(text)

        return write

    replace_folder(target, writer("old"))
    calls = []
    replace = os.replace

    def stopping(*paths):
        calls.append(paths)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", stopping)
    if stop_at <= 2:
        with pytest.raises(KeyboardInterrupt):
            replace_folder(target, writer("new"))
    else:
        replace_folder(target, writer("new"))
    monkeypatch.undo()
    recover_folder(target)
    found = {path.name: path.read_text() for path in target.iterdir()}
    assert found == dict.fromkeys(("one", "two"), "new" if stop_at == 3 else "old")
    replace_folder(target, writer("newest"))
    assert (target / "one").read_text() == "newest"
    assert names(tmp_path) == {"tower"}


def test_a_writer_that_fails_leaves_the_old_folder(tmp_path):
    target = tmp_path / "tower"
    replace_folder(target, lambda folder: folder.mkdir())

    def half(folder):
        folder.mkdir()
        raise OSError(28, "No space left on device")

    with pytest.raises(GeoBindError, match="No space left"), writing(target):
        replace_folder(target, half)
    assert target.is_dir()


def test_json_is_read_or_named_as_broken(tmp_path):
    assert read_json(tmp_path / "missing.json") == {}
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(GeoBindError, match=r"broken\.json cannot be read"):
        read_json(tmp_path / "broken.json")
