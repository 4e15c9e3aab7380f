"""Every command of `eva` exists, helps at once, and imports nothing heavy for it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eva_command.table import COMMANDS, GROUPS
from eva_runs.recipes import TASKS

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "detectron2", "mmseg", "mmdet", "deepspeed", "timm", "open_clip", "scipy")
BY_WORDS = {(name,): command for name, command in COMMANDS.items()} | {
    (group, verb): command
    for group, entry in GROUPS.items()
    for verb, command in entry.commands.items()
}
RECIPES = {  # a recipe's own help lists all its values
    ("classification", "train"): "eva_debug_digits_linear",
    ("pretrain", "train"): "eva_debug_digit_scenes",
    ("pretrain", "train-tokenizer"): "tokenizer_debug",
    ("video", "train"): "own_videos",
    ("clip", "train"): "eva_debug_captions",
}
CHECKS = ("captions", "coco", "folders", "images", "semantic", "video")
CASES = [
    *BY_WORDS,
    *((*words, recipe) for words, recipe in RECIPES.items()),
    *(("data", "verify", check) for check in CHECKS),
]
PROGRAM = """
import json, sys
from eva_command.main import main
code = None
try:
    code = main([*sys.argv[2:], "--help"])
except SystemExit as end:
    code = end.code
heavy = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
sys.stdout.write("\\n" + json.dumps({"code": code or 0, "heavy": heavy}))
"""


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_help_comes_at_once_under_the_words_of_eva(words, tmp_path):
    """What takes time is imported when a command works, not when it is asked what it does."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(HEAVY), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text, _, last = done.stdout.rpartition("\n")
    assert json.loads(last) == {"code": 0, "heavy": []}
    assert text.startswith(f"usage: eva {' '.join(words)}")
    assert "--help" in text
    shown = [line for line in text.splitlines() if line.lstrip().startswith("python ")]
    assert not any("    --" in line for line in shown)  # a continued line keeps its backslash


def _module(name):
    """The file of a module, found without importing its parents."""
    for folder in (ROOT, *ROOT.glob("*/")):
        for path in (folder / f"{name.replace('.', '/')}.py",):
            if path.is_file():
                return path
    raise AssertionError(f"no module {name}")


@pytest.mark.parametrize("words", BY_WORDS, ids=" ".join)
def test_every_command_is_defined_where_the_table_says(words):
    command = BY_WORDS[words]
    tree = ast.parse(_module(command.module).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            defined |= {ast.unparse(target) for target in node.targets}
    assert command.function in defined
    assert command.text


def test_every_task_with_recipes_has_commands_and_first_steps():
    for task in TASKS:
        if (ROOT / task / "configs").is_dir():
            assert "train" in GROUPS[task].commands
            assert GROUPS[task].next_steps
    assert not {*GROUPS} & {*COMMANDS}
    for group in GROUPS.values():
        assert not {*group.aliases} & {*group.commands}
        assert {*group.aliases.values()} <= {*group.commands}


def test_packages_do_not_pretend_to_be_commands():
    """`python -m eva_video` is an error of Python's, not silence: `eva video` is the command."""
    command = [sys.executable, "-m", "eva_video", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be directly executed" in done.stderr
