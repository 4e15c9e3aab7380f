"""Several views of a sample: the sum of their probabilities, as officially for videos."""

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


def test_what_cannot_be_read_is_left_out_and_named():
    model, batches = Linear().eval(), []
    bad = (1, 4, 5)
    counted = count(MultiView(model), Noise(bad), {"": OneLabel()}, device=CPU, batch_size=2,
                    workers=1, details=True, max_bad_samples=3,
                    receive=batches.append)  # fmt: skip
    assert counted.left_out == ["noise-1 is torn", "noise-4 is torn", "noise-5 is torn"]
    assert counted.scores[""].samples == counted.confusion.sum() == 6
    assert [batch.indexes.tolist() for batch in batches] == [[0], [2, 3], [], [6, 7], [8]]
    assert [[*batch.unreadable] for batch in batches] == [[1], [], [4, 5], [], []]
    with pytest.raises(ValueError, match="noise-1"):
        count(MultiView(model), Noise(bad), {"": OneLabel()}, device=CPU)
    with pytest.raises(ValueError, match=r"9.*9"):
        count(MultiView(model), Noise(range(9)), {"mine": OneLabel()}, device=CPU,
              max_bad_samples=9)  # fmt: skip
