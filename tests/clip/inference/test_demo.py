"""The demo as a person uses it: a folder searched by sentences and images."""

import csv
import json
import re

import pytest

from eva_contrastive import commands


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
