"""`eva label`: images that a model labels train and are verified, and those to label next."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from eva_command.verify import main as verify

FORMATS = ("coco", "yolo", "cvat", "label-studio", "fiftyone")


@pytest.fixture(scope="session")
def photos(demo, once):
    """Folder of four images, one of them below, and a file that is no image."""

    def copy_images(folder):
        (folder / "below").mkdir(parents=True)
        for number, file in enumerate(sorted((demo("coco") / "coco/val").iterdir())):
            (folder / ("below" if number == 3 else ".") / file.name).write_bytes(file.read_bytes())
        (folder / "broken.jpg").write_bytes(b"none")

    return once("photos", copy_images)


@pytest.fixture(scope="session")
def weights(once, finished):
    """Function: folder of a run of a framework; of a detector that finds threes everywhere."""

    def sure(output):
        shutil.copytree(finished("detection"), output)
        content = torch.load(output / "model_final.pth", weights_only=True)
        for name in (name for name in content["model"] if name.endswith("cls_score.bias")):
            content["model"][name][3] += 6
        torch.save(content, output / "model_final.pth")

    return lambda name: once("sure", sure) if name == "detection" else finished(name)


@pytest.fixture(scope="session")
def labelled(run, once, photos, weights):
    """Function: OUTPUT of a model of a framework, whose every score counts, and what was said."""

    def label(name, *forms):
        def make(output):
            for form in forms:
                words = ("--weights", weights(name), "--to", form, "--output", output)
                ended = run("eva", "label", photos, *words, "--score-threshold", 0, code=1)
                assert ended.names(photos / "broken.jpg", "4 images")

        return once(f"labelled_{name}_{len(forms)}", make)

    return label


def _lists(output):
    return json.loads((output / "coco/annotations/instances_train.json").read_text())


@pytest.mark.slow
def test_labels_of_a_detector_train(labelled):
    output = labelled("detection", *FORMATS)
    for form in FORMATS:
        assert verify([str(output / form), "--workers", "1", "--allow-empty-classes"]) == 0
    data = _lists(output)
    assert len(data["images"]) == 4
    assert data["annotations"]
    assert all(one["score"] >= 0.05 for one in data["annotations"])
    for image in data["images"]:
        with Image.open(output / "coco/images/train" / image["file_name"]) as file:
            assert file.size == (image["width"], image["height"])


@pytest.mark.slow
@pytest.mark.parametrize("form", [*FORMATS, "maps"])
def test_labels_are_trained_on(form, labelled, run, trainers, tmp_path):
    name, forms = ("segmentation", ["maps"]) if form == "maps" else ("detection", FORMATS)
    made, trainer = labelled(name, *forms) / form, trainers(name)
    words = trainer.command(tmp_path / "run", "--val-share", 0.2, steps=2, period=2)
    if form == "maps":
        at = words.index("--data-root")
        words[at : at + 2] = ["--train-images", made / "images", "--train-maps", made / "maps"]
        words += ["--classes", made / "classes.toml"]
    else:
        words += ["--data", made, "--allow-empty-classes"]  # it finds threes alone
    run(*words, **trainer.variables)


def test_what_a_reviewer_gets(labelled, read_page, photos):
    output = labelled("detection", "coco")
    names = sorted(str(one) for one in photos.rglob("0*.jpg"))
    assert sorted((output / "label_next.txt").read_text().splitlines()) == names
    page = read_page(output / "report.html")
    assert len(page.images) == 4
    assert "label next: 1" in page.text


def test_a_stopped_command_continues(run, start, wait_for, weights, photos, labelled, tmp_path):
    words = ["eva", "label", photos, "--weights", weights("detection"), "--to", "coco"]
    words += ["--output", tmp_path, "--score-threshold", 0]
    running = start(*words)
    wait_for(lambda: [*tmp_path.glob("predictions/*/[0-9a-f]*.json")])
    running.kill()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("predictions/*/*.json")}
    assert not (tmp_path / "coco").exists()
    run(*words, code=1)
    assert (
        before.items()
        <= {file: file.stat().st_mtime_ns for file in tmp_path.glob("predictions/*/*.json")}.items()
    )
    assert _lists(tmp_path) == _lists(labelled("detection", "coco"))


@pytest.mark.parametrize("content", ["[]", '{"size": [9'])
def test_a_damaged_prediction_is_named(
    call_eva, weights, photos, labelled, fails, tmp_path, content
):
    shutil.copytree(labelled("detection", "coco") / "predictions", tmp_path / "predictions")
    files = [*tmp_path.glob("predictions/*/*.json")]  # of other thresholds, too
    for file in files:
        file.write_text(content)
    words = ("--weights", weights("detection"), "--to", "voc", "--output", tmp_path)
    ended = call_eva("eva", "label", photos, *words, "--score-threshold", 0, code=1)
    fails(ended, next(file for file in files if ended.names(file)))


def test_labels_of_names_that_differ_by_their_suffix_do_not_meet(
    call_eva, weights, photos, fails, tmp_path
):
    names, output = ["a.jpg", "a.png"], tmp_path / "labels"
    for name in names:
        with Image.open(next((photos / "below").iterdir())) as image:
            image.save(tmp_path / name)
    words = ("eva", "label", tmp_path, "--weights", weights("detection"), "--output", output)
    fails(call_eva(*words, "--to", "yolo", code=1), *names)
    call_eva(*words, "--to", "coco")
    assert sorted(image["file_name"] for image in _lists(output)["images"]) == names


def test_thresholds_by_labelled_data(call_eva, labelled, weights, photos, demo, fails, tmp_path):
    output = labelled("detection", "coco")
    before = (output / "coco").stat().st_mtime_ns
    words = ("eva", "label", photos, "--weights", weights("detection"), "--output", output)
    val = ("--target-precision", 1, "--val", demo("coco") / "coco")
    fails(call_eva(*words, "--to", "coco", *val, code=1), output / "coco", "--overwrite")
    fails(call_eva(*words, "--to", "maps", code=1), "maps", "detection")
    fails(call_eva(*words, "--to", "cvat", "--val", tmp_path, code=2), "--target-precision")
    assert (output / "coco").stat().st_mtime_ns == before
    ended = call_eva(*words, "--to", "voc", *val, code=1)
    assert ended.names("precision of 1", "Not reached")  # after six steps
    assert len([*(output / "voc/Annotations").glob("*.xml")]) == 4


@pytest.mark.slow
def test_labels_of_mmdetection(labelled):
    output = labelled("mmdetection", "yolo")
    assert verify([str(output / "yolo"), "--workers", "1", "--allow-empty-classes"]) == 0


def test_label_maps_of_a_segmentor(labelled, photos):
    output = labelled("segmentation", "maps") / "maps"
    words = ("--images", output / "images", "--maps", output / "maps")
    words = ("semantic", *words, "--classes", output / "classes.toml", "--workers", 1)
    assert verify([*map(str, words)]) == 0
    for file in photos.rglob("0*.jpg"):
        name = file.relative_to(photos).with_suffix(".png").as_posix().replace("/", "__")
        with Image.open(output / "maps" / name) as labels:
            assert {*np.unique(np.asarray(labels))} <= {1, 2, 3, 4, 5}


def test_pixels_of_a_wanted_precision(run, finished, demo, tmp_path):
    """By the maps of --val; all others get 255, which no training looks at."""
    data = demo("semantic") / "semantic"
    words = ("--to", "maps", "--output", tmp_path, "--val", data, "--target-precision", 0.6)
    images = data / "images/validation"
    ended = run("eva", "label", images, "--weights", finished("segmentation"), *words)
    folders = data / "annotations/validation", tmp_path / "maps/maps"
    truth, found = (
        np.concatenate([np.ravel(Image.open(file)) for file in sorted(folder.glob("*.png"))])
        for folder in folders
    )
    right = (found == truth)[truth > 0]
    found = found[truth > 0]
    shares = {label: right[found == label].mean() for label in {*found.tolist()} - {255}}
    assert 255 in found
    assert shares
    assert min(shares.values()) >= 0.6 or ended.names("Not reached")
