"""mmcv's functions on the stand-in's operators, against what mmcv's compiled ones computed."""

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

extension = importlib.import_module("eva_openmmlab.stand_in")

from mmcv import ops  # noqa: E402

pytestmark = pytest.mark.skipif(
    not extension.install_stand_in(), reason="mmcv's operations are compiled here"
)
GOLDEN = Path(__file__).parents[1] / "golden" / "mmcv_operators.safetensors"
SPLIT = dict(type="nms", iou_threshold=0.5, split_thr=50, max_num=30)
SOFT = dict(type="soft_nms", iou_threshold=0.6, min_score=1e-3, method="linear")


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def candidates(golden):
    """Boxes, also empty and equal ones, and scores, also equal ones and zero."""
    return golden["input.boxes"], golden["input.scores"]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms(golden, candidates, threshold, offset):
    found, keep = ops.nms(*candidates, threshold, offset=offset)
    assert torch.equal(keep, golden[f"nms.{threshold}.{offset}"])
    assert torch.equal(found, torch.cat([candidates[0][keep], candidates[1][keep, None]], 1))


@pytest.mark.parametrize("low", [1e-3, 0.2])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms(golden, candidates, method, offset, low):
    found, keep = ops.soft_nms(*candidates, 0.3, 0.5, low, method, offset)
    name = f"soft_nms.{method}.{offset}.{low}"
    assert torch.equal(keep, golden[f"{name}.keep"])
    torch.testing.assert_close(found, golden[f"{name}.dets"], atol=1e-6, rtol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "config"),
    [("plain", dict(type="nms", iou_threshold=0.5)), ("split", SPLIT), ("soft", SOFT)],
)
def test_batched_nms(golden, candidates, name, config):
    found, keep = ops.batched_nms(*candidates, golden["input.classes"], config)
    assert torch.equal(keep, golden[f"batched_nms.{name}.keep"])
    torch.testing.assert_close(found, golden[f"batched_nms.{name}.dets"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align(golden, aligned, ratio):
    features = golden["input.features"].clone().requires_grad_()
    output = ops.roi_align(features, golden["input.rois"], (5, 4), 0.25, ratio, "avg", aligned)
    output.backward(golden["input.grad"])
    name = f"roi_align.{aligned}.{ratio}"
    torch.testing.assert_close(output, golden[f"{name}.output"], atol=1e-6, rtol=0)
    torch.testing.assert_close(features.grad, golden[f"{name}.grad"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss(weighted):
    """Against mmdetection's PyTorch form: mmcv compiles this one for the GPU alone."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    logits = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 4, 4, 1, 1, 4])  # 4: the background
    weight = torch.rand(4, dtype=torch.float64) + 0.5 if weighted else None
    loss = ops.sigmoid_focal_loss(logits, target, 1.5, 0.3, weight, "none")
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4]
    expected = py_sigmoid_focal_loss(logits, one_hot, gamma=1.5, alpha=0.3, reduction="none")
    if weighted:  # of the target's class
        expected = expected * torch.cat([weight, weight.new_ones(1)])[target][:, None]
    torch.testing.assert_close(loss, expected)
    scale = torch.rand_like(loss)
    (mine,) = torch.autograd.grad(loss, logits, scale)
    (theirs,) = torch.autograd.grad(expected, logits, scale)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_regions_of_maps_in_half_precision(dtype):
    """Computed in float32 and rounded once; torchvision has no kernels for them on a CPU."""
    features = torch.rand(1, 2, 8, 8).to(dtype).requires_grad_()
    rois = torch.tensor([[0.0, 1, 1, 6, 6]])
    output = ops.roi_align(features, rois.to(dtype), (3, 3))
    output.sum().backward()
    leaf = features.detach().float().requires_grad_()
    expected = ops.roi_align(leaf, rois, (3, 3))
    expected.sum().backward()
    assert torch.equal(output, expected.to(dtype))
    assert torch.equal(features.grad, leaf.grad.to(dtype))


def test_what_is_not_served_is_an_error_that_names_it():
    with pytest.raises(RuntimeError, match="'deform_conv_forward'"):
        importlib.import_module("mmcv._ext").deform_conv_forward()
    with pytest.raises(RuntimeError, match="pool_mode='max'"):
        ops.roi_align(torch.rand(1, 2, 8, 8), torch.zeros(1, 5), (3, 3), 1.0, 0, "max")
