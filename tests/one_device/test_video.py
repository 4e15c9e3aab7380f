"""The steps of video, its views and its features make every tensor where their input is."""

import copy

import pytest
import torch

KINDS = ("plain", "mixed", "checkpoints")


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step(same_training, runs_on_meta, steps, kind):
    assert set(KINDS) == set(steps.VIDEOS)
    same_training(steps.video(kind))
    runs_on_meta(steps.video(kind))


def test_views(steps, second):
    from eva_engine.evaluation.multi_view import MultiView

    model = MultiView(steps.video_classifier(), columns=[4, 1, 0], views_per_forward=2).eval()
    views = torch.randn(2, 3, 4, 3, 64, 64)
    wanted = [part.detach() for part in model(views)]
    with second() as device:
        found = copy.deepcopy(model).to(device)(views.to(device))
        for one, other in zip(wanted, found, strict=True):
            assert other.device == device
            torch.testing.assert_close(other.detach().cpu(), one, atol=1e-5, rtol=1e-5)


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
