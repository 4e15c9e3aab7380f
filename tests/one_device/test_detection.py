"""The detector: training, inference, soft-NMS, test-time augmentation, and the predictor.

Random numbers are the CPU's on both devices, so proposals and samples are the same.
"""

import copy

import pytest
import torch

SOFT_NMS = ("use_soft_nms=True", "maskness_thresh=0.5", "max_detections=30")
HEADS = [(), tuple(f"model.roi_heads.{setting}" for setting in SOFT_NMS)]


def _same(found, wanted):
    assert len(wanted) > 0
    assert found.get_fields().keys() == wanted.get_fields().keys()
    for name, value in wanted.get_fields().items():
        other = found.get(name)
        value, other = (getattr(field, "tensor", field) for field in (value, other))
        torch.testing.assert_close(other.cpu(), value, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rel_pos", ["vitdet", "beit", "none"])
def test_training(same_training, steps, rel_pos):
    """detectron2 indexes masks with `torch.arange` of the CPU; all else is strict."""
    same_training(steps.detection(f"model.backbone.net.rel_pos={rel_pos}"), indexes_on_cpu=True)


@pytest.mark.parametrize("overrides", HEADS, ids=["nms", "soft-nms"])
def test_inference(second, steps, overrides):
    model = steps.detector(*overrides).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        wanted = model(steps.detection_batch())
        with second() as device:
            for one, result in zip(other.to(device)(steps.detection_batch()), wanted, strict=True):
                assert one["instances"].scores.device == device
                _same(one["instances"], result["instances"])
