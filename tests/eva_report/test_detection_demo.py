"""The work of a detector's demo: drawings, predictions, what was found."""

import argparse
import json
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import JobPlan, plan_jobs, written_name
from eva_data.video.streams import Frame, VideoWriter
from eva_report.demos import require_format
from eva_report.detection_demo import detect_files


def detect(rgb):
    """One object in pictures that are bright."""
    one = {"category_id": 1, "bbox": [1.0, 1, 6, 6], "score": 0.75}
    return [one] if rgb.mean() > 99 else []


def run(inputs, output, detect=detect, **options):
    jobs, _ = plan_jobs(
        inputs,
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        targets=lambda name: [output / written_name(name)],
    )
    options = {"output": output, "score_threshold": 0.5, "track": False, "form": None, **options}
    predictor = SimpleNamespace(
        in_coco_format=detect, categories={3: "cat", 7: "dog"}, score_threshold=0.5
    )
    return detect_files(argparse.Namespace(**options), predictor, JobPlan(jobs, []))


@pytest.mark.parametrize(("form", "file"), [("yolo", "a.mp4"), ("geojson", "a.png")])
def test_a_dataset_that_could_have_no_image_is_refused_before_any_work(form, file, tmp_path):
    if form == "geojson":
        pytest.importorskip("rasterio")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.mp4").touch()
    jobs, _ = plan_jobs([tmp_path / file], targets=lambda name: [])
    options = argparse.Namespace(form=form, output=tmp_path / "out", overwrite=False)
    with pytest.raises(ValueError, match=f"--to {form} .*{file}"):
        require_format(options, jobs)


def test_pictures_and_videos_are_drawn_written_and_summed_up(tmp_path, write_video, capsys):
    Image.new("RGB", (32, 16), "white").save(tmp_path / "a.png")
    Image.new("RGB", (32, 16), "black").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    write_video(tmp_path / "d.mp4", 4, [0, 1, 2, 3])
    output = tmp_path / "out"
    (problem,) = run([tmp_path], output)
    assert "c.png" in problem
    assert capsys.readouterr().out.splitlines() == [
        "a.png: 1 dog",
        "b.png: nothing at 0.5",
        "d.mp4: 4 frames: 1 dog",  # the last frame is bright
        "2 images and 1 video (4 frames): 2 objects: 2 dog",
        f"output   {output} (images, videos and predictions.json)",
    ]
    written = json.loads((output / "predictions.json").read_text())
    assert [one["file_name"] for one in written["images"]] == ["a.png", "b.png", *["d.mp4"] * 4]
    assert {one["category_id"] for one in written["annotations"]} == {7}
    with Image.open(output / "a.png") as drawn:
        assert drawn.size == (512, 256)  # small pictures are enlarged
        assert np.asarray(drawn).min() < 200
    assert (output / "d.mp4").stat().st_size


@pytest.fixture
def digits(tmp_path):
    """A film of 12 frames in which two digits move towards each other, and their boxes."""
    shapes = load_digits().images[[1, 8]].astype(np.uint8) * 15
    places = [((10 + 4 * at, 10), (90 - 4 * at, 40)) for at in range(12)]
    with VideoWriter(tmp_path / "film.mp4") as film:
        for at, pair in enumerate(places):
            scene = np.zeros((80, 120, 3), np.uint8)
            for (x, y), shape in zip(pair, shapes, strict=True):
                scene[y : y + 16, x : x + 16] = np.kron(shape, np.ones((2, 2)))[:, :, None]
            film.add(scene, Frame(scene, at, Fraction(1, 10), Fraction(10)))
    return tmp_path / "film.mp4", places


def test_tracks_keep_their_ids_through_a_film(digits, tmp_path, capsys):
    pytest.importorskip("trackers")
    (film, places), rng = digits, np.random.default_rng(0)
    output = tmp_path / "out"
    frames = iter(places)

    def find(rgb):
        found = [(*place, 16, 16) for place in next(frames)][:: rng.choice([-1, 1])]
        return [
            {"category_id": int(y > 25), "bbox": [x, y, w, h], "score": 0.6} for x, y, w, h in found
        ]

    run([film], output, detect=find, track=True)
    assert "  2 tracks: 1 cat, 1 dog" in capsys.readouterr().out.splitlines()
    objects = json.loads((output / "predictions.json").read_text())["annotations"]
    ids = {(one["category_id"], one["track_id"]) for one in objects}
    assert len(objects) == 24
    assert len(ids) == len({number for _, number in ids}) == 2
    lines = [line.split(",") for line in (output / "film.txt").read_text().splitlines()]
    assert [int(line[0]) for line in lines] == [at for at in range(1, 13) for _ in range(2)]
    assert {line[1] for line in lines} == {"1", "2"}
    assert all(line[7:] == ["-1", "-1", "-1"] for line in lines)
    assert [float(line[2]) for line in lines if float(line[3]) < 25] == [x for (x, _), _ in places]


def test_a_dataset_has_the_images_and_what_was_found(tmp_path):
    for name in ("a", "below/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 16), "white").save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert len(run([tmp_path], tmp_path / "out", form="yolo")) == 1
    for name in ("a", "below__b"):
        line = (tmp_path / f"out/yolo/labels/train/{name}.txt").read_text().split()
        assert [*map(float, line)] == [1, 4 / 32, 4 / 16, 6 / 32, 6 / 16]
        with Image.open(tmp_path / f"out/yolo/images/train/{name}.png") as image:
            assert image.size == (32, 16)
    assert len([*(tmp_path / "out/yolo").rglob("*.*")]) == 5
