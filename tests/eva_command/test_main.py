"""`eva`: its version, and what it calls."""

import sys

import pytest

from eva_command import main as command_line
from eva_command.main import main
from eva_command.table import GROUPS, Command


@pytest.fixture
def said(capsys):
    """Function: run `eva` with words; gives the exit code and what it printed."""

    def run(*words):
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_version(said):
    code, out, _ = said("--version")
    assert code == 0
    assert out.startswith("eva-toolkit ")


CALLS: list[tuple[list[str], list[str]]] = []


def _record(arguments):
    CALLS.append((list(arguments), list(sys.argv)))
    return len(arguments)


def test_a_command_gets_its_arguments_and_its_name(monkeypatch):
    """In front of them those of the table; `sys.argv` is as before afterwards."""
    CALLS.clear()
    commands = dict(GROUPS["detection"].commands)
    commands["evaluate"] = Command(f"{__name__}:_record", "", ("--eval-only",))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[_record.__module__])
    group = GROUPS["detection"]._replace(commands=commands)
    monkeypatch.setitem(command_line.GROUPS, "detection", group)
    before = list(sys.argv)
    assert main(["detection", "test", "--resume"]) == 2
    (arguments, seen) = CALLS.pop()
    assert arguments == ["--eval-only", "--resume"]
    assert seen == ["eva detection test", "--eval-only", "--resume"]
    assert sys.argv == before
