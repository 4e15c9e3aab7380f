"""The head: official names, official order of inference, losses, refused settings."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from eva_segmentation.model.weights import modern_name

PREFIX = "decode_head."
OFFICIAL = {
    "ade20k": "ade20k/mask2former_eva_g_896_20k",
    "ade20k_relpos": "ade20k/mask2former_eva_g_relpos_896_40k",
    "coco_stuff164k": "coco_stuff164k/mask2former_eva_g_896_60k",
    "coco_stuff164k_relpos": "coco_stuff164k/mask2former_eva_g_relpos_896_80k",
}


@pytest.fixture(scope="module")
def old_names():
    """Function: a head's state under the official names, written out from the layers' order."""

    def rename(state):
        old = {}
        for name, value in state.items():
            if "pixel_decoder.encoder" in name:
                name = name.replace(".self_attn.", ".attentions.0.")
            else:
                name = name.replace(".cross_attn.", ".attentions.0.")
                name = name.replace(".self_attn.", ".attentions.1.")
            old[name.replace(".ffn.", ".ffns.0.")] = value
        return old

    return rename


def samples(batch, size, classes=4):
    maps = torch.randint(0, classes, (batch, 1, size, size))
    maps[:, :, :4] = 255
    return [
        SegDataSample(gt_sem_seg=PixelData(data=label_map), metainfo={"img_shape": (size, size)})
        for label_map in maps
    ]


@pytest.mark.parametrize("name", OFFICIAL)
def test_names_and_shapes_are_the_official_ones_in_each_published_config(
    name, load_config, official_shapes
):
    with torch.device("meta"):
        head = MODELS.build(load_config(OFFICIAL[name]).model.decode_head)
    official = {
        modern_name(key).removeprefix(PREFIX): shape
        for key, shape in official_shapes(name).items()
        if key.startswith(PREFIX)
    }
    assert {key: tuple(value.shape) for key, value in head.state_dict().items()} == official


@pytest.mark.parametrize(
    ("old", "modern"),
    [
        (
            "decode_head.transformer_decoder.layers.3.attentions.0.attn.in_proj_weight",
            "decode_head.transformer_decoder.layers.3.cross_attn.attn.in_proj_weight",
        ),
        (
            "decode_head.transformer_decoder.layers.3.attentions.1.attn.out_proj.bias",
            "decode_head.transformer_decoder.layers.3.self_attn.attn.out_proj.bias",
        ),
        (
            "decode_head.pixel_decoder.encoder.layers.5.attentions.0.value_proj.weight",
            "decode_head.pixel_decoder.encoder.layers.5.self_attn.value_proj.weight",
        ),
        (
            "decode_head.pixel_decoder.encoder.layers.5.ffns.0.layers.0.0.weight",
            "decode_head.pixel_decoder.encoder.layers.5.ffn.layers.0.0.weight",
        ),
        ("decode_head.cls_embed.weight", "decode_head.cls_embed.weight"),
        ("backbone.blocks.0.attn.proj.weight", "backbone.blocks.0.attn.proj.weight"),
    ],
)
def test_an_old_name_means_what_it_meant(old, modern):
    assert modern_name(old) == modern
    assert modern_name(modern) == modern


@pytest.mark.parametrize("loader", ["torch", "mmengine"])
def test_old_files_load_and_give_the_same_result(loader, small_head, make_maps, old_names):
    torch.manual_seed(1)
    source = MODELS.build(small_head()).eval()
    target = MODELS.build(small_head()).eval()
    state = old_names(source.state_dict())
    assert not set(state) <= set(source.state_dict())
    if loader == "torch":
        target.load_state_dict(state, strict=True)
    else:
        load_state_dict(target, state, strict=True)
    maps, metas = make_maps(), [{"img_shape": (64, 64)}] * 2
    with torch.no_grad():
        expected, result = (head.predict(maps, metas, None) for head in (source, target))
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert set(state) == set(old_names(source.state_dict()))  # the file's dict is left alone


@pytest.fixture
def pixel_decoders(small_head):
    """mmdetection's pixel decoder and ours; without gradients its heads take `bag_attention`."""
    cfg = small_head().pixel_decoder
    cfg.encoder.layer_cfg.self_attn_cfg.num_heads = 1
    common = {"in_channels": [16] * 4, "strides": [4, 8, 16, 32], "feat_channels": 32,
              "out_channels": 32}  # fmt: skip
    cfg.update(common)
    theirs = MODELS.build({**cfg, "type": "mmdet.MSDeformAttnPixelDecoder"})
    ours = MODELS.build(cfg)
    return theirs, ours


