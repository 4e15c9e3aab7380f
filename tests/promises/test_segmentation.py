"""Segmentation in mmsegmentation: report, scores, predictions, own data, and its own tools."""

import json
import re
import shutil

import numpy as np
import pycocotools.mask as mask_api
import pytest
from PIL import Image

DIGITS = ("brick", "grass", "gravel", "other", "digit")


@pytest.fixture(scope="module")
def output(finished):
    """Folder of a training."""
    return finished("segmentation")


@pytest.fixture(scope="module")
def scenes(demo):
    """Folder with the training's data as ADE20K lays them out."""
    return demo("semantic") / "semantic"


def scores(folder):
    return json.loads((folder / "results.json").read_text())["sem_seg"]


PREDICTOR = """
import sys
import numpy as np
from PIL import Image
from eva_segmentation.inference.predictor import Predictor
predictor = Predictor.from_config(sys.argv[1])
classes = np.asarray(predictor(sys.argv[2]))
assert classes.shape == (128, 128)
assert (classes + 1 == np.asarray(Image.open(sys.argv[3]))).all()
assert len(predictor([sys.argv[2], Image.open(sys.argv[2])])) == 2
assert len(predictor.names) == 5
"""


def test_the_demo_writes_maps_of_labels_and_names_what_it_cannot_read(
    output, scenes, run, fails, tmp_path
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 nothing")
    pictures = scenes / "images" / "validation"
    out = tmp_path / "out"
    words = (pictures, broken, "--output", out, "--to", "coco")
    fails(run("eva", "segmentation", "demo", output, *words, code=None), "broken.jpg", code=1)
    names = sorted(file.stem for file in pictures.iterdir())
    assert sorted(file.stem for file in (out / "labels").rglob("*.png")) == names
    assert sorted(file.stem for file in (out / "overlays").rglob("*.*")) == names
    (first,) = (out / "labels").rglob(f"{names[0]}.png")
    data = json.loads((out / "coco/annotations/instances_train.json").read_text())
    labels = np.asarray(Image.open(first))
    found = [one["name"] for one in data["categories"]]
    assert found == [name for name in DIGITS if name != "other"]  # of which there are no objects
    regions = [one for one in data["annotations"] if one["image_id"] == 1]
    for one in regions:  # each of one label
        kinds = {*labels[mask_api.decode(one["segmentation"]) > 0].tolist()}
        assert kinds == {one["category_id"] + 1}
    pixels = (labels != DIGITS.index("other") + 1).sum()
    assert 0.9 < sum(one["area"] for one in regions) / pixels <= 1  # without specks
    run("python", "-c", PREDICTOR, output, next(pictures.glob(f"{names[0]}.*")), first)


def test_a_recipe_trains_from_bundled_weights_by_its_name(scenes, run, tmp_path):
    """Mask2Former with the adapter; the stock program continues with equal settings."""
    settings = (
        "train_cfg.max_iters=1",
        "train_cfg.val_interval=1",
        "train_dataloader.batch_size=1",
    )
    words = ("--data-root", scenes, "--work-dir", tmp_path / "out", *settings)
    run("eva", "segmentation", "train", "demo/mask2former_eva_debug", *words)
    assert scores(tmp_path / "out").keys() >= {"mIoU", "IoU-digit"}


def test_one_image_for_batch_norm_is_refused_with_the_way_out(scenes, run, tmp_path):
    words = ("--data-root", scenes, "--output", tmp_path / "out", "--batch", 1)
    end = run("eva", "segmentation", "train", "demo/upernet_eva_debug", *words, code=1)
    assert end.names("two images in a forward pass: raise --batch"), end.text


# ---- own data ------------------------------------------------------------------------------------


@pytest.fixture
def own(scenes, tmp_path):
    """Words of own data: pictures, maps and a file of classes."""
    for source, name in (("images", "photos"), ("annotations", "maps")):
        shutil.copytree(scenes / source / "training", tmp_path / name)
    shutil.copy(scenes / "classes.toml", tmp_path)
    return (
        "--train-images", tmp_path / "photos", "--train-maps", tmp_path / "maps",
        "--classes", tmp_path / "classes.toml", "--val-share", "0.25",
    )  # fmt: skip


@pytest.fixture
def train(trainers, run):
    """Function: train a step of the small model on own data; how it ended."""
    small = trainers("segmentation")

    def one_step(output, *words, call=run, **more):
        always = small.command(output, *words, steps=1)
        at = always.index("--data-root")
        return call(*always[:at], *always[at + 2 :], **more)

    return one_step


def test_folders_of_pictures_and_maps_are_trained_scored_and_used_by_the_run(
    own, train, run, tmp_path
):
    train(tmp_path / "out", *own)
    assert {f"IoU-{name}" for name in DIGITS} <= scores(tmp_path / "out").keys()
    words = (tmp_path / "photos", "--output", tmp_path / "demo")
    run("eva", "segmentation", "demo", tmp_path / "out", *words)
    maps = list((tmp_path / "demo/labels").rglob("*.png"))
    assert len(maps) == 16
    assert set(np.unique(Image.open(maps[0]))) <= {1, 2, 3, 4, 5}
    run("eva", "segmentation", "evaluate", tmp_path / "out", "--work-dir", tmp_path / "again")
    (again,) = (tmp_path / "again").rglob("results.json")
    assert scores(again.parent) == scores(tmp_path / "out")


def test_folders_named_by_their_own_paths_need_no_data_root(train, scenes, tmp_path):
    settings = []
    for part, folder in (("train", "training"), ("val", "validation"), ("test", "validation")):
        dataset = f"{part}_dataloader.dataset"
        settings += [
            f"{dataset}.data_root=None",
            f"{dataset}.data_prefix.img_path={scenes / 'images' / folder}",
            f"{dataset}.data_prefix.seg_map_path={scenes / 'annotations' / folder}",
        ]
    end = train(tmp_path, *settings)
    assert end.names("train: 16 images", scenes / "images/training")


def test_the_demo_takes_a_config_of_several_datasets(output, scenes, call_eva, tmp_path):
    config, weights = tmp_path / "several.py", next(output.glob("iter_*.pth"))
    config.write_text(
        f"_base_ = [{str(output / 'small.py')!r}]\n"
        "test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', "
        "datasets=[{{_base_.test_dataloader.dataset}}]))\n"
    )
    words = (config, weights, scenes / "images/validation", "--output", tmp_path / "demo")
    call_eva("eva", "segmentation", "demo", *words)
    assert list((tmp_path / "demo/overlays").iterdir())


def wrong_label(folder):
    for file in (folder / "maps").iterdir():
        values = np.array(Image.open(file))
        values[3, 4] = 77
        Image.fromarray(values).save(file)
    return "77"


def other_size(folder):
    file = sorted((folder / "maps").iterdir())[2]
    Image.open(file).resize((50, 40), 0).save(file)
    return file.name


def missing_map(folder):
    file = sorted((folder / "maps").iterdir())[2]
    file.unlink()
    return file.stem


def unknown_word(folder):
    file = folder / "classes.toml"
    file.write_text(re.sub("^name", "nmae", file.read_text(), count=1, flags=re.MULTILINE))
    return "nmae"


@pytest.mark.parametrize("change", [wrong_label, other_size, missing_map, unknown_word])
def test_what_is_wrong_with_own_data_is_named(change, own, train, call_eva, fails, tmp_path):
    value = change(tmp_path)
    fails(train(tmp_path / "out", *own, "train_cfg.max_iters=8", call=call_eva), value)
    words = ("--images", own[1], "--maps", own[3], "--classes", own[5])
    end = call_eva("eva", "data", "verify", "semantic", *words)
    fails(end, value)


def test_verify_finds_no_problem_in_both_layouts(scenes, own, call_eva):
    words = ("--images", own[1], "--maps", own[3], "--classes", own[5])
    call_eva("eva", "data", "verify", "semantic", *words, code=0)
    assert call_eva("eva", "data", "verify", scenes, code=0).names(
        "semantic", scenes / "annotations/training"
    )


# ---- mmsegmentation's own ------------------------------------------------------------------------


def test_mmsegmentation_s_own_programs_serve_a_recipe(
    output, scenes, trainers, run, tools_of, tmp_path
):
    config, *_ = trainers("segmentation").train[3:]
    settings = ("train_cfg.max_iters=6", "train_cfg.val_interval=6")
    for loader in ("train", "val", "test"):
        settings += (f"{loader}_dataloader.dataset.data_root={scenes}",)
    words = (config, "--work-dir", tmp_path / "out", "--cfg-options", *settings)
    run("python", tools_of("mmseg") / "train.py", *words)
    saved, weights = tmp_path / "out" / config.name, tmp_path / "out" / "iter_6.pth"
    end = run("python", tools_of("mmseg") / "test.py", saved, weights)
    assert f"{scores(output)['mIoU']:.2f}" in end.text, "another run than ours"


@pytest.mark.slow
def test_mmsegmentation_s_own_analysis_reads_a_run(output, scenes, run, tools_of, tmp_path):
    """Also of predictions that say how many pixels of each class are right: all of the truth's."""
    config, truth = output / "small.py", scenes / "annotations" / "validation"
    words = (truth, tmp_path)
    run("python", tools_of("mmseg") / "analysis_tools/confusion_matrix.py", config, *words)
    assert (tmp_path / "confusion_matrix.png").stat().st_size
    tool = tools_of("mmseg") / "misc/browse_dataset.py"
    run("python", tool, config, "--not-show", "--output-dir", tmp_path / "seen")
    assert len(list((tmp_path / "seen").rglob("*.*g"))) == 16
