"""Every command of `eva` exists, helps at once, and imports nothing heavy for it."""

import json
import subprocess
import sys

from eva_command.table import COMMANDS

HEAVY = ("torch", "detectron2", "mmseg", "mmdet", "deepspeed", "timm", "open_clip", "scipy")
RECIPES = {  # a recipe's own help lists all its values
    ("classification", "train"): "eva_debug_digits_linear",
    ("pretrain", "train"): "eva_debug_digit_scenes",
    ("pretrain", "train-tokenizer"): "tokenizer_debug",
    ("video", "train"): "own_videos",
    ("clip", "train"): "eva_debug_captions",
}
CHECKS = ("captions", "coco", "folders", "images", "semantic", "video")
CASES = [
    *(tuple(words.split()) for words in COMMANDS),
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
