"""The evaluation of videos: beside a plain loop, and what it writes, refuses and leaves out."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

from eva_data.kinetics import kinetics_classes, mapping
from eva_data.labelled_videos.sources import open_videos
from eva_data.video.streams import VideoReader
from eva_engine.checkpoints.files import save_weights
from eva_video.commands import evaluate as main
from eva_video.data.clips import Sampling
from eva_video.data.transforms import CropsTransform, Normalise
from eva_video.model.classifier import build_video_classifier

MEAN, STD = (0.485, 0.456, 0.406), (0.3, 0.2, 0.25)


@pytest.fixture
def evaluate(classifier, videos, tmp_path):
    """Function: run the command; results, lines of the videos, rows of the classes."""

    def run(*more, weights=None, data=None, output="out"):
        main([
            "--weights", str(weights or classifier[1]), "--data", str(data or videos),
            "--device", "cpu", "--workers", "0", "--output", str(tmp_path / output), *more,
        ])  # fmt: skip
        folder = tmp_path / output
        lines = [json.loads(line) for line in (folder / "videos.jsonl").read_text().splitlines()]
        with (folder / "per_class.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return json.loads((folder / "results.json").read_text()), lines, rows

    return run


def plain_loop(model, file, indexes, crops, size=32):
    """Probabilities of all views, each decoded and forwarded on its own."""
    found = []
    for crop in range(crops):
        for chosen in indexes:
            frames = [frame.rgb for frame in VideoReader(file)]
            clip = np.stack([frames[index] for index in chosen])
            transform = CropsTransform(size, crops=crops, normalise=Normalise(mean=MEAN, std=STD))
            with torch.no_grad():
                found.append(model(transform(clip)[crop][None]).softmax(1)[0])
    return torch.stack(found)


def test_views_equal_a_plain_loop(evaluate, classifier, videos, tmp_path):
    model, _ = classifier
    results, lines, rows = evaluate("--batch-size", "3", "--views-per-forward", "4")
    data = open_videos(videos)
    means, labels = [], data.labels.tolist()
    assert len(lines) == len(data) == 11
    for index, line in enumerate(lines):
        file = data.sample_id(index)
        assert line["video"] == file
        length = sum(1 for _ in VideoReader(file))
        chosen = Sampling(frames=4).fixed(length, clips=4)
        each = plain_loop(model, file, chosen, crops=3)
        means.append(each.mean(0))
        assert len(line["views"]) == 12
        assert [(view["crop"], view["clip"]) for view in line["views"]] == [
            (crop, clip) for crop in range(3) for clip in range(4)
        ]
        for view, expected in zip(line["views"], each, strict=True):
            best = max(expected)
            assert view["probability"] == pytest.approx(best.item(), abs=1e-6)
            assert view["probability_of_label"] == pytest.approx(
                expected[labels[index]].item(), abs=1e-6
            )
        values = sorted(means[-1].tolist(), reverse=True)
        assert [one["probability"] for one in line["top5"]] == pytest.approx(values, abs=1e-6)
        assert line["label"] == data.classes[labels[index]]
    score = results["sets"]["data"]
    means = torch.stack(means)
    right = (means.argmax(1) == torch.tensor(labels)).tolist()
    assert 0 < sum(right) < 11
    assert (score["videos"], score["right1"], score["right5"]) == (11, sum(right), 11)
    loss = nn.functional.nll_loss(means.log(), torch.tensor(labels))
    assert score["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert [row["class"] for row in rows] == ["clap", "jump", "swim"]
    assert [row["videos"] for row in rows] == ["4", "5", "2"]
    expected = {"clips": 4, "crops": 3, "views": 12, "frames": 4, "image_size": 32,
                "sampling": "tsn", "draws": "fixed", "processes": 1}  # fmt: skip
    assert expected.items() <= results["settings"].items()
    assert results["left_out"] == []
    report = (tmp_path / "out" / "report.html").read_text()
    for shown in ("class mean", "Confusion", "Worst: confident and wrong", ", predicted "):
        assert shown in report


# Classes


def save(folder, classes, config=None):
    model = build_video_classifier("eva_debug", num_classes=classes, frames=2, img_size=32)
    nn.init.normal_(model.head.weight, std=3)
    file = folder / f"of_{classes}.safetensors"
    save_weights(model.state_dict(), file, {"model": {"frames": 2}} | (config or {}))
    return model.eval(), file


@pytest.mark.slow
def test_a_subset_of_merged_weights(evaluate, tmp_path, write_frames):
    """As a model with these rows of the head alone."""
    model, file = save(tmp_path, 722)
    chance = np.random.default_rng(0)
    names = kinetics_classes("k400")
    for place in range(3):
        frames = chance.integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
        write_frames(tmp_path / "data" / f"{place}.mp4", frames)
    listed = [f"{place}.mp4 {label}" for place, label in enumerate((0, 17, 399))]
    (tmp_path / "data" / "list.txt").write_text("\n".join(listed) + "\n")
    results, lines, rows = evaluate("--subset", "k400", "--clips", "1", "--crops", "3",
                                    weights=file, data=tmp_path / "data" / "list.txt")  # fmt: skip
    assert len(rows) == 400
    assert [line["label"] for line in lines] == [names[0], names[17], names[399]]
    small, other = build_video_classifier("eva_debug", num_classes=400, frames=2, img_size=32), {}
    rows_of_head = torch.as_tensor(mapping("k400"))
    for key, value in model.state_dict().items():
        other[key] = value[rows_of_head] if key.startswith("head.") else value
    small.load_state_dict(other)
    save_weights(other, tmp_path / "small.safetensors", {"model": {"frames": 2}})
    expected, others, _ = evaluate("--clips", "1", "--crops", "3", output="small",
                                   weights=tmp_path / "small.safetensors",
                                   data=tmp_path / "data" / "list.txt")  # fmt: skip
    assert results["sets"]["data"]["loss"] == pytest.approx(expected["sets"]["data"]["loss"])
    assert [line["top5"][0]["class"] for line in lines] == [
        line["top5"][0]["class"] for line in others
    ]
    assert results["settings"]["subset"] == "k400"
