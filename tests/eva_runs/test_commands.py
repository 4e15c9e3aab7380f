"""How a command ends, and which files it may write."""

import json
import os
import signal
import sys
import types
from pathlib import Path

import pytest

from eva_data.saving import UnwritableError
from eva_runs.commands import Command, Result, check_outputs, command_to_run, echo, run_function


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("a.json is not JSON"), 1, "error: a.json is not JSON\n"),
        (FileNotFoundError("there is no file a"), 1, "error: there is no file a\n"),
        (KeyboardInterrupt(), 130, "error: stopped by Ctrl-C; nothing was written\n"),
    ],
)
def test_what_the_user_can_fix_is_a_sentence(capsys, error, code, message):
    command = Command("error", list, lambda _: _raise(error), interrupted="nothing was written")
    with pytest.raises(SystemExit, match=str(code)):
        command([])
    assert capsys.readouterr() == ("", message)


def test_the_next_command_is_of_the_program_that_runs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["eva detection train"])
    below = str(Path("a b").absolute())
    assert command_to_run("detection demo", "demo.py", below) == "eva detection demo 'a b'"
    other = ("s3://bucket/a", "/tmp/a")
    assert command_to_run("clip demo", "demo.py", *other) == "eva clip demo s3://bucket/a /tmp/a"


def test_the_result_alone_is_printed_where_json_is_asked_for(capsys, tmp_path):
    (tmp_path / "results.json").write_text('{"top1": 50}\n')
    for value in ({"top1": 50}, tmp_path / "results.json"):

        def run(words, value=value):
            echo(" ".join(words))
            return Result(value, 3)

        command = Command("program", list, run)
        assert command(["a", "--json"]) == command(["b"]) == 3
        out, err = capsys.readouterr()
        assert json.loads(out.splitlines()[0]) == {"top1": 50}
        assert (out.splitlines()[1:], err) == (["b"], "a\n")


def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "slow_import.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["eva detection train"])
    half = types.ModuleType("torch.distributed")
    monkeypatch.setitem(sys.modules, half.__name__, half)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit, match="130"):
            run_function("slow_import:main")
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "eva detection train: stopped by Ctrl-C\n"


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


@pytest.mark.parametrize(
    ("variable", "value"),
    [(None, ""), ("PYTORCH_ALLOC_CONF", "backend:native"), ("PYTORCH_CUDA_ALLOC_CONF", "")],
)
def test_the_allocator_of_a_gpu_grows_unless_the_user_says_otherwise(monkeypatch, variable, value):
    names = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in names})
    if variable:
        os.environ[variable] = value
    run_function("os:getpid")
    expected = {variable: value} if variable else {names[0]: "expandable_segments:True"}
    assert {name: os.environ[name] for name in names if name in os.environ} == expected
