"""The teacher's tokens against open_clip's own outputs, its weights' sources, its refusals."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip import pretrained as open_clip_pretrained
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file
from torch import nn

from eva_pretrain.config import TeacherConfig
from eva_pretrain.teachers import ClipTeacher, PixelTeacher, build_teacher

pytestmark = pytest.mark.usefixtures("tiny_models")
GOLDEN = Path(__file__).parents[1] / "golden" / "clip.safetensors"


class _Visual(nn.Module):
    """Only the vision tower, under the name that it has in a CLIP."""

    def __init__(self, clip):
        super().__init__()
        self.visual = clip.visual

    def forward(self, images):
        return self.visual(images)


def _activations(teacher):
    return {type(block.mlp.gelu) for block in teacher.visual.transformer.resblocks}


@pytest.fixture
def quick_file(make_clip, tmp_path):
    """State dict of a model with quick-GELU, and that model."""
    clip = make_clip("tiny-quickgelu")
    save_file(clip.state_dict(), tmp_path / "quick.safetensors")
    return tmp_path / "quick.safetensors", clip


@pytest.fixture
def archive(make_clip, tmp_path):
    """A TorchScript archive as OpenAI publishes them, and its model."""
    clip = make_clip("tiny-quickgelu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_Visual(clip), torch.zeros(1, 3, 28, 28), check_trace=False)
        torch.jit.save(traced, tmp_path / "openai.pt")
    return tmp_path / "openai.pt", clip


@pytest.fixture
def official_file(tmp_path):
    """An official EVA-CLIP file, made by the official code, and its golden values."""
    golden = load_file(GOLDEN)
    state = {k.removeprefix("state."): v.half() for k, v in golden.items() if "state." in k}
    torch.save({"module": state}, tmp_path / "eva_clip_tiny.pt")
    return tmp_path / "eva_clip_tiny.pt", golden


@pytest.mark.parametrize(
    "name",
    ["tiny", "tiny-avg", "tiny-late-norm", "tiny-eva", "tiny-eva-avg", "tiny-eva-linear",
     "tiny-siglip"],
)  # fmt: skip
def test_pooled_output_is_open_clips(make_clip, randomise, name):
    clip = make_clip(name)
    randomise(clip.visual)
    teacher = ClipTeacher(clip.visual)
    images = torch.randn(2, 3, *teacher.image_size)
    expected = clip.encode_image(images)
    torch.testing.assert_close(teacher.pooled(images), expected)
    tokens = teacher(images)
    assert tokens.shape == (2, teacher.grid[0] * teacher.grid[1], teacher.dim)
    if name in ("tiny-avg", "tiny-eva-linear"):  # a mean over tokens and a matrix commute
        by_mean = tokens.mean(1)
        assert torch.allclose(by_mean, expected, atol=1e-4) == (name == "tiny-avg")


def test_tokens_are_those_of_the_last_block(make_clip, randomise):
    """With hooks instead of the interface that the teacher uses."""
    visual = randomise(make_clip("tiny").visual)
    last = []
    hook = visual.transformer.register_forward_hook(lambda *call: last.append(call[2]))
    images = torch.randn(2, 3, 28, 28)
    pooled = visual(images)
    hook.remove()
    hidden = F.layer_norm(last[0], (32,), visual.ln_post.weight, visual.ln_post.bias)
    projected = hidden @ visual.proj
    torch.testing.assert_close(projected[:, 0], pooled)
    torch.testing.assert_close(ClipTeacher(visual)(images), projected[:, 1:])


def test_official_eva_clip_file(official_file):
    """Norm, without class token, head; the embedding is the one of the official code."""
    file, golden = official_file
    teacher = ClipTeacher.from_open_clip("tiny-eva", str(file))
    images = golden["input.image"]
    expected = golden["output.image_features"]
    torch.testing.assert_close(
        F.normalize(teacher.pooled(images), dim=-1),
        F.normalize(expected, dim=-1),
        atol=2e-3,  # the file is in half precision
        rtol=0,
    )
    trunk = teacher.visual.trunk
    hidden = trunk.forward_features(images)  # its norm included
    torch.testing.assert_close(teacher(images), trunk.head(hidden[:, 1:]))
    larger = ClipTeacher.from_open_clip("tiny-eva", str(file), image_size=98)
    assert larger.grid == (7, 7)


@pytest.mark.parametrize(("name", "precision"), [("tiny", "bf16"), ("tiny-eva", "fp16")])
def test_low_precision(name, precision):
    torch.manual_seed(3)
    exact = ClipTeacher.from_open_clip(name)
    torch.manual_seed(3)
    teacher = ClipTeacher.from_open_clip(name, precision=precision)
    images = torch.randn(2, 3, *teacher.image_size)
    expected, tokens = exact(images), teacher(images).float()
    assert not torch.equal(tokens, expected)
    assert (tokens - expected).abs().max() < 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        assert exact(images).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["tiny", "tiny-eva", "tiny-siglip"])
def test_another_size_resizes_position_embeddings(make_clip, tmp_path, name):
    clip = make_clip(name)
    torch.save(clip.state_dict(), tmp_path / "weights.pt")
    size = clip.visual.image_size[0] * 2
    teacher = ClipTeacher.from_open_clip(name, str(tmp_path / "weights.pt"), image_size=size)
    reference = open_clip.create_model(
        name, pretrained=str(tmp_path / "weights.pt"), force_image_size=size
    ).eval()
    images = torch.randn(1, 3, size, size)
    torch.testing.assert_close(teacher.pooled(images), reference.encode_image(images))
    assert teacher.grid[0] == 2 * ClipTeacher(clip.visual).grid[0]


def test_openai_archive(archive):
    """Read without unpickling objects; quick-GELU whatever the name says."""
    file, clip = archive
    images = torch.randn(2, 3, 28, 28)
    teacher = ClipTeacher.from_open_clip("tiny", str(file))
    assert _activations(teacher) == {QuickGELU}
    torch.testing.assert_close(teacher.pooled(images), clip.encode_image(images))
    larger = ClipTeacher.from_open_clip("tiny", str(file), image_size=56)
    assert larger(torch.randn(1, 3, 56, 56)).shape == (1, 64, 32)


def test_openai_tag_brings_quick_gelu(quick_file, monkeypatch):
    """open_clip itself only warns when the activation does not match the tag."""
    file, clip = quick_file
    tags = {"openai": {"url": "", "quick_gelu": True}, "laion": {"url": ""}}
    for name in ("tiny", "tiny-quickgelu"):
        monkeypatch.setitem(open_clip_pretrained._PRETRAINED, name, tags)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(file))
    images = torch.randn(2, 3, 28, 28)
    for name in ("tiny", "tiny-quickgelu"):
        teacher = ClipTeacher.from_open_clip(name, "openai")
        torch.testing.assert_close(teacher.pooled(images), clip.encode_image(images))
    assert _activations(ClipTeacher.from_open_clip("tiny", "laion")) == {nn.GELU}
    with pytest.raises(ValueError, match=r"laion .*tiny"):
        ClipTeacher.from_open_clip("tiny-quickgelu", "laion")
    with pytest.raises(ValueError, match=r"'opena'.*openai"):
        ClipTeacher.from_open_clip("tiny", "opena")


def test_a_folder_brings_its_weights(quick_file):
    file, clip = quick_file
    config = {"model_cfg": open_clip.get_model_config("tiny-quickgelu")}
    (file.parent / "open_clip_config.json").write_text(json.dumps(config))
    teacher = ClipTeacher.from_open_clip(f"local-dir:{file.parent}")
    images = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(teacher.pooled(images), clip.encode_image(images))
    file.unlink()
    with pytest.raises(RuntimeError, match="could not be loaded"):
        ClipTeacher.from_open_clip(f"local-dir:{file.parent}")


def test_a_map_of_timm(tmp_path):
    """The target of each patch is timm's own feature there; the strides that fit are named."""
    name, file = "tf_efficientnet_lite0", tmp_path / "network.safetensors"
    network = timm.create_model(name).eval()
    save_file(network.state_dict(), file)
    settings = {"library": "timm", "model": name, "weights": str(file), "precision": "fp32"}
    config, cpu = TeacherConfig(image_size=64, stride=16, **settings), torch.device("cpu")
    teacher, images = build_teacher(config, cpu), torch.randn(2, 3, 64, 64)
    maps = timm.create_model(name, features_only=True).eval()
    maps = maps.to(memory_format=torch.channels_last)  # the same order of sums
    maps.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        expected = maps(images)[3]
    assert teacher.grid == (4, 4)
    torch.testing.assert_close(teacher(images).mT.unflatten(2, (4, 4)), expected)
    with pytest.raises(ValueError, match=r"stride=14.*\[2, 4, 8, 16, 32\]"):
        build_teacher(replace(config, stride=14), cpu)


def test_pixels_of_patches():
    image = torch.rand(1, 3, 16, 16)
    teacher = build_teacher(
        TeacherConfig(library="pixels", image_size=16, precision="fp32"), torch.device("cpu"),
        patches=2,
    )  # fmt: skip
    patch = image[0, :, 8:, :8].flatten()  # the third in reading order
    expected = (patch - patch.mean()) / patch.std(correction=0)
    torch.testing.assert_close(teacher(image)[0, 2], expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"image_size=224"):
        PixelTeacher(224, side=24)
