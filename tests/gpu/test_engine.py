"""DeepSpeed's engine in fp16 with ZeRO-1: its loss scale, runs that continue, saves; NCCL."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deepspeed.accelerator import get_accelerator
from safetensors.torch import load_file

from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.parameter_groups import layer_decay_groups

RUNS_ON_A_CPU = True
PROGRAM = Path(__file__).parent / "engine_program.py"
TIMES = {"samples_per_second", "eta_seconds", "memory_gib", "model_tflops"}
OVERFLOWS = (5, 6, 17)  # the first two before the accident, the third after it
FAIL_AT, EVERY = 15, 4
RUN = {"precision": "fp16", "overflow_at": OVERFLOWS, "log_every": 1,
       "checkpoint_every": EVERY, "keep_checkpoints": 9, "ema_decay": 0.9}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _fp16_on_a_cpu(gpu):
    """A CPU computes it, slowly, where DeepSpeed asks for instructions that few have."""
    with pytest.MonkeyPatch.context() as patch:
        if gpu.type == "cpu":
            patch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)
        yield


def metrics(output):
    """Lines of a run's `metrics.jsonl` that belong to steps, without times."""
    lines = map(json.loads, (Path(output) / "metrics.jsonl").read_text().splitlines())
    plain = [{name: v for name, v in line.items() if name not in TIMES} for line in lines]
    return [line for line in plain if "loss" in line]


def weights(output, step, name="model"):
    return load_file(Path(output) / f"checkpoints/step_{step:08d}/{name}.safetensors")


def assert_close(one, other, *, tolerance):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def complete(program, process_group, tmp_path_factory):
    """Folder of a run with overflows, from the first step to the last."""
    output = tmp_path_factory.mktemp("runs") / "complete"
    program.make_run(process_group, output=output, **RUN).start()
    return output


def test_overflows_are_skipped_and_lower_the_loss_scale(complete, program):
    lines = metrics(complete)
    assert len(lines) == program.STEPS
    skipped = [line["step"] for line in lines if line.get("skipped")]
    assert set(OVERFLOWS) <= set(skipped)
    scales = [line["loss_scale"] for line in lines]
    assert scales[0] <= 2**16
    # the first overflow of a run may be free (hysteresis 2), the second of two in a row is not
    assert scales[OVERFLOWS[1]] <= scales[OVERFLOWS[0] - 1] / 2
    for before, line in zip(scales, lines[1:], strict=False):
        assert line["loss_scale"] == before or line.get("skipped"), line


def test_a_run_that_ended_by_an_accident_continues(program, process_group, complete, tmp_path):
    """Loss scale, skipped steps and average go on; weights are those of the complete run.

    On a CPU the continuation is exact; on a GPU sums may be taken in another order.
    """
    settings = {"output": tmp_path / "run", **RUN}
    with pytest.raises(program.AccidentError):
        program.make_run(process_group, fail_at=FAIL_AT, **settings).start()
    program.make_run(process_group, resume=True, **settings).start()
    assert_same_run(tmp_path / "run", complete)


@pytest.mark.slow
def test_a_run_that_is_killed_continues(torchrun, complete, tmp_path):
    settings = {"processes": 1, "output": str(tmp_path / "run")}
    assert torchrun(kill_at=FAIL_AT, **settings)[0] != 0
    assert metrics(tmp_path / "run")[-1]["step"] == FAIL_AT - 1
    code, text = torchrun(resume=True, **settings)
    assert code == 0, text[-4000:]
    assert_same_run(tmp_path / "run", complete)


def test_a_step_beside_a_running_save_does_not_reach_its_files(
    gpu, program, process_group, report, tmp_path
):
    """They hold the weights that the step began with, though it changed them meanwhile."""
    seen, moved = {}, 0

    def watch(step, model):
        seen[step] = {
            name: value.detach().clone() for name, value in model.module.named_parameters()
        }

    width = 4096 if gpu.type == "cuda" else 64
    settings = {**RUN, "overflow_at": (), "checkpoint_every": 3}
    run = program.make_run(process_group, output=tmp_path, width=width, watch=watch, **settings)
    run.start()
    for step in range(3, program.STEPS, 3):
        saved = weights(tmp_path, step)
        assert saved.keys() == seen[step].keys()
        for name, value in seen[step].items():
            assert torch.equal(saved[name].half(), value.cpu()), (step, name)
        later = seen[step + 1].items()  # beside the save; the loss scale may leave a step out
        moved += any(not torch.equal(seen[step][name], value) for name, value in later)
    assert moved
    began = run.step_fn.began
    lasted = {step: 1000 * (began[step + 1] - began[step]) for step in range(3, program.STEPS - 1)}
    beside, others = (
        statistics.median(lasted[step] for step in lasted if (step % 3 == 0) == is_beside)
        for is_beside in (True, False)
    )
    size = sum(value.numel() for value in saved.values()) / 1e6
    report(f"{size:.0f} M weights: a step beside a save {beside:.1f} ms, others {others:.1f} ms")


