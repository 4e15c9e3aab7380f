"""Our weights in an unmodified detectron2, detectron2's in ours, through the command."""

import os
from functools import partial

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads
from safetensors.torch import load_file
from torch import nn

from eva_backbone import build_vit
from eva_backbone.checkpoints.convert import FORMATS
from eva_backbone.resample import resample_patch_embed, resample_pos_embed
from eva_command import convert
from eva_detection.model.weights import load_initial_weights

WIDTH = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_dim": 64}
TRUNK = "backbone.net."


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


def test_a_backbone_of_pretraining(save, tmp_path, capsys):
    """As `eva_psz14.pt`: no prefix, tokens and a head that a detector has no use for."""
    vit = build_vit("eva_debug", **WIDTH, patch_size=14, img_size=112, extra_tokens=("cls", "mask"))
    vit.lm_head = nn.Linear(32, 16)
    source, there = save(vit), tmp_path / "backbone.pth"
    command = [str(source), "--to", "detectron2-vitdet", "--output", str(there)]
    assert convert.main([*command, "--patch-size", "16", "--dtype", "fp16"]) == 0
    text = capsys.readouterr().out
    assert "resampled patches 14 -> 16, positions 8x8 -> 7x7" in text
    assert "renamed * -> backbone.net.*" in text
    for name in ("mask_token", "lm_head.weight", "norm.weight", "cls_token"):
        assert name in text
    expected = ViT(img_size=64, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, use_abs_pos=True)
    state, before = _weights(there), vit.state_dict()
    assert all(name.startswith(TRUNK) for name in state)
    assert {name.removeprefix(TRUNK) for name in state} == set(expected.state_dict())
    kernel = resample_patch_embed(before["patch_embed.proj.weight"], 16).half()
    assert torch.equal(state[f"{TRUNK}patch_embed.proj.weight"], kernel)
    positions = resample_pos_embed(before["pos_embed"], (7, 7)).half()
    assert torch.equal(state[f"{TRUNK}pos_embed"], positions)


def _refusal(capsys, *command):
    try:
        code = convert.main([str(part) for part in command])
    except SystemExit as stop:
        code = stop.code
    assert code in (1, 2)
    return capsys.readouterr().err


def test_refusals(save, make_vit, tmp_path, capsys):
    source, there = save(make_vit()), tmp_path / "out.pth"
    ask = (capsys, source, "--output", there, "--to")
    assert "cannot be cut in patches of 15" in _refusal(
        *ask, "detectron2-vitdet", "--patch-size=15"
    )
    assert "cannot be cut in patches of 15" in _refusal(*ask, "official", "--patch-size=15")
    assert "must be at least 1" in _refusal(*ask, "detectron2-vitdet", "--patch-size=0")
    scaled = save(make_vit(layer_scale=0.1), "scaled.pth")
    text = _refusal(capsys, scaled, "--output", there, "--to", "detectron2-vitdet")
    assert "no place for blocks.0.gamma_1" in text
    model = make_vit()
    model.pos_embed.data[0, 0, 0] = 1e6
    torch.save(model.state_dict(), tmp_path / "large.pth")
    large = (capsys, tmp_path / "large.pth", "--output", there, "--dtype=fp16")
    assert "pos_embed has values beyond torch.float16" in _refusal(*large, "--to", "official")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    other = (capsys, tmp_path / "other.pth", "--output", there, "--to", "official")
    assert "there are no EVA weights" in _refusal(*other)
    assert "no official one has this name" in _refusal(capsys, "a.pth", *other[2:])
    assert "must end in .pth" in _refusal(*other[:2], "--output", tmp_path / "a", *other[4:])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "large.pth",
        "other.pth",
        "scaled.pth",
        "source.pth",
    ]


def test_an_earlier_output_stays_unless_told_and_until_the_new_one_is_whole(
    save, make_vit, tmp_path, capsys, monkeypatch
):
    source, there = save(make_vit()), tmp_path / "out.pth"
    there.write_text("earlier")
    command = (source, "--to", "official", "--output", there)
    assert "give --overwrite" in _refusal(capsys, *command)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert convert.main([str(part) for part in (*command, "--overwrite")]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
    assert there.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pth", "source.pth"]
    assert convert.main([str(part) for part in (*command, "--overwrite")]) == 0
    assert "nothing to change" in capsys.readouterr().out
    _assert_same(_weights(there), _weights(source))


def _drop_positions(weights):
    del weights["pos_embed"]


def _cut_positions(weights):
    weights["pos_embed"] = weights["pos_embed"][:, 1:]


@pytest.mark.parametrize("form", ["official", "detectron2-vitdet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop_positions, r"--patch-size needs .*pos_embed, and the file has none"),
        (_cut_positions, r"pos_embed has 16 positions, .* \(such as 10\)"),
    ],
)
def test_patches_need_positions_of_a_square(form, change, message, make_vit):
    weights = make_vit(patch_size=14, img_size=56).state_dict()
    change(weights)
    with pytest.raises(ValueError, match=message):
        FORMATS[form](weights, patch_size=7)


@pytest.mark.parametrize("form", ["official", "detectron2-vitdet"])
def test_patches_of_a_detector_stay(form, make_vit, make_tiny_detector):
    """Its pyramid, heads and tables are made for the old ones."""
    vit = make_vit(patch_size=14, img_size=56).state_dict()
    detector = {f"backbone.net.{name}": value for name, value in vit.items()}
    detector["roi_heads.box_head.0.fc1.weight"] = torch.zeros(2)
    tables = vit | {"blocks.0.attn.rel_pos_h": torch.zeros(7, 16)}
    for weights in (detector, tables, make_tiny_detector().state_dict()):
        with pytest.raises(ValueError, match="--patch-size is for pre-trained backbones"):
            FORMATS[form](weights, patch_size=7)


def test_a_head_of_classification_does_not_hinder_new_patches(make_vit):
    vit = {f"visual.{k}": v for k, v in make_vit(patch_size=14, img_size=56).state_dict().items()}
    weights = vit | {"head.weight": torch.zeros(2)}
    converted, lines = FORMATS["official"](weights, patch_size=7)
    assert converted["visual.patch_embed.proj.weight"].shape[-2:] == (7, 7)
    assert any("resampled patches 14 -> 7, positions 4x4 -> 8x8" in line for line in lines)


def test_a_model_of_clips_has_no_place_in_detectron2(make_vit):
    weights = make_vit(patch_size=14, img_size=56).state_dict()
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"][:, :, None]
    with pytest.raises(ValueError, match="a model of clips"):
        FORMATS["detectron2-vitdet"](weights)
