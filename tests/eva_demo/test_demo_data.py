import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from eva_demo import command, data_set, glyphs, photographs
from eva_demo import scenes as digit_scenes
from eva_demo.formats.format import scene_generator
from eva_demo.splits import package_folder

SCRIPT = Path(__file__).parents[2] / "tools" / "make_demo_data.py"
SMALL = {"formats": ("coco",), "train": 6, "val": 4, "size": 64, "seed": 3}


@pytest.fixture(scope="module")
def scenes():
    """60 scenes of each split, at the default settings."""
    generators = {split: digit_scenes.SceneGenerator(split) for split in ("train", "val")}
    return {split: [maker.scene(i) for i in range(60)] for split, maker in generators.items()}


@pytest.fixture
def make():
    """Writes a small data set in this process; returns whether it was written."""

    def run(output, *, overwrite=False, **changes):
        program = data_set
        settings = program.Settings(**{**SMALL, **changes})
        return program.make_demo_data(output, settings, overwrite=overwrite)

    return run


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): sha256(path.read_bytes()).digest() for path in files}


# ---- scenes --------------------------------------------------------------------------------------


def test_scans_equal_scikit_learns():
    from sklearn.datasets import load_digits

    scans, labels = glyphs.load_digit_scans()
    np.testing.assert_array_equal(scans * 16, load_digits().images)
    np.testing.assert_array_equal(labels, load_digits().target)


def test_scene_depends_on_split_seed_and_index_only():
    make = digit_scenes.SceneGenerator
    forwards, backwards = make("val", seed=1), make("val", seed=1)
    first = [forwards.scene(i).image for i in range(4)]
    second = [backwards.scene(i).image for i in reversed(range(4))]
    np.testing.assert_array_equal(first, second[::-1])
    assert not np.array_equal(first[0], make("val", seed=2).scene(0).image)
    by_rng = [forwards.scene(np.random.default_rng(5)).image for _ in range(2)]
    np.testing.assert_array_equal(*by_rng)


def test_golden_scene():
    """SCENE_VERSION must change together with the scenes, or old data sets pass for new ones."""
    module = digit_scenes
    scene = module.SceneGenerator("train").scene(2)
    assert module.SCENE_VERSION == 1
    assert [digit.digit_index for digit in scene.instances] == [927, 1218, 1186, 1066, 597]
    assert [digit.full_area for digit in scene.instances] == [771, 280, 1450, 940, 340]


def test_splits_share_neither_digits_nor_photographs(scenes):
    photos = {split: {scene.background for scene in made} for split, made in scenes.items()}
    assert not photos["train"] & photos["val"]
    assert {"chelsea", "retina", "coins", "brick-right"} <= photos["val"]
    for split, digits in (("train", range(1400)), ("val", range(1400, 1797))):
        for scene in scenes[split]:
            assert all(instance.digit_index in digits for instance in scene.instances)
            assert scene.background_class in photographs.BACKGROUND_CLASSES


def test_textures_are_cut_before_they_are_scaled():
    """The two sides of a texture, stacked at native size, are the photograph itself."""
    with Image.open(package_folder("skimage") / "data" / "brick.png") as image:
        whole = np.asarray(image.convert("RGB"))
    right = photographs.load_photo("brick.png", split="val", size=512 - int(512 * 0.65))
    np.testing.assert_array_equal(right.zooms[0], whole[:, int(512 * 0.65) :])
    left = photographs.load_photo("brick.png", split="train", size=int(512 * 0.65))
    np.testing.assert_array_equal(left.zooms[0], whole[:, : int(512 * 0.65)])


def test_masks_boxes_and_hidden_part(scenes):
    _, labels = glyphs.load_digit_scans()
    hidden = []
    for scene in scenes["train"] + scenes["val"]:
        assert 2 <= len(scene.instances) <= 5
        claimed = np.sum([instance.mask for instance in scene.instances], axis=0)
        assert claimed.max() == 1  # no pixel belongs to two digits
        for instance in scene.instances:
            assert instance.category == labels[instance.digit_index]
            ys, xs = np.nonzero(instance.mask)
            bounds = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_array_equal(instance.box, bounds)
            hidden.append(1 - instance.mask.sum() / instance.full_area)
        assert hidden[-1] == 0  # the last one lies on top
    assert 0.05 < max(hidden) <= 0.15


