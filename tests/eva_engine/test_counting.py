"""Counting right predictions against numbers made by hand or with numpy."""

import numpy as np
import pytest
import torch
from PIL import Image

from eva_engine.config import RunConfig
from eva_engine.evaluation.classification_report import Validation
from eva_engine.evaluation.counting import AnyLabel, OneLabel, count

CPU = torch.device("cpu")
FALLING = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
RISING = FALLING[::-1]


@pytest.fixture
def case():
    """11 images of 7 classes: logits, labels."""
    chance = np.random.default_rng(3)
    return chance.normal(size=(11, 7)).round(2) * 2, chance.integers(0, 7, 11).tolist()


def judge(rule, logits, labels, indexes=None):
    indexes = range(len(labels)) if indexes is None else indexes
    return rule(torch.tensor(logits), torch.tensor(labels), torch.tensor(list(indexes)))


def places(logits, labels):
    """How many classes each row puts before its label."""
    logits = np.asarray(logits)
    return (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)


def test_the_loss_is_that_of_the_softmax(cross_entropy):
    logits, labels = [FALLING, FALLING, RISING], [0, 4, 1]
    judged = judge(OneLabel(), logits, labels)
    assert judged.top1.tolist() == [True, False, False]
    assert judged.top5.tolist() == [True, True, True]
    # log(1 + e^-1 + ... + e^-5) = 0.456193; the label lies 0, 4 and 4 below the greatest
    np.testing.assert_allclose(judged.loss, [0.456193, 4.456193, 4.456193], atol=1e-5)
    np.testing.assert_allclose(judged.loss, cross_entropy(logits, labels), rtol=1e-6)


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
                    batch_size=4, confusion=True)  # fmt: skip
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
    with pytest.raises(FloatingPointError, match=r"logits of picture-5 are not finite: use fp32"):
        count(prescribe(logits), numbered([0] * 6, classes=3), {"": OneLabel()}, device=CPU,
              batch_size=4)  # fmt: skip


def test_no_image_counts(prescribe, numbered):
    with pytest.raises(ValueError, match="no sample counts in ReaL"):
        count(prescribe([FALLING] * 2), numbered([0, 1], classes=6),
              {"1K": OneLabel(), "ReaL": AnyLabel([[], []])}, device=CPU)  # fmt: skip


def test_what_a_validation_keeps_for_a_report(prescribe, numbered, tmp_path):
    """The wrong ones with the most confidence, the most confident right one of each class."""
    run = RunConfig(output=tmp_path, epochs=1, batch_size=2, workers=0)
    logits = [[0.0, 4.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0], [0.0, 5.0]]
    validation = Validation(numbered([1, 0, 0, 0, 1], classes=2), run, CPU)
    assert validation.sections(lambda index: Image.new("RGB", (4, 4))) == []
    validation(prescribe(logits))
    validation(prescribe([[4.0, 0.0]] * 5))  # worse, as a moving average may be at the end
    wrong, right = validation.best.kept[1]
    assert [(one.sample, one.prediction) for one in wrong] == [(2, 1), (1, 1)]
    assert [(one.sample, one.label) for one in right] == [(4, 1), (3, 0)]
    assert wrong[0].confidence == pytest.approx(1 / (1 + np.exp(-2)))
    classes, confusion, worst, best = validation.sections(
        lambda index: Image.new("RGB", (index + 1, 4))
    )
    assert [row[1:3] for row in classes.rows] == [[3, pytest.approx(100 / 3)], [2, 100]]
    assert classes.rows[0][4] == "class 1 (2 times)"
    assert "best evaluation by top1 since the last start: loss 0.7027, top1 60," in classes.text
    assert "top1 60," in worst.text
    assert confusion.counts.tolist() == [[1, 2], [0, 2]]
    assert worst.examples[0].caption.startswith("truth class 0, predicted class 1 (0.88)")
    assert worst.examples[0].pictures[0].image.width == 3
    assert len(best.examples) == 2
