"""`eva convert` knows the forms of all projects, without their libraries."""

import subprocess
import sys

import pytest

from eva_command.convert import main


def test_forms_of_all_programs_without_their_libraries():
    """`--help` imports what the parser needs, not torch; forms are imported when they are used."""
    code = (
        "import sys\nfrom eva_command.convert import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    heavy = {'torch', 'numpy', 'timm', 'open_clip', 'detectron2', 'mmdet'}\n"
        "    print(heavy & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "{detectron2-vitdet,official,mmdet,open-clip,timm}" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_a_folder_of_something_else_is_never_replaced(capsys, tmp_path):
    (tmp_path / "notes.txt").touch()
    for output, message in ((tmp_path, "holds notes.txt"), (tmp_path / "notes.txt", "is a file")):
        with pytest.raises(SystemExit) as stopped:
            main(["eva_debug", "--to=open-clip", f"--output={output}", "--overwrite"])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
