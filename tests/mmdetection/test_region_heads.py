"""What the cascade, its region proposals and its norm do beside agreeing with detectron2."""

import importlib
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import InstanceData

from eva_mmdetection.parts import classes, extractor

importlib.import_module("eva_mmdetection.model.federated_loss")

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
    drop_path_rate=0.0,
    activation_checkpointing=False,
    out_channels=8,
)


def _build(*, masks=True, test=(), **changes):
    torch.manual_seed(0)
    config = Config.fromfile(BASE)
    heads = classes(3, channels=8, hidden=16, convs=1)
    heads["mask_head"].update(in_channels=8, conv_out_channels=8, num_convs=1)
    heads["bbox_roi_extractor"] = extractor(7, channels=8)
    heads["mask_roi_extractor"] = extractor(14, channels=8)
    if not masks:
        heads |= dict(mask_head=None, mask_roi_extractor=None)
    rpn = dict(in_channels=8, feat_channels=8)
    test = dict(rcnn=dict(score_thr=0.0) | dict(test), rpn=dict(max_per_img=30))
    model = dict(backbone=NET, rpn_head=rpn, roi_head=heads | changes, test_cfg=test)
    model["data_preprocessor"] = dict(pad_size_divisor=64)
    config.merge_from_dict(dict(model=model))
    return MODELS.build(config.model)


def _sample(height, width, *, scale=1.0, objects=()):
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(height, width),
            ori_shape=(round(height / scale), round(width / scale)),
            scale_factor=(scale, scale),
        )
    )
    masks = np.zeros((len(objects), height, width), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, objects, strict=True):
        mask[y0:y1, x0:x1] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(objects, dtype=torch.float32).view(-1, 4),
        labels=torch.arange(len(objects)) % 3,
        masks=BitmapMasks(masks, height, width),
    )
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    return sample


def _batch(*samples):
    random = torch.Generator().manual_seed(0)
    pictures = [
        torch.randint(0, 256, (3, *one.img_shape), generator=random, dtype=torch.uint8)
        for one in samples
    ]
    return dict(inputs=pictures, data_samples=list(samples))


def test_a_batch_is_its_pictures_one_by_one():
    model = _build().eval()
    data = _batch(_sample(60, 40, scale=0.5), _sample(33, 64))
    with torch.no_grad():
        together = model.test_step(dict(data))
        apart = [
            model.test_step(dict(inputs=[image], data_samples=[sample]))[0]
            for image, sample in zip(data["inputs"], data["data_samples"], strict=True)
        ]
    for one, other, size in zip(together, apart, ((120, 80), (33, 64)), strict=True):
        one, other = one.pred_instances, other.pred_instances
        assert torch.equal(one.labels, other.labels)
        torch.testing.assert_close(one.scores, other.scores)
        torch.testing.assert_close(one.bboxes, other.bboxes, atol=1e-3, rtol=0)
        assert one.masks.shape[1:] == size
        assert (one.bboxes[:, 2] <= size[1] + 1e-3).all()


def test_nothing_is_found_and_nothing_is_there():
    model = _build(test=dict(score_thr=1.0)).eval()
    with torch.no_grad():
        found = model.test_step(_batch(_sample(60, 40)))[0].pred_instances
    assert found.masks.shape == (0, 60, 40)
    losses = model.train()(
        **model.data_preprocessor(_batch(_sample(60, 40)), training=True), mode="loss"
    )
    assert losses["s2.loss_cls"].isfinite()
    assert losses["loss_mask"].sum() == 0


def test_heads_train_in_full_precision():
    """Under autocast the backbone is bfloat16, the RPN and the RoI heads are float32."""
    model, seen = _build().train(), {}
    for name in ("backbone.net.blocks.0.mlp", "rpn_head.rpn_cls", "roi_head.bbox_head.0.fc_cls"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output.dtype)
        )
    sample = _sample(60, 60, objects=[(5, 5, 40, 50), (20, 10, 58, 30)])
    data = model.data_preprocessor(_batch(sample), training=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(**data, mode="loss")
    assert list(seen.values()) == [torch.bfloat16, torch.float32, torch.float32]
    assert all(term.dtype == torch.float32 for term in losses["loss_rpn_cls"])
    assert losses["s0.loss_cls"].isfinite()


def test_proposals_are_ranked_by_logits():
    """Two logits that are one probability in float32, the better anchor second."""
    rpn = _build().rpn_head.eval()
    logits = [torch.full((3, size, size), -20.0) for size in (16, 8, 4, 2, 1)]
    logits[1][1, 2, 2], logits[1][1, 5, 5] = 20.0, 25.0
    assert logits[1][1, 2, 2].sigmoid() == logits[1][1, 5, 5].sigmoid()
    deltas = [torch.zeros(12, size, size) for size in (16, 8, 4, 2, 1)]
    anchors = rpn.prior_generator.grid_priors([one.shape[1:] for one in logits], device="cpu")
    for best in (25.0, 15.0):
        logits[1][1, 5, 5] = best
        found = rpn._predict_by_feat_single(
            logits, deltas, [None] * 5, anchors, dict(img_shape=(64, 64)), rpn.test_cfg
        )
        centre = (found.bboxes[0, :2] + found.bboxes[0, 2:]) / 2
        assert (centre[0] > 30) == (best == 25.0)
        assert found.scores.max() <= 1
