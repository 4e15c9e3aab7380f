"""Two processes: what one meets, both end with; gradients that are sent arrive."""

import pytest

# Two processes of gloo, in each of the scenarios; the second one has the trouble.
PROGRAM = """
import glob, os, signal, socket, sys, tempfile
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from torch import nn
from eva_runs.processes import run_on_all_ranks
from eva_detection.data.loading import choose_seed, read_training_set
from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.building import wrap_distributed
from eva_detection.training.trainer import DetectionTrainer

class Model(nn.Module):
    def __init__(self, trouble):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.trouble = trouble

    def forward(self, batch):
        loss = self.layer(torch.stack([image["image"] for image in batch])).square().mean()
        if comm.get_rank() == 1:
            loss = self.trouble(loss)
        return {"loss": loss}

def nan_in_detectron2(loss):
    raise FloatingPointError("Predicted boxes or scores contain Inf/NaN")

def bug(loss):
    raise KeyError("no such thing")

def nan_loss(loss):
    return loss * float("nan")

def nan_gradient(loss):
    loss.register_hook(lambda gradient: gradient * float("nan"))
    return loss * 1.0

def killed(loss):
    os.kill(os.getpid(), signal.SIGKILL)

TRAIN = OmegaConf.create({"train": {"device": "cpu", "amp": {"enabled": True, "precision": "bf16"},
    "ddp": {"broadcast_buffers": False, "fp16_compression": False}}})

def before_the_second_step():
    '''A loader that fails where the other process is in its second forward pass.'''
    def batches(rank):
        for index in range(9):
            if rank and index == 1:
                raise KeyError("no such thing")
            yield [{"image": torch.ones(2), "file_name": f"{rank}-{index}.jpg", "image_id": index}]
    model = wrap_distributed(TRAIN, Model(lambda loss: loss))
    trainer = DetectionTrainer(
        model, batches(comm.get_rank()), torch.optim.AdamW(model.parameters())
    )
    with EventStorage() as trainer.storage:
        for trainer.iter in range(3):
            trainer.run_step()

def train(trouble):
    rank = comm.get_rank()
    model = wrap_distributed(TRAIN, Model(trouble))
    batches = [[{"image": torch.ones(2), "file_name": f"{rank}-{i}.jpg", "image_id": i}]
               for i in range(9)]
    optimizer = torch.optim.AdamW(model.parameters())
    trainer = DetectionTrainer(model, batches, optimizer, accumulate=2)
    with EventStorage() as trainer.storage:
        trainer.iter = 0
        trainer.run_step()

def small_gradients():
    '''The mean of 1e-8 and 3e-8 is 2e-8; in fp16 without a scale all three are 0.'''
    model = nn.Linear(1, 1, bias=False)
    wrapped = wrap_distributed(TRAIN, model)
    (wrapped(torch.ones(1, 1)) * (1e-8 + 2e-8 * comm.get_rank())).sum().backward()
    say("gradient", comm.get_rank(), f"{model.weight.grad.item():.3e}")
    model = nn.Linear(3, 2)
    wrapped = wrap_distributed(TRAIN, model)
    wrapped(torch.ones(1, 3)).sum().backward()
    say("storages", len({one.grad.untyped_storage().data_ptr() for one in model.parameters()}))

def set_up():
    def work():
        if comm.get_rank() == 1:
            raise ValueError("wrong here")
    run_on_all_ranks(work)

def records():
    say("shared", comm.get_rank(), "reads")
    if FAILS:
        raise ValueError("no annotations on this machine")
    return [{"file_name": f"s3://{i}.jpg", "width": 4, "height": 3} for i in range(4)]

def mapper():
    return dict

def data():
    '''The sampler has no seed of its own: it agrees on one with the other process.'''
    loader = L(build_detection_train_loader)(
        dataset=L(records)(), mapper=L(mapper)(), sampler=L(TrainingSampler)(size=4),
        total_batch_size=2,
    )
    content = {"train": {}, "dataloader": {"train": loader}}
    cfg = OmegaConf.create(content, flags={"allow_objects": True})
    seed = choose_seed(cfg, {})
    dataset = read_training_set(EvaluationSet(cfg), seed)
    names = [record["file_name"] for record in dataset]
    left = glob.glob(tempfile.gettempdir() + "/eva-*")
    say("shared", comm.get_rank(), len(dataset), *names, *left)

def shared():
    global FAILS
    FAILS = False
    data()

TROUBLES = (nan_in_detectron2, bug, nan_loss, nan_gradient, killed)
SCENARIOS = {f.__name__: (lambda f=f: train(f)) for f in TROUBLES}
SCENARIOS |= {"small_gradients": small_gradients, "set_up": set_up, "data": data, "shared": shared}
FAILS = True
tempfile.tempdir = os.path.dirname(os.path.abspath(__file__))
SCENARIOS |= {"before_the_second_step": before_the_second_step}

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

def worker(rank, name, port):
    store = dist.TCPStore("127.0.0.1", port, 2, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    comm.create_local_process_group(2)
    try:
        SCENARIOS[name]()
    except Exception as error:
        say(name, rank, type(error).__name__, " ".join(str(error).split()))
        sys.exit(1)
    dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory, in_two_processes, run_started):
    """What the program prints."""
    script = tmp_path_factory.mktemp("agreement") / "processes.py"
    script.write_text(PROGRAM + in_two_processes)
    done = run_started(script, folder=script.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def _of(lines, scenario):
    found = [line.removeprefix(f"{scenario} ") for line in lines if line.startswith(scenario)]
    assert {"0 exit 1", "1 exit 1"} < set(found), found
    return {line[0]: line[2:] for line in found if " exit " not in line}


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("nan_in_detectron2", "process 1: Predicted boxes or scores contain Inf/NaN, images: 1-0"),
        ("nan_loss", "process 1: {'loss': nan}, images: 1-0.jpg (id 0)"),
        ("nan_gradient", "process 1: images: 1-0.jpg (id 0), 1-1.jpg (id 1)"),
    ],
)
def test_both_end_with_the_same_sentence(lines, scenario, message):
    said = _of(lines, scenario)
    assert said["0"] == said["1"]
    assert said["0"].startswith("NonFiniteError ")
    assert "at iteration 1, and all" in said["0"]
    assert message in said["0"]


def test_an_error_before_the_second_forward_pass_is_named_too(lines):
    """The other process would wait there, for half an hour."""
    said = _of(lines, "before_the_second_step")
    assert said["0"] == "OtherProcessError process 1 failed: KeyError: 'no such thing'"
    assert said["1"] == "KeyError 'no such thing'"


def test_an_error_of_one_is_named_by_the_other(lines):
    assert _of(lines, "bug") == {
        "0": "OtherProcessError process 1 failed: KeyError: 'no such thing'",
        "1": "KeyError 'no such thing'",
    }
    assert _of(lines, "set_up") == {
        "0": "OtherProcessError process 1 failed: ValueError: wrong here",
        "1": "ValueError wrong here",
    }


def test_data_that_cannot_be_read_leave_no_process_waiting(lines):
    reason = "dataloader.train.dataset cannot be built: no annotations on this machine"
    assert _of(lines, "data") == {
        "0": f"ValueError {reason}",
        "1": f"OtherProcessError process 0 failed: ValueError: {reason}",
    }


def test_one_process_of_a_machine_reads_the_annotations(lines):
    """The other maps its file, which is gone then."""
    lists = [f"shared {rank} 4 s3://0.jpg s3://1.jpg s3://2.jpg s3://3.jpg" for rank in (0, 1)]
    seen = [line for line in lines if line.startswith("shared")]
    exits = ["shared 0 exit 0", "shared 1 exit 0"]
    assert sorted(seen) == sorted([*exits, *lists, "shared 0 reads", "shared 0 reads"])


def test_a_process_that_is_killed_ends_the_other(lines):
    assert {"killed 0 exit 1", "killed 1 exit -9"} < set(lines)


def test_small_gradients_arrive(lines):
    assert {"gradient 0 2.000e-08", "gradient 1 2.000e-08"} < set(lines)


def test_gradients_lie_in_the_bucket_that_is_exchanged(lines):
    assert "storages 1" in lines
