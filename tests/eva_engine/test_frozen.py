"""Frozen features: neighbours and linear classifier beside scikit-learn's, and their sharing."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from eva_engine.evaluation.frozen import (
    Kept,
    fit_best_linear,
    fit_linear,
    labelled_features,
    nearest_neighbours,
)

CPU = torch.device("cpu")


class Squares:
    """Sample i is the vector (i, i * i), of class i % 3."""

    classes = ("a", "b", "c")

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return torch.tensor([float(index), float(index) ** 2]), index % 3

    def sample_id(self, index):
        return f"square-{index}"


@pytest.fixture(scope="module")
def digits():
    """Pixels of real digits: 400 to learn from, 200 to ask."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(pixels[:600], dtype=torch.float32), torch.tensor(labels[:600])
    return pixels[:400], labels[:400], pixels[400:], labels[400:]


@pytest.mark.parametrize("k", [1, 20])
def test_neighbours_vote_as_in_scikit_learn(digits, k):
    known, labels, queries, _ = digits
    votes = nearest_neighbours(known, labels, queries, k=k, classes=10)
    peer = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute",
        weights=lambda distances: np.exp((distances.min(1, keepdims=True) - distances) / 0.07),
    ).fit(known.numpy(), labels.numpy())  # fmt: skip
    shares = votes / votes.sum(1, keepdim=True)
    expected = torch.tensor(peer.predict_proba(queries.numpy()), dtype=torch.float32)
    torch.testing.assert_close(shares, expected, atol=1e-4, rtol=0)
    few = nearest_neighbours(known[:1], labels[:1], queries, k=k, classes=10)  # others unreadable
    assert set(few.argmax(1).tolist()) == {int(labels[0])}


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_linear_classifier_is_scikit_learn_s(digits, l2):
    known, labels, queries, _ = digits
    ours = fit_linear(known, labels, classes=10, l2=l2)
    scaler = StandardScaler().fit(known.numpy())
    peer = LogisticRegression(C=1 / (l2 * len(known)), max_iter=2000, tol=1e-6)
    peer.fit(scaler.transform(known.numpy()), labels.numpy())
    expected = peer.predict_proba(scaler.transform(queries.numpy()))
    torch.testing.assert_close(
        ours(queries).softmax(1), torch.tensor(expected).float(), atol=2e-3, rtol=0
    )


def test_rounding_of_a_constant_channel_is_no_feature(digits):
    """Such as all channels of weights that have seen nothing: no two programs round alike."""
    known, labels, queries, _ = digits
    constant = [7.0 + 1e-5 * torch.randn(len(part), 50) for part in (known, queries, queries)]
    fitted = fit_linear(torch.cat([known, constant[0]], 1), labels, classes=10, l2=1e-6)
    ours, again = (fitted(torch.cat([queries, noise], 1)) for noise in constant[1:])
    torch.testing.assert_close(ours, again, rtol=0, atol=0)


def test_the_penalty_is_chosen_on_a_part_held_out(digits):
    known, labels, _, _ = digits
    noisy = labels.clone()
    noisy[::3] = torch.randint(0, 10, noisy[::3].shape)  # a weak penalty learns the noise by heart
    assert fit_best_linear(known, noisy, classes=10, candidates=(1e-6, 0.3)).l2 == 0.3
    assert fit_best_linear(known, noisy, classes=10, candidates=(0.7,)).l2 == 0.7
    with pytest.raises(ValueError, match=r"4.*l2"):
        fit_best_linear(known[:4], noisy[:4], classes=10)


def test_several_kinds_of_features_are_kept_in_order():
    def compute(inputs):
        return inputs.sum(1), inputs[:, :, None].expand(-1, -1, 3)

    kept = [Kept([]), Kept([2, 3], torch.float16)]
    (sums, grids), labels = labelled_features(
        compute, Squares(), kinds=kept, device=CPU, batch_size=4, workers=0
    )
    assert sums.tolist() == [i + i * i for i in range(11)]
    assert grids.shape == (11, 2, 3)
    assert grids.dtype == torch.float16
    assert grids[5].tolist() == [[5.0] * 3, [25.0] * 3]
    assert labels.tolist() == [i % 3 for i in range(11)]
    (fewer, _), some = labelled_features(
        compute, Squares(), kinds=kept, device=CPU, batch_size=2, workers=0, limit=4
    )
    places = [sums.tolist().index(value) for value in fewer.tolist()]
    assert places == sorted(places)
    assert len(places) == 4
    assert some.tolist() == [place % 3 for place in places]
