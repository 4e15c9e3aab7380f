"""`eva`: what it says to newcomers, to misspelt words, and what it calls."""

import subprocess
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


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_the_first_screen_says_what_to_do_next(said, words):
    code, out, err = said(*words)
    assert (code, err) == (0, "")
    assert out.startswith("eva: the EVA vision transformer")
    for name, group in GROUPS.items():
        assert f"  {name}: {group.text}\n" in out or f"eva {name} " in out
        assert all(step in out for step in group.next_steps)
    assert all(f"eva {name}" in out for name in COMMANDS)


def test_a_task_alone_lists_its_commands(said):
    code, out, err = said("video")
    assert (code, err) == (0, "")
    assert all(f"eva video {verb}" in out for verb in GROUPS["video"].commands)
    assert "predict = demo" in out
    assert "train-tokenizer" not in out


def test_zero_shot_is_a_word_of_clip_alone(said):
    assert "evaluate-zero-shot = evaluate" in said("clip")[1]
    for name in ("detection", "mmdetection", "segmentation", "classification", "video"):
        assert "zero-shot" not in said(name)[1]
        code, _, err = said(name, "evaluate-zero-shot")
        assert code == 2
        assert f"eva {name}: there is no command 'evaluate-zero-shot'" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("detecton",), "eva: there is no command 'detecton'; close to it: eva detection"),
        (("video", "trian"), "there is no command 'trian'; close to it: eva video train"),
        (("clip", "predct"), "there is no command 'predct'; close to it: eva clip demo"),
        (("weights", "xyz"), "eva weights: there is no command 'xyz'; eva weights has: list, get"),
    ],
)
def test_a_misspelt_word_is_corrected(said, words, sentence):
    code, out, err = said(*words)
    assert (code, out) == (2, "")
    assert sentence in err


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
    module = sys.modules[_record.__module__]
    monkeypatch.setattr(command_line.importlib, "import_module", lambda name: module)
    commands = dict(GROUPS["detection"].commands)
    commands["evaluate"] = Command("here", "_record", "", ("--eval-only",))
    group = GROUPS["detection"]._replace(commands=commands)
    monkeypatch.setitem(command_line.GROUPS, "detection", group)
    before = list(sys.argv)
    assert main(["detection", "test", "--resume"]) == 2
    (arguments, seen) = CALLS.pop()
    assert arguments == ["--eval-only", "--resume"]
    assert seen == ["eva detection test", "--eval-only", "--resume"]
    assert sys.argv == before


def test_a_reader_that_has_seen_enough_is_not_an_error():
    command = f"{sys.executable} -m eva_command recipes | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) in ((0, ""), (141, ""))


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(command_line.COMMANDS, "doctor", Command("eva_nothing", "main", ""))
    with pytest.raises(ModuleNotFoundError, match="eva_nothing"):
        main(["doctor"])
