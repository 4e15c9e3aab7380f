"""`eva convert` never replaces what another program wrote."""

import pytest

from eva_command.convert import main


def test_a_folder_of_something_else_is_never_replaced(capsys, tmp_path):
    (tmp_path / "notes.txt").touch()
    for output, message in ((tmp_path, "holds notes.txt"), (tmp_path / "notes.txt", "is a file")):
        with pytest.raises(SystemExit) as stopped:
            main(["eva_debug", "--to=open-clip", f"--output={output}", "--overwrite"])
        assert stopped.value.code == 1
        assert message in capsys.readouterr().err
