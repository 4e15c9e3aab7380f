"""The app's page of CLIP gives what `eva clip demo search` and `eva batch zero-shot` give."""

import json
import shutil

import pytest

from eva_command.batch import index, main as batch
from eva_contrastive.commands import demo
from eva_contrastive.inference.demo import entry
from eva_runs.shards import read_parts

pytest.importorskip("gradio", reason="needs gradio")
from eva_app.clip import find_hits, name_classes
from eva_app.command import Source
from eva_app.examples import find_examples, zero_shot_classes
from eva_app.models import Models


@pytest.fixture(autouse=True)
def _uploads(tmp_path, monkeypatch):
    """Gradio's folder, as in a running app."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))


def compute(task, media, name, *words):
    words = (task, media, "--weights", name, "--output", media.parent / task, *words)
    batch([*map(str, (*words, "--device", "cpu", "--processes", 0))])
    return media.parent / task


@pytest.mark.parametrize("kind", ["folder", "features", "index"])
def test_search_finds_what_the_demo_finds(clip_weights, media, tmp_path, kind):
    place, name, like = media, str(clip_weights), str(media / "rocket.png")
    if kind != "folder":
        place = compute("features", media, name, "--kind", "embedding")
    if kind == "index":
        index(["build", str(place), "--output", str(tmp_path / "index")])
        place = tmp_path / "index"
    words = ("--text", "a cat", "--like", like, "--together", "--weights", name, "--device", "cpu")
    demo([*map(str, ("search", place, *words, "--output", tmp_path / "found"))])
    (query,) = json.loads((tmp_path / "found/results.json").read_text())["queries"]
    models = Models([Source("clip", name)], folder=place, device="cpu")
    hits = find_hits(models, name, "a cat", [like])
    assert [entry(hit) for hit in hits] == query["hits"]
    assert len(hits) == (4 if kind == "folder" else 3)  # with the film


def test_own_classes_have_the_probabilities_of_the_batch(clip_weights, media):
    name, classes = str(clip_weights), ("cat", "dog", "red thing")
    (table,) = read_parts(compute("zero-shot", media, name, "--classes", *classes))
    row = next(one for one in table.to_pylist() if one["name"].endswith("cat.png"))
    models = Models([Source("clip", name)], device="cpu")
    found = name_classes(models, [row["name"]], "cat\ndog\n\n red thing \ncat", name)
    expected = dict(zip(row["classes"], row["probabilities"], strict=True))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("form", ["pairs", "classes"])
def test_examples_are_validation_images_of_pairs_or_classes(form, media, tmp_path):
    (run := tmp_path / "run").joinpath("checkpoints").mkdir(parents=True)
    rows = "".join(f"{name}.png,a {name}\n" for name in ("astronaut", "rocket"))
    (media / "pairs.csv").write_text(f"image,caption\n{rows}")
    (classes := tmp_path / "classes/cat").mkdir(parents=True)
    shutil.copy(media / "deep/cat.png", classes)
    data = {"train": "gone", "val": str(media / "pairs.csv"), "val_share": 0, "zero_shot": ""}
    data["zero_shot"] = str(tmp_path / "classes") if form == "classes" else ""
    (run / "config.json").write_text(json.dumps({"data": data}))
    files = [file.stem.partition("_")[0] for file, _ in find_examples(Source("clip", str(run)))]
    assert files == (["cat"] if form == "classes" else ["astronaut", "rocket"])
    assert [*zero_shot_classes(Source("clip", str(run)))] == ["cat"] * (form == "classes")