def test_ink_contrasts_with_its_ground(scenes):
    measured = []
    for scene in scenes["train"] + scenes["val"]:
        luminance = scene.image @ [0.299, 0.587, 0.114]
        digits = np.any([instance.mask for instance in scene.instances], axis=0)
        for instance in scene.instances:
            assert abs(instance.contrast) > 60
            ink = cv2.erode(instance.mask.astype(np.uint8), np.ones((5, 5))).astype(bool)
            ring = (
                cv2.dilate(instance.mask.astype(np.uint8), np.ones((7, 7))).astype(bool) & ~digits
            )
            measured.append(abs(luminance[ink].mean() - luminance[ring].mean()))
    # In the picture itself, where the ring around a digit is not quite the ground below its box.
    assert np.percentile(measured, 5) > 50


def test_only_masked_pixels_are_painted():
    """Two generators that differ in the tint alone give the same picture outside the masks."""
    make = digit_scenes.SceneGenerator
    plain, contrasting = make("train", min_contrast=0), make("train", min_contrast=110)
    for index in range(10):
        one, other = plain.scene(index), contrasting.scene(index)
        outside = ~np.any([instance.mask for instance in one.instances], axis=0)
        np.testing.assert_array_equal(one.image[outside], other.image[outside])
        assert np.mean(one.image[~outside] != other.image[~outside]) > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "split='test'; choose one of train, val"),
        ({"digits": (0, 3)}, r"digits=\(0, 3\)"),
        ({"digit_px": (22, 100)}, r"digit_px=\(22, 100\) at size=128"),
        ({"max_hidden": 1.0}, "max_hidden=1.0"),
    ],
)
def test_wrong_settings_name_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        digit_scenes.SceneGenerator(**{"split": "train", **settings})


def test_no_room_is_an_error_not_a_loop():
    make = digit_scenes.SceneGenerator
    crowded = make("train", size=64, digit_px=(28, 30), digits=(12, 12), max_hidden=0)
    with pytest.raises(ValueError, match="no room for 12 digits"):
        crowded.scene(0)


# ---- the program ---------------------------------------------------------------------------------


def test_same_bytes_for_any_number_of_workers(make, tmp_path):
    assert make(tmp_path / "one")
    options = [f"--{name}={SMALL[name]}" for name in SMALL if name != "formats"]
    run = [sys.executable, SCRIPT, "--output", tmp_path / "two", *options, "--workers=2"]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "wrote and checked 6 + 4 scenes" in output
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    make(tmp_path / "three", seed=4)
    assert digests(tmp_path / "one") != digests(tmp_path / "three")


def test_pycocotools_decodes_the_generators_masks(make, tmp_path):
    make(tmp_path / "demo")
    coco = COCO(str(tmp_path / "demo/coco/annotations/instances_val.json"))
    generator = scene_generator("val", SMALL["size"], SMALL["seed"])
    assert coco.getCatIds() == list(range(1, 11))
    for index, image_id in enumerate(coco.getImgIds()):
        scene = generator.scene(index)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(scene.instances)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), instance.mask)
            assert coco.cats[annotation["category_id"]]["name"] == str(instance.category)
            assert isinstance(annotation["segmentation"]["counts"], str)
        file = tmp_path / "demo/coco/val" / coco.imgs[image_id]["file_name"]
        with Image.open(file) as picture:
            error = np.abs(np.asarray(picture).astype(int) - scene.image)
        assert error.mean() < 6  # JPEG


def test_a_complete_data_set_is_left_alone(make, tmp_path):
    output = tmp_path / "demo"
    assert make(output)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(output.rglob("*"))]
    assert not make(output)
    assert before == [(path, path.stat().st_mtime_ns) for path in sorted(output.rglob("*"))]


