"""What the cascade, its region proposals and its norm do beside agreeing with detectron2."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData


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


def test_a_batch_is_its_pictures_one_by_one(build_small):
    model = build_small().eval()
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


def test_nothing_is_found_and_nothing_is_there(build_small):
    model = build_small(test=dict(score_thr=1.0)).eval()
    with torch.no_grad():
        found = model.test_step(_batch(_sample(60, 40)))[0].pred_instances
    assert found.masks.shape == (0, 60, 40)
    losses = model.train()(
        **model.data_preprocessor(_batch(_sample(60, 40)), training=True), mode="loss"
    )
    assert losses["s2.loss_cls"].isfinite()
    assert losses["loss_mask"].sum() == 0


def test_heads_train_in_full_precision(build_small):
    """Under autocast the backbone is bfloat16, the RPN and the RoI heads are float32."""
    model, seen = build_small().train(), {}
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


def test_proposals_are_ranked_by_logits(build_small):
    """Two logits that are one probability in float32, the better anchor second."""
    rpn = build_small().rpn_head.eval()
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
