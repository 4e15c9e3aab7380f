"""The segmentors: training, sliding windows, and the predictor at several scales."""

import copy

import numpy as np
import pytest
import torch

KINDS = ("mask2former", "mask2former, table, checkpoints", "upernet", "upernet, windows")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Tests of the engine keep a process group of one, which mmengine would ask."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training(same_training, steps, kind):
    same_training(steps.segmentation(kind))


@pytest.mark.parametrize("kind", KINDS[1::2])
def test_sliding_windows(second, steps, kind):
    model = steps.segmentor(kind).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        wanted = model.test_step(steps.segmentation_batch(64, 96))
        with second() as device:
            found = other.to(device).test_step(steps.segmentation_batch(64, 96))
            for one, expected in zip(found, wanted, strict=True):
                assert one.seg_logits.data.device == device
                scores = one.seg_logits.data.cpu()
                torch.testing.assert_close(scores, expected.seg_logits.data, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("multi_scale", [False, True])
def test_the_predictor(second, steps, multi_scale):
    wanted = steps.segmentation_predictor("cpu", multi_scale=multi_scale)(steps.picture())
    with second() as device:
        predictor = steps.segmentation_predictor(device, multi_scale=multi_scale)
        found = predictor(steps.picture())
    assert len(np.unique(wanted)) > 1
    assert (found != wanted).mean() < 0.01  # ties between two classes
