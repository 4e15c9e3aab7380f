"""Official files in mmdetection: by name or path, by our loader and by mmengine's own."""

import importlib
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from eva_mmdetection.model.detectron2_names import to_detectron2
from eva_mmdetection.parts import classes, extractor
from eva_mmdetection.plugin import load_detector

for module in ("federated_loss", "heads"):
    importlib.import_module(f"eva_mmdetection.model.{module}")

BASE = Path(__file__).parents[2] / "mmdetection/configs/_base_/models/cascade_mask_rcnn_eva.py"
NET = dict(
    img_size=64,
    pretrain_img_size=64,
    embed_dim=16,
    depth=2,
    num_heads=2,
    mlp_dim=32,
    window_size=2,
    global_attn_indexes=[1],
    out_channels=8,
)


def _build(num_classes=3, *, masks=True, seed=0):
    torch.manual_seed(seed)
    config = Config.fromfile(BASE)
    heads = classes(num_classes, channels=8, hidden=16, convs=1)
    heads["mask_head"].update(in_channels=8, conv_out_channels=8, num_convs=1)
    heads["bbox_roi_extractor"] = extractor(7, channels=8)
    heads["mask_roi_extractor"] = extractor(14, channels=8)
    if not masks:
        heads |= dict(mask_head=None, mask_roi_extractor=None)
    rpn = dict(in_channels=8, feat_channels=8)
    config.merge_from_dict(dict(model=dict(backbone=NET, rpn_head=rpn, roi_head=heads)))
    return MODELS.build(config.model)


def _same(model, other):
    state = other.state_dict()
    assert model.state_dict().keys() == state.keys()
    return [n for n, value in model.state_dict().items() if not torch.equal(value, state[n])]


@pytest.fixture(params=["name", "path"])
def official_file(request, tmp_path, monkeypatch, official):
    """An official file of a small detector, as the user names it, and the detector."""
    model = _build(seed=1)
    file = tmp_path / "eva_coco_seg.pth"
    torch.save({"model": to_detectron2(model.state_dict())[0]}, file)
    official(file)
    if request.param == "name":
        monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
        return file.name, model
    return str(file), model


def test_an_official_file_is_loaded_completely(official_file):
    source, expected = official_file
    model = _build()
    report = load_detector(model, source, complete=True)
    assert not _same(model, expected)
    assert str(report) == f"loaded {len(model.state_dict())} tensors from eva_coco_seg.pth"


def test_other_classes_and_new_masks_start_from_scratch(tmp_path):
    source = _build(5, masks=False, seed=1)
    torch.save({"model": to_detectron2(source.state_dict())[0]}, tmp_path / "o365.pth")
    model = _build()
    report = load_detector(model, tmp_path / "o365.pth")
    scratch = {name for name in model.state_dict() if "mask_head" in name or "fc_cls" in name}
    assert set(report.missing) == scratch
    with pytest.raises(ValueError, match="does not fit the model"):
        load_detector(_build(), tmp_path / "o365.pth", complete=True)
