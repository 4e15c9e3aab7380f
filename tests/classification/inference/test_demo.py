"""The demo: what it finds, writes, refuses and skips."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from eva_classification import commands
from eva_classification.inference.predictor import Predictor
from eva_data.video.streams import VideoReader


@pytest.fixture
def start(weights, tmp_path):
    """Function: run the demo into `out`; what it wrote as predictions."""

    def run(*inputs, weights=weights, code=0):
        assert code == commands.demo([
            "--weights", str(weights), "--output", str(tmp_path / "out"), "--device", "cpu",
            *map(str, inputs),
        ])  # fmt: skip
        return json.loads((tmp_path / "out" / "predictions.json").read_text())

    return run


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


# --- what is found and written ---


def test_a_folder(start, weights, digits, tmp_path, capsys):
    found = start(digits, "--batch-size", "3", "--top", "2")
    names = [path.relative_to(digits).as_posix() for path in sorted(digits.rglob("*.png"))]
    assert written(tmp_path / "out") == [*names, "predictions.csv", "predictions.json"]
    assert found["settings"] == {"weights": str(weights), "image_size": 32, "crop_pct": 0.8}
    assert [one["file"] for one in found["files"]] == names
    predictor = Predictor.from_weights(weights, device="cpu")
    lines = capsys.readouterr().out.splitlines()
    firsts = []
    for one, line in zip(found["files"], lines, strict=False):
        expected = predictor(digits / one["file"], top=2)
        assert (one["width"], one["height"]) == (36, 50)
        assert [pair["class"] for pair in one["classes"]] == [name for name, _ in expected]
        for pair, (_, probability) in zip(one["classes"], expected, strict=True):
            assert pair["probability"] == pytest.approx(probability, abs=2e-6)
        first = expected[0]
        firsts.append(first.name)
        shown = '"1"' if first.name == "1" else first.name
        assert line == f"{one['file']}: {shown} {first.probability:.2f}"
    for name in {*firsts}:
        assert re.search(rf'\b{firsts.count(name)} "?{name}', lines[11])
    assert str(tmp_path / "out") in lines[12]

    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [*rows[0]] == ["file", "class", "probability", "class_2", "probability_2"]
    for row, one in zip(rows, found["files"], strict=True):
        classes = [row["class"], row["class_2"]]
        assert (row["file"], classes) == (one["file"], [c["class"] for c in one["classes"]])
        assert float(row["probability_2"]) == one["classes"][1]["probability"]

    picture = np.asarray(Image.open(tmp_path / "out" / names[0]))
    before = np.asarray(Image.open(digits / names[0]).convert("RGB"))
    assert picture.shape[1] == 36 * 9
    assert np.array_equal(picture[: 50 * 9], before.repeat(9, axis=0).repeat(9, axis=1))
    assert picture[50 * 9 :].max() > 200  # text


# --- videos and cameras ---


def test_a_video_is_named_by_the_mean_of_its_frames(start, weights, write_video, tmp_path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "film.mp4", 4, [0, 1, 2, 3])
    Image.new("RGB", (40, 40), "red").save(tmp_path / "in" / "a.png")
    found = start(tmp_path / "in")
    assert [one["file"] for one in found["files"]] == ["a.png", "film.mp4"]
    frames = [frame.rgb for frame in VideoReader(tmp_path / "in" / "film.mp4")]
    predictor = Predictor.from_weights(weights, device="cpu")
    mean = predictor.probabilities(frames).mean(axis=0)
    video = found["files"][1]
    assert video["frames"] == 4
    assert video["classes"][0]["probability"] == pytest.approx(mean.max(), abs=2e-6)
    drawn = [frame.rgb for frame in VideoReader(tmp_path / "out" / "film.mp4")]
    assert len(drawn) == 4
    assert drawn[0].shape[0] > 48 * 5
