"""Counting right predictions against numbers made by hand or with numpy."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

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


def test_one_label_first_and_among_five():
    judged = judge(OneLabel(), [FALLING, FALLING, FALLING, RISING], [0, 4, 5, 5])
    assert judged.top1.tolist() == [True, False, False, True]
    assert judged.top5.tolist() == [True, True, False, True]
    assert judged.counts.tolist() == [True] * 4


def test_the_loss_is_that_of_the_softmax(cross_entropy):
    logits, labels = [FALLING, FALLING, RISING], [0, 4, 1]
    judged = judge(OneLabel(), logits, labels)
    # log(1 + e^-1 + ... + e^-5) = 0.456193; the label lies 0, 4 and 4 below the greatest
    np.testing.assert_allclose(judged.loss, [0.456193, 4.456193, 4.456193], atol=1e-5)
    np.testing.assert_allclose(judged.loss, cross_entropy(logits, labels), rtol=1e-6)


def test_fewer_than_five_classes_are_all_among_five():
    judged = judge(OneLabel(), [[1.0, 3.0, 2.0]] * 3, [0, 1, 2])
    assert judged.top1.tolist() == [False, True, False]
    assert judged.top5.tolist() == [True, True, True]


def test_only_some_columns_compete(cross_entropy):
    logits = [[9.0, 1.0, 8.0, 2.0, 7.0, 0.0], [9.0, 1.0, 8.0, 0.5, 7.0, 3.0]]
    judged = judge(OneLabel([1, 3, 5]), logits, [1, 0])  # their second and first: classes 3 and 1
    assert judged.top1.tolist() == [True, False]
    np.testing.assert_allclose(
        judged.loss, cross_entropy([[1, 2, 0], [1, 0.5, 3]], [1, 0]), rtol=1e-6
    )


def test_columns_are_in_the_order_of_the_labels():
    assert judge(OneLabel([4, 0]), [[1.0, 0, 0, 0, 2.0]], [0]).top1.tolist() == [True]
    assert judge(OneLabel([0, 4]), [[1.0, 0, 0, 0, 2.0]], [0]).top1.tolist() == [False]


def test_any_of_several_labels_is_right(cross_entropy):
    rule = AnyLabel([[3, 0], [4], [5], [], [1, 2, 5]])
    labels = [3, 0, 0, 0, 5]
    judged = judge(rule, [FALLING] * 5, labels)
    assert judged.top1.tolist() == [True, False, False, False, False]
    assert judged.top5.tolist() == [True, True, False, False, True]
    assert judged.counts.tolist() == [True, True, True, False, True]
    own = cross_entropy([FALLING] * 5, labels) * [1, 1, 1, 0, 1]  # of the data set's own label
    np.testing.assert_allclose(judged.loss, own, rtol=1e-6)


def test_labels_are_those_of_the_image_with_the_index():
    rule = AnyLabel([[0], [1], [2], [3]])
    judged = judge(rule, [FALLING, FALLING], [0, 0], indexes=[2, 0])
    assert judged.top1.tolist() == [False, True]


def test_the_padding_is_no_class():
    # -1 would be the last class for indexing
    judged = judge(AnyLabel([[0, 1, 2], [0], []]), [RISING] * 3, [0, 0, 0])
    assert judged.top1.tolist() == [False, False, False]
    assert judged.counts.tolist() == [True, True, False]


# Counts


@pytest.mark.parametrize("batch_size", range(1, 13))
def test_counts_do_not_depend_on_batches(prescribe, numbered, cross_entropy, case, batch_size):
    logits, labels = case
    columns, any_of = [6, 2, 0], [[1, 3]] * 5 + [[]] * 3 + [[0]] * 3
    restricted = [label % 3 for label in labels]
    model = prescribe(logits)
    rules = {"all": OneLabel(), "any": AnyLabel(any_of)}
    counted = count(model, numbered(labels, classes=7), rules, device=CPU, batch_size=batch_size)
    assert [n for batch in model.seen for n in batch] == list(
        range(11)
    )  # each image once, the last batch too
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


def test_the_loss_is_a_mean_over_images_not_over_batches(prescribe, numbered):
    model = prescribe([[0.0, 0.0], [0.0, 0.0], [0.0, 30.0]])
    counted = count(model, numbered([0, 0, 0], classes=2), {"": OneLabel()}, device=CPU,
                    batch_size=2)  # fmt: skip
    # log 2, log 2, 30: the batches' means would give (0.69 + 30) / 2
    assert counted.scores[""].loss == pytest.approx((2 * np.log(2) + 30) / 3, rel=1e-6)


def test_accuracies_are_percent(prescribe, numbered):
    model = prescribe([FALLING] * 3)
    score = count(model, numbered([0, 4, 5], classes=6), {"": OneLabel()}, device=CPU).scores[""]
    assert score.top1 == pytest.approx(100 / 3)
    assert score.top5 == pytest.approx(200 / 3)


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


def test_equal_logits_go_to_the_same_class_everywhere(prescribe, numbered):
    logits = np.random.default_rng(0).integers(0, 2, (60, 9))
    counted = count(prescribe(logits), numbered([3] * 60, classes=9), {"": OneLabel()},
                    device=CPU, confusion=True)  # fmt: skip
    assert counted.confusion[3, 3] == counted.scores[""].right1


def test_images_take_the_number_format_of_the_model(numbered, cross_entropy):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.row = nn.Parameter(torch.tensor([1.0, 2.5, -1.0], dtype=torch.bfloat16), False)

        def forward(self, images):
            assert images.dtype == torch.bfloat16
            return self.row.expand(len(images), 3)

    score = count(Half(), numbered([1, 0], classes=3), {"": OneLabel()}, device=CPU).scores[""]
    expected = cross_entropy([[1, 2.5, -1]] * 2, [1, 0]).mean()
    assert (score.right1, score.loss) == (1, pytest.approx(expected, rel=1e-6))


def test_progress_is_shown_where_it_has_a_title(prescribe, numbered, capsys, monkeypatch):
    monkeypatch.setattr("eva_data.progress.LINE_SECONDS", 0.0)
    for title in (None, "pictures"):
        count(prescribe([FALLING]), numbered([0], classes=6), {"": OneLabel()}, device=CPU,
              progress=title)  # fmt: skip
        assert ("pictures: 1/1 batch" in capsys.readouterr().err) == (title is not None)


class Clips:
    """Clips of one label each; clip i has the value i everywhere."""

    classes = ("still", "moving", "fast")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.full((2, 3, 4, 8, 8), float(index)), index  # (V, 3, T, H, W)

    def sample_id(self, index):
        return f"clip-{index}"


class MeanOfViews(nn.Module):
    """Takes several views of clips; right about the clips 0 and 2."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[2.0, 0, 0], [2, 0, 0], [0, 0, 2]]), False)

    def forward(self, clips):  # (B, V, 3, T, H, W)
        values = clips.mean(dim=(2, 3, 4, 5)).long()  # (B, V)
        return self.logits[values].mean(dim=1)


