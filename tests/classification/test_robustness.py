"""ImageNet-1K's variants: which labels, which columns, which transform."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from eva_classification import evaluate_command
from eva_classification.robustness import ImageNetPaths, objectnet_labels, open_sets, real_labels
from eva_data.labelled._imagenet_subsets import IMAGENET_A, IMAGENET_R
from eva_data.labelled.folders import ClassFolders
from eva_engine import distributed
from eva_engine.evaluation.counting import OneLabel

IDS = [f"n{1_440_764 + 7 * label:08}" for label in range(1000)]  # sorted, like the WordNet ids
CLIP = np.array([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])


@pytest.fixture(autouse=True)
def _no_warnings_of_empty_folders(caplog):
    caplog.set_level(logging.ERROR)


@pytest.fixture
def make_set(tmp_path, write_picture):
    """Function: class folders, and in some of them pictures: {folder/name: number}."""

    def make(name, folders, pictures):
        for folder in folders:
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
        for path, number in pictures.items():
            write_picture(tmp_path / name / path, number)
        return tmp_path / name

    return make


@pytest.fixture
def make_objectnet(make_set):
    """Function: ObjectNet with its four mapping files in the official formats."""

    def make(pictures, *, objects, classes, lines, line_of_label):
        folder = make_set(
            "objectnet", ["mappings"], {f"images/{k}": n for k, n in pictures.items()}
        )
        files = {
            "folder_to_objectnet_label.json": json.dumps(objects),
            "objectnet_to_imagenet_1k.json": json.dumps(classes),
            "pytorch_to_imagenet_2012_id.json": json.dumps(line_of_label),
            "imagenet_to_label_2012_v2": "\n".join(lines) + "\n",
        }
        for name, text in files.items():
            (folder / "mappings" / name).write_text(text)
        return folder

    return make


OBJECTNET = {
    "objects": {"chair_d": "Chair", "plate": "Plate", "lettuce": "Lettuce", "clock_a": "Alarm"},
    "classes": {
        "Chair": "folding chair; barber chair; rocking chair, rocker",
        "Plate": "plate",
        "Alarm": "analog clock",
    },
    # the lines are not in the order of the labels
    "lines": ["analog clock", "barber chair", "plate", "rocking chair, rocker", "folding chair"],
    "line_of_label": {"409": 0, "423": 1, "559": 4, "765": 3, "923": 2},
}
OBJECTS = {"chair_d/a.png": 40, "clock_a/a.png": 41, "lettuce/a.png": 42, "plate/a.png": 43}


def open_one(**paths):
    (one,) = open_sets(ImageNetPaths(**paths), image_size=8)
    return one


def labels_of(samples):
    """Folder -> label, of the first of its pictures."""
    names = [samples.sample_id(index).split("/")[-2] for index in range(len(samples))]
    return {name: samples.load(index)[1] for index, name in reversed([*enumerate(names)])}


# Labels


@pytest.mark.parametrize(
    ("labels", "first", "last", "total", "digest"),
    [  # of the text of shared/reference/pretraining_classification.md, Appendix A
        (IMAGENET_A, (6, 11, 13, 15, 17, 22), (984, 986, 987, 988), 102178, "973e8c3e530bf5db"),
        (IMAGENET_R, (1, 2, 4, 6, 8, 9), (980, 981, 983, 988), 86135, "a1d9a9ace3098120"),
    ],
)  # fmt: skip
def test_the_200_classes(labels, first, last, total, digest):
    assert len(labels) == 200
    assert list(labels) == sorted(set(labels))
    assert (labels[:6], labels[-4:], sum(labels)) == (first, last, total)
    text = ",".join(map(str, labels))
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize("columns", [IMAGENET_A, IMAGENET_R])
def test_200_classes_compete(cross_entropy, columns):
    logits = np.random.default_rng(1).normal(size=(40, 1000))
    labels = np.random.default_rng(2).integers(0, 200, 40)
    others = [label for label in range(1000) if label not in columns]
    logits[:, others] += 50  # any of the other 800 would win
    for row, label in enumerate(labels[:15]):
        logits[row, columns[label]] += 20
    judged = OneLabel(columns)(torch.tensor(logits), torch.tensor(labels), torch.arange(40))
    sliced = np.array([[row[label] for label in columns] for row in logits])
    order = np.argsort(-sliced, axis=1)
    assert judged.top1.tolist() == (order[:, 0] == labels).tolist()
    assert judged.top5.tolist() == (order[:, :5] == labels[:, None]).any(1).tolist()
    assert judged.top1[:15].all()
    np.testing.assert_allclose(judged.loss, cross_entropy(sliced, labels), rtol=1e-6)


def test_folders_of_v2_are_numbers(make_set):
    folder = make_set("v2", [], {f"{label}/a.png": 0 for label in (0, 1, 2, 10, 999)})
    samples = open_one(v2=folder).samples
    # sorted as text, "10" would be the third
    assert labels_of(samples) == {"0": 0, "1": 1, "2": 2, "10": 10, "999": 999}
    assert len(samples.classes) == 1000


@pytest.mark.parametrize("name", ["1000", "007", "n01440764"])
def test_other_folders_than_those_of_v2(make_set, name):
    folder = make_set("v2", [], {"0/a.png": 0, f"{name}/a.png": 0})
    with pytest.raises(ValueError, match=f"1 folders that are not among the 1000 classes: {name}"):
        open_one(v2=folder)


def test_real_labels_follow_the_number_of_the_file(make_set, tmp_path):
    pictures = {f"{folder}/ILSVRC2012_val_{number:08}.JPEG": number
                for folder, number in (("z", 1), ("a", 5), ("m/sub", 2), ("a", 3))}  # fmt: skip
    samples = ClassFolders(make_set("val", [], pictures))
    file = tmp_path / "real.json"
    file.write_text(json.dumps([[10], [20, 21], [], [40], [50]]))
    names = [samples.sample_id(index)[-7:-5] for index in range(4)]
    assert dict(zip(names, real_labels(samples, file), strict=True)) == {
        "01": [10], "05": [50], "02": [20, 21], "03": []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"real.json is no JSON file"),
        ('{"1": [0]}', r"not real.json of ImageNet-ReaL, a list of lists"),
        ("[1, 2]", r"not real.json of ImageNet-ReaL, a list of lists"),
        ('[["tench"], [null]]', r"not real.json of ImageNet-ReaL, a list of lists"),
        ("[[1]]", r"val_00000002.JPEG has no labels in real.json: .*_00000001.JPEG to 00000001"),
        (None, r"real.json cannot be read \(No such file"),
    ],
)
def test_another_file_than_that_of_real(make_set, tmp_path, text, message):
    samples = ClassFolders(make_set("val", [], {"a/ILSVRC2012_val_00000002.JPEG": 0}))
    if text is not None:
        (tmp_path / "real.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        real_labels(samples, tmp_path / "real.json")


@pytest.mark.parametrize("name", ["cat.JPEG", "ILSVRC2012_val_00000000.JPEG", "val_00000001.JPEG"])
def test_real_needs_the_published_names(make_set, tmp_path, name):
    (tmp_path / "real.json").write_text("[[1], [2]]")
    samples = ClassFolders(make_set("val", [], {f"a/{name}": 0}))
    with pytest.raises(ValueError, match=f"{name} has no labels in real.json: images must be"):
        real_labels(samples, tmp_path / "real.json")


def test_real_needs_imagenet(tmp_path):
    with pytest.raises(ValueError, match="give --imagenet too"):
        open_sets(ImageNetPaths(real=tmp_path / "real.json"), image_size=8)


def test_nothing_to_open():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        open_sets(ImageNetPaths(), image_size=8)


def test_objectnet_takes_the_first_class_of_mapped_folders(make_objectnet):
    folder = make_objectnet(OBJECTS, **OBJECTNET)
    expected = {"chair_d": 559, "clock_a": 409, "plate": 923}  # nobody knows lettuce
    for place in (folder, folder / "images"):
        assert objectnet_labels(place) == (folder / "images", expected)
        one = open_one(objectnet=place)
        assert labels_of(one.samples) == expected
        assert len(one.samples) == 3
        assert one.rules["ObjectNet"].columns is None  # all 1000 compete


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": {"Chair": "throne; folding chair"}}, r"KeyError: 'throne'"),
        ({"line_of_label": {"0": 99}}, r"IndexError"),
        ({"line_of_label": {"zero": 1}}, r"ValueError: .*'zero'"),
        ({"objects": ["Chair"]}, r"AttributeError"),
        ({"classes": {"Chair": 5}}, r"AttributeError"),
    ],
)
def test_mappings_that_do_not_fit(make_objectnet, changes, message):
    folder = make_objectnet(OBJECTS, **OBJECTNET | changes)
    with pytest.raises(ValueError, match=rf"mappings do not fit together \({message}"):
        objectnet_labels(folder)


def test_a_mapping_that_is_not_there(make_objectnet):
    folder = make_objectnet(OBJECTS, **OBJECTNET)
    (folder / "mappings" / "imagenet_to_label_2012_v2").unlink()
    with pytest.raises(ValueError, match=r"imagenet_to_label_2012_v2 cannot be read \(No such"):
        open_one(objectnet=folder)


# Folders


@pytest.mark.parametrize(
    ("key", "name", "number"),
    [("imagenet", "ImageNet-1K", 1000), ("a", "ImageNet-A", 200), ("r", "ImageNet-R", 200),
     ("sketch", "ImageNet-Sketch", 1000)],
)  # fmt: skip
def test_a_wrong_number_of_folders(make_set, key, name, number):
    folder = make_set("set", IDS[: number - 1], {f"{IDS[0]}/a.png": 0})
    with pytest.raises(ValueError, match=f"{name} has {number} class folders, .* are {number - 1}"):
        open_one(**{key: folder})


@pytest.mark.parametrize("key", ["a", "r", "sketch"])
def test_folders_that_do_not_belong_to_imagenet(make_set, key):
    imagenet = make_set("val", IDS, {f"{IDS[0]}/a.png": 0})
    names = {"a": [IDS[i] for i in IMAGENET_A], "r": [IDS[i] for i in IMAGENET_R], "sketch": IDS}
    good = make_set("good", names[key], {f"{names[key][3]}/a.png": 0})
    sets = open_sets(ImageNetPaths(imagenet=imagenet, **{key: good}), image_size=8)
    assert labels_of(sets[1].samples) == {names[key][3]: 3}
    other = names["a" if key == "r" else "r"] if key != "sketch" else [*IDS[:-1], "n09999999"]
    bad = make_set("bad", other, {f"{other[0]}/a.png": 0})
    with pytest.raises(ValueError, match=r"class folders of ImageNet-.* are not those of ImageNet"):
        open_sets(ImageNetPaths(imagenet=imagenet, **{key: bad}), image_size=8)


# Transforms


@pytest.mark.parametrize("crop_pct", [1.0, 0.68])
def test_the_transform_of_each_set(make_set, make_objectnet, crop_pct):
    pixels = np.random.default_rng(0).integers(0, 256, (27, 40, 3), dtype=np.uint8)
    subsets = {"a": [IDS[i] for i in IMAGENET_A], "r": [IDS[i] for i in IMAGENET_R]}
    paths = {key: make_set(key, subsets.get(key, IDS), {})
             for key in ("imagenet", "a", "r", "sketch")}  # fmt: skip
    paths |= {"v2": make_set("v2", ["0"], {}), "objectnet": make_objectnet({}, **OBJECTNET)}
    firsts = {key: subsets.get(key, IDS)[0] for key in paths} | {
        "v2": "0",
        "objectnet": "images/plate",
    }
    for key, path in paths.items():
        (path / firsts[key]).mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(path / firsts[key] / "a.png")
    sets = open_sets(ImageNetPaths(**paths), image_size=12, crop_pct=crop_pct)
    assert [[*entry.rules] for entry in sets] == [
        ["ImageNet-1K"], ["ImageNet-V2"], ["ImageNet-A"], ["ImageNet-R"], ["ImageNet-Sketch"],
        ["ObjectNet"],
    ]  # fmt: skip
    for entry in sets:
        plain = {*entry.rules} & {"ImageNet-V2", "ObjectNet"}
        side = 12 if plain else int(12 / crop_pct)
        kind = Image.Resampling.BILINEAR if plain else Image.Resampling.BICUBIC
        resized = np.asarray(Image.fromarray(pixels).resize((int(side * 40 / 27), side), kind))
        top, left = ((length - 12) // 2 for length in resized.shape[:2])
        if (resized.shape[1] - 12) % 4 == 3:  # torchvision rounds a half to the even number
            left += 1
        crop = resized[top : top + 12, left : left + 12] / 255
        expected = ((crop - CLIP[0]) / CLIP[1]).transpose(2, 0, 1)
        np.testing.assert_allclose(entry.samples[0][0], expected, atol=1e-5)


# The command


def test_all_sets_in_one_command(
    make_set, make_objectnet, prescribe, tmp_path, monkeypatch, capsys
):
    logits = np.tile(-np.arange(1000) / 1000, (50, 1))  # class 0 is greatest, and so on

    def say(number, *classes):
        logits[number, list(classes)] = 10 - np.arange(len(classes))

    val = "ILSVRC2012_val_{:08}.JPEG".format
    imagenet = make_set("val", IDS, {f"{IDS[label]}/{val(n)}": n for n, label in
                                     ((1, 5), (2, 10), (3, 0), (4, 700))})  # fmt: skip
    say(1, 5)  # right
    say(2, 11, 10)  # right among five, and by ReaL
    say(3, 1, 2, 3, 4, 5)  # wrong
    say(4, 700)  # right, does not count for ReaL
    (tmp_path / "real.json").write_text(json.dumps([[5], [11, 3], [999], []]))
    v2 = make_set("v2", [], {"10/a.png": 10, "2/a.png": 11})
    say(10, 10)
    say(11, 10, 11, 12, 13, 14)
    folders = {"a": [IDS[i] for i in IMAGENET_A], "r": [IDS[i] for i in IMAGENET_R]}
    a = make_set("a", folders["a"], {f"{IDS[988]}/a.png": 20, f"{IDS[6]}/a.png": 21})
    say(20, 0, 1, 2, 3, 4, 5, 988)  # the others are no classes of ImageNet-A
    say(21, 11)
    r = make_set("r", folders["r"], {f"{IDS[1]}/a.png": 25})
    say(25, 0, 1)
    sketch = make_set("sketch", IDS, {f"{IDS[999]}/a.png": 30})
    say(30, 999)
    objectnet = make_objectnet(OBJECTS, **OBJECTNET)
    say(40, 423, 559)  # barber chair is the second class of Chair
    say(41, 0, 409)
    say(43, 923)
    monkeypatch.setattr(distributed, "stop", lambda: None)
    monkeypatch.setattr(evaluate_command, "load_classifier", lambda *_, **__: prescribe(logits))
    monkeypatch.setattr(evaluate_command, "_noted", lambda _: {})
    options = {"imagenet": imagenet, "real": tmp_path / "real.json", "v2": v2, "a": a, "r": r,
               "sketch": sketch, "objectnet": objectnet, "weights": "w", "workers": 0,
               "batch-size": 2, "device": "cpu", "output": tmp_path / "out"}  # fmt: skip
    evaluate_command.main([f"--{key}={value}" for key, value in options.items()])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [row[:4] for row in rows[:7]] == [
        ["ImageNet-1K", "4", "50.000", "75.000"],
        ["ImageNet-V2", "2", "50.000", "50.000"],
        ["ImageNet-ReaL", "3", "66.667", "66.667"],
        ["ImageNet-A", "2", "50.000", "100.000"],
        ["ImageNet-R", "1", "100.000", "100.000"],
        ["ImageNet-Sketch", "1", "100.000", "100.000"],
        ["ObjectNet", "3", "33.333", "100.000"],
    ]
    average = (50 + 50 + 200 / 3 + 50 + 100 + 100) / 6
    assert rows[7:] == [["average", "of", "six", f"{average:.3f}"],
                        ["gap", "to", "1K", f"{50 - average:.3f}"]]  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["average"] == pytest.approx(average)
    assert results["sets"]["ImageNet-ReaL"]["right1"] == 2
    sliced = logits[20, list(IMAGENET_A)], logits[21, list(IMAGENET_A)]
    loss = np.mean([np.log(np.exp(row).sum()) - row[label]
                    for row, label in zip(sliced, (199, 0), strict=True)])  # fmt: skip
    assert results["sets"]["ImageNet-A"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_variants_need_1000_classes(prescribe, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate_command, "_noted", lambda _: {})
    monkeypatch.setattr(
        evaluate_command, "load_classifier", lambda *_, **__: prescribe([[0.0] * 9])
    )
    with pytest.raises(SystemExit, match="w has 9 classes, ImageNet-1K and its variants need 1000"):
        evaluate_command.main(["--weights=w", f"--v2={tmp_path}", "--device=cpu"])
