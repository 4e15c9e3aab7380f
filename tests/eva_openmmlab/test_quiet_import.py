"""What a program writes on standard output is its own."""

import subprocess
import sys

import pytest

from eva_openmmlab.quiet_import import import_data_sets


@pytest.mark.parametrize("plugin", ["eva_mmdetection.plugin", "eva_segmentation.plugin"])
def test_a_plugin_prints_nothing(plugin):
    command = [sys.executable, "-c", f"import {plugin}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_other_lines_stay_and_errors_too(tmp_path, monkeypatch, capsys):
    text = "print('Could not import OneDL. x')\nprint('kept')\nraise ImportError('mine')\n"
    (tmp_path / "prints_and_fails.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="mine"):
        import_data_sets("prints_and_fails")
    assert capsys.readouterr().out == "kept\n"
