"""`eva train DATA`: own data of every form train a step of the small recipe of their task."""

import re
import shlex
import shutil

import pytest

ENGINE = ("--run.epochs", 1, "--run.batch-size", 16, "--run.workers", 0, "--run.device", "cpu")
DETECTION = ("train.max_iter=1", "train.device=cpu", "dataloader.train.num_workers=0")
MMENGINE = (
    "train_cfg.max_iters=1",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
)
TASKS = {  # task -> its demo data, words of a step
    "detection": ("yolo", DETECTION),
    "mmdetection": ("voc", MMENGINE),
    "segmentation": ("semantic", MMENGINE),
    "classification": ("folder", ENGINE),
    "video": ("video", ENGINE),
    "clip": ("pairs.csv", ENGINE),
}


@pytest.fixture(scope="module")
def data(demo, engine_data, tmp_path_factory):
    """Function: where the data of a form are."""
    place = tmp_path_factory.mktemp("pairs")
    images = sorted((engine_data / "folder/train").rglob("*.png"))
    rows = [f"{image},a photo of the number {image.parent.name}" for image in images]
    (place / "pairs.csv").write_text("\n".join(["image,caption", *rows]))
    places = (place, engine_data, demo("coco", "yolo", "voc"), demo("semantic"))
    return lambda form: next(one / form for one in places if (one / form).exists())


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=[pytest.mark.slow] * (task not in ("detection", "classification")))
        for task in TASKS
    ],
)
def test_own_data_train_the_small_recipe_of_their_task_to_a_report(task, data, run, tmp_path):
    form, words = TASKS[task]
    chosen = ["--task", task] if task == "mmdetection" else []
    own = tmp_path / "data.csv" if task == "clip" else tmp_path / "data"
    (shutil.copy if own.suffix else shutil.copytree)(data(form), own)
    ended = run("eva", "train", own, *chosen, *words, folder=tmp_path)
    assert str(tmp_path) not in ended.err  # paths below the current folder are relative
    command = shlex.split(re.search(r"^\$ (.*)$", ended.out, re.MULTILINE)[1])
    assert command[:3] == ["eva", task, "train"]
    recipe = command[3].rpartition("/")[2]
    assert recipe == "eva_debug_captions" if task == "clip" else recipe.endswith("_small")
    (report,) = tmp_path.glob("*/*/report.html")
    assert report.parent.name.endswith(recipe[recipe.index("eva_") :])


def test_what_fits_two_tasks_asks_for_one_of_them(engine_data, call_eva, fails, tmp_path):
    for name in ("folder", "video"):
        shutil.copytree(engine_data / name / "val", tmp_path / "both", dirs_exist_ok=True)
    fails(call_eva("eva", "train", tmp_path / "both"), "classification", "video", "--task")
    shards = engine_data / "captions/train/00000.tar"
    fails(call_eva("eva", "train", shards), shards, "clip", "video", "--task")


def test_what_fits_no_task_is_named(engine_data, call_eva, fails, tmp_path):
    fails(call_eva("eva", "train", tmp_path), tmp_path)
    fails(call_eva("eva", "train", tmp_path / "nothing"), tmp_path / "nothing")
    shutil.copytree(next((engine_data / "folder/val").iterdir()), tmp_path / "labelled")
    fails(call_eva("eva", "train", tmp_path / "labelled"), "images without labels")
    (tmp_path / "labelled/about.json").write_text("{}")
    fails(call_eva("eva", "train", tmp_path / "labelled"), "images without labels")
    labels = next((tmp_path / "labelled").glob("*.*g")).with_suffix(".json")
    labels.write_text('{"version": "5.4.1", "shapes": []}')  # labelme's
    fails(call_eva("eva", "train", tmp_path / "labelled"), labels, "COCO")
    (tmp_path / "notes.doc").write_text("")
    fails(call_eva("eva", "train", tmp_path / "notes.doc"), tmp_path / "notes.doc")
