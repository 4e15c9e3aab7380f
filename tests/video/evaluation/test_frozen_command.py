"""The check with frozen features of videos: the command."""

import json

import pytest
import torch

from eva_data.labelled_videos.sources import open_videos
from eva_video.commands import evaluate_frozen as main
from eva_video.evaluation.frozen import compute, seen_clips
from eva_video.model.features import ClipFeatureExtractor

METHODS = {"3 neighbours", "linear", "attentive"}


@pytest.fixture
def check(patterns, tmp_path):
    """Function: run the command on videos of three patterns; the results."""

    def run(*more, weights="eva_debug", output="out"):
        short = [] if "none" in more else ["--probe-epochs", "8", "--probe-lr", "1e-3"]
        main([
            "--weights", str(weights), "--train", str(patterns / "train"), "--val",
            str(patterns / "val"), "--image-size", "32", "--frames", "4", "--neighbours", "3",
            "--workers", "0", "--device", "cpu", "--output", str(tmp_path / output),
            *short, *more,
        ])  # fmt: skip
        return json.loads((tmp_path / output / "results.json").read_text())

    return run


def test_three_methods(check, capsys, tmp_path):
    found = check()
    shown = capsys.readouterr().out
    assert found["sets"].keys() == METHODS
    for name, score in found["sets"].items():
        assert f"\n{name} " in shown
        assert score["videos"] == 12
        assert score["top1"] >= 75  # chance: a third
    assert "the probe: 16 tokens of each" in shown
    expected = {"train_videos": 24, "frames": 4, "image_size": 32, "probe": "tokens",
                "probe_lr": 0.001, "seed": 0}  # fmt: skip
    assert expected.items() <= found["settings"].items()
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Confusion (attentive)" in report
    assert "Best: confident and right (attentive)" in report
    alone = check("--neighbours", "--l2", output="alone")["sets"]
    assert alone == {"attentive": found["sets"]["attentive"]}


@pytest.mark.parametrize("kind", ["tokens", "frames", "none"])
def test_what_is_kept_is_what_the_extractor_sees(patterns, kind):
    extractor = ClipFeatureExtractor.from_weights(
        "eva_debug", frames=4, image_size=32, device="cpu"
    )
    videos = open_videos(patterns / "val")
    paths = [videos.sample_id(index) for index in range(5)]
    clips = seen_clips(extractor, videos)
    views = torch.stack([clips[index][0] for index in range(5)])
    pooled, *more = compute(extractor, kind, views)
    torch.testing.assert_close(pooled, extractor(paths))
    expected = extractor.tokens(paths).flatten(2, 3)
    if kind == "frames":
        expected = expected.mean(2, keepdim=True)
    torch.testing.assert_close(more, [] if kind == "none" else [expected])
