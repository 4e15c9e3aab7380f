"""Words mean the same in every command: weights, slips, abbreviations, usage, `~`."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eva_command.table import COMMANDS, GROUPS
from eva_runs.recipes import TASKS

ROOT = Path(__file__).parents[2]
EVERY = {
    **{
        f"{name} {verb}": one
        for name, group in GROUPS.items()
        for verb, one in group.commands.items()
    },
    **COMMANDS,
}
RECIPES = {
    "detection": "demo/cascade_mask_rcnn_vitdet_eva_debug",
    "mmdetection": "demo/cascade_mask_rcnn_eva_debug",
    "segmentation": "demo/mask2former_eva_debug",
    "classification": "eva_debug_digits",
    "pretrain": "eva_debug_digit_scenes",
    "video": "eva_debug_motion",
    "clip": "eva_debug_captions",
}
ENGINE = ("classification", "pretrain", "video", "clip")
SUBCOMMANDS = {
    "detection submit": "write",
    "detection coco-lvis-gap": "table",
    "clip demo": "search",
    "data verify": "coco",
    "data prepare-segmentation": "coco-stuff",
    "pretrain train-tokenizer": "tokenizer_debug",
    "submit": "write",
}
HEAVY = ("torch", "mmengine", "mmcv", "mmdet", "mmseg", "detectron2", "deepspeed", "tyro")


@pytest.fixture
def end(monkeypatch, capsys):
    """Function: run a command of `eva` in this process; gives its exit code and what it said."""

    def run(name, *words):
        command = EVERY[name]
        arguments = [*command.arguments, *map(str, words)]
        monkeypatch.setattr(sys, "argv", [f"eva {name}", *arguments])
        function = getattr(importlib.import_module(command.module), command.function)
        try:
            code = function(arguments)
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr().err
        if isinstance(code, str):
            said, code = f"{said}{code}\n", 1
        return code, said

    return run


@pytest.fixture(scope="session")
def a_run(tmp_path_factory):
    """Folders that look like runs of each framework."""
    folder = tmp_path_factory.mktemp("runs")
    for name, config in (("detection", "config.yaml"), ("mm", "mine.py")):
        (folder / name).mkdir()
        (folder / name / config).write_text("")
        (folder / name / "iter_3.pth").write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", [one for one in EVERY if one != "quickstart"])
def test_a_misspelt_flag_is_one_sentence(end, name):
    """The quick start hands flags on to a training."""
    recipe = [RECIPES[name.split()[0]]] if name.endswith("train") else []
    sub = [SUBCOMMANDS[name]] if name in SUBCOMMANDS else recipe
    code, said = end(name, *sub, "--zqzqzq", "3")
    assert code == 2, said
    assert re.search(r"there is no (flag|setting) --zqzqzq", said)
    assert said.count("\n") == 1, "no usage"


@pytest.mark.parametrize(
    ("name", "word", "meant"),
    [
        *((f"{task} train", "--epochs", "close to it: --run.epochs\n") for task in ENGINE),
        *((f"{task} train", "--lr", "--optimizer.lr") for task in ENGINE),
        *((f"{task} train", "--batch-size", "close to it: --run.batch-size\n") for task in ENGINE),
        *((f"{task} train", "--output", "close to it: --run.output\n") for task in ENGINE),
        *((f"{task} train", "--weights", ".init-checkpoint") for task in ENGINE),
        *((f"{task} train", "epohcs=3", "close to it: run.epochs\n") for task in ENGINE),
        ("classification train", "model.droppath=1", "close to it: model.drop_path_rate\n"),
        ("detection train", "--epochs", "close to it: train.max_iter=NUMBER\n"),
        ("detection train", "--lr", "close to it: optimizer.lr=NUMBER\n"),
        ("detection train", "--batch-size", "dataloader.train.total_batch_size=NUMBER\n"),
        ("detection train", "--output", "close to it: train.output_dir=DIR\n"),
        ("detection train", "--weights", "close to it: train.init_checkpoint=3\n"),
        ("detection train", "lr=3", "close to it: optimizer.lr\n"),
        ("detection quickstart", "--epochs", "close to it: train.max_iter=NUMBER\n"),
        *(
            (f"{task} train", word, meant)
            for task in ("mmdetection", "segmentation")
            for word, meant in (
                ("--epochs", "close to it: train_cfg.max_iters=NUMBER\n"),
                ("--lr", "close to it: optim_wrapper.optimizer.lr=NUMBER\n"),
                ("--batch-size", "close to it: train_dataloader.batch_size=NUMBER\n"),
                ("--output", "close to it: --work-dir\n"),
                ("--weights", "close to it: --load-from\n"),
                ("--reusme", "close to it: --resume\n"),
            )
        ),
        ("detection demo", "--conf", "close to it: --score-threshold\n"),
        ("segmentation demo", "--work-dir", "close to it: --output\n"),
        ("video evaluate", "--checkpoint", "close to it: --weights\n"),
    ],
)
def test_a_word_of_another_program_is_answered_with_ours(end, name, word, meant):
    recipe = [RECIPES[name.split()[0]]] if name.endswith("train") else []
    words = [word] if "=" in word else [word, "3"]
    code, said = end(name, *recipe, *words)
    assert (code, said.count("\n")) == (2, 1), said
    assert meant in said


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weights", ["eva_psz14.pt", "mine.pth"])
def test_weights_in_place_of_a_recipe_are_named_with_their_option(end, task, weights):
    code, said = end(f"{task} train", weights)
    assert (code, said.count("\n")) == (2, 1), said
    assert f"{weights} is weights and not a recipe: name a recipe, such as " in said
    assert re.search(rf"(init_checkpoint=|--load-from ){re.escape(weights)}", said)


def test_recipes_that_use_weights_are_named(end):
    said = end("classification train", "eva_psz14")[1]
    assert "such as eva_g_patch14_in21k_224px, and begin with these weights by" in said


def test_a_folder_in_place_of_a_recipe(end, tmp_path):
    code, said = end("video train", tmp_path)
    assert code == 2
    assert f"{tmp_path} is a folder and not a recipe" in said


@pytest.mark.parametrize(
    "name",
    ["classification evaluate", "classification evaluate-frozen", "video evaluate",
     "video evaluate-frozen", "clip evaluate"],
)  # fmt: skip
def test_weights_alone_or_behind_their_flag(end, name, tmp_path):
    for kind in ("jpg", "mp4"):
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / f"cat/1.{kind}").touch()
    needed = ["--train", tmp_path, "--val", tmp_path] if "frozen" in name else ["--data", tmp_path]
    missing = "there is no file 'nothing.pt'"
    for words in (
        ["nothing.pt", *needed], [*needed, "--workers", "0", "nothing.pt"],
        [*needed, "--weights", "nothing.pt"], ["--weights=nothing.pt", *needed],
    ):  # fmt: skip
        code, said = end(name, *words)
        assert code == 1, said
        assert missing in said, said
    code, said = end(name, "a.pt", "--weights", "b.pt", *needed)
    assert code == 2
    assert "two weights are given, a.pt and --weights b.pt: leave one of them out\n" in said
    code, said = end(name, *needed)
    assert (code, said.count("\n")) == (2, 1)
    assert "name the weights, as a word of its own or with --weights" in said


def test_weights_of_a_detector(a_run):
    """Of detectron2: the command line is only read."""
    from eva_detection.config.parser import make_parser

    run, recipe = str(a_run / "detection"), RECIPES["detection"]

    def read(*words):
        args = make_parser().parse_args(["--eval-only", *words])
        return args.config_file, args.opts

    own = [f"train.init_checkpoint={run}", f"train.output_dir={run}/evaluation"]
    assert read(run) == read("--weights", run) == (f"{run}/config.yaml", own)
    file = f"{run}/iter_3.pth"
    own[0] = f"train.init_checkpoint={file}"
    assert read(file) == read("--weights", file) == (f"{run}/config.yaml", own)
    named = (recipe, ["train.init_checkpoint=eva_coco_seg"])
    assert read(recipe, "eva_coco_seg") == read(recipe, "--weights", "eva_coco_seg") == named
    assert read("--config-file", recipe, "eva_coco_seg") == named
    assert read(recipe, "train.init_checkpoint=eva_coco_seg") == named
    on_the_hub = "hf://one/two/three.pth"
    assert read(recipe, on_the_hub)[1] == [f"train.init_checkpoint={on_the_hub}"]


@pytest.mark.parametrize("words", [
    ["RUN", "--weights", "b.pth"], ["RECIPE", "a.pth", "--weights", "b.pth"],
    ["RECIPE", "a.pth", "train.init_checkpoint=b.pth"],
])  # fmt: skip
def test_two_weights_of_a_detector(end, a_run, words):
    places = {"RUN": a_run / "detection", "RECIPE": RECIPES["detection"]}
    code, said = end("detection evaluate", *(places.get(word, word) for word in words))
    assert (code, said.count("\n")) == (2, 1)
    assert "two weights are given, " in said
    assert "leave one of them out" in said


@pytest.mark.parametrize("task", ["mmdetection", "segmentation"])
def test_weights_of_the_other_frameworks(end, a_run, task, monkeypatch):
    """The command line is only read: what runs is not called."""
    from eva_openmmlab.config import command_line
    from eva_openmmlab.config.words import AnyOrderParser

    run, recipe = str(a_run / "mm"), RECIPES[task]
    parser = AnyOrderParser(prog="test.py")
    command_line.add_shared_arguments(parser, task=task, scored=True)

    def read(*words):
        args = command_line.parse(parser, words, task=task)
        return Path(args.config).name, args.weights

    for weights in (run, f"{run}/iter_3.pth"):
        assert read(weights) == read("--weights", weights) == ("mine.py", weights)
        assert read(recipe, "--weights", weights)[1] == weights
    config = Path(recipe).name + ".py"
    assert read(recipe, "hf://one/two/three.pth")[1] == "hf://one/two/three.pth"
    assert read(recipe, "x.pth") == read(recipe, "--weights", "x.pth") == (config, "x.pth")
    for words in ([run], [recipe, "a.pth"]):
        code, said = end(f"{task} evaluate", *words, "--weights", "b.pth")
        assert (code, said.count("\n")) == (2, 1)
        assert f"two weights are given, {words[-1]} and --weights b.pth" in said


@pytest.mark.parametrize("task", ["mmdetection", "segmentation"])
def test_weights_of_a_demo_behind_their_flag(a_run, task, tmp_path):
    from eva_openmmlab.config.demo_words import named_model

    run, picture = str(a_run / "mm"), tmp_path / "a.jpg"
    picture.touch()

    def read(*words, named):
        config, weights, inputs = named_model([*map(str, words)], task=task, named=named)
        return config.name, weights, inputs

    assert read(picture, tmp_path, named=run) == ("mine.py", run, [picture, tmp_path])
    config = Path(RECIPES[task]).name + ".py"
    assert read(RECIPES[task], picture, named="x.pth") == (config, "x.pth", [picture])
    with pytest.raises(ValueError, match=r"x\.pth is not the folder of a run.*name the config"):
        read(picture, named="x.pth")
    with pytest.raises(ValueError, match="two weights are given"):
        read(run, picture, named="x.pth")


@pytest.mark.parametrize("name", ["demo", "export"])
def test_a_detector_without_its_recipe_names_the_flag(end, tmp_path, name):
    (tmp_path / "a.jpg").touch()
    words = ["--weights", "eva_coco_seg.pth", "--output", tmp_path / "out"]
    words += [tmp_path / "a.jpg"] if name == "demo" else ["--format", "onnx"]
    code, said = end(f"detection {name}", *words)
    assert (code, said.count("\n")) == (2, 1)
    assert "name the recipe of these weights with --config-file" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("detection submit", ["write", "--server", "coco", "--images", "no.json", "--predictions",
                              "no.json", "--output", "o", "--algorithm", "a"]),
        ("detection coco-lvis-gap", ["table", "--coco", "no.json", "--lvis", "no.json"]),
        ("data prepare-segmentation", ["coco-stuff", "--maps", "none", "--output", "o"]),
        ("detection demo", ["none", "a.jpg", "--output", "o"]),
        ("convert", ["x.pt", "--to", "official", "--output", "x.zip"]),
        ("push", ["run", "no-name"]),
        ("extract", ["--weights", "x", "--images", "a", "--output", "o", "--file-mb", "-1"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_without_usage(end, name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = end(name, *words)
    assert code in (1, 2)
    assert said.count("\n") == 1, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["video demo", "classification demo", "clip demo", "convert", "extract"]
)
def test_missing_arguments_are_answered_with_a_short_usage(end, name):
    sub = [SUBCOMMANDS[name]] if name in SUBCOMMANDS else []
    code, said = end(name, *sub)
    assert code == 2
    assert "required: " in said
    assert said.startswith(f"usage: eva {name}")
    assert "INPUT" in said or "demo" not in name
    assert said.count("\n") <= 5


@pytest.mark.parametrize("name", ["video evaluate", "classification evaluate", "detection demo"])
def test_an_abbreviation_is_a_slip(end, name):
    code, said = end(name, "--weight", "x")
    assert code == 2
    assert "there is no flag --weight; close to it: --weights\n" in said


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        (
            "recipes",
            ["detecton"],
            "invalid choice: 'detecton'; close to it: detection, mmdetection",
        ),
        ("clip demo", ["serach"], "invalid choice: 'serach'; close to it: search\n"),
        (
            "clip demo",
            ["--weights", "x"],
            "--weights stands behind the word that it",
        ),
        ("push", ["a", "b", "c"], "c: one word too many\n"),
        ("video train", ["eva_debug_motion", "--run.output"], "--run.output has no value: write"),
        ("video train", ["--run.epochs", "3"], "name a recipe; `eva recipes video` lists them\n"),
        (
            "video train",
            ["eva_debug_motion", "--run.epochs", "x"],
            "--run.epochs must be an integer",
        ),
        ("video train", ["eva_debug_motion", "run.precision=fp8"], "invalid choice 'fp8'"),
        ("detection evaluate", ["."], "name the recipe of these weights with --config-file\n"),
        ("detection evaluate", [], "name the folder of a run, or a recipe and weights"),
        ("segmentation evaluate", ["."], "not the folder of a run: name its recipe"),
    ],
)
def test_further_slips(end, name, words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = end(name, *words)
    assert (code, said.count("\n")) == (2, 1), said
    assert sentence in said


@pytest.mark.parametrize("form", ["--output=~/run", "--output ~/run"])
@pytest.mark.parametrize("name", ["video", "clip", "detection", "segmentation"])
def test_home_in_a_flag(name, form, monkeypatch, tmp_path):
    """A shell leaves it in `--output=~/run`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    module = importlib.import_module(EVERY[f"{name} demo"].module)
    made = module._parser()
    parser = made if name != "clip" else made[0]
    words = ["search", "~/a.jpg"] if name == "clip" else ["~/a.jpg"]
    options = parser.parse_args([*words, *form.split(), "--weights=~/w.pt"])
    assert options.output == tmp_path / "run"
    assert options.weights == str(tmp_path / "w.pt")
    (word,) = getattr(options, "words", None) or options.inputs
    assert Path(word) == tmp_path / "a.jpg"