def test_samples_need_not_be_images():
    counted = count(MeanOfViews(), Clips(), {"": OneLabel()}, device=CPU, batch_size=2,
                    confusion=True)  # fmt: skip
    assert (counted.scores[""].samples, counted.scores[""].right1) == (3, 2)
    assert counted.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


# Several processes


@pytest.mark.parametrize("images", [1, 7, 13])
def test_counts_of_several_processes(launcher, tmp_path, cross_entropy, images):
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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_name_the_image(prescribe, numbered, value):
    logits = np.zeros((6, 3))
    logits[5, 2] = value
    with pytest.raises(FloatingPointError, match=r"logits of picture-5 are not finite: use fp32"):
        count(prescribe(logits), numbered([0] * 6, classes=3), {"": OneLabel()}, device=CPU,
              batch_size=4)  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_an_error(prescribe, numbered, workers):
    samples = numbered([0] * 5, classes=6, bad=(3,))
    with pytest.raises(OSError, match=r"picture-3 cannot be read \(torn\)"):
        count(prescribe([FALLING] * 5), samples, {"": OneLabel()}, device=CPU, batch_size=2,
              workers=workers)  # fmt: skip


def test_no_image_counts(prescribe, numbered):
    with pytest.raises(ValueError, match="no sample counts in ReaL"):
        count(prescribe([FALLING] * 2), numbered([0, 1], classes=6),
              {"1K": OneLabel(), "ReaL": AnyLabel([[], []])}, device=CPU)  # fmt: skip


def test_validation(prescribe, numbered, cross_entropy, case, tmp_path):
    logits, labels = case
    run = RunConfig(output=tmp_path, epochs=1, batch_size=4, workers=0)
    model = prescribe(logits)
    values = Validation(numbered(labels, classes=7), run, CPU)(model)
    assert [len(batch) for batch in model.seen] == [4, 4, 3]
    before = places(logits, labels)
    assert values == {
        "loss": pytest.approx(cross_entropy(logits, labels).mean(), rel=1e-6),
        "top1": pytest.approx(100 * (before == 0).mean()),
        "top5": pytest.approx(100 * (before < 5).mean()),
    }


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


@pytest.mark.parametrize("skip_unreadable", [False, True])
def test_a_label_that_is_not_there_is_not_an_unreadable_sample(
    skip_unreadable, prescribe, numbered
):
    samples = numbered([0, -1, 2], classes=3)
    with pytest.raises(IndexError, match="Target -1 is out of bounds"):
        count(prescribe(np.eye(3)), samples, {"all": OneLabel()}, device=CPU,
              skip_unreadable=skip_unreadable)  # fmt: skip
