"""Command lines as a user types them, and pages as a browser reads them.

These tests know commands, files and documented functions, and nothing of how they are made. A
program is a process that goes on from one with the frameworks (`tests/starter.py`).
"""

import importlib
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
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


@pytest.fixture
def call_eva(load_module, mmengine_runs, monkeypatch, capsys, tmp_path):
    """Function: a command line `eva ...` in the tests' process, as it ended; see `run`.

    For what is refused before its work or has little of it: a process of its own takes seconds.
    """
    main = importlib.import_module("eva_command.main").main
    kind = load_module(ROOT / "tests" / "programs.py").Ended

    def call(first, *words, code=None, folder=tmp_path, **variables):
        assert first == "eva", first
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name, value in variables.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(
                    name, str(value)
                )
            capsys.readouterr()
            try:
                result, message = main([*map(str, words)]) or 0, ""
            except SystemExit as end:
                is_message = isinstance(end.code, str)
                result, message = (1, end.code) if is_message else (end.code or 0, "")
        scope = {"mmdetection": "mmdet", "segmentation": "mmseg"}.get(str(words[0]))
        if scope:
            mmengine_runs.forget(scope)
        out, err = capsys.readouterr()
        ended = kind(result, out, err + message)
        assert code is None or ended.code == code, f"exit code {result}\n{ended.text[-4000:]}"
        return ended

    return call


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


# ---- trainings -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def training(trainers):
    """Function: the command that trains a name to an output folder."""
    return lambda name, output, *more: trainers(name).command(output, *more)


@pytest.fixture(scope="session")
def finished(trainers, run, once):
    """Function: output folder of the training of a name, which nobody disturbed, scored.

    What it printed is in `printed.txt` beside it.
    """

    def train(name):
        def make(folder):
            folder.mkdir()
            end = run(*trainers(name).command(folder / "run"), **trainers(name).variables)
            (folder / "printed.txt").write_text(end.text)

        return once(f"finished_{name}", make) / "run"

    return train


@pytest.fixture(scope="session")
def engine_data(demo):
    """Folder with digits in class folders, clips of eight motions, and pairs; of each few."""
    return demo("folder", "video", "captions", train=32, val=8)


@pytest.fixture(scope="session")
def metrics_of(load_module):
    """Function: lines of a run's `metrics.jsonl`, without times."""
    read = load_module(ROOT / "tests" / "trainers.py").read_log
    return lambda output: read(Path(output) / "metrics.jsonl")


@pytest.fixture(scope="session")
def start_ranks(start):
    """Function: start a command for each process of a run, as torchrun does on several machines."""

    def begin(*commands, **more):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        shared = {"WORLD_SIZE": len(commands), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            start(*words, RANK=rank, LOCAL_RANK=rank, **shared, **more)
            for rank, words in enumerate(commands)
        ]

    return begin


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
