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
def mine(trained):
    """Output folder of a training."""
    return trained("clip")[0]


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


def _csv(folder, rows, file):
    with open(file.with_suffix(".csv"), "w", newline="") as text:
        csv.writer(text).writerows([("filepath", "caption"), *rows])
    return text.name, folder


def _json_list(folder, rows, file):
    """As of Karpathy's splits; captions of images of another split do not count."""
    images = [
        {"filename": name, "split": "test", "sentences": [{"raw": text}]} for name, text in rows
    ]
    images.append({"filename": "elsewhere.jpg", "split": "train", "sentences": [{"raw": "no"}]})
    file.with_suffix(".json").write_text(json.dumps({"images": images}))
    return f"{file.with_suffix('.json')}#test", folder


FORMS = {
    "folder": lambda folder, rows, file: (folder,),
    "CSV": _csv,
    "splits": _json_list,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_pairs_is_the_same_data(score, pairs, expected, tmp_path, form):
    words = FORMS[form](*pairs, tmp_path / "list")
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
    run(*words, "--text", text, "--output", tmp_path / "again")
    queries = json.loads((tmp_path / "found/results.json").read_text())["queries"]
    again = json.loads((tmp_path / "again/results.json").read_text())["queries"]
    assert queries[0]["hits"] == again[0]["hits"]
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


def test_open_clip_and_timm_read_a_clip_and_give_its_features(
    run, mine, data, features, tmp_path, documented
):
    ClipFeatures = documented("eva_contrastive", "ClipFeatures")
    import open_clip
    import timm

    folder = tmp_path / "open_clip"
    run("eva", "convert", mine, "--to", "open-clip", "--output", folder)
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs = theirs.eval()
    image = next((data / "zero_shot/four").iterdir())
    batch = preprocess(Image.open(image).convert("RGB"))[None]
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["the number four"])
    with torch.no_grad():
        ours = torch.as_tensor(features.images([str(image)])).float()
        torch.testing.assert_close(
            theirs.encode_image(batch, normalize=True), ours, atol=1e-4, rtol=1e-3
        )
        ours = torch.as_tensor(features.texts(["the number four"])).float()
        torch.testing.assert_close(
            theirs.encode_text(tokens, normalize=True), ours, atol=1e-4, rtol=1e-3
        )
    run("eva", "convert", folder, "--to", "official", "--output", tmp_path / "back.pt")
    back = ClipFeatures.from_weights(str(tmp_path / "back.pt"))
    ours, again = (torch.as_tensor(clip.images([str(image)])) for clip in (features, back))
    torch.testing.assert_close(again, ours, atol=1e-5, rtol=1e-4)
    run("eva", "convert", mine, "--to", "timm", "--output", tmp_path / "timm")
    tower = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(tower(batch), theirs.encode_image(batch), atol=1e-4, rtol=1e-3)


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


def test_weights_between_two_runs(run, mine, tmp_path):
    start, end = (sorted(mine.glob("checkpoints/step_*"))[i] / "model.safetensors" for i in (0, -1))
    run("eva", "clip", "interpolate", start, end, "--share", 0.5, "--output", tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    first, last, between = map(load_file, (start, end, file))
    for key, value in between.items():
        torch.testing.assert_close(value, (first[key] + last[key]) / 2, atol=1e-6, rtol=1e-5)
