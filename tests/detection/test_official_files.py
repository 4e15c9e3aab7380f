"""Every official detection file, with its own names and fewer channels, in the published configs.

The files are built from the official lists of names and shapes (tests/golden/keys); class counts,
patches, positions, convolution sizes and the order of the blocks are the real ones.
"""

import ast
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec

from eva_detection.building import load_initial_weights

KEYS = Path(__file__).parents[1] / "golden" / "keys"
DEPTH = 4  # three windowed blocks and a global one, as in the real order
CHANNELS, HIDDEN = 24, 40
SMALLER = {
    1408: 32,
    4224: 96,
    6144: 48,
    704: 16,
    352: 8,
    256: CHANNELS,
    1024: HIDDEN,
    12544: 49 * CHANNELS,
    88: 16,
    159: 11,  # a global block's table: 96 px in place of 1280
    31: 7,  # a window's: 4 patches in place of 16
}
COCO = "coco/cascade_mask_rcnn_vitdet_eva_g_1280"
WHOLE = [
    ("eva_o365.pth", "o365", "objects365/cascade_mask_rcnn_vitdet_eva_g_1280"),
    ("eva_coco_det.pth", "coco", "coco/cascade_mask_rcnn_vitdet_eva_g_1536_det"),
    ("eva_coco_seg.pth", "coco", "coco/cascade_mask_rcnn_vitdet_eva_g_1536_seg"),
    ("eva_lvis.pth", "lvis", "lvis/cascade_mask_rcnn_vitdet_eva_g_1536"),
]


@pytest.fixture(scope="module")
def build(load_config):
    """Function: a published config's detector with fewer blocks and channels."""

    def make(name):
        model = load_config(name).model
        model.backbone.net.update(
            embed_dim=32,
            depth=DEPTH,
            num_heads=2,
            mlp_dim=48,
            img_size=96,
            window_size=4,
            global_attn_indexes=[3],
        )
        model.backbone.out_channels = CHANNELS
        model.proposal_generator.head.in_channels = CHANNELS
        for head in model.roi_heads.box_heads:
            head.input_shape = ShapeSpec(channels=CHANNELS, height=7, width=7)
            head.conv_dims, head.fc_dims = [CHANNELS] * 4, [HIDDEN]
        for predictor in model.roi_heads.box_predictors:
            predictor.input_shape = ShapeSpec(channels=HIDDEN)
        if "mask_head" in model.roi_heads:
            model.roi_heads.mask_head.input_shape = ShapeSpec(channels=CHANNELS)
            model.roi_heads.mask_head.conv_dims = [CHANNELS] * 5
        return instantiate(model)

    return make


def _detector(keys):
    """The tensors of a released detector, on a small scale."""
    state = {}
    for line in (KEYS / f"detection_{keys}.txt").read_text(encoding="utf-8").splitlines():
        name, shape = line.split("\t")
        block = re.search(r"\.blocks\.(\d+)\.", name)
        if block is None or int(block[1]) < DEPTH:
            state[name] = torch.rand([SMALLER.get(n, n) for n in ast.literal_eval(shape)])
    return state


@pytest.fixture
def save(tmp_path, monkeypatch, official):
    """Function: write an official file, which is then found by its name."""
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))

    def write(name, state):
        torch.save({"model": state}, tmp_path / name)
        official(tmp_path / name)
        return name

    return write


def _assert_same(state, expected):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize(("file", "keys", "config"), WHOLE)
def test_a_whole_detector_goes_in_and_comes_out_as_it_was(build, save, file, keys, config):
    state = _detector(keys)
    model = build(config)
    report = load_initial_weights(model, save(file, state), complete=True)
    assert report.source == file
    assert set(report.loaded) == set(state)
    assert (report.resampled, report.skipped, report.missing) == ({}, {}, {})
    _assert_same(model.state_dict(), state)
    assert str(report) == f"loaded {len(state)} tensors from {file}"


@pytest.mark.parametrize(
    "config", [COCO, "lvis/cascade_mask_rcnn_vitdet_eva_g_1280"], ids=["coco", "lvis"]
)
def test_objects365_as_the_start(build, save, config):
    """The classes differ and there are no masks; whatever else there is, is taken."""
    state = _detector("o365")
    model = build(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_initial_weights(model, save("eva_o365.pth", state))
    classes = {name for name in state if ".cls_score." in name}
    new = {name for name in before if ".mask_head." in name or "fed_loss" in name} | classes
    assert len(classes) == 6
    assert set(report.loaded) == set(state) - classes
    assert set(report.skipped) == classes
    assert set(report.missing) == new
    assert not report.resampled
    _assert_same(
        model.state_dict(), {name: (before if name in new else state)[name] for name in before}
    )
    count = before["roi_heads.box_predictor.0.cls_score.bias"].numel()
    assert f"(366,) does not fit ({count},), initialised from scratch" in str(report)
    unchanged = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"does not fit .*cls_score\.bias \(366,\) -> "):
        load_initial_weights(model, "eva_o365.pth", complete=True)
    _assert_same(model.state_dict(), unchanged)
