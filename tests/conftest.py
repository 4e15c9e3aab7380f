"""Small models and pictures that several folders of tests share, and the option `--show-errors`.

The factories are fixtures, because tests are not a package that another test could import from.
"""

import contextlib
import functools
import gc
import importlib
import importlib.util
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from torch import nn

from eva_backbone import SimpleFeaturePyramid, VisionTransformer
from eva_backbone.checkpoints import registry, verification
from eva_backbone.layers import LAYER_NORM_EPS

HERE = Path(__file__).parent
SHARED_STARTER = "EVA_TEST_STARTER"  # variable: socket of the starter, see `pytest_configure`
PROJECTS = ("", "core", "pretrain", "classification", "detection", "video", "clip")
SIZES = {
    "img_size": 56,
    "patch_size": 14,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 48,
}
TIMES = {"samples_per_second", "eta_seconds", "memory_gib", "model_tflops"}  # of metrics.jsonl
DETECTOR_SIZES = {
    "img_size": 96,
    "patch_size": 16,
    "pretrain_img_size": 64,
    "window_size": 4,
    "global_attn_indexes": (1,),
    "rel_pos": "vitdet",
    "extra_tokens": (),
    "final_norm": False,
}


class Classifier(VisionTransformer):
    """ViT with an official head: `fc_norm` over the mean of the patches, or the class token."""

    def __init__(self, *, outputs, mean_pool, **sizes):
        super().__init__(final_norm=not mean_pool, **sizes)
        self.head = nn.Linear(self.embed_dim, outputs)
        self.fc_norm = nn.LayerNorm(self.embed_dim, eps=LAYER_NORM_EPS) if mean_pool else None

    def classify(self, tokens):
        if self.fc_norm is None:
            return self.head(tokens[:, 0])
        return self.head(self.fc_norm(tokens[:, 1:].mean(1)))

    def forward(self, images):
        return self.classify(self.forward_features(images))


class Detector(SimpleFeaturePyramid):
    """The detector's backbone under its official names: `net.*` and `simfp_N.*`, p2 to p6."""

    def __init__(self, **sizes):
        super().__init__(in_channels=sizes["embed_dim"], patch_size=16, out_channels=24)
        self.net = VisionTransformer(**sizes)

    def forward(self, images):
        levels = self.pyramid(self.net.forward_feature_map(images))
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]


class Wrapped(nn.Module):
    """A complete model around a backbone, as detectron2 builds it; `rest` is what it adds."""

    def __init__(self, backbone, **rest):
        super().__init__()
        self.backbone = backbone
        for name, module in rest.items():
            self.add_module(name, module)


class Malice:
    """A pickle of this runs code when it is loaded without care."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


OBJECTNET = {
    "objects": {"chair_d": "Chair", "plate": "Plate", "lettuce": "Lettuce", "clock_a": "Alarm"},
    "classes": {
        "Chair": "folding chair; barber chair; rocking chair, rocker",
        "Plate": "plate",
        "Alarm": "analog clock",
    },
    # the lines are not in the order of the labels
    "lines": ["analog clock", "barber chair", "plate", "rocking chair, rocker", "folding chair"],
    "line_of_label": {"409": 0, "423": 1, "559": 4, "765": 3, "923": 2},
}
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
    os.environ["EVA_NO_DOWNLOAD"] = "1"
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


def _randomise(module, std=0.3):
    """Fill every parameter, also those that start at zero and would hide a mistake."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(offset + std * torch.randn(parameter.shape))
    return module


@pytest.fixture
def hub(load_module, tmp_path, monkeypatch):
    """A stand-in of the hub on this machine, and this process and its children as its clients."""
    with load_module(Path(__file__).with_name("hub_server.py")).serving() as server:
        server.use(tmp_path, monkeypatch)
        yield server


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Function: let a small file count as the official one of its name; returns its path."""
    monkeypatch.setattr(verification, "RECORDS", str(tmp_path / "verified"))

    def register(path):
        monkeypatch.setitem(registry.SHA256, path.name, verification.sha256_of(path))
        return path

    return register


@pytest.fixture(scope="session")
def load_module():
    """Function: a file beside tests, which are not a package, as a module."""
    return _load_module


@pytest.fixture(scope="session")
def steps(load_module):
    """The module `device_steps.py`: small models and one training step of each project."""
    return load_module(Path(__file__).with_name("device_steps.py"))


@pytest.fixture(scope="session")
def malice():
    """Class: unpickled, it makes a folder."""
    return Malice


@pytest.fixture(scope="session")
def photograph():
    """An astronaut, (512, 512, 3) uint8."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def write_video():
    """Function: write a video whose frames become lighter, at given times in tenths of a second."""
    import av

    def write(file, frames, pts, size=(48, 64)):
        with av.open(str(file), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
            for index in range(frames):
                rgb = np.full((*size, 3), 10 + 40 * index, np.uint8)
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts = pts[index]
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


@pytest.fixture(scope="session")
def write_tar():
    """Function: write a tar file of (name, content); returns its path."""

    def write(file, members, **options):
        with tarfile.open(file, "w", **options) as tar:
            for name, content in members:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return file

    return write


@pytest.fixture(scope="session")
def write_picture():
    """Function: write a grey picture with a number, and the folders that lead to it."""

    def write(path, number=0, size=(10, 9)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number,) * 3).save(path, "png")  # whatever its extension

    return write


@pytest.fixture
def make_set(tmp_path, write_picture):
    """Function: class folders, and in some of them pictures: {folder/name: number}."""

    def make(name, folders, pictures):
        for folder in folders:
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
        for path, number in pictures.items():
            write_picture(tmp_path / name / path, number)
        return tmp_path / name

    return make


