"""Official names and shapes in mmdetection's detector, and back."""

import ast
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from eva_mmdetection.model.detectron2_names import (
    mmdet_name,
    official_names,
    to_detectron2,
    to_mmdet,
)
from eva_mmdetection.parts import classes

BASE = Path(__file__).parents[2] / "mmdetection/configs/_base_/models/cascade_mask_rcnn_eva.py"
KEYS = Path(__file__).parents[1] / "golden" / "keys"
FEDERATED = dict(type="EVAFederatedLoss", num_classes=1203)
DETECTORS = {
    "coco": classes(80),  # eva_coco_det.pth and eva_coco_seg.pth
    "lvis": classes(1203, loss_cls=FEDERATED),
    "o365": classes(365, masks=False) | dict(mask_head=None, mask_roi_extractor=None),
}


def _official(name):
    lines = (KEYS / f"detection_{name}.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines)
    return {key: torch.empty(ast.literal_eval(shape), device="meta") for key, shape in pairs}


def _shapes(tensors):
    return {name: tuple(value.shape) for name, value in tensors.items()}


@pytest.mark.parametrize("name", DETECTORS)
def test_every_name_and_shape_of_the_official_files(name):
    official = _official(name)
    model = Config.fromfile(BASE)
    model.merge_from_dict(dict(model=dict(roi_head=DETECTORS[name])))
    with torch.device("meta"):
        detector = MODELS.build(model.model)
    converted, _ = to_mmdet(official)
    assert _shapes(converted) == _shapes(detector.state_dict())
    back, _ = to_detectron2(converted)
    assert _shapes(back) == _shapes(official)
    assert all(back[key] is value for key, value in official.items()), "not one is changed"


def test_the_program_converts_there_and_back(tmp_path):
    from eva_command.convert import main as convert

    official = {"backbone.net.patch_embed.proj.weight": torch.rand(4, 3, 2, 2)}
    official |= {
        name: torch.rand(2)
        for name in _official("lvis")
        if name.startswith(("proposal_generator.", "roi_heads."))
    }
    torch.save({"model": official}, tmp_path / "official.pth")
    there, back = str(tmp_path / "mmdet.pth"), str(tmp_path / "back.pth")
    assert convert([str(tmp_path / "official.pth"), "--to", "mmdet", "--output", there]) == 0
    assert set(torch.load(there)["model"]) == {mmdet_name(name) for name in official}
    assert convert([there, "--to", "official", "--output", back]) == 0
    result = torch.load(back)["model"]
    assert result.keys() == official.keys()
    assert all(torch.equal(result[name], value) for name, value in official.items())
    assert official_names({"visual.proj": official}) == {"visual.proj": official}
