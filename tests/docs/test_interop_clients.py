"""The commands of docs/interop.md for other frameworks, as they stand there, in own processes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interop.md").read_text()
TASKS = ["detection", "mmdetection", "segmentation", "classification", "pretrain", "video", "clip"]
HERE = os.pathsep.join([str(ROOT), *(str(ROOT / name) for name in (*TASKS, "tools"))])
# `eva` and `python` are those of this environment, on the checkout that is tested. Each, those of
# torchrun as well, is a process that goes on from one with the frameworks (`starter.py`).
START = """
set -e
python() { "$PYTHON_EXEC" "$@"; }
eva() { python -m eva_command "$@"; }
torchrun() { python -m torch.distributed.run "$@"; }
"""


@pytest.fixture
def run(stand_in, tmp_path, tmp_path_factory, mmengine_runs, monkeypatch):
    """Function: run the blocks of a section in order, in an empty folder; what they print."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    packages = tmp_path_factory.mktemp("packages")
    environment = mmengine_runs.environment(packages) | stand_in

    def run_section(section, check=""):
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        printed = ""
        for language, block in re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL):
            command = ["bash", "-c", START + block]
            if language == "python":
                command = [stand_in["PYTHON_EXEC"], "-c", block + check]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
            printed += done.stdout + done.stderr
        return printed

    return run_section


def test_detectron2(run, tmp_path):
    printed = run("detectron2", check="print('found', found.has('pred_masks'))")
    assert "found True" in printed
    assert "AP50" in printed
    assert (tmp_path / "output" / "detectron2" / "model_final.pth").exists()


def test_mmdetection(run):
    check = "print('found', len(instances.bboxes[0]), len(predictions), predictions[0].keys())"
    printed = run("mmdetection", check=check)
    assert "found 4 1" in printed
    assert "coco/segm_mAP" in printed


def test_mmsegmentation(run):
    printed = run("mmsegmentation", check="print('found', *classes.shape, predictions.shape)")
    assert re.search(r"found 1 (\d+) (\d+) \(\1, \2\)", printed)
    assert "mIoU" in printed


def test_launchers(run, tmp_path):
    run("Launchers")
    assert list((tmp_path / "output" / "two_processes").glob("*/model.safetensors"))
