"""The demo as a person uses it: captions ranked, folders searched, and mistakes answered."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eva_contrastive import commands
from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.inference.finding import find
from eva_report import sheets as contact_sheet

RED = r"not everything could be read:\n  there is no nowhere\n  .*torn\.png cannot be decoded"


@pytest.fixture
def run(weights, tmp_path, monkeypatch):
    """Function: the program in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def main(command, *arguments):
        loading = ["--workers", "0"] if command == "search" else []
        commands.demo([command, "--weights", str(weights), "--device", "cpu", *loading,
                       *map(str, arguments)])  # fmt: skip

    return main


def content(file):
    return json.loads(file.read_text())


# --- ranking ---


def test_captions_of_pictures_and_videos(run, clip, media, tmp_path, capsys):
    texts = ["a cat", "a rocket", "an astronaut"]
    (tmp_path / "more.txt").write_text("a rocket\n an astronaut \n\n")
    run("rank", media, "--text", "a cat", "--texts", "more.txt", "--output", "ranked")
    written = content(tmp_path / "ranked" / "ranking.json")
    assert written["settings"]["frames"] == 8
    names = ["astronaut.png", "deep/cat.png", "film.mp4", "rocket.png"]
    assert [one["file"] for one in written["files"]] == [str(media / name) for name in names]
    features = clip.texts(texts)
    for entry in written["files"]:
        film = entry["file"].endswith(".mp4")
        image = clip.videos(entry["file"]) if film else clip.images(entry["file"])
        cosines = (image @ features.T)[0]
        order = cosines.argsort(descending=True).tolist()
        assert [one["text"] for one in entry["captions"]] == [texts[k] for k in order]
        for one, k in zip(entry["captions"], order, strict=True):
            assert one["cosine"] == pytest.approx(cosines[k].item(), abs=1e-5)
            assert ("time" in one) == film
        shares = [one["probability"] for one in entry["captions"]]
        expected = (cosines[order] / 0.07).softmax(0).tolist()
        assert shares == pytest.approx(expected, abs=1e-5)
        if film:
            frames = clip.frames(entry["file"])
            best = (frames.values @ features[order].T).argmax(0).tolist()
            times = [one["time"] for one in entry["captions"]]
            assert times == pytest.approx([frames.times[k] for k in best], abs=1e-3)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4 + 1 + 1
    first = written["files"][0]["captions"][0]
    assert f'"{first["text"]}" {first["probability"]:.2f}' in shown[0]


# --- search ---