def test_home_in_a_setting(monkeypatch, tmp_path):
    from eva_classification.config import ClassificationConfig
    from eva_detection.config.parser import make_parser
    from eva_engine.commands.training import parse

    monkeypatch.setenv("HOME", str(tmp_path))
    args = make_parser().parse_args(["train.output_dir=~/run", "--data=~/data.yaml"])
    assert args.opts == [f"train.output_dir={tmp_path}/run"]
    assert args.data == [f"{tmp_path}/data.yaml"]
    for word in ("run.output=~/run", "--run.output=~/run"):
        words = [RECIPES["classification"], word]
        found = parse(ClassificationConfig, words, program="classification/train.py")
        assert found.config.run.output == tmp_path / "run"


def test_the_home_of_nobody_stays_as_it_is():
    from eva_data.files import expand_home

    assert [*map(expand_home, ("~", "~nobody-at-all/x", "a ~/x"))] == [
        "~",
        "~nobody-at-all/x",
        "a ~/x",
    ]


def test_slips_are_answered_before_anything_heavy_is_imported():
    """In one process, for all tasks."""
    lines = [[task, "train", RECIPES[task], "--epochs", "3"] for task in RECIPES]
    lines += [[task, "train", "eva_psz14.pt"] for task in RECIPES]
    lines += [[task, "evaluate", "--wieghts", "x"] for task in RECIPES if task != "pretrain"]
    lines += [[task, "demo", "--outptu", "x"] for task in RECIPES if task != "pretrain"]
    code = (
        f"import sys\nfrom eva_command.main import main\nfor line in {lines!r}:\n"
        "    try:\n        code = main(line)\n"
        "    except SystemExit as end:\n        code = end.code\n"
        "    assert code == 2, (line, code)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout == "[]\n", ended.stderr
    assert len(ended.stderr.splitlines()) == len(lines)
