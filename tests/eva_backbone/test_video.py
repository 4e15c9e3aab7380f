"""The ViT over clips: attention over all frames, positions in space and time, weights."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from eva_backbone import (
    VideoTransformer,
    VisionTransformer,
    load_pretrained,
    load_vit,
    no_init_weights,
)
from eva_backbone.checkpoints.loading import load_weights
from eva_backbone.layer_decay import layer_index
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


def test_frames_see_each_other(make_video):
    model = make_video()
    clips = torch.randn(1, 4, 3, 56, 56)
    other = clips.clone()
    other[:, 3] += 1
    first = model.forward_feature_map(clips)[:, :, 0] - model.forward_feature_map(other)[:, :, 0]
    assert first.abs().max() > 1e-4


def test_other_frames_and_sizes(make_video):
    model = make_video()
    clips = torch.randn(1, 6, 3, 70, 42)
    grid = (6, 5, 3)
    patches = model.pos_embed[:, 1:].reshape(1, 4, 4, 4, 32).permute(0, 4, 1, 2, 3)
    expected = F.interpolate(patches, size=grid, mode="trilinear", align_corners=False)
    positions = model._positions(grid)
    torch.testing.assert_close(positions[:, 1:], expected.flatten(2).transpose(1, 2))
    assert torch.equal(positions[:, :1], model.pos_embed[:, :1])
    assert model(clips).shape == (1, 1 + 6 * 15, 32)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 56, 56), r"\(batch, frames, 3, height, width\), got \(1, 3, 56, 56\)"),
        ((1, 3, 4, 56, 56), r"got \(1, 3, 4, 56, 56\)"),
        ((1, 0, 3, 56, 56), r"got \(1, 0, 3, 56, 56\)"),
        ((1, 4, 3, 56, 50), "56x50 is not divisible by the patch size 14; .* 56x56"),
    ],
)
def test_what_is_not_a_clip(make_video, shape, message):
    with pytest.raises(ValueError, match=message):
        make_video()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"window_size": 2, "extra_tokens": ()}, "window_size=2"),
        ({"rel_pos": "table"}, "rel_pos='table'"),
    ],
)
def test_what_does_not_suit_clips(options, message):
    with pytest.raises(ValueError, match=message):
        VideoTransformer(**(SIZES | {"frames": 4} | options))


def test_initialisation_is_that_of_the_vit():
    torch.manual_seed(1)
    model = VideoTransformer(frames=4, **SIZES)
    for name, parameter in model.named_parameters():
        if (name.endswith("weight") and "norm" not in name) or name in ("pos_embed", "cls_token"):
            assert parameter.std() > 1e-3, name
    assert model.patch_embed.proj.weight.shape == (32, 3, 1, 14, 14)
    assert model.pos_embed.shape == (1, 1 + 4 * 16, 32)
    assert layer_index("patch_embed.proj.weight", 2) == 0
    with no_init_weights():
        waiting = VideoTransformer(frames=4, **SIZES)
    with pytest.raises(RuntimeError, match="has no weights yet"):
        waiting(torch.zeros(1, 4, 3, 56, 56))
    waiting.load_state_dict(model.state_dict())
    clips = torch.randn(1, 4, 3, 56, 56)
    torch.testing.assert_close(waiting(clips), model(clips))


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


def test_pictures_of_another_size(make_video, randomise, save):
    """The space as for pictures (bicubic), then repeated: one rule for images."""
    picture = randomise(VisionTransformer(**SIZES)).eval()
    model = load_vit(save(picture.state_dict()), frames=3, num_heads=2, img_size=70)
    space = F.interpolate(
        picture.pos_embed[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2), size=(5, 5),
        mode="bicubic", align_corners=False,
    )  # fmt: skip
    torch.testing.assert_close(
        model.pos_embed[:, 1:], space.flatten(2).transpose(1, 2).repeat(1, 3, 1)
    )


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


def test_equal_numbers_of_positions_are_not_equal_grids(tmp_path, randomise):
    """16 frames of 2 x 2 are not 4 frames of 4 x 4."""
    source = randomise(VideoTransformer(**(SIZES | {"img_size": 28}), frames=16))
    file = _note(source, tmp_path / "model.safetensors", 16)
    model = VideoTransformer(**SIZES, frames=4)
    load_pretrained(model, file, complete=True)
    expected = resample_clip_pos_embed(source.pos_embed, 16, (4, 4, 4))
    torch.testing.assert_close(model.pos_embed, expected)
    assert not torch.equal(model.pos_embed, source.pos_embed)


@pytest.mark.parametrize("note", [None, "8", 0, -1, True, [4], {"a": 1}, 5])
def test_files_that_do_not_show_their_frames(make_video, tmp_path, note):
    model = make_video()
    file = tmp_path / "model.safetensors"
    metadata = {"config": json.dumps({"model": {"frames": note}})}
    save_file(model.state_dict(), file, metadata=metadata if note is not None else None)
    before = model.pos_embed.clone()
    message = "not 5 square frames|64 positions of clips"
    with pytest.raises(ValueError, match=f"model.safetensors has .*({message})"):
        load_pretrained(model, file)
    assert torch.equal(model.pos_embed, before)


def test_wrong_frames_are_refused(make_video, save):
    model = make_video()
    state = model.state_dict()
    for kernel, message in (((32, 3, 2, 14, 14), "span 2 frames"), ((32, 3, 1, 28, 28), "frames")):
        bad = state | {"patch_embed.proj.weight": torch.zeros(kernel)}
        with pytest.raises(ValueError, match=message):
            load_pretrained(model, save(bad))


def test_stochastic_depth_and_checkpointing_train(make_video):
    model = make_video(drop_path_rate=0.5, activation_checkpointing=True).train()
    model(torch.randn(4, 2, 3, 56, 56)).sum().backward()
    assert model.pos_embed.grad is not None
    assert all(isinstance(block, nn.Module) for block in model.blocks)
    assert model.patch_embed.proj.weight.grad.abs().max() > 0


def test_damaged_files_are_one_sentence(make_video, save):
    model = make_video()
    state = model.state_dict()
    without = {name: value for name, value in state.items() if name != "pos_embed"}
    huge = torch.full((1, 65, 32), 1e300, dtype=torch.float64)
    for bad, message in (
        (without, "weights.pt lacks pos_embed"),
        (state | {"patch_embed.proj.weight": torch.zeros(32, 3, 1, 14, 16)}, "not square"),
        (state | {"pos_embed": huge}, "pos_embed with values up to .* too large"),
    ):
        before = {name: value.clone() for name, value in state.items()}
        for other in (model, make_video(frames=2)):  # the positions as they are, and resampled
            with pytest.raises(ValueError, match=message):
                load_weights(other, bad, source="weights.pt", frames=4)
        with pytest.raises(ValueError, match=r"square|lacks pos_embed|do not show"):
            load_pretrained(model, save(bad))
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_frames_that_are_not_noted_can_be_noted(make_video, tmp_path, save):
    """As the message about them says."""
    model = make_video()
    with pytest.raises(ValueError, match="note it in the metadata of a") as error:
        load_vit(save(model.state_dict()), frames=4, num_heads=2)
    example = str(error.value).partition("config = ")[2].replace("T", "4")
    file = tmp_path / "noted.safetensors"
    save_file(model.state_dict(), file, metadata={"config": example})
    assert load_vit(file, frames=4, num_heads=2).pos_embed.equal(model.pos_embed)
