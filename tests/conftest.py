"""What all tests share: processes, demo data, trainings, and the option `--show-errors`.

The factories are fixtures, because tests are not a package that another test could import from.
"""

import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock

HERE = Path(__file__).parent
SHARED_STARTER = "EVA_TEST_STARTER"  # variable: socket of the starter, see `pytest_configure`
PROJECTS = ("", "core", "pretrain", "classification", "detection", "video", "clip")
TIMES = {"samples_per_second", "eta_seconds", "memory_gib", "model_tflops"}  # of metrics.jsonl


ERRORS: dict[str, float] = {}  # test -> largest absolute error that it compared


# The same examples in each run; `pytest --hypothesis-profile default` tries others.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser):
    text = "list the largest error that each test compared (docs/numerics.md); without -n"
    parser.addoption("--show-errors", action="store_true", help=text)


@pytest.fixture
def refused(capsys):
    """Function: a context in which a command ends with an error, in words that match a pattern."""

    @contextlib.contextmanager
    def check(pattern):
        with pytest.raises(SystemExit) as end:
            yield
        said = f"{end.value}\n{capsys.readouterr().err}"
        assert end.value.code not in (0, None)
        assert re.search(pattern, said, re.MULTILINE), said

    return check


@pytest.fixture(autouse=True)
def _record_errors(request, monkeypatch):
    """Note what `torch.testing.assert_close` compares."""
    if not request.config.getoption("--show-errors"):
        return
    compare = torch.testing.assert_close

    def compare_and_note(actual, expected, **options):
        error = (actual.double() - expected.double()).abs().max().item()
        ERRORS[request.node.nodeid] = max(error, ERRORS.get(request.node.nodeid, 0.0))
        compare(actual, expected, **options)

    monkeypatch.setattr(torch.testing, "assert_close", compare_and_note)


def pytest_configure(config):
    """Prepare what all processes of the tests share.

    Started programs receive Ctrl-C, also if a shell runs the tests in the background. yapf, by
    which mmengine writes configs, keeps a grammar in the user's cache: written the first time
    beside another process, or by a test whose disk is full, half of it would stay there. Nothing is
    downloaded, but by the fixture `hub` from this machine.
    """
    for name in ("small_models", "small_data"):
        config.pluginmanager.register(_load_module(HERE / f"{name}.py"))
    os.environ["EVA_NO_DOWNLOAD"] = "1"
    os.fsync = lambda descriptor: None  # only a power cut would show it
    # precision "auto" is fp32 in tests, as on a CPU without instructions for bf16
    known = {name: has for name, has in torch.cpu.get_capabilities().items() if "bf16" not in name}
    torch.cpu.get_capabilities = lambda: known
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("yapf")
    if config.getoption("numprocesses", None):  # one starter for all workers
        starter = contextlib.ExitStack()
        os.environ[SHARED_STARTER] = starter.enter_context(_started())
        config.add_cleanup(starter.close)


@contextlib.contextmanager
def _started():
    """Socket of a process that imports the frameworks, see `starter.py`."""
    environment = {key: value for key, value in os.environ.items() if key != "DETECTRON2_DATASETS"}
    with tempfile.TemporaryDirectory(prefix="starter-") as folder:
        place = str(Path(folder) / "socket")  # short, as such names have to be
        process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "starter.py"), place],
            env=environment | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}, cwd=folder,
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with process.stdin:
            yield place
        process.wait(timeout=60)


def pytest_generate_tests(metafunc):
    """Give a test the training steps of `device_steps.py`, made when it runs."""
    tables = {"make_step": "STEPS", "make_framework_step": "FRAMEWORK_STEPS"}
    for name in tables.keys() & {*metafunc.fixturenames}:
        table = getattr(_load_module(HERE / "device_steps.py"), tables[name])
        metafunc.parametrize(name, table.values(), ids=table)


def pytest_collection_finish():
    """Leave the frameworks' objects out of garbage collection, a tenth of the time."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    for name, error in ERRORS.items():
        terminalreporter.write_line(f"{error:.1e}  {name}")


def _load_module(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(load_module, tmp_path, monkeypatch):
    """A stand-in of the hub on this machine, and this process and its children as its clients."""
    with load_module(Path(__file__).with_name("hub_server.py")).serving() as server:
        server.use(tmp_path, monkeypatch)
        yield server


@pytest.fixture(autouse=True)
def _seed():
    if torch.cuda.is_available():
        torch.manual_seed(0)
    else:  # without the note of this place that torch keeps for a GPU
        torch.default_generator.manual_seed(0)


@pytest.fixture(scope="session")
def load_module():
    """Function: a file beside tests, which are not a package, as a module."""
    return _load_module


@pytest.fixture
def small_disk(monkeypatch):
    """Function: context in which a file takes so many bytes and no more, as on a full disk."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of a module imported inside: cut off

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


