"""The clips of moving digits as encoded files, in class folders and lists."""

import json
import shutil
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from eva_data.video.streams import VideoReader
from eva_demo import command, data_set
from eva_demo.clips import MOTIONS
from eva_demo.data_set import difference
from eva_demo.formats.video import MOTION_CLIPS, clip_generator

SIZES = {"train": 18, "val": 9, "size": 64, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demo"
    data_set.make_demo_data(root, data_set.Settings(formats=("video",), **SIZES), workers=1)
    return root


def digests(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root): sha256(path.read_bytes()).digest() for path in files}


def test_files_are_the_clips(made):
    folder = made / "video"
    classes = (folder / "classes.txt").read_text().splitlines()
    assert classes == sorted(MOTIONS)  # labels of the lists are those of the sorted folders
    for split in ("train", "val"):
        assert sorted(path.name for path in (folder / split).iterdir()) == classes
        lines = (folder / f"{split}.txt").read_text().splitlines()
        assert len(lines) == SIZES[split]
        generator = clip_generator(split, SIZES["size"], SIZES["seed"])
        for index, line in enumerate(lines):
            name, label = line.split(" ")
            clip = generator.clip(index)
            assert classes[int(label)] == clip.motion == name.split("/")[1]
            reader = VideoReader(folder / name)
            frames = list(reader)
            assert (reader.error, reader.count) == (None, len(clip.frames))
            assert {frame.rate for frame in frames} == {25}
            assert [frame.pts * frame.time_base * 25 for frame in frames] == [*range(len(frames))]
            decoded = np.stack([frame.rgb for frame in frames]).astype(int)
            assert decoded.shape == clip.frames.shape == (len(frames), 32, 32, 3)
            error = np.abs(decoded - clip.frames).mean()
            others = np.abs(decoded[::-1] - clip.frames).mean()
            assert error < 12  # H.264, with half the resolution of colour
            assert error < others


def test_clips_json_says_what_is_in_the_clips(made):
    content = json.loads((made / "video" / "clips.json").read_text())
    clip = clip_generator("val", SIZES["size"], SIZES["seed"]).clip(1)
    entry = content["val"][1]
    assert entry["file"] == "val/grow/000002.mp4"
    assert (entry["digit"], entry["digit_index"]) == (clip.category, clip.digit_index)
    assert entry["path"]["size"] == pytest.approx(clip.path["size"], abs=1e-3)


def test_same_bytes_for_any_number_of_workers(made, tmp_path):
    options = [f"--{name}={value}" for name, value in SIZES.items()]
    output = ["--output", str(tmp_path / "two"), "--formats", "video"]
    assert command.main([*output, *options, "--workers=2"]) == 0
    assert digests(tmp_path / "two") == digests(made)


def test_command_writes_checks_and_previews(made, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    options = ["--formats", "video", "--size", "64", "--seed", "3", "--preview", str(sheet)]
    assert command.main(["--output", str(made), "--check", *options]) == 0
    assert "every check passed" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.size == (16 * 64, 8 * 64)
    assert (
        command.main(
            [
                "--output",
                str(tmp_path / "both"),
                "--formats",
                "video",
                "coco",
                "--train=2",
                "--val=2",
                "--size=50",
                "--preview",
                str(sheet),
            ]
        )
        == 0
    )
    with Image.open(sheet) as picture:
        assert picture.size == (16 * 50, 8 * 100 + 8 * 48)
    file = made / "video" / "val.txt"
    text = file.read_text()
    file.write_text(text + "\n")
    try:
        assert command.main(["--output", str(made), "--check"]) == 1
    finally:
        file.write_text(text)
    assert "val.txt has 10 lines, clips.json 9 clips" in capsys.readouterr().err


def test_a_damaged_clip_is_not_left_as_it_is(made, tmp_path):
    shutil.copytree(made, tmp_path / "demo")
    clip = next((tmp_path / "demo").glob("video/train/up/*.mp4"))
    clip.write_bytes(clip.read_bytes()[:-1])
    name = clip.relative_to(tmp_path / "demo")
    assert name.as_posix() in difference(tmp_path / "demo")


def test_manifests_of_other_formats_do_not_change_with_the_clips():
    sizes = {"train": 1, "val": 1, "size": 64, "seed": 0}
    assert "clip_version" not in data_set.Settings(formats=("coco",), **sizes).as_json()
    both = data_set.Settings(formats=("coco", "video"), **sizes).as_json()
    assert (both["clip_version"], both["scene_version"]) == (1, 1)


def _edit(root, change):
    file = root / "clips.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def _entry(key, value):
    return lambda root: _edit(root, lambda content: content["train"][0].update({key: value}))


def _truncate(root):
    file = root / "val/down/000001.mp4"
    file.write_bytes(file.read_bytes()[:300])


def _swap(root):
    text = (root / "train.txt").read_text()
    (root / "train.txt").write_text(text.replace("000001.mp4 0", "000001.mp4 1"))


def _move(root):
    _edit(root, lambda content: content["train"][0].update(file="train/up/000001.mp4"))
    (root / "train/down/000001.mp4").rename(root / "train/up/000001.mp4")
    text = (root / "train.txt").read_text()
    (root / "train.txt").write_text(text.replace("down/000001.mp4", "up/000001.mp4"))


DAMAGES = [
    (lambda root: (root / "train/up/000008.mp4").unlink(), "000008.mp4'. not both on disk and in"),
    (lambda root: (root / "train/up/9.mp4").touch(), "9.mp4'. not both on disk and in clips.json"),
    (lambda root: (root / "train.txt").unlink(), "train.txt is missing"),
    (_truncate, "cannot read .*val/down/000001.mp4 as a video"),
    (_swap, r"000001.mp4 1', 'train/down/000001.mp4 0'"),
    (_move, "000001.mp4 lies in up, but shows down"),
    (_entry("frames", 99), r"000001.mp4 has \d+ frames of \[\(32, 32\)\], not 99 of 32 x 32"),
    (_entry("size", 30), "not .* of 30 x 30"),
    (_entry("motion", "fly"), "shows fly, which is not in classes.txt"),
    (
        lambda root: _edit(
            root, lambda content: content["val"][0].update(photo=content["train"][0]["photo"])
        ),
        "train and val share the photographs",
    ),
    (
        lambda root: _edit(
            root,
            lambda content: content["val"][0].update(
                digit_index=content["train"][0]["digit_index"]
            ),
        ),
        "train and val share the digits",
    ),
    (
        lambda root: [
            _edit(root, lambda content: [content["val"].pop(3) for _ in range(2)]),
            *(path.unlink() for path in root.glob("val/[rs]*/*")),
            (root / "val.txt").write_text(
                "".join(
                    line
                    for line in (root / "val.txt").read_text().splitlines(keepends=True)
                    if "/right" not in line and "/shrink" not in line
                )
            ),
        ],
        r"the motions have \[2, 1, 1, 0, 0, 1, 1, 1\] clips",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_check_names_what_is_wrong(made, tmp_path, damage, message):
    shutil.copytree(made / "video", tmp_path / "video")
    MOTION_CLIPS.check(tmp_path / "video")
    damage(tmp_path / "video")
    with pytest.raises(ValueError, match=message):
        MOTION_CLIPS.check(tmp_path / "video")
