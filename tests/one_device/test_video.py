"""The steps of video, its views and its features make every tensor where their input is."""

import copy

import pytest
import torch

KINDS = ("plain", "mixed", "checkpoints")


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step(same_training, steps, kind):
    same_training(steps.video(kind))


def test_features_of_clips(steps, second):
    extract = steps.clip_extractor()
    clips = torch.randn(2, 3, 3, 64, 80)
    wanted = extract(clips), extract.frames(clips), extract.tokens(clips)
    with second() as device:
        other = copy.deepcopy(extract).to(device)
        found = other(clips), other.frames(clips), other.tokens(clips)
        for one, two in zip(wanted, found, strict=True):
            assert two.device == device
            torch.testing.assert_close(two.cpu(), one, atol=1e-5, rtol=1e-5)
