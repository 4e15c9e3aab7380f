"""What a program writes on standard output is its own."""

import importlib
import os
import subprocess
import sys

import pytest

from eva_openmmlab.quiet_import import import_data_sets, without_deepspeed


@pytest.mark.parametrize("plugin", ["eva_mmdetection.plugin", "eva_segmentation.plugin"])
def test_a_plugin_prints_nothing(plugin):
    command = [sys.executable, "-c", f"import {plugin}"]
    without = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    environment = without | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == ""


def test_deepspeed_is_not_imported_along_and_can_be_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    with without_deepspeed(), pytest.raises(ImportError):
        importlib.import_module("deepspeed")
    assert "deepspeed" not in sys.modules
    monkeypatch.setitem(sys.modules, "deepspeed", sys)
    with without_deepspeed():
        assert importlib.import_module("deepspeed") is sys
    assert sys.modules["deepspeed"] is sys


def test_other_lines_stay_and_errors_too(tmp_path, monkeypatch, capsys):
    text = "print('Could not import OneDL. x')\nprint('kept')\nraise ImportError('mine')\n"
    (tmp_path / "prints_and_fails.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="mine"):
        import_data_sets("prints_and_fails")
    assert capsys.readouterr().out == "kept\n"
