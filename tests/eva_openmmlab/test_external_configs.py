"""`mmseg::NAME` is a config of the installed fork; pip is never started."""

import subprocess
from importlib.metadata import distribution
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config, get_model
from mmengine.registry import DefaultScope
from mmengine.utils import install_package, package_utils

from eva_openmmlab import config
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
        ("mmseg::_base_/models/upernet_r50.py", "onedl-mmsegmentation", "EncoderDecoder"),
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


@pytest.mark.filterwarnings("ignore:Default ..avg_non_ignore")
def test_a_model_of_a_fork_is_built(monkeypatch):
    monkeypatch.setattr(DefaultScope, "_instance_dict", DefaultScope._instance_dict.copy())
    model = get_model("mmseg::_base_/models/fast_scnn.py", pretrained=False)
    assert type(model).__name__ == "EncoderDecoder"


def test_a_name_without_its_package_is_a_missing_file():
    with pytest.raises(FileNotFoundError):
        get_config("mmseg::upernet/none.py")
    with pytest.raises(FileNotFoundError, match="there is no config mmseg::"):
        load_config(Path(UPERNET))


@pytest.mark.parametrize("name", ["mmsegmentation", "mmcv", "mmengine-lite", "onedl-mmdetection"])
def test_an_installation_over_the_forks_is_refused(name, monkeypatch):
    monkeypatch.setattr(package_utils, "is_installed", lambda package: False)
    with pytest.raises(ValueError, match=f"would run `pip install {name}`, which may replace"):
        install_package(name)


def test_a_package_that_is_missing_is_refused_through_its_config(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, "mmseg", "mmsegmentation")  # as without the fork
    with pytest.raises(ValueError, match="would run `pip install mmsegmentation`"):
        get_config(UPERNET)
    with pytest.raises(ValueError, match="would run `pip install mmpose`"):
        get_config("mmpose::body/any.py")


def test_other_installations_are_mmengines_own(monkeypatch):
    monkeypatch.setattr(package_utils, "is_installed", lambda package: False)
    with pytest.raises(AssertionError, match=r"a process was started.*tabulate"):
        install_package("tabulate")
    config.serve_forks()  # a second time changes nothing
    refusing = package_utils.call_command
    assert not isinstance(refusing._call, config.Refusing)


def test_an_original_that_is_installed_stays(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, "mmseg", "mmsegmentation")
    monkeypatch.setattr(config, "_is_installed", lambda name: True)
    config.serve_forks()
    assert MODULE2PACKAGE["mmseg"] == "mmsegmentation"
