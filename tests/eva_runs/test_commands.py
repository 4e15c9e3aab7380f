"""How a command ends, and which files it may write."""

import io
import os

import pytest

from eva_data.files import UnwritableError
from eva_runs.commands import check_outputs, exit_code, program, require_data, say


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
    twice = [new, tmp_path / "." / "new.json"]
    for outputs in ([old], twice, [tmp_path / "no" / "a.json"], [tmp_path]):
        with pytest.raises(ValueError, match=str(outputs[0])):
            check_outputs(outputs, overwrite=False, inputs=inputs)
    for file in (source, tmp_path / "link.json"):
        with pytest.raises(ValueError, match="manifest"):
            check_outputs([file], overwrite=True, inputs=inputs)


def test_an_error_is_that_of_the_command_as_it_was_called(monkeypatch, capsys):
    run = program(
        lambda arguments: arguments, lambda options: _raise(ValueError("no")), name="x.py"
    )
    assert run([]) == 2
    monkeypatch.setattr("sys.argv", ["eva do it"])
    assert run([]) == 2
    assert capsys.readouterr().err == "x.py: no\neva do it: no\n"


def test_what_is_there_or_cannot_be_looked_for(tmp_path):
    (tmp_path / "list.json").touch()
    (tmp_path / "a{b.tar").touch()
    for location in ("", "/list.json", "/list.json#train", "/{0..9}.tar", "/*.tar", "/a{b.tar"):
        require_data(f"{tmp_path}{location}", name="data.train")
    require_data("hf:name:train", name="data.train")


def test_demo_data_names_its_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["video/train.py"])
    with pytest.raises(ValueError, match=r"data.train: there is no a/digit_motion/video") as found:
        require_data("a/digit_motion/video", name="data.train")
    assert str(found.value).endswith(
        "this makes it: python tools/make_demo_data.py --output a/digit_motion --formats video "
        "--train 4000 --val 400"
    )
