"""`eva train DATA`: which task data of a form are for, and how they are named to its training."""

import json
import re
import shlex
from types import SimpleNamespace

import pytest
import torch

from eva_command import own_data, starting, training
from eva_command.data_forms import find_tasks, guess_check

FILES = {  # form -> files, task, words after the data's
    "classes": ([f"{n % 2}/{n}.png" for n in range(5)], "classification", ["--data.val-share"]),
    "few": (["a/1.png", "b/2.png"], "classification", ["--data.val"]),
    "split classes": (["train/a/1.png", "train/b/2.png", "val/a/3.png"], "classification", ["val"]),
    "parts in other letters": (
        [f"{name}/1.png" for name in ("Training/a", "Training/b", "Testing/a", "__MACOSX/a")],
        "classification",
        ["Training", "Testing"],
    ),
    "a program's settings": (
        ["environment.yml", "train/a/1.png", "train/b/2.png", "val/a/3.png"],
        "classification",
        ["val"],
    ),
    "images to predict": (
        [*(f"train/{n % 2}/{n}.png" for n in range(5)), "test/5.png"],
        "classification",
        ["train", "--data.val-share"],
    ),
    "one folder each": (["image/1.png", "mask/1.png"], "segmentation", ["--val-images"]),
    "videos": ([f"{n % 2}/{n}.mp4" for n in range(5)], "video", ["--data.val-share"]),
    "maps": (
        [f"{kind}/{n}.png" for kind in ("images", "masks") for n in range(5)],
        "segmentation",
        ["--val-share", "images", "masks"],
    ),
    "few maps": (["images/1.png", "masks/1.png"], "segmentation", ["--val-images", "--val-maps"]),
    "split maps": (
        [f"{what}/{part}/1.png" for what in ("images", "labels") for part in ("train", "val")],
        "segmentation",
        ["images/train", "labels/train", "images/val", "labels/val"],
    ),
    "maps of parts": (
        [f"{part}/{what}/1.png" for what in ("images", "maps") for part in ("train", "valid")],
        "segmentation",
        ["train/images", "train/maps", "valid/images", "valid/maps"],
    ),
    "voc": (["Annotations/1.xml", "JPEGImages/1.png"], "detection", ["--val-share"]),
    "split voc": (["train/1.xml", "train/1.png", "valid/2.xml", "valid/2.png"], "detection", []),
    "captions": (
        [f"{n}.{end}" for n in range(5) for end in ("png", "txt")],
        "clip",
        ["--data.val-share"],
    ),
}
XML = "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
XML += "<ymax>9</ymax></bndbox></object></annotation>"


@pytest.mark.parametrize("form", FILES)
def test_folders(form, write_picture, tmp_path):
    files, task, words = FILES[form]
    for name in files:
        write_picture(tmp_path / name)
        if name.endswith((".xml", ".yml")):
            (tmp_path / name).write_text("a: 1" if name.endswith(".yml") else XML)
    ((found, options),) = find_tasks(tmp_path).items()
    assert found == task
    named = {*options, *options.values()}
    assert {str(tmp_path / word) if "-" not in word else word for word in words} <= named
    assert len([flag for flag in options if flag.endswith("val-share")]) == (
        "--val-share" in words or "--data.val-share" in words
    )


@pytest.mark.parametrize(
    "content",
    [
        {"images": ["x" * 70_000], "annotations": [{"image_id": 1, "caption": "a cat"}]},
        {"images": [{"sentences": [{"raw": "a cat"}]}, "x" * 70_000]},
    ],
)
def test_captions_of_coco_and_of_karpathy_are_captions(content, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert [*find_tasks(tmp_path / "a.json")] == ["clip"]


@pytest.mark.parametrize(
    ("name", "header", "tasks"),
    [
        ("a.csv", "image,caption", ["clip"]),
        ("a.tsv", "path\tlabel", ["video"]),
        ("a.csv", "filename,label,caption", ["clip", "video"]),
        ("a.json", '{"annotations": [{"caption": "x"}]}', ["clip"]),
        ("a.json", '{"annotations": [{"bbox": []}]}', []),
        ("a.txt", "a.mp4 0", ["video"]),
        ("a.tar", "", ["video", "clip"]),
    ],
)
def test_files(name, header, tasks, tmp_path):
    (tmp_path / name).write_text(header)
    assert [*find_tasks(tmp_path / name)] == tasks


@pytest.mark.parametrize(
    ("name", "header", "check"),
    [
        ("a.csv", "image,caption", "captions"),
        ("a.tsv", "path\tlabel", "video"),
        ("a.txt", "a.mp4 0", "video"),
        ("a.csv", "filename,label,caption", None),
        ("shards/0.tar", "", None),
        ("a.csv", None, None),
    ],
)
def test_a_list_names_its_check_of_data(name, header, check, tmp_path):
    file = tmp_path / "#1 set" / name
    file.parent.mkdir(parents=True)
    if header is not None:
        file.write_text(header)
    path = file.parent if file.suffix == ".tar" else file
    if check:
        assert guess_check([str(path), "--json"]) == [check, str(path), "--json"]
        return
    quoted = shlex.quote(str(path))
    with pytest.raises(ValueError, match=re.escape(f"`video {quoted}` or `captions {quoted}`")):
        guess_check([str(path)])


def test_folders_of_shards(tmp_path):
    """As img2dataset writes them; with train and val beside each other these are the parts."""
    for name in ("train/00000.tar", "train/00000_stats.json", "val/00000.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    train, val = (str(tmp_path / part / "*.tar") for part in ("train", "val"))
    held_out = {"--data.train": train, "--data.val": "", "--data.val-share": "0.1"}
    assert find_tasks(tmp_path / "train") == dict.fromkeys(("video", "clip"), held_out)
    both = {"--data.train": train, "--data.val": val}
    assert find_tasks(tmp_path) == dict.fromkeys(("video", "clip"), both)
    (tmp_path / "val/a.mp4").touch()
    assert find_tasks(tmp_path) == {}, "val would be left out"


def test_a_large_card_with_official_weights_takes_the_large_recipe(
    write_picture, tmp_path, monkeypatch
):
    ran = []
    monkeypatch.setattr(own_data, "call", lambda *words: ran.append(words) or 75)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    card = SimpleNamespace(total_memory=24 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    for name in ("data/a/1.png", "data/b/2.png"):
        write_picture(tmp_path / name)
    for _ in range(2):
        assert training.main([str(tmp_path / "data"), "--run.epochs", "3"]) == 75
        (tmp_path / "eva_l_psz14_21k_ft.pt").touch()
    recipes = [words[0] for _, words in ran]
    assert recipes == ["custom/eva_small", "eva_l_patch14_in21k_to_in1k_336px"]
    assert ran[0][1][-2:] == ["--run.epochs", "3"]


def test_a_coco_file_is_a_detector_s_data_with_its_images_beside_it(demo):
    file = demo("coco") / "coco/annotations/instances_val.json"
    assert find_tasks(file) == {"detection": {"--data": str(file), "--val-share": "1"}}


def test_a_folder_above_label_maps_has_no_classes(write_picture, tmp_path):
    """As `eva label --to maps` writes it; its folders would be classes of images."""
    for name in ("maps/images/1.png", "maps/maps/1.png", "predictions/1.png"):
        write_picture(tmp_path / name)
    (tmp_path / "maps/classes.toml").touch()
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "maps"))):
        find_tasks(tmp_path)


