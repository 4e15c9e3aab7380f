"""The official code's own outputs, under its own key names."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from eva_contrastive.model.eva_clip import EvaClip, TextTower, VisionTower
from eva_video.model.classifier import VideoClassifier

pytestmark = pytest.mark.smoke
GOLDEN = Path(__file__).parent
SIZES = {"img_size": 70, "embed_dim": 32, "depth": 4, "num_heads": 2, "mlp_dim": 80}


def _read(name, prefix=""):
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    start = f"state.{prefix}"
    state = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
    return state, tensors


def _assert_golden(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 1e-2, "a constant output would prove nothing"


def test_masked_image_modelling(make_vit):
    state, tensors = _read("mim")
    model = make_vit(**SIZES, extra_tokens=("cls", "mask"))
    model.lm_head = nn.Linear(32, 768)
    model.load_state_dict(state, strict=True)
    mask = tensors["input.mask"].bool()
    patches = model.forward_features(tensors["input.image"], mask)[:, 1:]
    _assert_golden(model.lm_head(patches[mask]), tensors["output.masked_prediction"])


def test_video():
    state, tensors = _read("video_4frames")
    model = VideoClassifier(num_classes=len(state["head.bias"]), frames=4, **SIZES)
    model.load_state_dict(state, strict=True)
    _assert_golden(model(tensors["input.video"]), tensors["output.logits"])


@pytest.mark.parametrize(
    ("name", "rel_pos"),
    [
        ("norelpos", "none"),
        ("relpos", "vitdet"),
        ("relpos_160", "vitdet"),
        ("relpos_interp_beit", "beit"),
        ("relpos_interp_beit_160", "beit"),
    ],
)
def test_detection(make_detector, name, rel_pos):
    state, tensors = _read(f"detection_{name}")
    sizes = SIZES | {"img_size": 96}
    model = make_detector(**sizes, rel_pos=rel_pos, global_attn_indexes=(3,))
    model.load_state_dict(state, strict=True)
    image = tensors["input.image"]
    if "output.last_feat" in tensors:
        _assert_golden(model.net.forward_feature_map(image), tensors["output.last_feat"])
    for level, actual in zip(range(2, 7), model(image), strict=True):
        _assert_golden(actual, tensors[f"output.p{level}"])


def test_the_two_interpolations_differ(make_detector):
    """Guards the two tests at 160 px: each golden file must reject the other method."""
    state, tensors = _read("detection_relpos_160")
    model = make_detector(**SIZES | {"img_size": 96}, rel_pos="beit", global_attn_indexes=(3,))
    model.load_state_dict(state, strict=True)
    difference = (model(tensors["input.image"])[2] - tensors["output.p4"]).abs().max()
    assert difference > 1e-2


def test_clip():
    state, tensors = _read("clip")
    state["text.logit_scale"] = state["text.logit_scale"].reshape(1)
    visual = VisionTower(output_dim=32, **SIZES)
    text = TextTower(
        output_dim=32, context_length=16, vocab_size=100, width=48, depth=2, num_heads=4
    )
    model = EvaClip(visual, text).eval()
    model.load_state_dict(state, strict=True)
    _assert_golden(model.encode_image(tensors["input.image"]), tensors["output.image_features"])
    _assert_golden(model.encode_text(tensors["input.tokens"]), tensors["output.text_features"])
