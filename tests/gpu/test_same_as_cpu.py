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
VITS = (
    "class token", "layer scale and checkpoints", "every sample dropped", "table", "windows",
    "windows, vitdet", "windows, beit", "windows, vitdet, checkpoints",
)  # fmt: skip
STEPS = {
    **{f"vit: {kind}": ("vit", kind) for kind in VITS},
    "pyramid": ("pyramid",),
    **{f"pre-training: {kind}": ("pretraining", kind)
       for kind in ("masked_features", "distillation", "tokens")},
    **{f"classification: {kind}": ("classification", kind)
       for kind in ("plain", "mixed", "class token", "linear probe")},
    **{f"video: {kind}": ("video", kind) for kind in ("plain", "mixed", "checkpoints")},
    **{f"clip: {kind}": ("contrastive", kind)
       for kind in ("plain", "sigmoid", "checkpoints", "half frozen")},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """The engine's tests keep a process group of one, which frameworks would ask."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step(steps, gpu, name):
    """Loss and gradients; tolerance 1e-4 of the loss, 1e-3 of the largest gradient."""
    function, *arguments = STEPS[name]
    step = getattr(steps, function)(*arguments)
    other = copy.deepcopy(step.model).to(gpu)
    wanted = step.run(step.model, torch.device("cpu"))
    wanted.backward()
    found = step.run(other, gpu)
    found.backward()
    torch.testing.assert_close(found.detach().cpu(), wanted.detach(), atol=1e-4, rtol=1e-4)
    gradients = {n: p.grad for n, p in step.model.named_parameters() if p.grad is not None}
    atol = 1e-3 * max(gradient.abs().max() for gradient in gradients.values()).item()
    assert atol > 0
    for key, value in other.named_parameters():
        assert (value.grad is not None) == (key in gradients), key
        if value.grad is not None:
            torch.testing.assert_close(value.grad.cpu(), gradients[key], atol=atol, rtol=1e-2)


@pytest.mark.parametrize("kind", ["masked_features", "distillation"])
def test_a_step_of_pretraining_never_waits_for_the_gpu(steps, gpu, only_cuda, kind):
    step = steps.pretraining(kind)
    model, batch = step.model.to(gpu), to_device(step.make_batch(), gpu)
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
def test_detections(steps, gpu, kind):
    """95 in 100 have a partner of their class: 0.05 px, score 1e-3, 99 % of the mask's pixels.

    Two scores that are nearly equal may change places in NMS, which then keeps another box.
    """
    overrides, augmented = PREDICTORS[kind]
    results = [
        steps.detection_predictor(device, *overrides, augmented=augmented)(steps.picture())
        for device in ("cpu", gpu)
    ]
    wanted, found = results
    assert len(wanted) >= 10
    assert abs(len(found) - len(wanted)) <= 0.05 * len(wanted)
    partners = 0
    for index in range(len(wanted)):
        same = found.pred_classes == wanted.pred_classes[index]
        same &= (found.scores - wanted.scores[index]).abs() < 1e-3
        difference = found.pred_boxes.tensor - wanted.pred_boxes.tensor[index]
        same &= difference.abs().amax(1) < 0.05
        masks = found.pred_masks[same] != wanted.pred_masks[index]
        partners += bool((masks.float().mean((1, 2)) < 0.01).any())
    assert partners >= 0.95 * len(wanted)


@pytest.mark.parametrize("multi_scale", [False, True])
def test_label_maps(steps, gpu, multi_scale):
    """99 pixels of 100 have the same class; the others lie between two."""
    wanted, found = (
        steps.segmentation_predictor(device, multi_scale=multi_scale)(steps.picture())
        for device in ("cpu", gpu)
    )
    assert len(np.unique(wanted)) > 1
    assert (found != wanted).mean() < 0.01
