"""The commands of the tutorials as they stand there, with fewer images and steps."""

import re
import shlex

import pytest

from eva_command.main import main
from eva_runs.recipes import TASKS, find_recipe

ENGINE = "--run.epochs 1 --run.batch-size 8 --run.workers 0 --run.device cpu"
DETECTRON2 = "train.max_iter=2 train.device=cpu dataloader.train.num_workers=0"
MMENGINE = (
    "train_cfg.max_iters=2 train_dataloader.batch_size=2 train_dataloader.num_workers=0 "
    "train_dataloader.persistent_workers=False"
)
SHORTER = {  # page -> beginning of a command -> what is added to it
    "tutorials/classification": {"eva train": ENGINE},
    "tutorials/detection": {"eva train": DETECTRON2},
    "tutorials/mmdetection": {"eva train": MMENGINE},
    "tutorials/segmentation": {"eva train": MMENGINE},
    "tutorials/video": {"eva train": ENGINE},
    "tutorials/clip": {"eva train": ENGINE},
    "tutorials/pretraining": dict.fromkeys(("eva train", "eva distill", "eva pretrain"), ENGINE),
    "start": {"eva quickstart": ENGINE.replace("8", "64")},
}
# Recipe whose help has all options, where a recipe decides about them.
HELPFUL = {"classification": "eva_debug_digits", "video": "eva_debug_motion"}
HELPFUL |= {"clip": "eva_debug_captions", "pretrain": "eva_debug_digit_scenes"}


def _blocks(root, page):
    """Language, and commands or program, of the blocks of a page."""
    text = (root / f"docs/{page}.md").read_text()
    for language, block in re.findall(r"^```(bash|sh|python)\n(.*?)^```", text, re.M | re.S):
        lines = block.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines if language != "python"]
        yield language, [line for line in words if line] or [["python", "-c", block]]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (i > 0)) for i, page in enumerate(SHORTER)],
)
def test_all_commands_of_a_page_do_their_work(page, root, run, tmp_path):
    for words in (words for kind, lines in _blocks(root, page) if kind != "sh" for words in lines):
        more = SHORTER[page] | {"eva data make-demo": "--train 16 --val 8 --workers 1"}
        added = [more[start] for start in more if " ".join(words).startswith(start)]
        run(*words, *shlex.split(" ".join(added)), folder=tmp_path, timeout=600)
    assert list((tmp_path / "output").glob("*/report.html"))


def _beside_others(text):
    """Commands of the right columns; options alone are those of the command before them."""
    usual = {"open_clip": "clip", "The official EVA code": "video"}
    for section in text.split("\n## ")[1:]:
        for line in section.splitlines():
            command = ["eva", usual.get(section.partition("\n")[0], ""), "train"]
            for words in map(shlex.split, re.findall(r"`([^`]+)`", line.rpartition(" | ")[2])):
                if "eva_command" in words:
                    words = ["eva", *words[words.index("eva_command") + 1 :]]
                if words[:1] == ["eva"]:
                    command = words
                    yield words
                elif words[0].startswith("--"):
                    yield [*command[:3], *words]


def test_every_command_that_a_page_names_has_these_options_and_recipes(root, capsys):
    shown = [lines for page in SHORTER for kind, lines in _blocks(root, page) if kind == "sh"]
    named = [words for lines in shown for words in lines if words[0] == "eva"]
    named += _beside_others((root / "docs/coming_from.md").read_text())
    assert len(named) > 60
    helps = {}
    for _, *words in named:
        command = words[: 1 + (words[0] in (*TASKS, "data", "batch", "weights"))]
        task, recipe = words[0], words[2:3]
        if task in TASKS and re.fullmatch(r"(\w+/)?\w*eva_[glb]_\w+", "".join(recipe)):
            find_recipe(task, *recipe)
        if (key := " ".join(command)) not in helps:
            helpful = [HELPFUL[task]] if task in HELPFUL and command[1:] == ["train"] else []
            with pytest.raises(SystemExit):
                main([*command, *helpful, "--help"])
            helps[key] = capsys.readouterr().out
        missing = [one for one in words if one.startswith("--") and one not in helps[key]]
        assert missing == [], " ".join(words)
