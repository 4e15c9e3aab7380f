"""How a command ends, and which files it may write."""

import io
import os

import pytest

from eva_data.files import UnwritableError
from eva_runs.commands import check_outputs, exit_code, program, say


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("a.json is not JSON"), 2, "error: a.json is not JSON\n"),
        (FileNotFoundError("there is no file a"), 2, "error: there is no file a\n"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written\n"),
    ],
)
def test_what_the_user_can_fix_is_a_sentence(capsys, error, code, message):
    assert exit_code(lambda: _raise(error)) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "caf\\udce9 猫\n"), ("ascii", "caf\\udce9 \\u732b\n")]
)
def test_names_that_the_output_cannot_show_are_escaped(encoding, shown, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", stream)
    say(os.fsdecode(b"caf\xe9") + " 猫")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == shown


def test_a_bug_is_a_traceback():
    with pytest.raises(TypeError):
        exit_code(lambda: _raise(TypeError("a bug")))


def test_a_commands_own_words(capsys):
    assert exit_code(lambda: 1) == 1
    assert exit_code(lambda: _raise(ValueError("no")), refused=1, name="program.py") == 1
    assert exit_code(lambda: _raise(KeyboardInterrupt()), interrupted="it continues") == 130
    assert capsys.readouterr().err == "program.py: no\ninterrupted; it continues\n"


def test_folders_that_take_no_file_are_refused_before_the_work(tmp_path, small_disk):
    message = f"{tmp_path} cannot be written: File too large"
    with small_disk(0), pytest.raises(UnwritableError, match=message):
        check_outputs([tmp_path / "out.txt"], overwrite=False, inputs={})
    assert not list(tmp_path.iterdir())


def test_outputs_that_would_replace_something(tmp_path):
    source, old, new = tmp_path / "in.json", tmp_path / "old.json", tmp_path / "new.json"
    for file in (source, old):
        file.touch()
    os.link(source, tmp_path / "link.json")
    inputs = {"manifest": source, "class file": None}
    check_outputs([new, None], overwrite=False, inputs=inputs)
    check_outputs([old, new], overwrite=True, inputs=inputs)
    for outputs, message in (
        ([old], "old.json is there already: give --overwrite"),
        (
            [new, tmp_path / "." / "new.json"],
            "new.json: two outputs are the same file",
        ),
        ([tmp_path / "no" / "a.json"], "is not a place for a file: name one in an existing"),
        ([tmp_path], "is a folder and would have to be a file"),
    ):
        with pytest.raises(ValueError, match=message):
            check_outputs(outputs, overwrite=False, inputs=inputs)
    for file in (source, tmp_path / "link.json"):
        with pytest.raises(ValueError, match="is the manifest: it is never overwritten"):
            check_outputs([file], overwrite=True, inputs=inputs)


def test_an_error_is_that_of_the_command_as_it_was_called(monkeypatch, capsys):
    run = program(
        lambda arguments: arguments, lambda options: _raise(ValueError("no")), name="x.py"
    )
    assert run([]) == 2
    monkeypatch.setattr("sys.argv", ["eva do it"])
    assert run([]) == 2
    assert capsys.readouterr().err == "x.py: no\neva do it: no\n"
