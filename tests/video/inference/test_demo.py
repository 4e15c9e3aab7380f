"""The demo: what it finds, writes, refuses and skips; complete runs as a program."""

import json

import pytest

from eva_video import commands


@pytest.fixture
def start(weights, tmp_path):
    """Function: run the demo into `out`; what it wrote as predictions."""

    def run(first, *more, code=0):
        assert code == commands.demo([
            str(first), "--weights", str(weights), "--output", str(tmp_path / "out"),
            "--device", "cpu", *map(str, more),
        ])  # fmt: skip
        return json.loads((tmp_path / "out" / "predictions.json").read_text())

    return run


# --- complete runs ---


def test_a_film_that_ends_in_damage(start, film, tmp_path, monkeypatch, capsys):
    """What was found before stays readable, and no half of an annotated video."""
    from eva_data.video.decoding import VideoFile
    from eva_data.video.source import UnreadableVideoError

    def iterate(self, indices, decode=VideoFile.iterate_frames):
        for index, rgb in decode(self, indices):
            if index > 30:
                raise UnreadableVideoError(f"{self.name} is torn at frame 31")
            yield index, rgb

    monkeypatch.setattr(VideoFile, "iterate_frames", iterate)
    found = start(film, "--window", "1", "--stride", "1", "--batch-size", "1", code=1)
    assert "film.mp4" in capsys.readouterr().err
    (video,) = found["videos"]
    assert [one["end"] for one in video["windows"]] == [1, 2, 3]
    assert video["error"].endswith("is torn at frame 31")
    assert (video["segments"][0]["start"], video["segments"][-1]["end"]) == (0, 3)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]
