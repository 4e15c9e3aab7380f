"""Logits of classes beside the closed form, and the validation of a run."""

import open_clip
import pytest
import torch
from torch import nn

from eva_contrastive.evaluation.prompts import named_classes, named_templates
from eva_contrastive.evaluation.retrieval import encode_pairs, retrieval_scores
from eva_contrastive.evaluation.validation import ContrastiveValidation
from eva_contrastive.evaluation.zero_shot import ZeroShotClassifier, class_features
from eva_contrastive.model.eva_clip import tokenize
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine.config import RunConfig
from eva_engine.evaluation.counting import OneLabel, count

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
TRANSFORM = evaluation_transform(32, mean=MEAN, std=STD)


def test_features_of_classes_are_those_of_open_clip(small_model):
    templates = named_templates("imagenet")[:9]
    classes = named_classes("imagenet")[:23]
    # theirs are functions of their own
    theirs = open_clip.build_zero_shot_classifier(
        small_model,
        lambda texts: tokenize(texts, small_model.context_length),
        classes,
        open_clip.OPENAI_IMAGENET_TEMPLATES[:9],
    )
    for texts in (5, 40, 512):
        ours = class_features(small_model, classes, templates, texts_per_forward=texts)
        torch.testing.assert_close(ours, theirs.T, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.norm(dim=1), torch.ones(23))


def run_config(tmp_path, **more):
    return RunConfig(output=tmp_path, epochs=1, workers=0, device="cpu", **more)


@pytest.mark.parametrize("batch", [{"batch_size": 4}, {"batch_size": 2, "accumulate": 2}])
def test_validation(small_model, noise_pairs, folders, tmp_path, batch):
    """The loss is that of the batches of a step, also in micro-batches."""
    samples = open_labelled(folders, TRANSFORM, upright=False)
    both = ContrastiveValidation(
        run_config(tmp_path, **batch), pairs=noise_pairs, transform=TRANSFORM, classes=samples,
        templates=("a {}.", "{}"),
    )  # fmt: skip
    assert both.results == ("loss", "image_to_text_r1", "text_to_image_r1", "top1", "top5")

    class Engine(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = small_model

    for model in (small_model, Engine()):  # as DeepSpeed hands it over
        found = both(model)
        assert tuple(found) == both.results
    encoded = encode_pairs(small_model, noise_pairs, TRANSFORM, batch_size=4, workers=0)
    scores = retrieval_scores(encoded.images, encoded.texts, encoded.owners)
    assert found["image_to_text_r1"] == scores["image_to_text_r1"]
    assert found["text_to_image_r1"] == scores["text_to_image_r1"]
    first = tokenize([noise_pairs.captions(i)[0] for i in range(11)], 32)
    images = torch.stack([TRANSFORM(noise_pairs.image(i)) for i in range(11)])
    total = 0.0
    with torch.no_grad():
        for some in torch.arange(11).split(4):
            out = small_model(images[some], first[some])
            labels = torch.arange(len(some))
            logits = out.logit_scale * out.image_features @ out.text_features.T
            loss = nn.functional.cross_entropy
            total += len(some) * (loss(logits, labels) + loss(logits.T, labels)).item() / 2
    assert found["loss"] == pytest.approx(total / 11, rel=1e-5)
    weights = class_features(small_model, ["dark thing", "light", "tiny"], ("a {}.", "{}"))
    counted = count(
        ZeroShotClassifier(small_model, weights),
        samples,
        {"a": OneLabel()},
        device=torch.device("cpu"),
    )
    assert found["top1"] == counted.scores["a"].top1
