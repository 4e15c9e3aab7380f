"""Command lines as a user types them, and pages as a browser reads them.

These tests know commands, files and documented functions, and nothing of how they are made. A
program is a process that goes on from one with the frameworks (`tests/starter.py`).
"""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
ACCIDENTS = Path(__file__).with_name("accidents.py")
OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(scope="session")
def root():
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def start(programs, stand_in):
    """Function: start a command line `eva ...`, `python ...` or `torchrun ...`.

    Keywords: `folder` to work in (an empty one), `accident` (see `accidents.py`), and variables of
    the environment, where None removes one. Processes that a program starts by torchrun, or as
    ranks of detectron2, go on from the same process with the frameworks.
    """

    def command(words, accident):
        first, *rest = map(str, words)
        accidents = [str(ACCIDENTS), accident] if accident else []
        if first == "eva":
            return [*accidents, "-m", "eva_command", *rest]
        if first == "python":
            return [*accidents, *rest]
        assert first == "torchrun", first
        count = next(i for i, word in enumerate(rest) if word == "-m" or word.endswith(".py"))
        launcher = ["-m", "torch.distributed.run", "--standalone", *rest[:count]]
        return [*launcher, *accidents, *rest[count:]]

    def start_program(*words, folder=None, accident=None, **variables):
        more = {"OMP_NUM_THREADS": "1", "RANKS": "fork", "CONFIGS": "plain", "ENDING": "quick"}
        environment = {key: value for key, value in os.environ.items() if key not in OF_LAUNCHERS}
        environment |= stand_in | more | {key: str(value) for key, value in variables.items()}
        for key, value in variables.items():
            if value is None:
                del environment[key]
        return programs.start(*command(words, accident), folder=folder, environment=environment)

    return start_program


@pytest.fixture(scope="session")
def run(start):
    """Function: run a command line to its end, by default with success; see `start`."""

    def run_program(*words, code=0, timeout=120, **more):
        ended = start(*words, **more).wait(timeout)
        assert code is None or ended.code == code, f"exit code {ended.code}\n{ended.text[-4000:]}"
        return ended

    return run_program


@pytest.fixture(scope="session")
def fails():
    """Function: a program ended with an error that names these values, and no traceback.

    The wording is free.
    """

    def check(ended, *values, code=None):
        assert ended.code not in (0, None) if code is None else ended.code == code, ended.text
        assert "Traceback" not in ended.text, ended.text[-4000:]
        assert ended.names(*values), f"{values} in:\n{ended.text[-4000:]}"

    return check


@pytest.fixture(scope="session")
def measure(load_module):
    """Function: seconds of CPU and the end of a command by a new interpreter, as a user has it."""
    ended = load_module(ROOT / "tests" / "programs.py").Ended

    def run_alone(*words, timeout=60):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-m", "eva_command", *map(str, words)],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        after = os.times()
        seconds = sum(after[2:4]) - sum(before[2:4])
        return seconds, ended(done.returncode, done.stdout, done.stderr)

    return run_alone


# ---- trainers of the three frameworks ------------------------------------------------------------

DETECTOR = "demo/cascade_mask_rcnn_vitdet_eva_debug"
SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64}
SMALL_DETECTION = (
    "train.init_checkpoint=", "train.progress_bar=False", "train.log_period=1", "train.device=cpu",
    "train.seed=3", "dataloader.train.num_workers=0", "dataloader.train.total_batch_size=2",
    "model.backbone.net.global_attn_indexes=[1]", "train.eval_period=0",
    "model.roi_heads.override_score_thresh=0.0",
    *(f"model.backbone.net.{key}={value}" for key, value in SMALL_VIT.items()),
)  # fmt: skip
SMALL_MMENGINE = """
_base_ = {base!r}
load_from = None
randomness = dict(seed=3)
model = dict(backbone=dict({vit}{more}){heads})
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1))
"""


