"""`--help` and mistakes answer before anything heavy is imported."""

import subprocess
import sys

import pytest

FRAMEWORKS = ("mmcv", "mmseg", "mmdet", "cv2", "scipy")
HEAVY = ("torch", "mmengine", *FRAMEWORKS)
PROGRAMS = {
    "train": "eva_segmentation.training.train",
    "test": "eva_segmentation.evaluation.evaluate",
    "demo": "eva_segmentation.inference.demo",
    "prepare": "eva_segmentation.data.coco_stuff",
}
CHECK = """
import importlib, sys
try:
    importlib.import_module(sys.argv[1]).main(sys.argv[2:])
except SystemExit as end:
    if end.code:
        print(end.code, file=sys.stderr)
print("imported:", [name for name in {heavy!r} if name in sys.modules])
"""


def _run(program, *words):
    code = CHECK.format(heavy=HEAVY)
    command = [sys.executable, "-c", code, PROGRAMS[program], *words]
    ended = subprocess.run(command, text=True, capture_output=True, check=True)
    shown, _, imported = ended.stdout.rpartition("imported: ")
    return shown + ended.stderr, imported.strip()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--load-from", "none.pth"], "there is no file 'none.pth'"),
        (["load_from=none.pth"], "there is no file 'none.pth'"),
        (["train_cfg.max_iter=3"], "train_cfg has no 'max_iter'; close to it: max_iters"),
        (["train_dataloader.dataset.data_prefix.img_path=x"], "no folder"),
    ],
)
def test_config_data_and_weights_are_checked_before_a_framework_is_imported(
    words, message, tiny_run
):
    words = ["--data-root", tiny_run, *words]
    shown, imported = _run("train", "mask2former_eva_debug", *map(str, words))
    assert message in shown
    assert not any(name in imported for name in FRAMEWORKS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_imports_nothing_heavy(program):
    shown, imported = _run(program, "--help")
    assert "usage: " in shown
    assert imported == "[]"


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        (
            "train",
            ["upernet_eva_debug", "--bach-size", "2"],
            "there is no flag --bach-size",
        ),
        ("train", ["mask2former_eva_debgu"], "there is no recipe 'mask2former_eva_debgu'"),
        ("train", ["mask2former_eva_debug", "--data-root", "none"], "none is not a folder"),
        ("train", ["mask2former_eva_debug", "--classes", "c.toml"], "own data needs all 5 flags"),
        ("test", ["mask2former_eva_debgu", "x.pth"], "there is no recipe"),
        ("demo", ["mask2former_eva_debgu", "x.pth", "a.jpg", "--output", "o"], "no recipe"),
        ("prepare", ["coco-stuff", "--maps", "none", "--output", "o"], "there is no folder none"),
    ],
)
def test_a_mistake_is_named_before_anything_heavy_is_imported(program, words, message):
    shown, imported = _run(program, *words)
    assert message in shown
    assert imported == "[]"
