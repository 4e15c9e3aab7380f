"""`mmseg::NAME` is a config of the installed fork; pip is never started."""

import subprocess
from importlib.metadata import distribution

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from eva_openmmlab.config import load_config

UPERNET = "mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py"
CASCADE = "mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py"


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch):
    def refuse(command, *_, **__):
        raise AssertionError(f"a process was started: {command}")

    for name in ("Popen", "call", "check_call", "check_output", "run"):
        monkeypatch.setattr(subprocess, name, refuse)


@pytest.mark.parametrize(
    ("name", "package", "kind"),
    [
        (UPERNET, "onedl-mmsegmentation", "EncoderDecoder"),
        (CASCADE, "onedl-mmdetection", "CascadeRCNN"),
    ],
)
def test_a_config_of_a_fork_is_found_and_inherited(name, package, kind, tmp_path):
    cfg = get_config(name)
    assert cfg.model.type == kind
    folder = distribution(package).locate_file("")
    assert cfg.filename.startswith(str(folder))
    inherits = tmp_path / "own.py"
    inherits.write_text(f"_base_ = {name!r}\n")
    for read in (Config.fromfile, load_config):
        assert read(inherits).model.type.rpartition(".")[2] == kind