@pytest.mark.parametrize(
    ("names", "words", "needed"),
    [
        (("1.png", "2.png"), (), ("eva label", "--to coco", "eva distill")),
        (("a/1.png", "b/2.png"), ("--task", "detection"), ("boxes", "COCO")),
    ],
)
def test_images_that_lack_what_a_task_needs_are_one_error(
    names, words, needed, write_picture, tmp_path, capsys
):
    for name in names:
        write_picture(tmp_path / name)
    with pytest.raises(SystemExit) as ended:
        training.main([str(tmp_path), *words])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert all(word in message for word in needed)


def test_what_a_user_names_takes_the_place_of_choices(write_picture, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(own_data, "call", lambda *words: ran.append(words) or 0)
    for name in ("a/1.png", "b/2.png"):
        write_picture(tmp_path / name)
    rest = ["--data.val-share=0.3", "--run.output", "y", "run.epochs=2"]
    training.main([str(tmp_path), "--recipe", "r", *rest])
    ((_, words),) = ran
    assert words == ["r", "--data.train", str(tmp_path), "--data.val", "", *rest]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("maps", ["--val-images", "/d/date=1/val", "--val-maps", "m"]),
        ("few maps", ["--val-images", "a", "--val-maps=m"]),
        ("classes", ["--data.val", "v"]),
        ("classes", ["--val", "v", "--quick"]),
    ],
)  # fmt: skip
def test_validation_data_that_the_user_names_take_the_place_of_a_share(
    form, words, write_picture, tmp_path, monkeypatch, capsys
):
    ran = []
    monkeypatch.setattr(own_data, "call", lambda *words: ran.append(words) or 0)
    monkeypatch.setattr(starting, "find_start", lambda *words: [words[-1]])
    monkeypatch.setattr(starting, "fetch_start", lambda _: False)
    for name in FILES[form][0]:
        write_picture(tmp_path / name)
        if name.endswith(".xml"):
            (tmp_path / name).write_text(XML)
    training.main([str(tmp_path), *words])
    ((_, result),) = ran
    assert not [word for word in result if "share" in word]
    assert not [word for word in result if "=1" in word and word not in words[:2]]
    assert "held out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("form", "words", "command"),
    [
        ("maps", ["--head", "eomt"], ("segmentation train", "custom/eomt_eva_small")),
        ("maps", [], ("segmentation train", "custom/upernet_eva_small")),
        ("voc", ["--head", "eomt"], ("mmdetection train", "custom/eomt_eva_small")),
        ("classes", ["--head", "eomt"], "classification"),
        ("voc", ["--head", "eomt", "--task", "detection"], "detection"),
    ],
)
def test_a_head_chooses_the_recipe(
    form, words, command, write_picture, tmp_path, monkeypatch, capsys
):
    ran = []
    monkeypatch.setattr(own_data, "call", lambda *words: ran.append(words) or 0)
    monkeypatch.setattr(starting, "find_start", lambda *words: [words[-1]])
    for name in FILES[form][0]:
        write_picture(tmp_path / name)
        if name.endswith(".xml"):
            (tmp_path / name).write_text(XML)
    if isinstance(command, tuple):
        training.main([str(tmp_path), *words])
        assert [(task, arguments[0]) for task, arguments in ran] == [command]
        return
    with pytest.raises(SystemExit):
        training.main([str(tmp_path), *words])
    assert f"not for {command}" in capsys.readouterr().err
