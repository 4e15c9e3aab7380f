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
    from eva_engine.evaluation.counting import MultiView

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


def test_an_attentive_probe_of_tokens_in_the_memory(second):
    """The tokens stay on the CPU, the probe is trained on the device."""
    from eva_video.evaluation.frozen import fit_probe

    tokens, labels = torch.randn(20, 2, 3, 16).half(), torch.arange(20) % 3

    def fit(device, labels):
        fitted = fit_probe(tokens, labels, num_classes=3, learning_rates=(1e-3,), epochs=2,
                           device=device)  # fmt: skip
        return fitted(tokens)

    wanted = fit(torch.device("cpu"), labels)
    with second() as device:
        found = fit(device, labels.to(device))
        assert found.device == device
        torch.testing.assert_close(found.cpu(), wanted, atol=1e-4, rtol=1e-4)


class Clips:
    """Five videos of three views; the fourth cannot be read."""

    classes = tuple("abcde")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 3:
            raise OSError("torn")
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 4, 3, 64, 64, generator=generator), index

    def sample_id(self, index):
        return f"clip-{index}"


def test_counting_videos(steps, second):
    from eva_engine.evaluation.counting import MultiView, OneLabel, count

    model = MultiView(steps.video_classifier()).eval()

    def counted(model, device):
        lines = []
        found = count(
            model, Clips(), {"": OneLabel()}, device=device, batch_size=2, confusion=True,
            skip_unreadable=True,
            receive=lambda batch: lines.extend(batch.views.exp().cpu().flatten().tolist()),
        )  # fmt: skip
        return found, lines

    wanted, lines = counted(model, torch.device("cpu"))
    with second() as device:
        found, others = counted(copy.deepcopy(model).to(device), device)
    assert found.confusion.tolist() == wanted.confusion.tolist()
    assert found.left_out == wanted.left_out == ["torn"]
    assert others == pytest.approx(lines, abs=1e-5)
