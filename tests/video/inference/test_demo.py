"""The demo: what it finds, writes, refuses and skips; complete runs as a program."""

import itertools
import json

import numpy as np
import pytest

from eva_data.video.streams import VideoReader
from eva_video import commands
from eva_video.inference.predictor import VideoPredictor


def read(file):
    return [frame.rgb for frame in VideoReader(file)]


@pytest.fixture
def start(weights, tmp_path):
    """Function: run the demo into `out`; what it wrote as predictions."""

    def run(first, *more):
        commands.demo([
            str(first), "--weights", str(weights), "--output", str(tmp_path / "out"),
            "--device", "cpu", *map(str, more),
        ])  # fmt: skip
        return json.loads((tmp_path / "out" / "predictions.json").read_text())

    return run


# --- complete runs ---


def test_a_film_by_windows(start, film, weights, tmp_path, capsys):
    found = start(film, "--window", "2", "--stride", "1", "--top", "2")
    (video,) = found["videos"]
    facts = {"video": "film.mp4", "duration": 4.5, "frames": 45, "rate": 10.0, "width": 50,
             "height": 40}  # fmt: skip
    assert facts.items() <= video.items()
    expected = list(
        VideoPredictor.from_weights(weights, device="cpu").windows(film, seconds=2, stride=1)
    )
    assert [(one["start"], one["end"]) for one in video["windows"]] == [
        (0, 2), (1, 3), (2, 4), (2.5, 4.5)
    ]  # fmt: skip
    for one, judged in zip(video["windows"], expected, strict=True):
        assert len(one["classes"]) == 2
        assert one["classes"][0]["probability"] == pytest.approx(
            judged.probabilities.max(), abs=2e-6
        )
    spans = [(one["start"], one["end"]) for one in video["segments"]]
    assert spans[0][0] == 0
    assert spans[-1][1] == 4.5
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert found["settings"] == {
        "weights": str(weights), "frames": 4, "image_size": 32, "clips": 1, "crops": 1,
        "window": 2.0, "stride": 1.0,
    }  # fmt: skip
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 + len(spans) + 1
    assert f"  {video['segments'][0]['probability']:.2f}  " in shown[1]

    before, after = read(film), read(tmp_path / "out" / "film.mp4")
    assert len(after) == len(before) == 45
    for one, other in zip(before, after, strict=True):
        large = one.repeat(7, axis=0).repeat(7, axis=1)
        part = other[: large.shape[0], : large.shape[1]]
        assert np.abs(part.astype(int) - large).mean() < 12  # as far as the coding allows
    assert after[0].shape[0] > 40 * 7
    assert after[0][280:].max() > 200  # text


def test_a_film_that_ends_in_damage(start, film, tmp_path, monkeypatch):
    """What was found before stays readable, and no half of an annotated video."""
    from eva_data.video.pyav_source import PyavSource
    from eva_data.video.source import UnreadableVideoError

    def frames(self, indices, decode=PyavSource.frames):
        if max(indices) > 30:
            raise UnreadableVideoError(f"{self.name} is torn at frame 31")
        return decode(self, indices)

    monkeypatch.setattr(PyavSource, "frames", frames)
    with pytest.raises(SystemExit) as ended:
        start(film, "--window", "1", "--stride", "1", "--batch-size", "1")
    assert "film.mp4 is torn at frame 31" in ended.value.code
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    (video,) = found["videos"]
    assert [one["end"] for one in video["windows"]] == [1, 2, 3]
    assert video["error"].endswith("is torn at frame 31")
    assert (video["segments"][0]["start"], video["segments"][-1]["end"]) == (0, 3)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]
