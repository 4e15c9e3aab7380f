"""Every command of `eva` exists, helps at once, and imports nothing heavy for it."""

import json
import os
import subprocess
import sys

import pytest

from eva_command.main import main
from eva_command.table import COMMANDS
from eva_runs.recipes import TASKS

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


MISSING = [  # command lines of what is not there
    *(f"{task} train no_such" for task in TASKS),
    *(f"{task} evaluate no_such" for task in ("detection", "mmdetection", "segmentation")),
    "classification evaluate no_such --data no_such",
    "video evaluate no_such --data no_such",
    "clip evaluate no_such --data no_such",
    *(
        f"{task} demo no_such no_such.jpg --output x"
        for task in TASKS
        if task not in ("clip", "pretrain")
    ),
    "clip demo rank no_such.jpg --weights no_such --text cat",
    *("config no_such", "plan no_such", "train no_such", "export no_such --output x.onnx"),
    "convert no_such --to mmdet --output x.pth",
    "distill no_such --teacher no_such --output x",
    "batch features no_such --weights no_such --output x",
    "batch status no_such",
    "index build no_such --output x",
    "label no_such --weights no_such --to coco --output x",
    "app no_such",
    "push no_such someone/name",
    "weights get no_such",
]


def test_exit_codes_are_those_of_the_page(tmp_path, monkeypatch, capsys):
    """What cannot be understood is 2, and what is not there 1; of `data verify` it is 2."""
    monkeypatch.chdir(tmp_path)
    for name in COMMANDS:
        if "quickstart" not in name:  # which hands a flag on, behind the demo data
            with pytest.raises(SystemExit, match="2"):
                main([*name.split(), "--no-such-flag"])
    for words in MISSING:
        with pytest.raises(SystemExit) as end:
            main(words.split())
        assert end.value.code == 1, words
        assert "no_such" in capsys.readouterr().err, words
    with pytest.raises(SystemExit, match="2"):
        main(["data", "verify", "no_such"])
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert written == []  # what is claimed goes with the process


def test_a_misspelt_choice_is_answered_with_what_is_close(capsys):
    for words in (["clip", "demo", "serch"], ["config", "eva_debug_motoin"], ["recipes", "vidoe"]):
        with pytest.raises(SystemExit):
            main(words)
        _, close = capsys.readouterr().err.rstrip().rsplit("close to it: ", 1)
        names = close.split(", ")
        assert len(names) == len({*names})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("eva classif", "classification"),
        ("eva clip demo se", "search"),
        (
            "eva detection train demo/cascade_mask_rcnn_vitdet_eva_d",
            "demo/cascade_mask_rcnn_vitdet_eva_debug",
        ),
        ("eva video train eva_debug_motion --backb", "--backbone"),
        ("eva batch merge out --to fif", "fiftyone"),
    ],
)
def test_a_shell_completes(line, expected, tmp_path):
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    variables = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_POINT": str(len(line))}
    variables |= {"COMP_LINE": line, "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    command = [sys.executable, "-m", "eva_command"]
    subprocess.run(command, env=os.environ | variables, cwd=tmp_path, check=True)
    assert answer.read_text().split() == [expected]


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
