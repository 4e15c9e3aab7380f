"""The steps of the projects with our own loop, and features of pictures."""

import copy

import pytest
import torch
from PIL import Image

CLASSIFIERS = ("plain", "mixed", "class token", "linear probe")
OBJECTIVES = (
    *("masked_features", "mask on the device", "mask on the CPU"),
    *("distillation", "tokens"),
)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_pretraining(same_training, steps, kind):
    same_training(steps.pretraining(kind))


@pytest.mark.parametrize("kind", ["masked_features", "distillation"])
def test_a_step_of_pretraining_never_waits_for_the_device(second, steps, kind):
    """The loader has decided the positions of the mask; the teacher, the loss and all gradients."""
    step = steps.pretraining(kind)
    with second(waits=False) as device:
        loss = step.run(step.model.to(device), device)
        loss.backward()
    assert loss.device == device
    assert step.model.student.patch_embed.proj.weight.grad is not None


def test_the_tokenizer(same_training, steps):
    same_training(steps.tokenizer())


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classification(same_training, runs_on_meta, steps, kind):
    assert set(CLASSIFIERS) == set(steps.CLASSIFIERS)
    same_training(steps.classification(kind))
    runs_on_meta(steps.classification(kind))


def test_features(steps, second):
    extract = steps.feature_extractor()
    pictures = [Image.fromarray(steps.picture(*size)) for size in ((72, 96), (96, 64))]
    expected = extract(pictures), extract.patches(pictures)
    with second() as device:
        other = copy.deepcopy(extract).to(device)
        results = other(pictures), other.patches(pictures)
        for wanted, found in zip(expected, results, strict=True):
            assert found.device == device
            torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=1e-5)


def test_quick_checks_of_features(second):
    """Nearest neighbours, and a linear classifier by L-BFGS."""
    from eva_engine.evaluation.frozen import fit_best_linear, nearest_neighbours

    features, labels = torch.randn(40, 6), torch.arange(40) % 3
    queries = torch.randn(9, 6)

    def votes(features, labels, queries):
        fitted = fit_best_linear(features, labels, classes=3, candidates=(1e-2, 1e-1))
        return nearest_neighbours(features, labels, queries, k=5, classes=3), fitted(queries)

    wanted = votes(features, labels, queries)
    with second() as device:
        inputs = (tensor.to(device) for tensor in (features, labels, queries))
        for one, other in zip(wanted, votes(*inputs), strict=True):
            assert other.device == device
            torch.testing.assert_close(other.cpu(), one, atol=1e-3, rtol=1e-3)


@pytest.fixture
def samples(steps):
    """Seven labelled pictures of five classes."""
    from eva_backbone.variants import CLIP_MEAN, CLIP_STD
    from eva_data.labelled_images import LabelledImages
    from eva_data.transforms import evaluation_transform

    class Noise(LabelledImages):
        def __len__(self):
            return 7

        def load(self, index):
            coarse = steps.picture().reshape(9, 8, 12, 8, 3)[:, 0, :, 0].copy()
            coarse = (coarse + 30 * index).repeat(8, 0).repeat(8, 1)
            return Image.fromarray(coarse), index % 5

    return Noise(
        evaluation_transform(64, mean=CLIP_MEAN, std=CLIP_STD), list("abcde"), upright=False
    )


def test_features_of_a_data_set(steps, second, samples):
    from eva_engine.evaluation.frozen import Kept, labelled_features

    extract = steps.feature_extractor()

    def compute(device):
        (found,), labels = labelled_features(
            lambda images: [extract.to(device)(images)], samples,
            kept=[Kept([extract.vit.embed_dim])], device=device, batch_size=3, workers=0,
        )  # fmt: skip
        return found, labels

    wanted, labels = compute(torch.device("cpu"))
    with second() as device:
        found, others = compute(device)
        assert found.device == others.device == device
        torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=1e-5)
        assert torch.equal(others.cpu(), labels)


def test_counting_right_predictions(steps, second, samples):
    """With all classes, in another order, with several labels; and the confusion of classes."""
    from eva_classification.models import build_classifier
    from eva_engine.evaluation.counting import AnyLabel, OneLabel, count

    torch.manual_seed(0)
    model = build_classifier("eva_debug", num_classes=5, **steps.SMALL).eval()
    torch.nn.init.normal_(model.head.weight)
    several = AnyLabel([[index % 5, 1] for index in range(7)])
    rules = {"all": OneLabel(), "some": OneLabel([4, 3, 2, 1, 0]), "any": several}

    def counted(model, device):
        return count(model, samples, rules, device=device, batch_size=3, confusion=True)

    wanted = counted(model, torch.device("cpu"))
    with second() as device:
        found = counted(copy.deepcopy(model).to(device), device)
    assert torch.equal(found.confusion, wanted.confusion)
    for name, score in wanted.scores.items():
        assert found.scores[name].right1 == score.right1
        assert found.scores[name].loss == pytest.approx(score.loss, rel=1e-5)