def assert_same_run(output, complete):
    """The same steps, loss scales and errors, and at the end the same weights."""
    lines, expected = metrics(output), metrics(complete)
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert line.get("skipped") == other.get("skipped")
        assert line.get("loss_scale") == other.get("loss_scale")
        assert line["error"] == pytest.approx(other["error"], rel=1e-2)
    for name in ("model", "model_ema"):
        assert_close(weights(complete, 24, name), weights(output, 24, name), tolerance=5e-3)


# ---- the steps of projects -------------------------------------------------------------------


@pytest.fixture(params=["fp16", "bf16"])
def half_precision(request):
    """A precision of the engine."""
    return request.param


@pytest.mark.parametrize("kind", ["masked_features", "tokens", "distillation"])
def test_pretraining_steps(steps, process_group, tmp_path, half_precision, kind):
    """Student in half precision, teacher as a frozen module beside it."""
    from eva_pretrain.masked_image_modeling import PretrainStep

    prepared = steps.pretraining(kind)
    parts = prepared.model.to(process_group)
    pretrain = PretrainStep(parts.teacher, parts.objective)
    _train_a_little(prepared, parts.student, pretrain, process_group, half_precision, tmp_path)


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("bf16", "plain"),
     ("fp16", "plain"), ("fp16", "checkpoints"),
     pytest.param("fp16", "sigmoid", marks=pytest.mark.slow),
     pytest.param("fp16", "patch dropout", marks=pytest.mark.slow)],
)  # fmt: skip
def test_contrastive_steps(steps, process_group, tmp_path, precision, kind):
    """The logit scale is trained too, though it is one number in half precision."""
    prepared = steps.contrastive(kind)
    model = prepared.model.to(process_group)

    def contrast(engine, pairs):
        return prepared.loss(engine, pairs), {}

    _train_a_little(prepared, model, contrast, process_group, precision, tmp_path)


def _train_a_little(prepared, model, function, device, precision, folder):
    """Twelve steps on one batch: losses are finite, and every trained weight moves."""
    from eva_runs.data_order import to_device

    run = RunConfig(output=folder, precision=precision, batch_size=6)
    optimizer = OptimizerConfig(lr=1e-3)
    groups = layer_decay_groups(model, optimizer, depth=2)
    engine = TrainingEngine(model, groups=groups, optimizer=optimizer, run=run)
    engine.set_learning_rate(1e-3)
    before = engine.full_precision_state()
    losses, applied = [], []
    for number in range(12):
        torch.manual_seed(number)
        engine.engine.set_gradient_accumulation_boundary(True)
        loss, _ = function(engine.engine, to_device(prepared.batch, device))
        losses.append(loss.item())
        engine.backward(loss, last=True)
        applied.append(engine.step()[1])
    assert torch.tensor(losses).isfinite().all(), losses
    assert applied[-4:] == [True] * 4
    after = engine.full_precision_state()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    still = [name for name in trained if torch.equal(before[name], after[name])]
    assert still == [], "not trained"


# ---- two processes ---------------------------------------------------------------------------


@pytest.fixture
def torchrun(gpu, tmp_path):
    """Function: start the program in two processes; exit code and output."""
    environment = {
        name: value for name, value in os.environ.items()
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }  # fmt: skip

    def run(processes=2, **settings):
        if gpu.type == "cuda" and torch.cuda.device_count() < processes:
            pytest.skip("needs two GPUs")
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        text = json.dumps({"device": gpu.type, **RUN, **settings})
        ended = subprocess.run(
            [sys.executable, *map(str, command), str(PROGRAM), text],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return ended.returncode, ended.stderr

    return run


@pytest.mark.slow
def test_two_processes_in_half_precision_continue(torchrun, tmp_path):
    """ZeRO-1 shares the optimizer's state; an overflow on both, an accident, and the rest."""
    code, text = torchrun(output=str(tmp_path / "complete"))
    assert code == 0, text[-4000:]
    assert torchrun(output=str(tmp_path / "run"), fail_at=FAIL_AT)[0] != 0
    code, text = torchrun(output=str(tmp_path / "run"), resume=True)
    assert code == 0, text[-4000:]
    assert_same_run(tmp_path / "run", tmp_path / "complete")
