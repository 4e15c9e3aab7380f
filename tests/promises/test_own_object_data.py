"""Own data for detection: YOLO, Pascal VOC and COCO, alone and together, in both frameworks."""

import json
import re
import shutil

import pytest


@pytest.fixture(scope="module")
def scenes(demo):
    """Folder with the same scenes as `coco`, `yolo` and `voc`."""
    return demo("coco", "yolo", "voc")


def coco_files(scenes):
    place = scenes / "coco"
    return [
        "--train-annotations", place / "annotations/instances_train.json",
        "--train-images", place / "train",
        "--val-annotations", place / "annotations/instances_val.json",
        "--val-images", place / "val",
    ]  # fmt: skip


@pytest.fixture
def train(trainers, run):
    """Function: train a step of the small detector on own data; how it ended."""
    small = trainers("detection")

    def one_step(output, *words, call=run, **more):
        words = small.command(output, *words, steps=1)
        return call(*words, **more, DETECTRON2_DATASETS=None)

    return one_step


def losses(output):
    first = json.loads((output / "metrics.json").read_text().splitlines()[0])
    return {name: value for name, value in first.items() if "loss" in name}


@pytest.fixture(scope="module")
def expected(scenes, trainers, run, tmp_path_factory):
    """Losses of the first step on files in COCO's format."""
    output = tmp_path_factory.mktemp("expected")
    words = [*coco_files(scenes), "--boxes-only"]
    run(*trainers("detection").command(output, *words, steps=1))
    return losses(output)


@pytest.mark.parametrize(
    "form", ["yolo", *(pytest.param(form, marks=pytest.mark.slow) for form in ("coco", "voc"))]
)
def test_every_form_of_a_set_gives_the_same_first_step(form, scenes, expected, train, tmp_path):
    train(tmp_path / "out", "--data", scenes / form, "--boxes-only")
    assert len(expected) > 6
    assert losses(tmp_path / "out") == expected


def test_masks_of_the_files_are_trained_and_scored(scenes, train, tmp_path):
    train(tmp_path / "out", *coco_files(scenes))
    assert "loss_mask" in losses(tmp_path / "out")
    assert json.loads((tmp_path / "out/results.json").read_text()).keys() == {"bbox", "segm"}


def test_mmdetection_takes_the_same_data(scenes, trainers, run, tmp_path):
    small = trainers("mmdetection")
    words = small.command(tmp_path / "out", "--boxes-only", steps=1)
    at = words.index("--data-root")
    run(*words[:at], *words[at + 2 :], "--data", scenes / "voc")
    scores = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {f"AP-{digit}" for digit in range(10)} <= scores["bbox"].keys()


def test_a_run_on_own_data_is_used_by_its_folder_alone(scenes, train, run, tmp_path):
    train(tmp_path / "out", "--data", scenes / "yolo")
    run("eva", "detection", "evaluate", tmp_path / "out", f"train.output_dir={tmp_path / 'eval'}")
    first, second = (
        json.loads((tmp_path / f / "results.json").read_text()) for f in ("out", "eval")
    )
    assert str(first) == str(second)
    words = (scenes / "yolo/images/val", "--output", tmp_path / "pictures")
    run("eva", "detection", "demo", tmp_path / "out", *words, "--score-threshold", 0.01)
    found = json.loads((tmp_path / "pictures/predictions.json").read_text())
    assert [one["name"] for one in found["categories"]] == [str(digit) for digit in range(10)]


def test_several_sets_are_trained_on_together(scenes, train, tmp_path):
    """Two years of VOC: equal class names in one order, every picture once."""
    for year, numbers in (("2007", range(1, 9)), ("2012", range(9, 17))):
        for kind in ("Annotations", "JPEGImages"):
            (tmp_path / year / kind).mkdir(parents=True)
            for number in numbers:
                (file,) = (scenes / "voc" / kind).glob(f"train_{number:06d}.*")
                shutil.copy(file, tmp_path / year / kind)
    both = ["--data", tmp_path / "2007", "--data", tmp_path / "2012", "--val-share", "0.25"]
    train(tmp_path / "out", *both, "--boxes-only")
    parts = [
        json.loads((tmp_path / f"out/data/{part}.json").read_text()) for part in ("train", "val")
    ]
    assert sum(len(part["images"]) for part in parts) == 16
    assert 1 <= len(parts[1]["images"]) <= 8
    assert parts[0]["categories"] == parts[1]["categories"]


def change_yolo(scenes, folder):
    shutil.copytree(scenes / "yolo", folder / "mine")
    file = folder / "mine/labels/train/000003.txt"
    file.write_text(file.read_text() + "77 0.5 0.5 0.1 0.1\n")
    return folder / "mine", ("000003.txt", "77")


def change_voc(scenes, folder):
    shutil.copytree(scenes / "voc", folder / "mine")
    file = folder / "mine/Annotations/train_000003.xml"
    file.write_text(re.sub(r"<xmin>\d+", "<xmin>wide", file.read_text(), count=1))
    return folder / "mine", ("train_000003.xml", "wide")


def change_coco(scenes, folder):
    shutil.copytree(scenes / "coco", folder / "mine")
    file = folder / "mine/annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][3]["category_id"] = 4711
    file.write_text(json.dumps(content))
    return folder / "mine", ("instances_train.json", "4711")


@pytest.mark.parametrize("change", [change_yolo, change_voc, change_coco])
def test_a_wrong_label_is_named_by_training_and_by_verify(
    change, scenes, train, call_eva, fails, tmp_path
):
    place, values = change(scenes, tmp_path)
    fails(train(tmp_path / "out", "--data", place, "--boxes-only", call=call_eva), *values)
    assert not (tmp_path / "out").exists()
    fails(call_eva("eva", "data", "verify", place), values[0], code=1)


def test_verify_finds_out_what_a_path_is_and_finds_no_problem(scenes, call_eva):
    for form in ("coco", "yolo", "voc"):
        call_eva("eva", "data", "verify", scenes / form, code=0)


def test_a_picture_that_is_missing_is_named(scenes, train, call_eva, fails, tmp_path):
    shutil.copytree(scenes / "coco", tmp_path / "mine")
    (tmp_path / "mine/train/000005.jpg").unlink()
    fails(train(tmp_path / "out", "--data", tmp_path / "mine", call=call_eva), "000005.jpg")


def test_other_classes_in_a_second_set_are_refused(scenes, train, call_eva, fails, tmp_path):
    shutil.copytree(scenes / "yolo", tmp_path / "mine")
    file = tmp_path / "mine/data.yaml"
    file.write_text(file.read_text().replace('"3"', '"three"'))
    both = ("--data", scenes / "yolo", "--data", tmp_path / "mine")
    fails(train(tmp_path / "out", *both, call=call_eva), "three")


def test_other_data_are_refused_when_a_run_continues(scenes, train, fails, tmp_path):
    shutil.copytree(scenes / "yolo", tmp_path / "mine")
    train(tmp_path / "out", "--data", tmp_path / "mine", "--boxes-only")
    file = sorted((tmp_path / "mine/labels/train").iterdir())[0]
    file.write_text("0 0.5 0.5 0.2 0.2\n")
    words = ("--data", tmp_path / "mine", "--boxes-only", "--resume", "train.max_iter=2")
    fails(train(tmp_path / "out", *words, code=None), tmp_path / "out")
