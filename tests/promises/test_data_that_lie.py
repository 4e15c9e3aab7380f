"""Data that are not what they seem: verify and train say so, with the values and the way out."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from eva_backbone.checkpoints.run_folders import step_of_detectron2
from eva_command.data_forms import find_tasks
from eva_command.verify import main as verify
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.image_sources import decode_image
from eva_data.images import read_image
from eva_data.writing import writing_dataset

SMALL = ("--workers", "1")
RNG = np.random.default_rng(0)


def write_maps(folder, values, *, count=6, part="."):
    """Write pairs whose maps have these values, halves of them side by side."""
    for kind in ("images", "masks"):
        (folder / part / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = RNG.integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / part / f"images/{number}.png")
        label_map = np.resize(np.repeat(np.array(values, np.uint8), 4), (24, 32))
        Image.fromarray(label_map).save(folder / part / f"masks/{number}.png")


def write_classes(folder, *names, before=""):
    entries = [f'[[classes]]\nname = "{name}"\n' for name in names]
    (folder / "classes.toml").write_text(before + "".join(entries))


def write_yolo(folder, classes, labels, *, val=None, top=""):
    """Write a YOLO dataset: an image for each list of classes, of training and of validation."""
    parts = {"train": labels} | ({"val": val} if val else {})
    for part, images in parts.items():
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for number, numbers in enumerate(images):
            Image.new("RGB", (40, 30), (90, 9, number)).save(folder / f"images/{part}/{number}.png")
            lines = "".join(f"{label} 0.5 0.5 0.4 0.4\n" for label in numbers)
            (folder / f"labels/{part}/{number}.txt").write_text(lines)
    places = "".join(f"{part}: images/{part}\n" for part in parts)
    (folder / "data.yaml").write_text(f"{top}{places}names: {json.dumps(classes)}\n")


def test_masks_of_0_and_255_name_the_line_that_mends_them(tmp_path, call_eva, fails, capsys):
    write_maps(tmp_path, [0, 255])
    write_classes(tmp_path, "ground", "nucleus")
    assert verify([str(tmp_path), *SMALL]) == 1
    assert "`label = 255` below 'nucleus'" in capsys.readouterr().out
    fails(call_eva("eva", "train", tmp_path), "nucleus", "label = 255")


def test_a_class_without_pixels_is_not_what_is_ignored(tmp_path, capsys):
    write_maps(tmp_path, [0, 2, 255])
    write_classes(tmp_path, "ground", "nucleus", "wall", before="ignore = [255]\n")
    assert verify([str(tmp_path), *SMALL]) == 1
    shown = capsys.readouterr().out
    assert "no pixel is of nucleus" in shown
    assert "label = 255" not in shown


def test_255_is_ignored_where_the_class_file_says_so(tmp_path, capsys):
    write_maps(tmp_path, [0, 1, 255])
    write_classes(tmp_path, "ground", "nucleus")
    assert verify([str(tmp_path), *SMALL]) == 1
    assert "ignore = [255]" in capsys.readouterr().out
    write_classes(tmp_path, "ground", "nucleus", before="ignore = [255]\n")
    assert verify([str(tmp_path), *SMALL]) == 0
    assert "33.33% of the pixels" in capsys.readouterr().out.split("ignores")[1]


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 255]])
def test_plain_maps_need_no_class_file(values, tmp_path, capsys):
    write_maps(tmp_path, values)
    assert verify([str(tmp_path), *SMALL]) == 0
    assert f"label = {values[-1]}" in capsys.readouterr().out
    assert not (tmp_path / "classes.toml").exists()


def test_what_values_mean_is_asked_where_it_is_not_clear(tmp_path, call_eva, fails):
    write_maps(tmp_path, [0, 1, 255])
    ended = call_eva("eva", "data", "verify", tmp_path)
    fails(ended, "0, 1, 255", tmp_path / "classes.toml")
    fails(call_eva("eva", "train", tmp_path), "0, 1, 255", tmp_path / "classes.toml")


def test_validation_maps_of_one_class_are_an_error(tmp_path, call_eva, fails, capsys):
    write_maps(tmp_path, [0, 1, 2], part="train")
    write_maps(tmp_path, [0, 1], part="val")
    assert verify([str(tmp_path), *SMALL]) == 0  # one of three is missing: a note
    assert "without a pixel" in capsys.readouterr().out
    write_maps(tmp_path, [0], part="val")
    assert verify([str(tmp_path), *SMALL]) == 1
    fails(call_eva("eva", "train", tmp_path), "val", "class 2")


def test_a_class_without_an_object_is_an_error_of_training(tmp_path, call_eva, fails, capsys):
    write_yolo(tmp_path, ["cell", "car"], [[0]] * 6, val=[[0, 1]] * 2)
    assert verify([str(tmp_path), *SMALL]) == 1
    assert "--allow-empty-classes" in capsys.readouterr().out
    assert verify([str(tmp_path), *SMALL, "--allow-empty-classes"]) == 0
    fails(call_eva("eva", "train", tmp_path), "car", "--allow-empty-classes")


def test_names_of_other_letters_and_a_path_that_is_not_there_are_said(tmp_path, capsys):
    write_yolo(tmp_path, ["Tree", "tree "], [[0, 1]] * 2, top="path: /home/nobody/trees\n")
    assert verify([str(tmp_path), *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "'Tree'" in printed
    assert "/home/nobody/trees" in printed


def test_class_folders_of_other_letters_are_the_same_class(tmp_path, write_picture, run, capsys):
    for place, name in enumerate(("train/Cat", "train/dog", "val/cat", "val/Dog ")):
        for number in range(3):
            write_picture(tmp_path / f"data/{name}/{number}.png", 9 * place + number)
    assert verify([str(tmp_path / "data"), *SMALL]) == 0
    assert "as Cat" in capsys.readouterr().out
    words = ("--run.epochs", 1, "--run.batch-size", 2, "--run.workers", 0, "--run.device", "cpu")
    ended = run("eva", "train", tmp_path / "data", *words, folder=tmp_path)
    assert "'cat'" in ended.text
    (page,) = tmp_path.rglob("report.html")
    assert "only 6 images" in page.read_text()  # of validation
    assert ended.text.count("only 6 images") == 1


def test_few_images_have_a_share_that_works(tmp_path):
    write_yolo(tmp_path / "14", ["cell"], [[0]] * 14)
    ((task, options),) = find_tasks(tmp_path / "14").items()
    assert (task, options["--val-share"]) == ("detection", "0.2")
    write_yolo(tmp_path / "4", ["cell"], [[0]] * 4)
    ((_, options),) = find_tasks(tmp_path / "4").items()
    assert options["--val-share"] == "1"  # of the training images


def test_held_out_images_without_an_object_name_the_way_out(tmp_path):
    write_yolo(tmp_path, ["cell"], [[0]] * 12)
    request = DataRequest(paths=(tmp_path,), val_fraction=0.2)
    for image in resolve(request).parts["val"].images.values():
        (tmp_path / "labels/train" / image["file_name"]).with_suffix(".txt").write_text("")
    with pytest.raises(ValueError, match="--val-share"):
        resolve(request)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_of_16_bits_the_upper_8_are_read_and_dark_images_named(bits, tmp_path, capsys):
    """Whatever the largest value of one image is, and by both decoders."""
    for name, part in (("a/1.png", 1), ("b/2.png", 16)):
        values = np.linspace(0, (2**bits - 1) // part, 24 * 32).reshape(24, 32).astype(np.uint16)
        file = tmp_path / name
        file.parent.mkdir()
        Image.fromarray(values).save(file)
        expected = values >> 8
        assert (np.asarray(read_image(file, upright=True))[..., 0] == expected).all()
        assert (decode_image(file.read_bytes())[0].numpy() == expected).all()
    verify([str(tmp_path), *SMALL])
    printed = capsys.readouterr().out
    assert (f"{2**bits - 1:,}" in printed) == ("--bands" in printed) == (bits < 16)


@pytest.mark.parametrize("form", ["yolo", "coco"])
def test_a_detector_s_class_may_be_called_other(form, tmp_path):
    """As a segmentor's background may not, of which there are no objects."""
    names = {1: "other", 2: "void"}
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    objects = [{"bbox": [2, 2, 9, 9], "score": 1.0, "category_id": label} for label in (0, 1)]
    image = {"name": "a.png", "size": (30, 40), "source": tmp_path / "a.png", "objects": objects}
    with writing_dataset(tmp_path, form, names) as add:
        add(image)
    data = resolve(DataRequest(paths=(tmp_path / form,), parts=("train",))).parts["train"]
    assert [data.categories[one["category_id"]] for one in data.objects] == ["other", "void"]


