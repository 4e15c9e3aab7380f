"""Every format holds the generated scenes; a dataset is complete, or not there."""

import json
import tomllib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from eva_data.video.streams import VideoReader
from eva_demo import command, data_set
from eva_demo.clips import MOTIONS
from eva_demo.formats import FORMATS

COUNTS = {"train": 9, "val": 9}
SMALL = {**COUNTS, "size": 64, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every format, by one process."""
    root = tmp_path_factory.mktemp("data") / "demo"
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    assert (
        command.main(["--output", str(root), "--formats", *FORMATS, *options, "--workers=1"]) == 0
    )
    return root


@pytest.fixture
def make():
    """Writes a small dataset in this process; returns whether it was written."""

    def run(output, *, overwrite=False, workers=1, **changes):
        settings = data_set.Settings(**{"formats": ("coco",), **SMALL, **changes})
        return data_set.make_demo_data(output, settings, overwrite=overwrite, workers=workers)

    return run


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): sha256(path.read_bytes()).digest() for path in files}


def generated(name, split):
    generator = FORMATS[name].make_generator(split, SMALL["size"], SMALL["seed"])
    return [generator.make(index) for index in range(COUNTS[split])]


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers(made, make, tmp_path):
    assert make(tmp_path / "demo", formats=tuple(FORMATS), workers=2)
    assert digests(tmp_path / "demo") == digests(made)


def test_coco(made):
    coco = COCO(str(made / "coco/annotations/instances_val.json"))
    assert coco.getCatIds() == list(range(1, 11))
    for scene, image_id in zip(generated("coco", "val"), coco.getImgIds(), strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(scene.instances)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), instance.mask)
            x, y, width, height = annotation["bbox"]
            assert [x, y, x + width, y + height] == instance.box.tolist()
            assert coco.cats[annotation["category_id"]]["name"] == str(instance.category)
        with Image.open(made / "coco/val" / coco.imgs[image_id]["file_name"]) as image:
            error = np.abs(np.asarray(image).astype(int) - scene.image)
        assert error.mean() < 6  # JPEG


def test_class_folders_show_the_digits(made):
    digits = json.loads((made / "folder/digits.json").read_text())
    for split, names in digits.items():
        files = {
            path.relative_to(made / "folder" / split) for path in made.glob(f"folder/{split}/*/*")
        }
        assert files == {Path(name) for name in names}
        scenes = generated("folder", split)
        for name, digit in names.items():
            label, _, stem = name.removesuffix(".png").partition("/")
            index, number = map(int, stem.split("_"))
            instance = scenes[index - 1].instances[number]
            assert (str(instance.category), instance.digit_index) == (label, digit)
            with Image.open(made / "folder" / split / name) as image:
                assert (image.size, image.mode) == ((64, 64), "RGB")


def test_semantic_maps(made):
    folder = made / "semantic"
    names = ("brick", "grass", "gravel", "other")
    for split, part in (("train", "training"), ("val", "validation")):
        for index, scene in enumerate(generated("semantic", split), start=1):
            stored = np.asarray(Image.open(folder / "annotations" / part / f"{index:06d}.png"))
            digits = np.any([digit.mask for digit in scene.instances], axis=0)
            np.testing.assert_array_equal(stored == 5, digits)
            background = names.index(scene.background_class) + 1
            assert set(np.unique(stored)) == {0, 5, background}
            near = np.pad(digits, 1)
            for y, x in zip(*np.nonzero(stored == 0), strict=True):  # all of it touches a digit
                assert near[y : y + 3, x : x + 3].any()
    content = tomllib.loads((folder / "classes.toml").read_text())
    assert content["ignore"] == [0]
    assert [entry["label"] for entry in content["classes"]] == [1, 2, 3, 4, 5]


def test_videos_are_the_clips(made):
    folder = made / "video"
    classes = (folder / "classes.txt").read_text().splitlines()
    assert classes == sorted(MOTIONS)  # labels of the lists are those of the sorted folders
    content = json.loads((folder / "clips.json").read_text())
    for split in COUNTS:
        lines = (folder / f"{split}.txt").read_text().splitlines()
        clips = generated("video", split)
        for line, (made_frames, about), entry in zip(lines, clips, content[split], strict=True):
            name, label = line.split(" ")
            assert classes[int(label)] == about["motion"] == name.split("/")[1]
            assert entry == {"file": name, **about}
            reader = VideoReader(folder / name)
            frames = list(reader)
            assert (reader.error, reader.count) == (None, len(made_frames))
            assert [frame.pts * frame.time_base * 25 for frame in frames] == [*range(len(frames))]
            decoded = np.stack([frame.rgb for frame in frames]).astype(int)
            assert decoded.shape == made_frames.shape == (len(frames), 32, 32, 3)
            error = np.abs(decoded - made_frames).mean()
            assert error < 12  # H.264, with half the resolution of colour
            assert error < np.abs(decoded[::-1] - made_frames).mean()


def test_a_complete_dataset_is_left_alone_and_another_needs_overwrite(make, tmp_path):
    output = tmp_path / "demo"
    assert make(output)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(output.rglob("*"))]
    assert not make(output)
    assert before == [(path, path.stat().st_mtime_ns) for path in sorted(output.rglob("*"))]
    with pytest.raises(ValueError, match="train=9"):
        make(output, train=5)
    assert make(output, train=5, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_formats_are_added_to_a_dataset_of_the_same_scenes(made, make, tmp_path):
    output = tmp_path / "demo"
    assert make(output, formats=("coco",))
    assert make(output, formats=("keypoints", "coco"))
    assert make(output, formats=("panoptic",))
    assert not make(output, formats=("coco", "panoptic"))
    assert json.loads((output / "manifest.json").read_text())["formats"] == [
        *("coco", "keypoints", "panoptic")
    ]
    for name in ("coco", "keypoints", "panoptic"):
        assert digests(output / name) == digests(made / name)
    with pytest.raises(ValueError, match="seed=3"):
        make(output, formats=("yolo",), seed=4)
    assert not (output / "yolo").exists()


def test_an_addition_that_was_killed_is_made_again(make, tmp_path, monkeypatch):
    output = tmp_path / "demo"
    make(output)
    with monkeypatch.context() as patch:
        patch.setattr(data_set, "write_text", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(output, formats=("yolo",))
    (output / ".voc.partial-99999999").mkdir()
    assert make(output, formats=("voc", "yolo"))
    names = {path.name for path in output.iterdir()}
    assert names == {"coco", "manifest.json", "voc", "yolo"}


def test_what_others_wrote_is_never_deleted(make, tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "mine.json").write_text("{}")
    for output in (tmp_path, tmp_path / "coco" / "mine.json"):
        with pytest.raises(ValueError, match=str(tmp_path)):
            make(output, overwrite=True)
    make(tmp_path / "demo")
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=str(tmp_path)):
        make(tmp_path / "demo", overwrite=True)
    assert (tmp_path / "coco" / "mine.json").is_file()
