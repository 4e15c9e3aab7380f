"""Our weights in an unmodified detectron2, detectron2's in ours, through the command."""

from functools import partial

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L, instantiate
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads
from safetensors.torch import load_file
from torch import nn

from eva_command import convert
from eva_detection.building import load_initial_weights


@pytest.fixture
def stock_detector(tiny_config):
    """Function: the tiny detector out of detectron2's own classes alone."""

    def make():
        model = tiny_config().model
        ours = model.backbone
        model._target_ = GeneralizedRCNN
        model.proposal_generator._target_ = RPN
        model.roi_heads._target_ = CascadeROIHeads
        model.backbone = L(SimpleFeaturePyramid)(
            net=L(ViT)(
                img_size=ours.net.img_size,
                patch_size=ours.net.patch_size,
                embed_dim=ours.net.embed_dim,
                depth=ours.net.depth,
                num_heads=ours.net.num_heads,
                mlp_ratio=ours.net.mlp_dim / ours.net.embed_dim,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=ours.net.window_size,
                window_block_indexes=[0],
                pretrain_img_size=ours.net.pretrain_img_size,
            ),
            in_feature="last_feat",
            out_channels=ours.out_channels,
            scale_factors=ours.scale_factors,
            square_pad=ours.square_pad,
        )
        stock = instantiate(model)
        packages = {type(module).__module__.partition(".")[0] for module in stock.modules()}
        assert packages == {"detectron2", "torch", "timm"}  # the Mlp of its ViT is timm's
        return stock

    return make


@pytest.fixture
def save(tmp_path, randomise):
    """Function: fill a model with random weights and save them as a run does."""

    def save_model(model, name="source.pth"):
        torch.save({"model": randomise(model, std=0.05).state_dict()}, tmp_path / name)
        return tmp_path / name

    return save_model


def _weights(file):
    return torch.load(file, weights_only=True)["model"]


def _assert_same(state, expected):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def _detections(model):
    """Classes, scores, boxes in parts of the image, masks; in an order that ties cannot change."""
    image = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        found = model.eval()([{"image": image}])[0]["instances"]
    assert len(found) > 5
    boxes = found.pred_boxes.tensor.double() / 128
    place = boxes @ torch.tensor([1.0, 0.7, 0.5, 0.3], dtype=torch.float64)
    order = (10 * found.pred_classes + place).argsort()
    parts = (found.pred_classes, found.scores.double(), boxes, found.pred_masks)
    return [part[order] for part in parts]


def _assert_same_detections(model, expected):
    for actual, wanted in zip(_detections(model), _detections(expected), strict=True):
        if wanted.is_floating_point():
            torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=0)
        else:
            assert torch.equal(actual, wanted)


def test_a_stock_detector_loads_ours_and_we_load_it_back(
    save, make_tiny_detector, stock_detector, tmp_path, capsys
):
    ours = make_tiny_detector()
    source, there, back = save(ours), tmp_path / "stock.pth", tmp_path / "back.pth"
    command = [str(source), "--to", "detectron2-vitdet", "--output", str(there)]
    assert convert.main(command) == 0
    assert "fused q_bias and v_bias of 2 blocks" in capsys.readouterr().out

    theirs = stock_detector()
    theirs.load_state_dict(_weights(there), strict=True)
    _assert_same_detections(theirs, ours)
    # and through detectron2's own reader
    fresh = stock_detector()
    DetectionCheckpointer(fresh).load(str(there))
    _assert_same(fresh.state_dict(), theirs.state_dict())

    assert convert.main([str(there), "--to", "official", "--output", str(back)]) == 0
    text = capsys.readouterr().out
    assert "split the qkv.bias of 2 blocks" in text
    assert "dropped" not in text
    _assert_same(_weights(back), _weights(source))


def test_a_stock_detector_with_a_bias_of_the_keys(
    save, make_tiny_detector, stock_detector, tmp_path, capsys
):
    """Trained by detectron2, whose keys' bias need not be zero."""
    theirs = stock_detector()
    source, there = save(theirs), tmp_path / "ours.safetensors"
    assert convert.main([str(source), "--to", "official", "--output", str(there)]) == 0
    assert "dropped the keys' bias of 2 blocks" in capsys.readouterr().out
    assert not any(name.endswith("qkv.bias") for name in load_file(there))
    ours = make_tiny_detector()
    load_initial_weights(ours, str(there), complete=True)
    _assert_same_detections(ours, theirs)
    # without a command, too
    direct = make_tiny_detector()
    load_initial_weights(direct, str(source), complete=True)
    _assert_same(direct.state_dict(), ours.state_dict())
