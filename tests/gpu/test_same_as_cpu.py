"""What a GPU computes is what the CPU computes, within a tolerance: float32, no TF32.

Random choices of the ViT (dropped samples) and of mixup are drawn on the CPU, so training steps can
be compared; steps of the frameworks draw on the device, hence their inference is compared instead.
"""

import copy

import numpy as np
import pytest
import torch

from eva_runs.data_order import to_device

pytestmark = pytest.mark.usefixtures("exact")


def test_a_training_step(make_step, gpu, assert_same_gradients):
    """Loss and gradients; tolerance 1e-4 of the loss, 1e-3 of the largest gradient."""
    step = make_step()
    other = copy.deepcopy(step.model).to(gpu)
    expected = step.run(step.model, torch.device("cpu"))
    expected.backward()
    loss = step.run(other, gpu)
    loss.backward()
    torch.testing.assert_close(loss.detach().cpu(), expected.detach(), atol=1e-4, rtol=1e-4)
    assert_same_gradients(other, step.model)


@pytest.mark.parametrize("kind", ["masked_features", "distillation"])
def test_a_step_of_pretraining_never_waits_for_the_gpu(steps, gpu, only_cuda, kind):
    step = steps.pretraining(kind)
    model, batch = step.model.to(gpu), to_device(step.batch, gpu)
    step.loss(model, batch).backward()  # libraries are loaded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.loss(model, batch).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


SOFT_NMS = ("use_soft_nms=True", "maskness_thresh=0.5", "max_detections=30")
PREDICTORS = {
    "plain": ((), False),
    "soft-nms": (tuple(f"model.roi_heads.{setting}" for setting in SOFT_NMS), False),
    "augmented": ((), True),
}


@pytest.mark.parametrize("kind", PREDICTORS)
def test_detections(steps, picture, gpu, kind):
    """95 in 100 have a partner of their class: 0.05 px, score 1e-3, 99 % of the mask's pixels.

    Two scores that are nearly equal may change places in NMS, which then keeps another box.
    """
    from eva_detection.inference.predictor import Predictor
    from eva_detection.inference.test_time_augmentation import EVARCNNWithTTA

    overrides, augmented = PREDICTORS[kind]
    results = []
    for device in ("cpu", gpu):
        model = steps.detector(*overrides).to(device)
        if augmented:
            model = EVARCNNWithTTA(model, min_sizes=[96, 128], flip=True)
        predictor = Predictor(model, augmentations=(), categories=(), score_threshold=0.05)
        results.append(predictor(picture()))
    expected, result = results
    assert len(expected) >= 10
    assert abs(len(result) - len(expected)) <= 0.05 * len(expected)
    partners = 0
    for index in range(len(expected)):
        same = result.pred_classes == expected.pred_classes[index]
        same &= (result.scores - expected.scores[index]).abs() < 1e-3
        difference = result.pred_boxes.tensor - expected.pred_boxes.tensor[index]
        same &= difference.abs().amax(1) < 0.05
        masks = result.pred_masks[same] != expected.pred_masks[index]
        partners += bool((masks.float().mean((1, 2)) < 0.01).any())
    assert partners >= 0.95 * len(expected)


@pytest.mark.parametrize("multi_scale", [False, True])
def test_label_maps(steps, picture, gpu, multi_scale):
    """99 pixels of 100 have the same class; the others lie between two."""
    cfg, side = steps.segmentor_config("mask2former"), steps.SIDE
    from eva_segmentation.inference.predictor import Predictor
    from eva_segmentation.model.segmentor import StreamingTTA

    pipeline = cfg.test_dataloader.dataset.pipeline
    if multi_scale:
        pipeline, views = cfg.tta_pipeline, cfg.tta_pipeline[1].transforms
        views[0] = [dict(type="Resize", scale=(4 * side, side), keep_ratio=True)]
        views[3] = [dict(type="PadShortSide", size=side)]
    classes = {"names": ["class"] * 5, "colors": [(0, 0, 0)] * 5, "labels": range(5)}
    maps = []
    for device in ("cpu", gpu):
        model = steps.segmentor("upernet")
        torch.nn.init.normal_(model.decode_head.conv_seg.weight)  # else one class is everywhere
        model = StreamingTTA(model) if multi_scale else model
        maps.append(Predictor(model.to(device), pipeline=pipeline, **classes)(picture()))
    assert len(np.unique(maps[0])) > 1
    assert (maps[1] != maps[0]).mean() < 0.01