def test_another_or_a_damaged_data_set_needs_overwrite(make, tmp_path):
    output = tmp_path / "demo"
    make(output)
    with pytest.raises(ValueError, match="was made with train=6, not 5; give --overwrite"):
        make(output, train=5)
    assert make(output, train=5, overwrite=True)
    (output / "coco/train/000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"damaged \(it has 11 files, not 12\); give --overwrite"):
        make(output, train=5)
    assert make(output, train=5, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_what_others_wrote_is_never_deleted(make, tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "mine.json").write_text("{}")
    for output in (tmp_path, tmp_path / "coco" / "mine.json"):
        with pytest.raises(ValueError, match="files that this program did not write"):
            make(output, overwrite=True)
    make(tmp_path / "demo")
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="files that this program did not write"):
        make(tmp_path / "demo", overwrite=True)
    assert (tmp_path / "coco" / "mine.json").is_file()


def test_an_interrupted_run_leaves_nothing_that_counts(make, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    program = data_set
    broken = program.FORMATS["coco"]._replace(check=interrupted)
    with monkeypatch.context() as patch:
        patch.setitem(program.FORMATS, "coco", broken)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "demo")
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_run_are_cleaned(make, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    alive = os.getppid()
    for process in (ended.pid, os.getpid(), alive):
        (tmp_path / f".demo.partial-{process}" / "coco").mkdir(parents=True)
    assert make(tmp_path / "demo")
    assert {path.name for path in tmp_path.iterdir()} == {"demo", f".demo.partial-{alive}"}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("annotations", {"bbox": [1.0, 2.0, 3.0, 4.0]}, r"annotation 1: bbox \[1.0, 2.0"),
        ("annotations", {"area": 7}, "annotation 1: area 7, mask"),
        ("annotations", {"id": 0}, "annotations has id 0 < 1"),
        ("annotations", {"id": 2}, "ids of annotations are not unique"),
        ("annotations", {"category_id": 0}, "annotation 1: category_id 0 is not in"),
        ("annotations", {"image_id": 99}, r"images that do not exist: \[99\]"),
        ("annotations", {"digit_index": 1500}, r"share the digits \[1500\]"),
        ("annotations", {"iscrowd": 1}, "annotation 1: iscrowd is 1"),
        ("categories", {"id": 0}, "categories has id 0 < 1"),
        ("images", {"file_name": "no.jpg"}, "image 1: .*no.jpg is missing"),
        ("images", {"width": 32}, "image 1: .* is .64, 64., not .32, 64."),
        ("images", {"photo": "coins"}, r"share the photographs \['coins'\]"),
    ],
)
def test_check_names_the_broken_entry(shared_set, kind, values, message):
    train = shared_set / "coco/annotations/instances_train.json"
    val = train.with_name("instances_val.json")
    original = {path: path.read_text() for path in (train, val)}
    content = json.loads(original[train])
    content[kind][0].update(values)
    other = json.loads(original[val])
    other["images"][0]["photo"] = "coins"
    other["annotations"][0]["digit_index"] = 1500
    try:
        train.write_text(json.dumps(content))
        val.write_text(json.dumps(other))
        with pytest.raises(ValueError, match=message):
            data_set.FORMATS["coco"].check(shared_set / "coco")
    finally:
        for path, text in original.items():
            path.write_text(text)


@pytest.fixture(scope="module")
def shared_set(tmp_path_factory):
    output = tmp_path_factory.mktemp("shared") / "demo"
    program = data_set
    program.make_demo_data(output, program.Settings(**SMALL))
    return output


def test_a_preview_is_replaced_by_a_complete_one_or_stays(shared_set, tmp_path, capsys, small_disk):
    (sheet := tmp_path / "sheet.png").write_text("before")
    options = ["--output", str(shared_set), "--check", "--size", "64", "--preview", str(sheet)]
    with small_disk(100):
        assert command.main(options) == 1
    assert "sheet.png cannot be written: File too large" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_check_and_preview_from_the_command_line(shared_set, tmp_path, capsys):
    main, preview = command.main, tmp_path / "new" / "sheet.png"
    options = ["--size", "64", "--seed", "3", "--preview", str(preview)]
    assert main(["--output", str(shared_set), "--check", *options]) == 0
    assert "every check passed" in capsys.readouterr().out
    with Image.open(preview) as sheet:
        assert sheet.size == (8 * 128, 8 * 128)
    assert main(["--output", str(tmp_path), "--check"]) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formats", "kitti"], "invalid choice: 'kitti' (choose from"),
        (["--size", "20"], "must be at least 48, got 20"),
        (["--seed", "-1"], "must be at least 0, got -1"),
        (["--train", "0"], "must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--output", str(tmp_path / "demo"), *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_help_imports_nothing_heavy():
    code = (
        "import runpy, sys\nsys.argv = ['make_demo_data.py', '--help']\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'cv2', 'PIL', 'pycocotools', 'sklearn', 'torch'} & {*sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "--formats {captions,coco,folder,semantic,video,voc,yolo}" in result.stdout
    assert result.stdout.endswith("[]\n")
