"""The app's page of CLIP gives what `eva clip demo search` and `eva batch zero-shot` give."""

import json

import numpy as np
import pytest
from PIL import Image

from eva_command.batch import main as batch
from eva_command.index import main as index
from eva_contrastive.commands import demo
from eva_contrastive.inference.demo import entry
from eva_runs.batch import read_parts

pytest.importorskip("gradio", reason="needs gradio")
from eva_app.clip import find_hits, name_classes
from eva_app.models import Models, Source


@pytest.fixture
def photos(tmp_path):
    """Folder of images."""
    (tmp_path / "photos").mkdir()
    for at, coarse in enumerate(np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)):
        Image.fromarray(coarse).resize((48, 48)).save(tmp_path / f"photos/{at}.png")
    return tmp_path / "photos"


def compute(task, photos, weights, *words):
    words = (task, photos, "--weights", weights, "--output", photos.parent / task, *words)
    batch([*map(str, (*words, "--device", "cpu", "--processes", 0))])
    return photos.parent / task


@pytest.mark.parametrize("kind", ["folder", "features", "index"])
def test_search_finds_what_the_demo_finds(clip_weights, photos, tmp_path, kind):
    place, name = photos, str(clip_weights)
    if kind != "folder":
        place = compute("features", photos, name, "--kind", "embedding")
    if kind == "index":
        index(["build", str(place), "--output", str(tmp_path / "index")])
        place = tmp_path / "index"
    words = ("--text", "a red thing", "--like", photos / "3.png", "--together", "--top", 4)
    words = ("search", place, "--weights", name, *words, "--device", "cpu")
    demo([*map(str, (*words, "--output", tmp_path / "found"))])
    (query,) = json.loads((tmp_path / "found/results.json").read_text())["queries"]
    models = Models([Source("clip", name)], folder=place, device="cpu")
    hits = find_hits(models, name, "a red thing", [str(photos / "3.png")], top=4)
    assert [entry(hit) for hit in hits] == query["hits"]
    assert len(hits) == 4


def test_own_classes_have_the_probabilities_of_the_batch(clip_weights, photos):
    name, classes = str(clip_weights), ("cat", "dog", "red thing")
    (table,) = read_parts(compute("zero-shot", photos, name, "--classes", *classes))
    row = table.to_pylist()[2]
    models = Models([Source("clip", name)], device="cpu")
    found = name_classes(models, [str(photos / "2.png")], "cat\ndog\n\n red thing \ncat", name)
    expected = dict(zip(row["classes"], row["probabilities"], strict=True))
    assert found == pytest.approx(expected, abs=1e-6)