@pytest.fixture
def make_objectnet(make_set):
    """Function: ObjectNet with its four mapping files in the official formats."""

    def make(pictures, **changes):
        mapping = OBJECTNET | changes
        folder = make_set(
            "objectnet", ["mappings"], {f"images/{k}": n for k, n in pictures.items()}
        )
        files = {
            "folder_to_objectnet_label.json": json.dumps(mapping["objects"]),
            "objectnet_to_imagenet_1k.json": json.dumps(mapping["classes"]),
            "pytorch_to_imagenet_2012_id.json": json.dumps(mapping["line_of_label"]),
            "imagenet_to_label_2012_v2": "\n".join(mapping["lines"]) + "\n",
        }
        for name, text in files.items():
            (folder / "mappings" / name).write_text(text)
        return folder

    return make


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
def randomise():
    """Function: give every parameter of a module a random value."""
    return _randomise


@pytest.fixture(scope="session")
def make_vit():
    """Function: a small ViT with class token, random everywhere, in eval mode."""
    return lambda **sizes: _randomise(VisionTransformer(**SIZES | sizes)).eval()


@pytest.fixture(scope="session")
def make_classifier():
    """Function: a small ViT with a classification head."""

    def make(*, outputs=10, mean_pool=True, **sizes):
        model = Classifier(outputs=outputs, mean_pool=mean_pool, **SIZES | sizes)
        return _randomise(model).eval()

    return make


@pytest.fixture(params=["official", "vision tower", "run", "open_clip"])
def clip_form(request):
    """Function: a ViT's weights as a file of EVA-CLIP has them, beside projection and text tower.

    So does `eva_clip_psz14.pt` name them, `eva_clip_psz14_vision_enc.pt`, a run of this toolkit and
    open_clip's EVA01-g-14.
    """

    def weights(vit, *, width=1024):
        prefix = {"vision tower": "", "open_clip": "visual.trunk."}.get(request.param, "visual.")
        channels = vit["pos_embed"].shape[2]
        state = {prefix + name: value for name, value in vit.items()}
        state |= {f"{prefix}head.weight": torch.ones(width, channels),
                  f"{prefix}head.bias": torch.ones(width)}  # fmt: skip
        if request.param != "vision tower":
            scale = torch.zeros(1) if request.param == "run" else torch.zeros(())
            state |= {"text.token_embedding.weight": torch.zeros(9, 4),
                      "text.transformer.resblocks.0.ln_1.weight": torch.zeros(4),
                      "text." * (prefix == "visual.") + "logit_scale": scale}  # fmt: skip
        return {name: value.clone() for name, value in state.items()}

    weights.name = request.param
    return weights


@pytest.fixture(scope="session")
def make_detector():
    """Function: a small ViTDet backbone with windows, relative positions and pyramid."""
    return lambda **sizes: _randomise(Detector(**SIZES | DETECTOR_SIZES | sizes)).eval()


@pytest.fixture(scope="session")
def wrap():
    """Function: a model with a backbone under `backbone.` and further modules beside it."""
    return Wrapped


@pytest.fixture(scope="session")
def count():
    """Function: number of parameters of a module, or those that a filter on the name keeps."""

    def count_parameters(module, keep=lambda name: True):
        return sum(value.numel() for name, value in module.named_parameters() if keep(name))

    return count_parameters


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


@pytest.fixture(scope="session")
def clip_weights(tmp_path_factory):
    """File of a CLIP at 32 px with features of 16 values, whose pictures the debug ViT sees."""
    from eva_backbone.checkpoints.loading import load_pretrained
    from eva_contrastive.model.eva_clip import build_eva_clip
    from eva_data.files import write_tensors

    torch.manual_seed(0)
    model = build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32)
    load_pretrained(model, "eva_debug", allow_missing=("visual.head", "text"))
    file = tmp_path_factory.mktemp("clip") / "model.safetensors"
    write_tensors(model.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def prescribed(load_module):
    """The module `prescribed.py`: numbered pictures, and a model that gives prescribed logits."""
    return load_module(HERE / "prescribed.py")


@pytest.fixture(scope="session")
def prescribe(prescribed):
    """Function: the model that gives row i of the logits for picture i."""
    return prescribed.Prescribed


@pytest.fixture(scope="session")
def numbered(prescribed):
    """Function: a data set of pictures with labels."""
    return prescribed.Numbered


@pytest.fixture(scope="session")
def cross_entropy():
    """Function: of each row of logits, in numpy."""

    def compute(logits, labels):
        logits = np.asarray(logits, np.float64)
        rows = np.arange(len(logits))
        return np.log(np.exp(logits).sum(1)) - logits[rows, np.asarray(labels)]

    return compute


@pytest.fixture
def full_disk(small_disk):
    """At most 1 MB in a file: writes fail in their middle, as on a full disk."""
    with small_disk(1_000_000):
        yield


@pytest.fixture(scope="session")
def mmengine_runs(load_module):
    """The module `mmengine_runs.py`: programs on mmengine in the process of the tests."""
    return load_module(HERE / "mmengine_runs.py")


@pytest.fixture
def write_coco(tmp_path):
    """Function: a COCO file of these annotations and noise pictures of 128 x 96 px."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()

    def write(annotations, *, name="train", count=4, **changes):
        entries = []
        for key in range(1, count + 1):
            file = pictures / f"{key}.png"
            if not file.exists():
                Image.effect_noise((128, 96), 60).convert("RGB").save(file)
            entries.append({"id": key, "file_name": file.name, "width": 128, "height": 96})
        categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
        data = {"images": entries, "categories": categories, "annotations": annotations}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(data | changes))
        return path

    write.pictures = pictures
    return write