def test_labels_of_a_model_name_training_and_validation(tmp_path):
    """As ultralytics needs them; of a segmentor's background there are no objects."""
    names = {0: "background", 1: "cell"}
    box = {"bbox": [2, 2, 9, 9], "score": 1.0}
    with writing_dataset(tmp_path, "yolo", names, regions=True) as add:
        for number in range(6):
            file = tmp_path / f"{number}.png"
            Image.new("RGB", (40, 30), (number, 0, 0)).save(file)
            objects = [{**box, "category_id": label} for label in names]
            add({"name": file.name, "size": (30, 40), "source": file, "objects": objects})
    content = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert content["names"] == ["cell"]
    assert (tmp_path / "yolo" / content["train"]).is_dir()
    assert (tmp_path / "yolo" / content["val"]).is_dir()
    assert (tmp_path / "yolo/labels/train/0.txt").read_text().startswith("0 ")
    ((_, options),) = find_tasks(tmp_path / "yolo").items()
    assert options["--val-share"] == "0.2"  # val has the images of train
    parts = resolve(DataRequest(paths=(tmp_path / "yolo",), val_fraction=0.2)).parts
    assert len(parts["train"].images) + len(parts["val"].images) == 6
    parts = resolve(DataRequest(paths=(tmp_path / "yolo",), val_fraction=1)).parts
    assert len(parts["train"].images) == len(parts["val"].images) == 6


def test_names_belong_to_the_run(finished):
    """Where the annotations of the quick start are not there."""
    config = yaml.safe_load((finished("detection") / "config.yaml").read_text())
    assert config["settings"]["class_names"] == [[digit + 1, str(digit)] for digit in range(10)]


def test_the_step_of_a_stopped_run_is_its_own(tmp_path):
    torch.save({"iteration": 96, "model": {}}, tmp_path / "model_stopped.pth")
    assert step_of_detectron2(tmp_path / "model_stopped.pth") == 97


def test_validation_with_other_classes_is_a_problem_of_the_data(tmp_path, capsys):
    (tmp_path / "annotations").mkdir()
    for part, names in (("train", ("cat", "dog")), ("val", ("dog", "cat"))):
        (tmp_path / part).mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / part / "1.png")
        content = {
            "images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}],
            "annotations": [
                {"id": key, "image_id": 1, "category_id": key, "bbox": [1, 1, 9, 9]}
                for key in (1, 2)
            ],
            "categories": [{"id": key, "name": name} for key, name in enumerate(names, start=1)],
        }
        (tmp_path / f"annotations/instances_{part}.json").write_text(json.dumps(content))
    assert verify([str(tmp_path), *SMALL]) == 1
    assert "dog" in capsys.readouterr().out
