"""Counting right predictions against numbers made by hand or with numpy."""

import json

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


# Rules


def test_the_loss_is_that_of_the_softmax(cross_entropy):
    logits, labels = [FALLING, FALLING, RISING], [0, 4, 1]
    judged = judge(OneLabel(), logits, labels)
    assert judged.top1.tolist() == [True, False, False]
    assert judged.top5.tolist() == [True, True, True]
    # log(1 + e^-1 + ... + e^-5) = 0.456193; the label lies 0, 4 and 4 below the greatest
    np.testing.assert_allclose(judged.loss, [0.456193, 4.456193, 4.456193], atol=1e-5)
    np.testing.assert_allclose(judged.loss, cross_entropy(logits, labels), rtol=1e-6)


def test_only_some_columns_compete(cross_entropy):
    logits = [[9.0, 1.0, 8.0, 2.0, 7.0, 0.0], [9.0, 1.0, 8.0, 0.5, 7.0, 3.0]]
    judged = judge(OneLabel([1, 3, 5]), logits, [1, 0])  # their second and first: classes 3 and 1
    assert judged.top1.tolist() == [True, False]
    np.testing.assert_allclose(
        judged.loss, cross_entropy([[1, 2, 0], [1, 0.5, 3]], [1, 0]), rtol=1e-6
    )


def test_any_of_several_labels_is_right(cross_entropy):
    rule = AnyLabel([[3, 0], [4], [5], [], [1, 2, 5]])
    labels = [3, 0, 0, 0, 5]
    judged = judge(rule, [FALLING] * 5, labels)
    assert judged.top1.tolist() == [True, False, False, False, False]
    assert judged.top5.tolist() == [True, True, False, False, True]
    assert judged.counts.tolist() == [True, True, True, False, True]
    own = cross_entropy([FALLING] * 5, labels) * [1, 1, 1, 0, 1]  # of the data set's own label
    np.testing.assert_allclose(judged.loss, own, rtol=1e-6)


# Counts


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


# Several processes


def test_counts_of_several_processes(launcher, tmp_path, cross_entropy):
    images = 7
    chance = np.random.default_rng(images)
    logits, labels = chance.normal(size=(images, 8)).round(2), chance.integers(0, 3, images)
    case = {"logits": logits.tolist(), "labels": labels.tolist(), "columns": [5, 0, 3],
            "any": [[*range(i % 4)] for i in range(1, images + 1)]}  # fmt: skip
    (tmp_path / "case.json").write_text(json.dumps(case))
    results = {}
    for ranks in (1, 2):
        arguments = ["count", str(tmp_path / "case.json"), str(tmp_path / f"of_{ranks}_")]
        ended = launcher(arguments, ranks=ranks, log=tmp_path / "log_of_rank")
        assert ended.codes == [0] * ranks, ended.texts
        results[ranks] = [
            json.loads((tmp_path / f"of_{ranks}_{rank}").read_text()) for rank in range(ranks)
        ]
    (alone,), (first, second) = results[1], results[2]
    assert alone.pop("seen") == list(range(images))
    assert first.pop("seen") == list(range(0, images, 2))
    assert second.pop("seen") == list(range(1, images, 2))
    assert first == second
    loss = {rule: first["scores"][rule].pop("loss") for rule in first["scores"]}
    for rule, score in alone["scores"].items():
        assert score.pop("loss") == pytest.approx(loss[rule], rel=1e-12)
    assert first == alone
    before = (logits > logits[np.arange(images), labels][:, None]).sum(1)
    assert first["scores"]["one"] == {
        "samples": images, "right1": (before == 0).sum(), "right5": (before < 5).sum()
    }  # fmt: skip
    assert loss["one"] == pytest.approx(cross_entropy(logits, labels).mean(), rel=1e-6)
    assert first["scores"]["any"]["samples"] == sum(i % 4 > 0 for i in range(1, images + 1))
    assert np.sum(first["confusion"]) == images


# Errors


def test_logits_that_are_not_finite_name_the_image(prescribe, numbered):
    logits = np.zeros((6, 3))
    logits[5, 2] = np.inf
    with pytest.raises(FloatingPointError, match=r"logits of picture-5 are not finite: use fp32"):
        count(prescribe(logits), numbered([0] * 6, classes=3), {"": OneLabel()}, device=CPU,
              batch_size=4)  # fmt: skip


def test_an_unreadable_image_is_an_error(prescribe, numbered):
    samples = numbered([0] * 5, classes=6, bad=(3,))
    with pytest.raises(OSError, match=r"picture-3 cannot be read \(torn\)"):
        count(prescribe([FALLING] * 5), samples, {"": OneLabel()}, device=CPU, batch_size=2,
              workers=1)  # fmt: skip


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
