"""The check with frozen features of videos: the command."""

import json
from argparse import Namespace

import pytest
import torch

from eva_data.labelled_videos.opening import open_videos
from eva_engine.evaluation.frozen import Kept
from eva_video.commands import evaluate_frozen as main
from eva_video.evaluation.frozen import _computed
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
        assert f"{name:16} " in shown
        assert score["videos"] == 12
        assert score["top1"] >= 75  # chance: a third
    assert "the attentive probe sees 16 tokens of each frame" in shown
    expected = {"train_videos": 24, "frames": 4, "image_size": 32, "probe": "tokens",
                "probe_lr": 0.001, "seed": 0}  # fmt: skip
    assert expected.items() <= found["settings"].items()
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Confusion (attentive probe)" in report
    assert "Best: confident and right (attentive probe)" in report
    assert check(output="again")["sets"] == found["sets"]


@pytest.mark.parametrize("tokens", [16, 1, 0])
def test_what_is_kept_is_what_the_extractor_sees(patterns, tokens):
    extractor = ClipFeatureExtractor.from_weights(
        "eva_debug", frames=4, image_size=32, device="cpu"
    )
    videos, cpu = open_videos(patterns / "val"), torch.device("cpu")
    kept = [Kept([128])] + ([Kept([4, tokens, 128], torch.float16, cpu)] if tokens else [])
    options = Namespace(batch_size=5, workers=0, max_bad_samples=0)
    features, labels = _computed(
        extractor, videos, kept=kept, options=options, device=cpu, limit=None, title="val"
    )
    paths = [videos.sample_id(index) for index in range(len(videos))]
    assert labels.tolist() == videos.labels.tolist()
    torch.testing.assert_close(features[0], extractor(paths))
    if tokens:
        expected = extractor.tokens(paths).flatten(2, 3)
        expected = expected if tokens > 1 else expected.mean(2, keepdim=True)
        torch.testing.assert_close(features[1].float(), expected, atol=4e-3, rtol=1e-3)
