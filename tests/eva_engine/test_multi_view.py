"""Several views of a sample: the sum of their probabilities, as officially for videos."""

import numpy as np
import pytest
import torch
from torch import nn

from eva_engine.evaluation.counting import MultiView, OneLabel, count

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Logits of the mean of a view; it notes how many views it was given at once."""

    def __init__(self, classes=7):
        super().__init__()
        self.layer = nn.Linear(3, classes)
        self.seen = []

    def forward(self, views):  # (B, 3, H, W)
        self.seen.append(len(views))
        return 5 * self.layer(views.mean(dim=(2, 3)))


class Noise:
    """Samples of five views; label i % 7."""

    classes = tuple("abcdefg")

    def __init__(self, bad=()):
        self.bad = bad

    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index in self.bad:
            raise OSError(f"noise-{index} is torn")
        generator = torch.Generator().manual_seed(index)
        return 4 * torch.randn(5, 3, 2, 2, generator=generator), index % 7

    def sample_id(self, index):
        return f"noise-{index}"


def probabilities(model, views):
    """In float64, a view at a time."""
    found = []
    for view in views:
        logits = model(view[None]).detach().double().numpy()[0]
        found.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    return np.stack(found)


def test_a_score_of_views_is_that_of_a_plain_loop():
    model, samples, batches = Linear().eval(), Noise(), []
    counted = count(MultiView(model, views_per_forward=4), samples, {"": OneLabel()}, device=CPU,
                    batch_size=2, confusion=True, receive=batches.append)  # fmt: skip
    means = [probabilities(model, samples[index][0]).mean(0) for index in range(9)]
    labels = [index % 7 for index in range(9)]
    right = [mean.argmax() == label for mean, label in zip(means, labels, strict=True)]
    fives = [label in mean.argsort()[-5:] for mean, label in zip(means, labels, strict=True)]
    losses = [-np.log(mean[label]) for mean, label in zip(means, labels, strict=True)]
    score = counted.scores[""]
    assert (score.right1, score.right5) == (sum(right), sum(fives))
    assert score.loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert [batch.indexes.tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    logits = torch.cat([batch.logits for batch in batches])
    np.testing.assert_allclose(logits.exp(), means, atol=1e-6)
    assert batches[-1].views.shape == (1, 5, 7)


def test_what_cannot_be_read_is_left_out_and_named():
    model, batches = Linear().eval(), []
    bad = (1, 4, 5)
    counted = count(MultiView(model), Noise(bad), {"": OneLabel()}, device=CPU, batch_size=2,
                    workers=1, confusion=True, skip_unreadable=True,
                    receive=batches.append)  # fmt: skip
    assert counted.left_out == ["noise-1 is torn", "noise-4 is torn", "noise-5 is torn"]
    assert counted.scores[""].samples == counted.confusion.sum() == 6
    assert [batch.indexes.tolist() for batch in batches] == [[0], [2, 3], [], [6, 7], [8]]
    assert [[*batch.unreadable] for batch in batches] == [[1], [], [4, 5], [], []]
    with pytest.raises(OSError, match="noise-1 is torn"):
        count(MultiView(model), Noise(bad), {"": OneLabel()}, device=CPU)
    with pytest.raises(ValueError, match="9 cannot be read: noise-0 is torn"):
        count(MultiView(model), Noise(range(9)), {"mine": OneLabel()}, device=CPU,
              skip_unreadable=True)  # fmt: skip
