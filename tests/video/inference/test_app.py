"""The app's page of videos shows what `eva video demo` writes."""

import json

import pytest

from eva_video.commands import demo

pytest.importorskip("gradio", reason="needs gradio")
from eva_app.command import Source
from eva_app.models import Models
from eva_app.video import watch


def test_classes_over_time_are_those_of_the_demo(weights, film, tmp_path):
    words = (film, "--weights", weights, "--window", 1, "--top", 4, "--no-video", "--device", "cpu")
    demo([*map(str, (*words, "--output", tmp_path))])
    (video,) = json.loads((tmp_path / "predictions.json").read_text())["videos"]
    assert not [*tmp_path.glob("*.mp4")]  # no film
    models = Models([Source("video", str(weights))], device="cpu")
    lines, frames = watch(models, [str(film)], str(weights), 1.0)
    assert len(frames) == len(video["windows"]) > 4
    for one, time in ((video["windows"][0], 0), (video["windows"][-1], video["duration"])):
        shown = lines[lines["seconds"].round(3) == time]  # alone at the ends
        expected = {pair["class"]: pair["probability"] for pair in one["classes"]}
        found = dict(zip(shown["class"], shown["probability"], strict=True))
        assert len(found) == 3
        assert found == pytest.approx({name: expected[name] for name in found}, abs=2e-6)