@dataclass(frozen=True)
class Trainer:
    """A small training of a framework: a command line, and what it leaves in its folder."""

    name: str
    train: tuple  # words
    output: str  # the option of the output folder
    steps: str  # settings of steps and checkpoints
    variables: dict
    final: str  # the last checkpoint
    typo: str

    def command(self, output, *more, steps=6, period=3, processes=1):
        """Words of the command line."""
        settings = self.steps.format(steps=steps, period=period).split()
        words = [*self.train, *settings, *f"{self.output}{output}".split(" "), *more]
        if processes == 1:
            return words
        if self.name == "detection":
            return [*words, "--num-gpus", processes, "--dist-url", "auto"]
        return ["torchrun", "--nproc-per-node", processes, "-m", "eva_command", *words[1:]]

    def weights(self, output, steps=6):
        """Name to tensor of the last checkpoint."""
        file = output / self.final.format(steps=steps)
        content = torch.load(file, weights_only=self.name == "detection")  # written by these tests
        return content["model" if self.name == "detection" else "state_dict"]

    def checkpoint(self, step):
        """Name of the file that is saved at a step."""
        return f"model_{step - 1:07d}.pth" if self.name == "detection" else f"iter_{step}.pth"


@pytest.fixture(scope="session")
def trainers(root, demo, tmp_path_factory):
    """Function: the small training of a framework, by its name."""

    def detection():
        steps = "train.max_iter={steps} train.checkpointer.period={period}"
        return Trainer(
            "detection", ("eva", "detection", "train", DETECTOR, *SMALL_DETECTION),
            "train.output_dir=", steps, {"DETECTRON2_DATASETS": demo("coco").parent},
            "model_final.pth", "train.max_itre",
        )  # fmt: skip

    def on_mmengine(name, recipe, data, **more):
        base = str(root / name / "configs" / "demo" / recipe)
        file = tmp_path_factory.mktemp(name) / "small.py"
        vit = ", ".join(f"{key}={value}" for key, value in SMALL_VIT.items())
        file.write_text(SMALL_MMENGINE.format(base=base, vit=vit, **more))
        steps = "train_cfg.max_iters={steps} train_cfg.val_interval={steps} "
        steps += "default_hooks.checkpoint.interval={period}"
        words = ("eva", name, "train", file, "--data-root", data)
        final = "iter_{steps}.pth"
        return Trainer(name, words, "--work-dir ", steps, {}, final, "train_cfg.max_itres")

    makers = {
        "detection": detection,
        "mmdetection": lambda: on_mmengine(
            "mmdetection", "cascade_mask_rcnn_eva_debug.py", demo("coco") / "coco",
            more=", global_attn_indexes=[1]", heads=", test_cfg=dict(rcnn=dict(score_thr=0.0))",
        ),
        "segmentation": lambda: on_mmengine(
            "segmentation", "upernet_eva_debug.py", demo("semantic") / "semantic", more="", heads=""
        ),
    }  # fmt: skip
    return cache(lambda name: makers[name]())


@pytest.fixture(scope="session")
def finished(trainers, run, once):
    """Function: output folder of six steps of the small training of a framework, scored."""

    def train(name):
        trainer = trainers(name)
        return once(
            f"finished_{name}", lambda folder: run(*trainer.command(folder), **trainer.variables)
        )

    return train


@pytest.fixture(scope="session")
def tools_of():
    """Function: folder of the programs that a package of OpenMMLab brings."""
    return lambda name: Path(importlib.util.find_spec(name).origin).parent / ".mim" / "tools"


# ---- pages ---------------------------------------------------------------------------------------

EXTERNAL = {"link": "href", "script": "src", "img": "src", "iframe": "src", "video": "src"}


@dataclass
class Page(HTMLParser):
    """What a report shows."""

    text: str = ""
    images: list = field(default_factory=list)  # addresses
    curves: int = 0  # drawings
    external: list = field(default_factory=list)  # addresses that a browser would load
    links: list = field(default_factory=list)
    hidden: int = 0

    def __post_init__(self):
        HTMLParser.__init__(self)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.hidden += tag in ("style", "script")
        self.curves += tag == "svg"
        if tag == "img":
            self.images.append(attributes["src"])
        if tag == "a":
            self.links.append(attributes.get("href"))
        address = attributes.get(EXTERNAL.get(tag, ""))
        if address and not address.startswith("data:"):
            self.external.append(address)

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self.hidden:
            self.text += f" {data.strip()}"

    __hash__ = HTMLParser.__hash__


@pytest.fixture(scope="session")
def read_page():
    """Function: the page of a file, which needs no other file."""

    def read(file):
        page = Page()
        page.feed(Path(file).read_text(encoding="utf-8"))
        page.close()
        assert not page.external
        return page

    return read