@pytest.fixture(scope="session")
def _process_group():
    """A process group of one, and the variables that belong to it; DeepSpeed bears only one."""
    from eva_engine import distributed

    before = dict(os.environ)
    place = distributed.start("cpu")
    made = {name: value for name, value in os.environ.items() if before.get(name) != value}
    _replace_environment(before)
    yield place, made
    distributed.stop()


@pytest.fixture(scope="module")
def device(_process_group):
    """The CPU, in a process group of one, for runs of the engine in the tests' process."""
    place, made = _process_group
    before = dict(os.environ)
    os.environ.update(made)
    yield place
    _replace_environment(before)


def _replace_environment(values):
    os.environ.clear()
    os.environ.update(values)


@pytest.fixture(scope="session")
def launch_environment():
    """Function: environment of a program of a folder, without what a launcher has set."""

    def make(folder):
        paths = [folder, HERE, *(HERE.parent / name for name in PROJECTS)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            environment.pop(name, None)
        more = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        return environment | more | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}

    return make


@pytest.fixture(scope="session")
def starter(load_module):
    """Module `starter.py`; as its `place` a process that has imported the frameworks."""
    module = load_module(HERE / "starter.py")
    shared = os.environ.get(SHARED_STARTER)
    with contextlib.nullcontext(shared) if shared else _started() as module.place:
        end = time.monotonic() + 180
        while not Path(module.place).exists():
            assert time.monotonic() < end, "the starter has not begun"
            time.sleep(0.05)
        yield module


@pytest.fixture(scope="session")
def stand_in(starter, tmp_path_factory):
    """Variables by which torchrun and shells start Python from the starter, as PYTHON_EXEC."""
    python = tmp_path_factory.mktemp("bin") / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {starter.__file__} - "$@"\n')
    python.chmod(0o755)
    return {"DS_ACCELERATOR": "cpu", "STARTER": starter.place, "PYTHON_EXEC": str(python)}


@pytest.fixture(scope="session")
def start_launcher(programs, launch_environment):
    """Function: context of a function that runs `program.py` of a folder, see `run_ranks`."""

    def start(folder):
        run = functools.partial(programs.run_ranks, environment=launch_environment(folder))
        return contextlib.nullcontext(run)

    return start


@pytest.fixture(scope="module")
def launcher(request, start_launcher):
    """A process that has imported `program.py` beside a test and forks for each run."""
    with start_launcher(request.path.parent) as submit:
        yield submit


@pytest.fixture
def launch(launcher, tmp_path):
    """Function: run the program in processes; their exit codes, and what each of them wrote."""

    def run(*arguments, ranks, **more):
        log = tmp_path / "log_of_rank"
        ended = launcher([*map(str, arguments)], ranks=ranks, log=log, **more)
        return ended.codes, ended.texts

    return run


@pytest.fixture(scope="session")
def programs(load_module, starter, tmp_path_factory):
    """The factory of processes that tests start, see `programs.py`."""
    module = load_module(HERE / "programs.py")
    with contextlib.closing(module.Programs(starter, tmp_path_factory.mktemp("programs"))) as made:
        yield made


@pytest.fixture(scope="session")
def run_started(programs):
    """Function: run a program of `starter.py`, as `subprocess.run` does."""

    def run(*arguments, folder, environment=None, timeout=300):
        ended = programs.start(*arguments, folder=folder, environment=environment).wait(timeout)
        return subprocess.CompletedProcess(arguments, ended.code, ended.out, ended.err)

    return run


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Function: the folder of a name; the first of the processes that test makes what is in it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name, make):
        place, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                make(place)
                done.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def demo(programs, once):
    """Function: folder with the demo data of formats, made once by `eva data make-demo`."""

    def digits(*formats, train=16, val=4):
        def make(folder):
            words = ["--output", folder / "digit_scenes", "--formats", *formats]
            words += ["--train", train, "--val", val, "--workers", 1]
            ended = programs.start("-m", "eva_command", "data", "make-demo", *words).wait(300)
            assert ended.code == 0, ended.text

        return once(f"demo_{'_'.join(formats)}_{train}_{val}", make) / "digit_scenes"

    return digits


@pytest.fixture(scope="session")
def trainers(load_module, demo, tmp_path_factory):
    """Function: the small training of a name, see `trainers.py`."""
    return load_module(HERE / "trainers.py").Trainers(demo, tmp_path_factory.mktemp)


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


@pytest.fixture
def full_disk(small_disk):
    """At most 1 MB in a file: writes fail in their middle, as on a full disk."""
    with small_disk(1_000_000):
        yield


@pytest.fixture(scope="session")
def mmengine_runs(load_module):
    """The module `mmengine_runs.py`: programs on mmengine in the process of the tests."""
    return load_module(HERE / "mmengine_runs.py")
