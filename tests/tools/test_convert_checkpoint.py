"""The program knows the forms of all projects, without their libraries."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parents[2] / "tools" / "convert_checkpoint.py")


def test_forms_of_all_programs_without_their_libraries():
    """`--help` imports what the parser needs, not torch; forms are imported when they are used."""
    code = (
        "import runpy, sys\n"
        f"main = runpy.run_path({PROGRAM!r})['main']\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    heavy = {'torch', 'numpy', 'timm', 'open_clip', 'detectron2', 'mmdet'}\n"
        "    print(heavy & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "{detectron2-vitdet,official,mmdet,open-clip,timm}" in done.stdout
    assert done.stdout.endswith("set()\n")


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
