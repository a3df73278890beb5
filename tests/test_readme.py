"""The README tells the truth.

* Its Python runs as it stands, block after block, and prints what the comments say it prints.
* Its commands, their options and its make targets exist.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from geobind.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def promised(code: str) -> list[str]:
    """Comment lines right under a `print`, which show its output."""
    return re.findall(r"^print\(.*\n((?:# .*\n)+)", code, flags=re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


def test_python_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys, own_registry):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    assert len(blocks("python")) == 2
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec", dont_inherit=True), names)
        expected = re.sub(r"^# ", "", "".join(promised(code)), flags=re.MULTILINE)
        assert expected
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("geobind")])
def test_commands_exist_with_their_options(line):
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make")])
def test_make_targets_exist(line):
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_no_command_is_left_unchecked():
    assert {shlex.split(line, comments=True)[0] for line in COMMANDS} == {"geobind", "make", "pip"}
