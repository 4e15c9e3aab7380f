"""`eva`: what it says to newcomers, to misspelt words, and what it calls."""

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("lines", [1, 30000])
def test_a_reader_that_has_seen_enough_is_not_an_error(lines):
    """As in `eva recipes | head -1`: no message, whether the rest fits into the pipe or not."""
    script = (
        "import sys\nfrom eva_command import main as m\nfrom eva_command.table import Command\n"
        "from eva_runs.commands import exit_code, say\n"
        f"def lines(): return [say('line') for _ in range({lines})] and 0\n"
        "def talk(arguments): return exit_code(lines)\n"
        "m.COMMANDS['recipes'] = Command('__main__', 'talk', '')\n"
        "sys.stdin.read()\nsys.exit(m.main(['recipes']))"
    )
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)


def test_a_reader_that_has_seen_enough_of_a_recipes_help(monkeypatch, capsys):
    """The library that writes it flushes each line."""

    def broken(arguments):
        raise BrokenPipeError

    monkeypatch.setitem(sys.modules[__name__].__dict__, "_record", broken)
    monkeypatch.setitem(command_line.COMMANDS, "recipes", Command(__name__, "_record", ""))
    assert main(["recipes"]) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("words", ["", "recipes", "video", "recipes --help", "--version"])
@pytest.mark.parametrize(
    ("output", "sentence"),
    [("/dev/full", "cannot be written: No space left on device"), ("&-", "is closed")],
)
def test_output_that_cannot_be_written_is_one_sentence(words, output, sentence):
    if (words, output) == ("recipes --help", "&-"):
        pytest.skip("argparse shows its help on the standard error output instead")
    command = f"unset PYTHONUNBUFFERED; {sys.executable} -m eva_command {words} >{output}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert f"the standard output {sentence}" in line


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(command_line.COMMANDS, "doctor", Command("eva_nothing", "main", ""))
    with pytest.raises(ModuleNotFoundError, match="eva_nothing"):
        main(["doctor"])
