"""Features of classes beside open_clip's, and their cache."""

import logging
import os

import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from eva_contrastive.evaluation import text_classifier
from eva_contrastive.evaluation.prompts import named_classes, named_templates
from eva_contrastive.evaluation.text_cache import TextCache
from eva_contrastive.evaluation.text_classifier import class_features
from eva_contrastive.model.tokens import tokenize

CLASSES = [f"thing number {i}" for i in range(7)]
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.", "{}")


def test_equal_to_open_clip(clip):
    templates = named_templates("imagenet")[:9]
    classes = named_classes("imagenet")[:23]
    # theirs are functions of their own
    theirs = open_clip.build_zero_shot_classifier(
        clip,
        lambda texts: tokenize(texts, clip.context_length),
        classes,
        open_clip.OPENAI_IMAGENET_TEMPLATES[:9],
    )
    for texts in (5, 40, 512):
        ours = class_features(clip, classes, templates, texts_per_forward=texts)
        torch.testing.assert_close(ours, theirs.T, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.norm(dim=1), torch.ones(23))


def test_nothing_to_compute(clip):
    with pytest.raises(ValueError, match="0 classes and 3 templates"):
        class_features(clip, [], TEMPLATES)
    with pytest.raises(ValueError, match="7 classes and 0 templates"):
        class_features(clip, CLASSES, ())


def test_features_that_are_not_finite(make_clip):
    clip = make_clip(seed=4)
    with torch.no_grad():
        clip.text.text_projection[0] = torch.nan
    with pytest.raises(FloatingPointError, match="features are not finite: use fp32 or bf16"):
        class_features(clip, CLASSES, TEMPLATES)


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    return file


@pytest.fixture
def forwards(monkeypatch):
    """A list that gains an entry for each forward pass of texts."""
    calls, plain = [], text_classifier.text_features

    def counted(model, tokens):
        calls.append(len(tokens))
        return plain(model, tokens)

    monkeypatch.setattr(text_classifier, "text_features", counted)
    return calls


def test_computed_once(clip, weights, tmp_path, forwards):
    folder = tmp_path / "kept"
    first = class_features(clip, CLASSES, TEMPLATES, cache=TextCache(folder, weights))
    assert len(forwards) == 1
    again = class_features(clip, CLASSES, TEMPLATES, cache=TextCache(folder, weights))
    assert len(forwards) == 1
    assert torch.equal(first, again)
    assert len([*folder.iterdir()]) == 1
    # whatever differs is another entry
    class_features(clip, CLASSES[::-1], TEMPLATES, cache=TextCache(folder, weights))
    class_features(clip, CLASSES, TEMPLATES[:1], cache=TextCache(folder, weights))
    weights.write_bytes(b"other weights")
    class_features(clip, CLASSES, TEMPLATES, cache=TextCache(folder, weights))
    assert len(forwards) == 4
    assert len([*folder.iterdir()]) == 4


def test_the_number_format_is_part_of_the_key(weights, tmp_path):
    cache = TextCache(tmp_path, weights)
    keys = {
        cache.key(CLASSES, TEMPLATES, dtype=dtype, context_length=length)
        for dtype in (torch.float32, torch.bfloat16)
        for length in (32, 77)
    }
    assert len(keys) == 4


def test_the_heads_that_a_user_gives_are_part_of_the_key(weights, tmp_path):
    keys = {
        TextCache(tmp_path, weights, text_heads=heads).key(
            CLASSES, TEMPLATES, dtype=torch.float32, context_length=77
        )
        for heads in (None, 1, 2)
    }
    assert len(keys) == 3


def _swap(file, folder):
    other = next(path for path in folder.iterdir() if path != file)
    file.write_bytes(other.read_bytes())


def _rewrite(file, change):
    with safe_open(file, framework="pt") as content:
        notes = content.metadata()
    save_file(change(load_file(file)), file, notes)


DAMAGE = {
    "empty": lambda file, _: file.write_bytes(b""),
    "truncated": lambda file, _: file.write_bytes(file.read_bytes()[:-5]),
    "flipped": lambda file, _: file.write_bytes(file.read_bytes()[:-1] + b"\x7f"),
    "foreign": _swap,
    "other numbers": lambda file, _: _rewrite(file, lambda t: {"features": t["features"] * 2}),
    "other shape": lambda file, _: _rewrite(file, lambda t: {"features": t["features"][:3]}),
    "other name": lambda file, _: _rewrite(file, lambda t: {"values": t["features"]}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_computed_again(clip, weights, tmp_path, forwards, caplog, kind):
    folder, cache = tmp_path / "kept", TextCache(tmp_path / "kept", weights)
    class_features(clip, CLASSES[::-1], TEMPLATES, cache=cache)
    features = class_features(clip, CLASSES, TEMPLATES, cache=cache)
    key = cache.key(CLASSES, TEMPLATES, dtype=torch.float32, context_length=clip.context_length)
    file = cache.file(key)
    before = file.read_bytes()
    DAMAGE[kind](file, folder)
    assert file.read_bytes() != before
    caplog.clear()
    forwards.clear()
    with caplog.at_level(logging.WARNING):
        class_features(clip, CLASSES, TEMPLATES, cache=cache)
    assert forwards
    assert "is written again" in caplog.text
    assert torch.equal(load_file(file)["features"], features)
    assert cache.read(key, (7, 16)) is not None
    assert len([*folder.iterdir()]) == 2  # nothing unfinished is left


def test_a_cache_that_cannot_be_written_is_a_warning(clip, weights, tmp_path, caplog):
    (tmp_path / "kept").write_text("a file")
    features = class_features(clip, CLASSES, TEMPLATES, cache=TextCache(tmp_path / "kept", weights))
    assert features.shape == (7, 16)
    assert "not kept for the next time" in caplog.text
    assert "is a file and not a folder" in caplog.text


def test_a_pipe_or_a_folder_in_the_place_of_a_file(clip, weights, tmp_path, caplog):
    cache = TextCache(tmp_path, weights)
    key = cache.key(CLASSES, TEMPLATES, dtype=torch.float32, context_length=clip.context_length)
    os.mkfifo(cache.file(key))
    assert class_features(clip, CLASSES, TEMPLATES, cache=cache).shape == (7, 16)
    assert "is a named pipe and not a file" in caplog.text
    cache.file(key).unlink()
    cache.file(key).mkdir()
    assert class_features(clip, CLASSES, TEMPLATES, cache=cache).shape == (7, 16)


def test_a_full_disk(clip, weights, tmp_path, small_disk, caplog):
    cache = TextCache(tmp_path / "kept", weights)
    with small_disk(200):
        features = class_features(clip, CLASSES, TEMPLATES, cache=cache)
    assert features.shape == (7, 16)
    assert "not kept for the next time" in caplog.text
    assert [*(tmp_path / "kept").iterdir()] == []


def test_weights_that_are_gone(tmp_path):
    with pytest.raises(OSError, match="gone"):
        TextCache(tmp_path, tmp_path / "gone.pt")