@pytest.fixture(scope="session")
def begins_with_first_batch(read_page):
    """Function: the page of a run begins with its first batch, which is a file of the run, too."""

    def check(output):
        text = read_page(output / "report.html").text
        assert 0 < text.index("First training batch") < text.index(" Scores"), text
        with Image.open(output / "first_batch.jpg") as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        assert max(pixels.shape) <= 1280
        assert len(np.unique(pixels[60:200, 20:200].reshape(-1, 3), axis=0)) > 100  # an image

    return check


@pytest.fixture(scope="session")
def wait_for():
    """Function: wait until something is true, at most so many seconds."""

    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.02)

    return wait


# ---- runs of the engine: pretrain, classification, video, clip -----------------------------------

TIMES = {"samples_per_second", "eta_seconds", "memory_gib", "model_tflops"}
RECIPES = {
    "pretrain": "eva_debug_digit_scenes",
    "classification": "eva_debug_digits",
    "video": "eva_debug_motion",
    "clip": "eva_debug_captions",
}
BATCHES = {"pretrain": 4, "classification": 24, "video": 8, "clip": 24}  # 4 steps in an epoch


@pytest.fixture(scope="session")
def engine_data(demo):
    """Folder with digits in class folders, clips of eight motions, and pairs; of each few."""
    return demo("folder", "video", "captions", train=32, val=8)


@pytest.fixture(scope="session")
def training(engine_data):
    """Function: the command that trains a task to an output folder, in 8 steps of 2 epochs."""
    pairs = engine_data / "captions"
    data = {
        "pretrain": (pairs / "zero_shot", pairs / "zero_shot"),
        "classification": (engine_data / "folder/train", engine_data / "folder/val"),
        "video": (engine_data / "video/train", engine_data / "video/val"),
        "clip": (pairs / "train/00000.tar", pairs / "val/00000.tar"),
    }
    more = {
        "classification": ("--model.image-size", 32),
        "clip": ("--model.image-size", 32, "--data.zero-shot", pairs / "zero_shot",
                 "--data.templates", pairs / "templates.txt"),
    }  # fmt: skip

    def words(task, output, *rest):
        train, val = data[task]
        return (
            "eva", task, "train", RECIPES[task], "--data.train", train, "--data.val", val,
            *more.get(task, ()), "--run.output", output, "--run.epochs", 2,
            "--run.batch-size", BATCHES[task], "--run.workers", 0, "--run.device", "cpu",
            "--run.evaluate-every", 1, "--run.checkpoint-every", 2, "--run.keep-checkpoints", 9,
            "--run.no-tensorboard", "--run.resume", *rest,
        )  # fmt: skip

    return words


@pytest.fixture(scope="session")
def trained(run, training, once, load_module):
    """Function: the output folder of a task's training, which nobody disturbed, and its end."""
    ended = load_module(ROOT / "tests" / "programs.py").Ended

    def train(task):
        def make(folder):
            folder.mkdir()
            end = run(*training(task, folder / "run"))
            (folder / "end.json").write_text(json.dumps([end.code, end.out, end.err]))

        folder = once(f"trained_{task}", make)
        return folder / "run", ended(*json.loads((folder / "end.json").read_text()))

    return train


@pytest.fixture(scope="session")
def documented():
    """Function: what READMEs and pages of `docs/` import by this name from a package."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)

    def find(package, name):
        imports = re.findall(
            rf"^ *from ({package}\b[\w.]*) import (\([^)]*\)|.+)$", text, re.MULTILINE
        )
        (module,) = {path for path, names in imports if re.search(rf"\b{name}\b", names)}
        return getattr(importlib.import_module(module), name)

    return find


@pytest.fixture(scope="session")
def metrics_of():
    """Function: lines of a run's `metrics.jsonl`, without times."""

    def read(output):
        file = Path(output) / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]

    return read


@pytest.fixture(scope="session")
def ends_alike(metrics_of):
    """Function: two runs logged the same numbers and have the same last weights, bit for bit."""
    from safetensors.torch import load_file

    def check(one, other):
        assert metrics_of(one) == metrics_of(other)
        ends = [sorted(Path(output, "checkpoints").glob("step_*"))[-1] for output in (one, other)]
        files = [
            sorted(file.relative_to(end) for file in end.rglob("*.safetensors")) for end in ends
        ]
        assert ends[0].name == ends[1].name
        assert files[0] == files[1] != []
        for name in files[0]:
            first, second = (load_file(end / name) for end in ends)
            assert first.keys() == second.keys()
            assert all(first[key].equal(second[key]) for key in first)

    return check
