"""The ViT over clips: attention over all frames, positions in space and time, weights."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from eva_backbone import (
    VideoTransformer,
    VisionTransformer,
    load_pretrained,
    load_vit,
)
from eva_backbone.resample import resample_clip_pos_embed

SIZES = {
    "img_size": 56,
    "patch_size": 14,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 48,
}


@pytest.fixture
def make_video(randomise):
    def make(frames=4, **options):
        return randomise(VideoTransformer(**(SIZES | {"frames": frames} | options))).eval()

    return make


def test_tokens_are_all_patches_frame_by_frame(make_video):
    """Equal to a convolution in three dimensions and one sequence, put together by hand."""
    model = make_video()
    clips = torch.randn(2, 4, 3, 56, 56)
    patches = F.conv3d(
        clips.transpose(1, 2), model.patch_embed.proj.weight, model.patch_embed.proj.bias,
        stride=(1, 14, 14),
    ).flatten(2).transpose(1, 2)  # fmt: skip
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), patches], dim=1) + model.pos_embed
    for block in model.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(model(clips), model.norm(tokens))
    maps = model.forward_feature_map(clips)
    assert maps.shape == (2, 32, 4, 4, 4)
    torch.testing.assert_close(maps[:, :, 1, 2, 3], model.norm(tokens)[:, 1 + 16 + 8 + 3])


def test_a_model_of_pictures_becomes_one_of_clips(make_video, randomise, save):
    picture = randomise(VisionTransformer(**SIZES)).eval()
    file = save({"module": picture.state_dict()})
    model = make_video()
    report = load_pretrained(model, file, complete=True)
    assert report.resampled["pos_embed"] == ((1, 17, 32), (1, 65, 32))
    assert report.resampled["patch_embed.proj.weight"] == ((32, 3, 14, 14), (32, 3, 1, 14, 14))
    repeated = picture.pos_embed[:, 1:].repeat(1, 4, 1)
    assert torch.equal(model.pos_embed[:, 1:], repeated)
    assert torch.equal(model.pos_embed[:, :1], picture.pos_embed[:, :1])
    assert torch.equal(model.patch_embed.proj.weight.squeeze(2), picture.patch_embed.proj.weight)
    # a still picture shown in one frame is the picture
    still = torch.randn(1, 1, 3, 56, 56)
    one = load_vit(file, frames=1, num_heads=2)
    torch.testing.assert_close(one(still), picture(still[:, 0]))


def _note(model, file, frames):
    config = {"model": {"frames": frames}}
    save_file(model.state_dict(), file, metadata={"config": json.dumps(config)})
    return file


def test_a_run_notes_its_frames(make_video, tmp_path):
    file = _note(make_video(), tmp_path / "model.safetensors", 4)
    clips = torch.randn(1, 4, 3, 56, 56)
    same = load_vit(file, frames=4, num_heads=2)
    torch.testing.assert_close(same(clips), make_video_like(file, 4)(clips), atol=0, rtol=0)
    longer = load_vit(file, frames=8, num_heads=2)
    expected = resample_clip_pos_embed(same.pos_embed, 4, (8, 4, 4))
    assert torch.equal(longer.pos_embed, expected)
    picture = load_vit(file, num_heads=2)  # clips of one frame, at the mean of the positions
    assert type(picture) is VisionTransformer
    torch.testing.assert_close(
        picture.pos_embed[:, 1:], same.pos_embed[:, 1:].unflatten(1, (4, 16)).mean(1)
    )


def make_video_like(file, frames):
    model = VideoTransformer(**SIZES, frames=frames).eval()
    load_pretrained(model, file, complete=True)
    return model
