"""Mixed batches, smoothed labels and their loss; images and clips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eva_engine.config import MixingConfig
from eva_engine.data.mixed_targets import MixedTargets, accuracy, label_text


def test_mixed_labels_are_probabilities():
    targets = MixedTargets(MixingConfig(mixup=0.8, cutmix=1.0, label_smoothing=0.1), num_classes=5)
    images, mixed = targets.mix(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))
    assert images.shape == (4, 3, 16, 16)
    torch.testing.assert_close(mixed.sum(1), torch.ones(4))
    logits = torch.randn(4, 5)
    expected = -(mixed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(targets.loss(logits, mixed), expected)
    assert accuracy(mixed, mixed) == 1


def test_label_smoothing_without_mixing():
    targets = MixedTargets(MixingConfig(label_smoothing=0.3), num_classes=5)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    same, same_labels = targets.mix(images, labels)
    assert same is images
    assert same_labels is labels
    logits = torch.randn(4, 5)
    smooth = 0.7 * F.one_hot(labels, 5) + 0.3 / 5
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(targets.loss(logits, labels), expected)
    half = targets.loss(logits.bfloat16(), labels)
    assert half.dtype == torch.float32


def official_mix(clips, labels, order, *, share, box=None, smoothing=0.1, classes=5):
    """Each clip with the one at its place in an order, as the official video code mixes them."""
    hot = torch.full((len(labels), classes), smoothing / classes)
    hot[torch.arange(len(labels)), labels] = 1 - smoothing + smoothing / classes
    mixed = clips.clone()
    if box is None:
        mixed = share * clips + (1 - share) * clips[order]
    else:
        top, bottom, left, right = box
        mixed[..., top:bottom, left:right] = clips[order][..., top:bottom, left:right]
    return mixed, share * hot + (1 - share) * hot[order]


@pytest.mark.parametrize("size", [3, 6])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_clips_in_a_random_order_of_the_batch(kind, size):
    """The share of mixup and the box of cutmix are read off the pixels."""
    alpha = {"mixup": 0.8} if kind == "mixup" else {"cutmix": 1.0}
    targets = MixedTargets(MixingConfig(**alpha, pairing="permute"), num_classes=5)
    clips, labels = torch.rand(size, 2, 3, 12, 10), torch.arange(size) % 5
    orders, compared = set(), 0
    for seed in range(30):
        np.random.seed(seed)  # noqa: NPY002
        order = torch.from_numpy(np.random.permutation(size))  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        given = clips.clone()
        found, wanted = targets.mix(given, labels)
        orders.add(tuple(order.tolist()))
        changed = (found != clips).flatten(1).any(1) & (order != torch.arange(size))
        share, box = 1.0, None
        if changed.any():
            first = int(changed.int().argmax())
            difference = clips[first] - clips[order[first]]
            step = found[first] - clips[order[first]]
            share = ((step * difference).sum() / difference.square().sum()).item()
            if kind == "cutmix":
                rows, columns = torch.where((found[first] != clips[first]).all(0).all(0))
                box = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
                share = 1 - len(rows) / 120
            compared += 1
        mixed, expected = official_mix(clips, labels, order, share=share, box=box)
        torch.testing.assert_close(found, mixed, atol=1e-5, rtol=0)
        torch.testing.assert_close(wanted, expected, atol=1e-5, rtol=0)
        assert given.equal(clips)
    assert compared >= 10
    assert (tuple(range(size)) in orders) == (size < 6)  # a sample can meet itself


def test_boxes_of_cutmix_are_those_of_the_official_code():
    """timm 0.4.12: sides are rounded down to even numbers, current timm keeps odd ones."""
    targets = MixedTargets(MixingConfig(cutmix=1.0), num_classes=5)
    images, labels = torch.rand(2, 3, 14, 21), torch.tensor([1, 3])
    for seed in range(60):
        np.random.seed(seed)  # noqa: NPY002
        np.random.rand()  # noqa: NPY002
        side = np.sqrt(1 - np.random.beta(1.0, 1.0))  # noqa: NPY002
        edges = []
        for length in (14, 21):
            half, centre = int(length * side) // 2, np.random.randint(0, length)  # noqa: NPY002
            edges += np.clip([centre - half, centre + half], 0, length).tolist()
        share = 1 - (edges[1] - edges[0]) * (edges[3] - edges[2]) / (14 * 21)
        np.random.seed(seed)  # noqa: NPY002
        found, wanted = targets.mix(images.clone(), labels)
        mixed, expected = official_mix(images, labels, [1, 0], share=share, box=edges)
        assert found.equal(mixed)
        torch.testing.assert_close(wanted, expected)


def test_a_mixed_label_names_both_classes_with_their_shares():
    classes = list("abcd")
    assert label_text(torch.tensor(2), classes) == "c"
    assert label_text(torch.tensor([0.01, 0.6, 0.01, 0.38]), classes) == "b 60%, d 38%"
    assert label_text(torch.tensor([0.97, 0.01, 0.01, 0.01]), classes) == "a 97%"
