"""The program knows the forms of all projects, without their libraries."""

import runpy
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parents[2] / "tools" / "convert_checkpoint.py")


def test_open_clip_is_a_form_of_the_program(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "open_clip"]:
        monkeypatch.delitem(sys.modules, name)
    main = runpy.run_path(PROGRAM)["main"]
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "--to {detectron2-vitdet,official,open-clip}" in capsys.readouterr().out
    assert "open_clip" not in sys.modules


def test_a_folder_of_something_else_is_never_replaced(capsys, tmp_path):
    (tmp_path / "notes.txt").touch()
    main = runpy.run_path(PROGRAM)["main"]
    for output, message in ((tmp_path, "holds notes.txt"), (tmp_path / "notes.txt", "is a file")):
        with pytest.raises(SystemExit) as stopped:
            main(["eva_debug", "--to=open-clip", f"--output={output}", "--overwrite"])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eva_debug", "--to=official", f"--output={tmp_path / 'folder'}"])
    assert "must end in .pth, .pt or .safetensors" in capsys.readouterr().err
