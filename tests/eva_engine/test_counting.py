"""Counting right predictions against numbers made by hand or with numpy."""

import numpy as np
import pytest
import torch

from eva_engine.evaluation.counting import AnyLabel, OneLabel, count

CPU = torch.device("cpu")


@pytest.fixture
def case():
    """11 images of 7 classes: logits, labels."""
    chance = np.random.default_rng(3)
    return chance.normal(size=(11, 7)).round(2) * 2, chance.integers(0, 7, 11).tolist()


def places(logits, labels):
    """How many classes each row puts before its label."""
    logits = np.asarray(logits)
    return (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)


@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_counts_do_not_depend_on_batches(prescribe, numbered, cross_entropy, case, batch_size):
    logits, labels = case
    columns, any_of = [6, 2, 0], [[1, 3]] * 5 + [[]] * 3 + [[0]] * 3
    restricted = [label % 3 for label in labels]
    model = prescribe(logits)
    rules = {"all": OneLabel(), "any": AnyLabel(any_of)}
    counted = count(model, numbered(labels, classes=7), rules, device=CPU, batch_size=batch_size)
    assert [n for batch in model.seen for n in batch] == list(range(11))  # each image once
    before, losses = places(logits, labels), cross_entropy(logits, labels)
    score = counted.scores["all"]
    right = (before == 0).sum(), (before < 5).sum()
    assert (score.samples, score.right1, score.right5) == (11, *right)
    assert score.loss == pytest.approx(losses.mean(), rel=1e-6)
    order = np.argsort(-logits, axis=1)
    hits = [[bool({*row[:n]} & {*entry}) for row, entry in zip(order, any_of, strict=True)]
            for n in (1, 5)]  # fmt: skip
    score = counted.scores["any"]
    assert (score.samples, score.right1, score.right5) == (8, sum(hits[0]), sum(hits[1]))
    assert score.loss == pytest.approx(losses[[*range(5), *range(8, 11)]].mean(), rel=1e-6)
    assert (counted.confusion, counted.right5) == (None, None)
    some = count(model, numbered(restricted, classes=3), {"some": OneLabel(columns)}, device=CPU,
                 batch_size=batch_size).scores["some"]  # fmt: skip
    sliced = np.stack([logits[:, 6], logits[:, 2], logits[:, 0]], 1)
    assert (some.right1, some.right5) == ((places(sliced, restricted) == 0).sum(), 11)
    assert some.loss == pytest.approx(cross_entropy(sliced, restricted).mean(), rel=1e-6)


def test_where_each_label_went(prescribe, numbered, case):
    logits, labels = case
    counted = count(prescribe(logits), numbered(labels, classes=7), {"": OneLabel()}, device=CPU,
                    batch_size=4, details=True)  # fmt: skip
    expected, fives = np.zeros((7, 7), int), np.zeros(7, int)
    for row, label, before in zip(logits, labels, places(logits, labels), strict=True):
        expected[label, row.argmax()] += 1
        fives[label] += before < 5
    assert counted.confusion.tolist() == expected.tolist()
    assert counted.right5.tolist() == fives.tolist()
    assert counted.confusion.trace() == counted.scores[""].right1


def test_logits_that_are_not_finite_name_the_image(prescribe, numbered):
    logits = np.zeros((6, 3))
    logits[5, 2] = np.inf
    with pytest.raises(FloatingPointError, match=r"picture-5"):
        count(prescribe(logits), numbered([0] * 6, classes=3), {"": OneLabel()}, device=CPU,
              batch_size=4)  # fmt: skip
