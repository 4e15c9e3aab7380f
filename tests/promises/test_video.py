"""Classifiers of videos: own data in every form, scores, predictions, features."""

import csv
import json

import av
import pytest
import torch

CPU = ("--workers", 0, "--device", "cpu")
ONE_VIEW = ("--clips", 1, "--crops", 1)


@pytest.fixture(scope="module")
def mine(finished):
    """Output folder of a training."""
    return finished("video")


@pytest.fixture(scope="module")
def videos(engine_data):
    """Folder `video`, with class folders `train` and `val`."""
    return engine_data / "video"


@pytest.fixture(scope="module")
def score(run, mine):
    """Function: results of `eva video evaluate`."""

    def evaluate(data, output, *more):
        run("eva", "video", "evaluate", mine, "--data", data, "--output", output, *CPU, *more)
        return json.loads((output / "results.json").read_text())["sets"]["data"]

    return evaluate


@pytest.fixture(scope="module")
def expected(score, videos, tmp_path_factory):
    """Results on class folders."""
    return score(videos / "val", tmp_path_factory.mktemp("class_folders"), *ONE_VIEW)


def _paths(videos):
    """Paths below `videos`, with the number and the name of their class."""
    files = sorted((videos / "val").rglob("*.mp4"))
    classes = sorted({file.parent.name for file in files})
    return [(file, classes.index(file.parent.name), file.parent.name) for file in files]


def _names(videos):
    return sorted(path.name for path in (videos / "val").iterdir())


def _kinetics(videos, folder):
    """DeepMind's table, and a folder of ID_START_END.mp4."""
    with open(folder / "val.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
        for number, (path, _, name) in enumerate(_paths(videos)):
            (folder / f"video{number:06}_000010_000020.mp4").symlink_to(path)
            table.writerow([name, f"video{number:06}", 10, 20, "val"])
    return folder / "val.csv", "--root", folder


def test_another_form_of_data_is_the_same_data(score, videos, expected, tmp_path):
    data, *more = _kinetics(videos, tmp_path)
    assert score(data, tmp_path / "out", *ONE_VIEW, *more) == pytest.approx(expected)


def test_an_evaluation_repeats_the_best_scores_and_shows_them(
    mine, videos, score, expected, read_page, tmp_path
):
    best = json.loads((mine / "best/best.json").read_text())["model.safetensors"]["results"]
    assert expected["top1"] == best["top1"]
    assert expected["loss"] == pytest.approx(best["loss"], abs=1e-5)
    results = score(videos / "val", tmp_path)  # 12 views
    assert results["videos"] == 8
    lines = [json.loads(line) for line in (tmp_path / "videos.jsonl").read_text().splitlines()]
    assert [len(line["views"]) for line in lines] == [12] * 8
    page = read_page(tmp_path / "report.html")
    assert f"{results['top1']:.3g}" in page.text
    assert len(page.images) >= 8


@pytest.mark.slow
def test_checked_data_can_be_trained_on(run, training, metrics_of, videos, tmp_path):
    """`eva data verify video` leaves out what is damaged, and writes a list and an index."""
    data = tmp_path / "data"
    for path in sorted((videos / "train").rglob("*.mp4")):
        copy = data / path.relative_to(videos / "train")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (data / "up/broken.mp4").write_bytes(b"no video")
    clean, index = tmp_path / "clean.txt", tmp_path / "clean.safetensors"
    ended = run(
        "eva", "data", "verify", "video", data, "--against", videos / "val", "--write", clean,
        "--write-classes", tmp_path / "classes.txt", "--index", index, "--workers", 1, code=1,
    )  # fmt: skip
    assert ended.names("broken.mp4")
    assert len(clean.read_text().splitlines()) == 32
    assert (tmp_path / "classes.txt").read_text().split() == _names(videos)
    short = ("--run.epochs", 1, "--data.train", index)
    run(*training("video", tmp_path / "run", *short))
    assert len([line for line in metrics_of(tmp_path / "run") if "loss" in line]) == 4


def test_a_share_is_held_out_of_own_videos(run, training, videos, metrics_of, tmp_path, documented):
    """With the recipe for own videos, made small, and a bad video that is replaced and counted."""
    VideoPredictor = documented("eva_video", "VideoPredictor")
    words = training("video", tmp_path / "run", "--data.val", "", "--data.val-share", 0.25,
                     "--run.epochs", 1, "--model.frozen-blocks", 1)  # fmt: skip
    run(*("own_videos" if word == "eva_debug_motion" else word for word in words),
        "--model.variant", "eva_debug", "--model.init-checkpoint", "eva_debug",
        "--model.image-size", 32, "--model.frames", 2, "--run.precision", "fp32",
        "--run.accumulate", 1)  # fmt: skip
    assert "val_top1" in metrics_of(tmp_path / "run")[-1]
    assert {name for name, _ in VideoPredictor.from_weights(str(tmp_path / "run"))(
        str(next((videos / "val").rglob("*.mp4")))
    )} <= {*_names(videos)}  # fmt: skip


def test_a_demo_names_videos_as_the_predictor(run, mine, videos, tmp_path, documented):
    VideoPredictor = documented("eva_video", "VideoPredictor")
    video = next((videos / "val/grow").glob("*.mp4"))
    run("eva", "video", "demo", "--weights", mine, "--output", tmp_path / "whole", video)
    (whole,) = json.loads((tmp_path / "whole/predictions.json").read_text())["videos"]
    with av.open(str(tmp_path / "whole" / video.name)) as container:
        assert len([*container.decode(video=0)]) == whole["frames"]
    (only,) = whole["windows"]
    predictions = VideoPredictor.from_weights(str(mine))(str(video))
    for entry, (name, probability) in zip(only["classes"], predictions, strict=False):
        assert entry["class"] == name
        assert entry["probability"] == pytest.approx(probability, abs=1e-5)


def test_features_of_clips_frames_and_patches(mine, videos, documented):
    ClipFeatureExtractor = documented("eva_video", "ClipFeatureExtractor")
    extract = ClipFeatureExtractor.from_weights(str(mine))
    paths = [str(path) for path, *_ in _paths(videos)[:2]]
    clips = extract(paths)
    assert clips.shape == (2, 128)
    torch.testing.assert_close(extract(paths[1:]), clips[1:], atol=1e-5, rtol=1e-4)
    assert extract.frames(paths[0]).shape == (1, 4, 128)
    assert extract.tokens(paths[0]).shape == (1, 4, 4, 4, 128)


def test_a_video_that_is_damaged_is_named(run, fails, mine, videos, tmp_path):
    (tmp_path / "val/up").mkdir(parents=True)
    whole = next((videos / "val/up").glob("*.mp4")).read_bytes()
    (tmp_path / "val/up/good.mp4").write_bytes(whole)
    (tmp_path / "val/up/broken.mp4").write_bytes(whole[: len(whole) // 2])
    words = ("eva", "video", "evaluate", mine, "--data", tmp_path / "val", *CPU)
    fails(run(*words, code=None), "broken.mp4")
    assert run(*words, "--max-bad-samples", 1).names("broken.mp4")
