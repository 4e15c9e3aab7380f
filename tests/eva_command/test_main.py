"""`eva`: what it says to newcomers, to misspelt words, and what it calls."""

import sys

import pytest

from eva_command import main as command_line
from eva_command.main import main
from eva_command.table import COMMANDS, GROUPS, Command


@pytest.fixture
def said(capsys):
    """Function: run `eva` with words; gives the exit code and what it printed."""

    def run(*words):
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_the_first_screen_says_what_to_do_next(said, words):
    code, out, err = said(*words)
    assert (code, err) == (0, "")
    for name, group in GROUPS.items():
        assert f"  {name}: {group.text}\n" in out or f"eva {name} " in out
        assert all(step in out for step in group.next_steps)
    assert all(f"eva {name}" in out for name in COMMANDS)


def test_a_task_alone_lists_its_commands(said):
    code, out, err = said("clip")
    assert (code, err) == (0, "")
    assert all(f"eva clip {verb}" in out for verb in GROUPS["clip"].commands)
    assert "predict = demo" in out
    assert "evaluate-zero-shot = evaluate" in out
    assert "train-tokenizer" not in out


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("detecton",), "eva detection"),
        (("video", "trian"), "eva video train"),
        (("clip", "predct"), "eva clip demo"),
        (("weights", "xyz"), "list, get"),
    ],
)
def test_a_misspelt_word_is_corrected(said, words, suggestion):
    code, out, err = said(*words)
    assert (code, out) == (2, "")
    assert words[-1] in err
    assert suggestion in err


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


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(command_line.COMMANDS, "doctor", Command("eva_nothing:main", ""))
    with pytest.raises(ModuleNotFoundError, match="eva_nothing"):
        main(["doctor"])
