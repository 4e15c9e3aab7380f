"""The commands of the tutorials as they stand there, with fewer images and steps."""

import re
import shlex
import sys

import pytest

from eva_command.main import main
from eva_runs.commands import Command, run_function

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
TRAININGS = {  # task -> recipe in place of a page's RECIPE or CONFIG, and where none is named
    "detection": "demo/cascade_mask_rcnn_vitdet_eva_debug",
    "mmdetection": "demo/cascade_mask_rcnn_eva_debug",
    "segmentation": "demo/upernet_eva_debug",
    "classification": "eva_debug_digits",
    "video": "eva_debug_motion",
    "clip": "eva_debug_captions",
    "pretrain": "eva_debug_digit_scenes",
}


def _blocks(root, page):
    """Language, and commands or program, of the blocks of a page."""
    text = (root / f"docs/{page}.md").read_text()
    for language, block in re.findall(r"^```(bash|sh|python)\n(.*?)^```", text, re.M | re.S):
        lines = block.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines if language != "python"]
        yield language, [line for line in words if line] or [["python", "-c", block]]


@pytest.mark.parametrize("page", SHORTER)
@pytest.mark.slow
def test_all_commands_of_a_page_do_their_work(page, root, run, tmp_path):
    for words in (words for kind, lines in _blocks(root, page) if kind != "sh" for words in lines):
        more = SHORTER[page] | {"eva data make-demo": "--train 16 --val 8 --workers 1"}
        added = [more[start] for start in more if " ".join(words).startswith(start)]
        run(*words, *shlex.split(" ".join(added)), folder=tmp_path, timeout=600)
    assert list((tmp_path / "output").glob("*/report.html"))


def _options_beside_others(text):
    """Task, and options in the right columns that stand alone and are those of a training."""
    usual = {"open_clip": "clip", "The official EVA code": "video"}
    for section in text.split("\n## ")[1:]:
        for line in section.splitlines():
            task = usual.get(section.partition("\n")[0], "")
            for words in map(shlex.split, re.findall(r"`([^`]+)`", line.rpartition(" | ")[2])):
                if words[0].startswith("--"):
                    yield from ((task, word) for word in words if word.startswith("--"))
                elif words[:1] == ["eva"]:
                    task = words[1] if words[2:3] == ["train"] else ""


def _commands(root):
    """Page, and command from its first word `eva` or path of a program: of blocks, and in prose."""
    pages = root.glob("*.md"), root.glob("docs/**/*.md"), root.glob("*/README.md")
    for page in (page for some in pages for page in sorted(some)):
        text = page.read_text()
        complete = page.parent.name == "tutorials" or page.name == "coming_from.md"
        lines = re.findall(r"`(eva [^`\n]*--[^`\n]*)`", text) if complete else []
        for block in re.findall(r"^```(?:ba)?sh\n(.*?)^```", text, re.M | re.S):
            lines += block.replace("\\\n", " ").splitlines()
        for words in map(_words, lines):
            programs = [
                number
                for number, word in enumerate(words)
                if word == "eva_command" or _is_program(root / word)
            ]
            if "..." in words:
                continue
            if programs and words[0] in ("python", "torchrun"):
                yield page.relative_to(root), words[programs[0] :]
            elif words[:1] == ["eva"]:
                yield page.relative_to(root), words


def _words(line):
    """Words of a command without comment, choice in brackets, variables, and what follows it."""
    line = re.sub(r"(^|\s)#.*|\[[^\]]*\|[^\]]*\]", "", line)
    words = shlex.split(re.sub(r"\$\w+|(?<=--batch )auto", "1", line))  # it would measure
    end = next((number for number, word in enumerate(words) if word in "|>;&&"), None)
    words = [word for word in words[:end] if word not in ("KEY=VALUE", "--json")]
    return words[next((n for n, word in enumerate(words) if not re.match(r"\w+=", word)), 0) :]


def _is_program(file):
    return file.suffix == ".py" and file.is_file() and "run_and_exit(" in file.read_text()


def _forwarded(command, options):
    """Command lines that get the words that a command hands on; one of them has to be right."""
    words = getattr(options, "rest", None) or getattr(options, "words", [])
    if command == "train":
        recipe, tasks = options.recipe, [options.task] if options.task else TRAININGS
        return [[task, "train", recipe or TRAININGS[task], *words] for task in tasks]
    if command == "plan":
        tasks = [options.task] if options.task else TRAININGS
        return [[task, "train", options.name.removeprefix(f"{task}/"), *words] for task in tasks]
    if command == "quickstart":
        return [[options.task, "train", TRAININGS[options.task], *words]]
    if command == "distill":
        return [["pretrain", "train", TRAININGS["pretrain"], *words]]
    if command == "export":
        named = options.source in TRAININGS
        weights = [] if named else ["--weights", options.source]
        tasks = [options.source] if named else ("detection", "segmentation", "classification")
        return [[task, "export", *weights, *words] for task in tasks]
    return []


@pytest.fixture
def parse(root, monkeypatch, tmp_path, capsys):
    """Function: parse a command line as the command does, without its work; what is wrong."""
    monkeypatch.chdir(tmp_path)  # where nothing is
    monkeypatch.setenv("EVA_APP_PASSWORD", "secret")
    monkeypatch.setattr(sys, "argv", [""])
    parsed, done = [], {}

    def parse_alone(command, arguments):
        parsed.append(command.parse([*arguments]))
        return 0

    monkeypatch.setattr(Command, "__call__", parse_alone)

    def check(words):
        task = words[0].partition("/")[0] if words[0].endswith(".py") else "".join(words[1:2])
        named = dict.fromkeys(("RECIPE", "CONFIG"), TRAININGS.get(task)) | {"RUN": "output/RUN"}
        words = [named.get(word) or word for word in words]
        if (*words,) in done or words[1:2] in ([], ["help"]):
            return ""
        done[(*words,)] = ""
        try:
            if words[0].endswith(".py"):
                program = (root / words[0]).read_text()
                run_function(re.search(r'run_and_exit\("([\w.:]+)"', program)[1], words[1:])
            elif main(words[1:]):
                raise SystemExit(2)
        except SystemExit as end:  # 1: a path is not there, where there is nothing
            message = capsys.readouterr().err
            wrong = end.code == 2 or ("no recipe" in message and "; there is no" not in message)
            return f"{shlex.join(words)}: {message.strip()[-300:]}" if wrong else ""
        command, options = words[1] if words[0] == "eva" else "", (parsed or [None]).pop()
        problems = [check(["eva", *line]) for line in _forwarded(command, options)]
        return min(problems, default="", key=len)

    return check


def test_every_command_of_every_page_is_parsed_to_its_end(root, parse):
    commands = [*_commands(root)]
    assert len(commands) > 250
    wrong = [f"{page}: {problem}" for page, words in commands if (problem := parse(words))]
    assert not wrong, "\n".join(wrong)


def test_options_beside_those_of_others_are_those_of_a_training(root, capsys):
    options = [*_options_beside_others((root / "docs/coming_from.md").read_text())]
    assert len(options) > 20
    for task in {task for task, _ in options}:
        with pytest.raises(SystemExit):
            main([task, "train", TRAININGS[task], "--help"])
        shown = capsys.readouterr().out
        assert [name for other, name in options if other == task and name not in shown] == []
