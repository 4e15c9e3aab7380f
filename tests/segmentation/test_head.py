"""The head: official names, official order of inference, losses, refused settings."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


def samples(batch, size, classes=4):
    maps = torch.randint(0, classes, (batch, 1, size, size))
    maps[:, :, :4] = 255
    return [
        SegDataSample(gt_sem_seg=PixelData(data=label_map), metainfo={"img_shape": (size, size)})
        for label_map in maps
    ]


@pytest.fixture
def pixel_decoders(small_head):
    """mmdetection's pixel decoder and ours."""
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
