"""The work of a detector's demo: drawings, predictions, what was found."""

import json

import numpy as np
from PIL import Image

from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import plan_jobs, written_name
from eva_report.detection_demo import Detections, detect_files


def detect(rgb):
    """One object in pictures that are bright."""
    one = {"category_id": 1, "bbox": [1.0, 1, 6, 6], "score": 0.75}
    return Detections([one] if rgb.mean() > 99 else [], lambda: 0.25)


def run(inputs, output):
    jobs, _ = plan_jobs(
        inputs,
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        targets=lambda name: [output / written_name(name)],
    )
    return detect_files(detect, jobs, output, categories={3: "cat", 7: "dog"}, threshold=0.5)


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
