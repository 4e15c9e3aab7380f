"""A process group of one for runs in the tests' own process, and a launcher of others."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from eva_engine.config import RunConfig

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TIMES = {"samples_per_second", "eta_seconds", "memory_gib", "model_tflops"}
RUN = {"epochs": 3, "batch_size": 8, "workers": 0, "tensorboard": False, "device": "cpu"}


@pytest.fixture(scope="session")
def program():
    """The module `program.py`."""
    spec = importlib.util.spec_from_file_location("program", HERE / "program.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["program"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["program"]


@pytest.fixture
def make_config(program, tmp_path):
    """Function: a config of `program`, with changes to its `RunConfig` and to itself."""

    def make(output="run", *, rest=None, **run):
        return program.Config(run=RunConfig(output=tmp_path / output, **RUN | run), **(rest or {}))

    return make


@pytest.fixture
def start(program, make_config, device):
    """Function: run to the end in this process; the `TrainingRun`."""

    def run(output="run", *, changes=None, rest=None, **settings):
        run = program.make_run(
            make_config(output, rest=rest, **settings), device, **(changes or {})
        )
        run.start()
        return run

    return run


@pytest.fixture(scope="session")
def metrics():
    """Function: lines of a run's `metrics.jsonl` without times."""

    def read(output):
        lines = (Path(output) / "metrics.jsonl").read_text().splitlines()
        return [
            {name: value for name, value in json.loads(line).items() if name not in TIMES}
            for line in lines
        ]

    return read


@dataclass(frozen=True)
class Ended:
    codes: list
    texts: list


@pytest.fixture(scope="session")
def launch_environment():
    """Environment of a program of its own, without what a launcher has set."""
    paths = [str(HERE), *map(str, (ROOT, ROOT / "pretrain", ROOT / "detection"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    return environment | {"DS_ACCELERATOR": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


@pytest.fixture(scope="session")
def launcher(launch_environment):
    """A process that has imported everything and forks for each run."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "launcher.py")],
        env=launch_environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


@pytest.fixture
def launch(launcher, tmp_path):
    """Function: start the program in processes of its own, wait, and return how they ended."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from program import Config\nfrom eva_engine.config import RunConfig\n"
        f"config = Config(run=RunConfig(output='unused', **{RUN!r}))\n"
    )

    def run(output, *, ranks=1, limit=60, signal=None, lines=0, after=0.0, group=False,
            file_size=0, **options):  # fmt: skip
        arguments = [str(recipe), "--run.output", str(output)]
        for name, value in options.items():
            option = "--" + name.replace("__", ".").replace("_", "-")
            if isinstance(value, bool):
                head, dot, tail = option.rpartition(".")
                no = head + dot + "no-" + tail if dot else "--no-" + option[2:]
                arguments.append(option if value else no)
            else:
                values = value if isinstance(value, tuple) else (value,)
                arguments += [option, *map(str, values)]
        log = str(tmp_path / "log_of_rank")
        job = {"arguments": arguments, "ranks": ranks, "log": log, "limit": limit,
               "metrics": str(Path(output) / "metrics.jsonl"), "signal": signal, "lines": lines,
               "after": after, "group": group, "file_size": file_size}  # fmt: skip
        launcher.stdin.write(json.dumps(job) + "\n")
        launcher.stdin.flush()
        codes = json.loads(launcher.stdout.readline())
        texts = [Path(f"{log}{rank}").read_text() for rank in range(ranks)]
        return Ended(codes=codes, texts=texts)

    return run
