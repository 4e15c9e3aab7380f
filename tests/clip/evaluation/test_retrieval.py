"""Shares of retrieval beside a plain numpy form; ties; what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from eva_contrastive.evaluation import retrieval
from eva_contrastive.evaluation.retrieval import encode_pairs, retrieval_scores
from eva_contrastive.model.eva_clip import tokenize
from eva_data.transforms import evaluation_transform

TRANSFORM = evaluation_transform(32, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))


def plain(images, texts, owners):
    """The shares by stable sorting of all cosines."""
    cosines = images.numpy() @ texts.numpy().T
    order = np.argsort(-cosines, axis=1, kind="stable")
    found = {}
    for k in (1, 5, 10):
        right = [(owners[order[i, :k]] == i).any() for i in range(len(images))]
        found[f"image_to_text_r{k}"] = 100 * np.mean(right)
    order = np.argsort(-cosines.T, axis=1, kind="stable")
    for k in (1, 5, 10):
        right = [owners[j] in order[j, :k] for j in range(len(texts))]
        found[f"text_to_image_r{k}"] = 100 * np.mean(right)
    return found


def compare(images, texts, owners):
    found = retrieval_scores(images, texts, torch.tensor(owners))
    assert (found.pop("images"), found.pop("texts")) == (len(images), len(texts))
    assert found == pytest.approx(plain(images, texts, np.array(owners)))
    return found


@pytest.mark.parametrize("queries", [3, 512])
def test_shares(monkeypatch, queries):
    monkeypatch.setattr(retrieval, "_QUERIES", queries)
    torch.manual_seed(1)
    owners = torch.randperm(40).tolist() * 2 + [3, 3, 5]
    images = F.normalize(torch.randn(40, 6), dim=1)
    texts = F.normalize(images[owners] + 0.3 * torch.randn(len(owners), 6), dim=1)
    found = compare(images, texts, owners)
    assert 20 < found["image_to_text_r1"] < 100
    assert found["image_to_text_r1"] < found["image_to_text_r5"] <= found["image_to_text_r10"]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_ties(data):
    """Features of few values, whose cosines are exact and often equal."""
    count = data.draw(st.integers(1, 7))
    extra = data.draw(st.lists(st.integers(0, count - 1), max_size=9))
    owners = data.draw(st.permutations([*range(count), *extra]))
    values = st.sampled_from([0.0, 1.0, -1.0])
    rows = st.lists(values, min_size=2, max_size=2)
    images = torch.tensor(data.draw(st.lists(rows, min_size=count, max_size=count)))
    texts = torch.tensor(data.draw(st.lists(rows, min_size=len(owners), max_size=len(owners))))
    compare(images, texts, owners)


def test_encoding(small_model, noise_pairs):
    encoded = encode_pairs(small_model, noise_pairs, TRANSFORM, batch_size=4, workers=0)
    captions = [(text, i) for i in range(11) for text in noise_pairs.captions(i)]
    assert encoded.owners.tolist() == [owner for _, owner in captions]
    with torch.no_grad():
        texts = small_model.encode_text(
            tokenize([text for text, _ in captions], 32), normalize=True
        )
        images = torch.stack([TRANSFORM(noise_pairs.image(i)) for i in range(11)])
        images = small_model.encode_image(images, normalize=True)
    torch.testing.assert_close(encoded.texts, texts, atol=1e-6, rtol=0)
    torch.testing.assert_close(encoded.images, images, atol=1e-6, rtol=0)
