"""The loss of LVIS against detectron2's, number by number."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers

from eva_mmdetection.model.federated_loss import EVAFederatedLoss

K = 40
COUNTS = [float(3 * k % 17 + 1) for k in range(K)]


def _detectron2(sampled):
    return FastRCNNOutputLayers(
        ShapeSpec(channels=4),
        box2box_transform=Box2BoxTransform(weights=(10, 10, 5, 5)),
        num_classes=K,
        use_sigmoid_ce=True,
        use_fed_loss=sampled > 0,
        get_fed_loss_cls_weights=lambda: torch.tensor(COUNTS) ** 0.5,
        fed_loss_num_classes=sampled,
    )


@pytest.mark.parametrize("sampled", [0, 3, 12, 39])
def test_values_and_gradients(sampled):
    logits = torch.randn(30, K + 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([2, 5, 5, 7, 30, K] * 5)
    loss = EVAFederatedLoss(num_classes=K, image_counts=COUNTS, num_sampled=sampled)
    torch.manual_seed(3)
    mine = loss(logits, labels, torch.ones(30), avg_factor=30.0)
    (gradient,) = torch.autograd.grad(mine, logits)
    predictor = _detectron2(sampled)
    torch.manual_seed(3)
    theirs = predictor.sigmoid_cross_entropy_loss(logits, labels)
    (expected,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(gradient, expected)


def test_rare_classes_are_drawn_less_often_and_present_ones_always():
    counts = [100.0] * 10 + [1.0] * 30
    loss = EVAFederatedLoss(num_classes=K, image_counts=counts, num_sampled=8)
    labels = torch.tensor([39, K])
    total = sum(loss.counted_classes(labels) for _ in range(400)) / 400
    assert total.sum() == pytest.approx(7)  # the background is one of the eight, as in detectron2
    assert total[39] == 1
    assert total[:10].mean() > 4 * total[10:39].mean()
