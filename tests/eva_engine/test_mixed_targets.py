"""Mixed batches, smoothed labels and their loss; images and clips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eva_engine.config import MixingConfig
from eva_engine.data.mixed_targets import MixedTargets, accuracy


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


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_all_frames_of_a_clip_are_mixed_alike(mixing):
    """A clip of one picture is mixed as that picture is."""
    targets = MixedTargets(MixingConfig(**mixing), num_classes=4)
    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    clips = images[:, :, None].repeat(1, 1, 5, 1, 1)  # (B, 3, T, H, W)
    np.random.seed(3)  # noqa: NPY002
    mixed, wanted = targets.mix(images.clone(), labels)
    np.random.seed(3)  # noqa: NPY002
    found, others = targets.mix(clips.clone(), labels)
    assert not mixed.equal(images)
    assert found.equal(mixed[:, :, None].expand_as(clips))
    assert others.equal(wanted)


@pytest.mark.parametrize(("values", "message"), [
    ({"mixup": -1.0}, "mixup must be at least 0, got -1"),
    ({"label_smoothing": 2.0}, r"label_smoothing must be in \[0, 1\], got 2"),
    ({"mixup_switch": 0.3, "cutmix": 1.0}, "mixup_switch=0.3 has no effect"),
])  # fmt: skip
def test_settings_that_no_batch_could_have(values, message):
    with pytest.raises(ValueError, match=message):
        MixingConfig(**values)


def test_mixing_pairs_the_samples_of_a_batch():
    MixingConfig(cutmix=1.0).check_batch_size(4)
    MixingConfig().check_batch_size(3)
    with pytest.raises(ValueError, match="batch_size must be even, got 3"):
        MixingConfig(cutmix=1.0).check_batch_size(3)
