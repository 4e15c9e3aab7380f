"""Every command of `eva` exists, helps at once, and imports nothing heavy for it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

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
import contextlib, io, json, sys
from eva_command.main import main
heavy, cases = json.loads(sys.argv[1])
for words in cases:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            code = main([*words, "--help"])
        except SystemExit as end:
            code = end.code
    imported = [name for name in heavy if name in sys.modules]
    print(json.dumps([words, code or 0, imported, out.getvalue()]))
"""


def test_help_comes_at_once_under_the_words_of_eva(tmp_path):
    """What takes time is imported when a command works, not when it is asked what it does."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([HEAVY, CASES])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr == ""
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(CASES)
    for words, code, imported, text in answers:
        assert (words, code, imported) == (words, 0, [])
        assert text.startswith(f"usage: eva {' '.join(words)}")
        shown = [line for line in text.splitlines() if line.lstrip().startswith("python ")]
        assert not any("    --" in line for line in shown)  # a continued line keeps its backslash


def test_every_command_is_defined_where_the_table_says():
    for words, command in BY_WORDS.items():
        module, _, function = command.function.partition(":")
        name = f"{module.replace('.', '/')}.py"
        (file,) = [one / name for one in (ROOT, *ROOT.glob("*/")) if (one / name).is_file()]
        defined = set()
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                defined.add(node.name)
            if isinstance(node, ast.Assign):
                defined |= {ast.unparse(target) for target in node.targets}
        assert function in defined, words


def test_every_task_with_recipes_has_commands_and_first_steps():
    for task in TASKS:
        assert "train" in GROUPS[task].commands
        assert GROUPS[task].next_steps
    assert not {*GROUPS} & {*COMMANDS}
    for group in GROUPS.values():
        assert not {*group.aliases} & {*group.commands}
        assert {*group.aliases.values()} <= {*group.commands}
