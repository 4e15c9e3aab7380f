"""CLIP: own pairs in every form, zero-shot scores, retrieval, search, exports."""

import csv
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

CPU = ("--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def mine(finished):
    """Output folder of a training."""
    return finished("clip")


@pytest.fixture(scope="module")
def data(engine_data):
    return engine_data / "captions"


@pytest.fixture(scope="module")
def features(mine, documented):
    ClipFeatures = documented("eva_contrastive", "ClipFeatures")
    return ClipFeatures.from_weights(str(mine))


@pytest.fixture(scope="module")
def score(run, mine):
    """Function: results of `eva clip evaluate`."""

    def evaluate(output, *words):
        run("eva", "clip", "evaluate", mine, "--output", output, *words, *CPU)
        results = json.loads((output / "results.json").read_text())
        return {**results["sets"], **results["retrieval"]}

    return evaluate


@pytest.fixture(scope="module")
def expected(score, data, tmp_path_factory):
    """Retrieval among the pairs of the shard."""
    folder = tmp_path_factory.mktemp("shard")
    return score(folder, "--pairs", data / "val/00000.tar")["pairs"]


@pytest.fixture(scope="module")
def pairs(data, tmp_path_factory):
    """Folder of the shard's images and captions, and the pairs of both."""
    folder = tmp_path_factory.mktemp("pairs")
    with tarfile.open(data / "val/00000.tar") as tar:
        tar.extractall(folder, filter="data")
    images = sorted(folder.glob("*.jpg"))
    return folder, [(image.name, image.with_suffix(".txt").read_text()) for image in images]


def _json_list(folder, rows, file):
    """As of Karpathy's splits; captions of images of another split do not count."""
    images = [
        {"filename": name, "split": "test", "sentences": [{"raw": text}]} for name, text in rows
    ]
    images.append({"filename": "elsewhere.jpg", "split": "train", "sentences": [{"raw": "no"}]})
    file.with_suffix(".json").write_text(json.dumps({"images": images}))
    return f"{file.with_suffix('.json')}#test", folder


def test_another_form_of_pairs_is_the_same_data(score, pairs, expected, tmp_path):
    words = _json_list(*pairs, tmp_path / "list")
    assert score(tmp_path / "out", "--pairs", *words)["pairs"] == pytest.approx(expected)


def test_an_evaluation_repeats_the_best_scores_and_shows_them(
    mine, data, score, read_page, tmp_path
):
    results = score(tmp_path, "--data", data / "zero_shot", "--templates", data / "templates.txt",
                    "--pairs", data / "val/00000.tar")  # fmt: skip
    best = json.loads((mine / "best/best.json").read_text())["model.safetensors"]["results"]
    assert results["data"]["top1"] == best["top1"]
    assert results["pairs"]["image_to_text_r1"] == pytest.approx(best["image_to_text_r1"])
    page = read_page(tmp_path / "report.html")
    for value in (results["data"]["top1"], results["pairs"]["text_to_image_r1"]):
        assert f"{value:.3g}" in page.text
    assert len(page.images) >= 10
    assert (tmp_path / "table.md").exists()


@pytest.mark.slow
def test_checked_pairs_are_trained_on_and_a_share_is_held_out(
    run, training, metrics_of, pairs, tmp_path
):
    """The index of `eva data verify captions` leaves out what is no pair, and is the same data."""
    folder, rows = tmp_path / "pairs", pairs[1]
    shutil.copytree(pairs[0], folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    table = tmp_path / "pairs.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([("picture", "text"), *rows, ("broken.jpg", "a broken one")])
    columns = ("--image-column", "picture", "--caption-column", "text")
    index = tmp_path / "pairs.safetensors"
    ended = run("eva", "data", "verify", "captions", table, "--root", folder, *columns,
                "--write", index, "--workers", 1, code=None)  # fmt: skip
    assert ended.names("broken.jpg")
    for name, source in (("index", index), ("table", table)):
        output = tmp_path / name
        columns = ("--data.image-column", "picture", "--data.caption-column", "text")
        words = training("clip", output, "--data.train", source, "--data.root", folder,
                         "--data.val", "", "--data.val-share", 0.25, "--run.epochs", 1,
                         "--run.batch-size", 8, *(columns if name == "table" else ()))  # fmt: skip
        run(*words)
        assert "val_image_to_text_r1" in metrics_of(output)[-1]


def test_search_and_rank_as_the_features(
    run, mine, data, features, engine_data, tmp_path, documented
):
    find = documented("eva_contrastive", "find")
    images, cache = data / "zero_shot", ("--cache", tmp_path / "library")
    text = "the number seven"
    words = ("eva", "clip", "demo", "search", images, "--weights", mine, *CPU, *cache)
    like = next((images / "four").iterdir())
    run(*words, "--text", text, "--like", like, "--output", tmp_path / "found")
    queries = json.loads((tmp_path / "found/results.json").read_text())["queries"]
    assert queries[1]["hits"][0]["file"] == str(like)
    hits = [*find(features, str(images), text, top=3)]
    for hit, entry in zip(hits, queries[0]["hits"], strict=False):
        assert str(hit.file) == entry["file"]
        assert hit.score == pytest.approx(entry["score"], abs=1e-5)
    assert (tmp_path / "found/contact_sheet.jpg").stat().st_size > 1000
    video = next((engine_data / "video/val").rglob("*.mp4"))
    run("eva", "clip", "demo", "rank", like, video, "--weights", mine, "--text", "four", "five",
        "--output", tmp_path / "ranked", "--device", "cpu")  # fmt: skip
    files = json.loads((tmp_path / "ranked/ranking.json").read_text())["files"]
    assert [len(file["captions"]) for file in files] == [2, 2]
    assert all(sum(c["probability"] for c in file["captions"]) == pytest.approx(1, abs=1e-4)
               for file in files)  # fmt: skip


@pytest.mark.slow
def test_an_onnx_program_gives_the_features(run, mine, data, features, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    words = ("eva", "clip", "export", "--weights", mine, "--format", "onnx", "--towers", "image")
    run(*words, "--normalize", "--device", "cpu", "--output", tmp_path / "out")
    session = onnxruntime.InferenceSession(str(tmp_path / "out/image.onnx"))
    image = next((data / "zero_shot/four").iterdir())
    extract = torch.as_tensor(features.images([str(image)])).float()
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    pixels = Image.open(image).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    batch = ((np.asarray(pixels) / 255 - mean) / std).transpose(2, 0, 1)[None].astype("float32")
    (given, *_) = session.run(None, {session.get_inputs()[0].name: batch})
    assert np.abs(given - extract.numpy()).max() < 1e-3


def test_weights_between_two_runs(call_eva, mine, tmp_path):
    start, end = (sorted(mine.glob("checkpoints/step_*"))[i] / "model.safetensors" for i in (0, -1))
    words = ("interpolate", start, end, "--share", 0.5, "--output", tmp_path)
    call_eva("eva", "clip", *words, code=0)
    (file,) = tmp_path.rglob("*.safetensors")
    first, last, between = map(load_file, (start, end, file))
    for key, value in between.items():
        torch.testing.assert_close(value, (first[key] + last[key]) / 2, atol=1e-6, rtol=1e-5)