def test_the_pixel_decoder_is_that_of_mmdetection(pixel_decoders, make_maps, randomise):
    theirs, ours = pixel_decoders
    ours.load_state_dict(randomise(theirs).state_dict(), strict=True)
    maps = make_maps()
    (mask, levels), (expected_mask, expected_levels) = ours(maps), theirs(list(maps))
    assert expected_mask.std() > 0.1
    torch.testing.assert_close(mask, expected_mask, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(levels, expected_levels, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours(maps)[0], expected_mask, atol=1e-4, rtol=1e-4)
    gradients = []
    for outputs in ((mask, *levels), (expected_mask, *expected_levels)):
        decoder = ours if outputs[0] is mask else theirs
        total = sum(out.square().sum() for out in outputs)
        gradients.append(torch.autograd.grad(total, list(decoder.parameters())))
    for mine, expected in zip(*gradients, strict=True):
        scale = expected.abs().max()
        assert scale > 0
        torch.testing.assert_close(mine / scale, expected / scale, atol=1e-4, rtol=0)


def test_the_pixel_decoder_starts_as_that_of_mmdetection(pixel_decoders):
    for decoder in pixel_decoders:
        decoder.init_weights()
    start, expected = (decoder.encoder.layers[0].self_attn for decoder in reversed(pixel_decoders))
    torch.testing.assert_close(start.sampling_offsets.bias, expected.sampling_offsets.bias)
    assert not start.sampling_offsets.weight.any()
    assert not start.attention_weights.weight.any()
    bound = (6 / sum(start.value_proj.weight.shape)) ** 0.5
    assert 0.9 * bound < start.value_proj.weight.abs().max() <= bound


def test_a_dropout_of_the_pixel_decoder_is_refused(small_head):
    head = small_head()
    head.pixel_decoder.encoder.layer_cfg.self_attn_cfg.dropout = 0.1
    with pytest.raises(ValueError, match=r"self_attn_cfg.dropout is 0.1.* set it to 0.0"):
        MODELS.build(head)


def test_scores_are_combined_at_a_quarter_and_then_enlarged(small_head, make_maps):
    head = MODELS.build(small_head()).eval()
    maps = make_maps()
    metas = [{"img_shape": (64, 64), "pad_shape": (640, 960)}] * 2
    with torch.no_grad():
        classes, masks = head(maps, None)
        result = head.predict(maps, metas, None)
    probabilities = classes[-1].softmax(-1)[:, :, :4]
    quarter = sum(
        probabilities[:, q, :, None, None] * masks[-1][:, q, None].sigmoid() for q in range(6)
    )
    assert quarter.shape == (2, 4, 16, 16)
    enlarged = F.interpolate(quarter, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, enlarged)


def test_a_crop_larger_than_the_maps_multiple_gets_its_own_size(small_head, make_maps):
    head = MODELS.build(small_head()).eval()
    with torch.no_grad():
        result = head.predict(make_maps(batch=1), [{"img_shape": (61, 50, 3)}], None)
    assert result.shape == (1, 4, 61, 50)


def test_losses_of_all_predictions_fall(small_head, make_maps):
    head = MODELS.build(small_head())
    head.init_weights()
    maps, truth = make_maps(size=32), samples(2, 32)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    history = []
    for _ in range(12):
        losses = head.loss(maps, truth, None)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert set(losses) == {
        f"{depth}loss_{kind}" for depth in ("", "d0.", "d1.") for kind in ("cls", "mask", "dice")
    }
    assert history[-1] < 0.9 * history[0]


def test_computing_mlps_again_changes_no_gradient(small_head, make_maps):
    maps, truth = make_maps(size=32), samples(2, 32)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        head = MODELS.build(small_head(checkpoint_ffn=recompute))
        torch.manual_seed(0)
        sum(head.loss(maps, truth, None).values()).backward()
        gradients.append({name: value.grad for name, value in head.named_parameters()})
    assert any(value.abs().max() > 0 for name, value in gradients[0].items() if ".ffn." in name)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_mixed_precision_reaches_the_decoder_but_not_attention_points_and_losses(
    small_head, make_maps
):
    maps, truth = make_maps(size=32), samples(2, 32)
    head = MODELS.build(small_head())
    seen = {}
    head.pixel_decoder.register_forward_hook(
        lambda module, inputs, output: seen.update(pixel=output[0].dtype)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        classes, _ = head(tuple(level.bfloat16() for level in maps), None)
        torch.manual_seed(0)
        losses = head.loss(maps, truth, None)
    torch.manual_seed(0)
    exact = head.loss(maps, truth, None)
    assert seen["pixel"] == torch.float32
    assert classes[-1].dtype == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in losses.values())
    torch.testing.assert_close(losses["loss_cls"], exact["loss_cls"], rtol=0.05, atol=0)
    sum(losses.values()).backward()
    assert torch.isfinite(head.query_feat.weight.grad).all()


def test_a_picture_without_any_label_still_trains(small_head, make_maps):
    head = MODELS.build(small_head())
    truth = samples(1, 32)
    truth[0].gt_sem_seg.data.fill_(255)
    losses = head.loss(make_maps(size=32, batch=1), truth, None)
    assert all(torch.isfinite(value) for value in losses.values())


def test_class_weights_follow_the_number_of_classes(small_head):
    head = MODELS.build(small_head(num_classes=7))
    assert head.class_weight == [1.0] * 7 + [0.1]
    assert head.cls_embed.out_features == 8
    given = small_head()
    given.loss_cls.class_weight = [1.0, 2.0, 1.0, 1.0, 0.5]
    assert MODELS.build(given).class_weight == [1.0, 2.0, 1.0, 1.0, 0.5]


def test_class_weights_of_another_number_are_refused(small_head):
    given = small_head(num_classes=7)
    given.loss_cls.class_weight = [1.0] * 5
    with pytest.raises(ValueError, match="5 values, but 7 classes and 'no object' need 8"):
        MODELS.build(given)


def test_unknown_arguments_are_refused(small_head):
    with pytest.raises(TypeError, match="no argument in_index"):
        MODELS.build(small_head(in_index=[0]))