def test_a_folder_is_searched_by_sentences_and_pictures(run, clip, media, tmp_path, capsys):
    query = media / "deep" / "cat.png"
    run("search", media, "--output", "found", "--text", "a cat", "a rocket", "--like", query)
    written = content(tmp_path / "found" / "results.json")
    assert [q["texts"] for q in written["queries"]] == [["a cat"], ["a rocket"], []]
    assert written["queries"][2]["like"] == [str(query)]
    hits = written["queries"][2]["hits"]
    assert [one["file"] for one in hits[:2]] == [str(query), str(media / "film.mp4")]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)
    assert "time" not in hits[0]
    assert hits[1]["time"] >= 2  # where the cat is
    wanted = clip.texts("a rocket")
    for one in written["queries"][1]["hits"]:
        film = one["file"].endswith(".mp4")
        found = clip.frames(one["file"])
        scores = (found.values @ wanted.T)[:, 0]
        assert one["score"] == pytest.approx(scores.max().item(), abs=1e-3)
        if film:
            assert one["frame"] == found.indexes[scores.argmax()]
            assert one["time"] == pytest.approx(found.times[scores.argmax()], abs=1e-3)
    scores = [one["score"] for one in written["queries"][1]["hits"]]
    assert scores == sorted(scores, reverse=True)
    rows = list(csv.DictReader((tmp_path / "found" / "results.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert rows[8] == {"query": str(query), "rank": "1", "score": str(hits[0]["score"]),
                       "file": str(query), "time": ""}  # fmt: skip
    assert rows[9]["time"] == str(hits[1]["time"])
    assert "4 files searched: 4 computed" in capsys.readouterr().out
    names = sorted(file.name for file in (tmp_path / "found").iterdir() if file.suffix)
    assert [re.sub("-[0-9a-f]{12}", "", name) for name in names] == [
        "contact_sheet.jpg", "library.safetensors", "results.csv", "results.json",
    ]  # fmt: skip


def test_the_contact_sheet_shows_the_hits(run, media, tmp_path, photographs):
    """The picture itself, and the frame of the film at its time."""
    run("search", media, "--output", "found", "--like", media / "deep" / "cat.png", "--top", "2")
    sheet = np.asarray(Image.open(tmp_path / "found" / "contact_sheet.jpg")).astype(int)
    side = contact_sheet.SIDE
    cat = np.asarray(Image.fromarray(photographs["cat"]).resize((side, side * 300 // 451)))
    top = 44 + 8 + (side - len(cat)) // 2
    for column, tolerance in ((0, 12), (1, 40)):  # the film has other sides and fewer pixels
        left = 8 + column * (side + 8)
        shown = sheet[top : top + len(cat), left : left + side]
        assert abs(shown - cat)[20:-20].mean() < tolerance


def test_a_library_serves_later_searches(run, media, monkeypatch, capsys):
    """Also where it lies in the folder that is searched, as do the results."""
    run("search", media, "--output", media / "found", "--cache", media / "kept", "--text", "a")
    with monkeypatch.context() as patched:
        patched.setattr(ClipFeatures, "images", None)
        run("search", media, "--output", media / "found", "--cache", media / "kept", "--text", "a",
            "--overwrite")  # fmt: skip
    assert "4 files searched: 0 computed, 4 known from before" in capsys.readouterr().out
    (query,) = content(media / "found" / "results.json")["queries"]
    assert len(query["hits"]) == 4
    assert len(list((media / "kept").glob("*.safetensors"))) == 1
    run("search", media / "deep", "--output", "2", "--cache", media / "kept", "--text", "a",
        "--frames", "2")  # fmt: skip
    assert len(list((media / "kept").glob("*.safetensors"))) == 2


def test_a_search_from_python(clip, media, caplog):
    (media / "torn.png").write_bytes(b"torn")
    cat = media / "deep" / "cat.png"
    hits = find(clip, [media, f"{media}/*.png"], like=cat, top=2)
    assert [Path(hit.file).name for hit in hits] == ["cat.png", "film.mp4"]
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert "torn.png" in caplog.text
    scores = (clip.images(media / "deep") @ clip.texts("a cat").T)[0].tolist()
    assert [hit.score for hit in find(clip, cat, "a cat")] == pytest.approx(scores, abs=1e-3)
    with pytest.raises(ValueError, match="there is nothing to look for"):
        find(clip, cat)


# --- mistakes ---


@pytest.mark.parametrize(("arguments", "named"), [
    (["rank", "media"], "--text"),
    (["rank", "media", "--text", "a", "--image-size", "33"], "33"),
    (["rank", "media", "--text", "a", "--weights", "nothing.pt"], "nothing.pt"),
    (["rank", "media", "--text", "a", "--weights", "eva_debug"], "not a complete EVA-CLIP"),
    (["search", "media", "--output", "o"], "--like"),
    (["search", "media", "--output", "o", "--like", "x.png"], "x.png"),
    (["search", "media", "--output", "o", "--like", "torn.png"], "torn.png"),
])  # fmt: skip
def test_mistakes_end_in_a_sentence(run, media, tmp_path, arguments, named, capsys):
    for name in ("torn.mp4", "torn.png"):
        (tmp_path / name).write_bytes(b"torn")
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "o").exists()
