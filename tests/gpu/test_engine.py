"""DeepSpeed's engine on a GPU: fp16 with ZeRO-1, its loss scale, runs that continue, NCCL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.parameter_groups import layer_decay_groups

PROGRAM = Path(__file__).parent / "engine_program.py"
TIMES = {"samples_per_second", "eta_seconds", "memory_gib", "model_tflops"}
OVERFLOWS = (5, 6, 17)  # the first two before the accident, the third after it
FAIL_AT, EVERY = 15, 4
RUN = {"checkpoint_every": EVERY, "keep_checkpoints": 9, "ema_decay": 0.9}


@pytest.fixture(scope="module")
def half(gpu):
    """`fp16`; on a CPU `bf16`, which has no loss scale, to try these tests out."""
    return "fp16" if gpu.type == "cuda" else "bf16"


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
def complete(program, process_group, half, tmp_path_factory):
    """Folder of a run with overflows, from the first step to the last."""
    output = tmp_path_factory.mktemp("runs") / "complete"
    overflow_at = OVERFLOWS if half == "fp16" else ()
    program.make_run(
        process_group, output=output, precision=half, overflow_at=overflow_at, log_every=1, **RUN
    ).start()
    return output


def test_overflows_are_skipped_and_lower_the_loss_scale(complete, program, only_cuda):
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


def test_a_run_that_ended_by_an_accident_continues(
    program, process_group, half, complete, tmp_path
):
    """Loss scale, skipped steps and average go on; weights are those of the complete run.

    On a CPU the continuation is exact; on a GPU sums may be taken in another order.
    """
    overflow_at = OVERFLOWS if half == "fp16" else ()
    settings = {"output": tmp_path / "run", "precision": half, "overflow_at": overflow_at,
                "log_every": 1, **RUN}  # fmt: skip
    with pytest.raises(program.AccidentError):
        program.make_run(process_group, fail_at=FAIL_AT, **settings).start()
    first = FAIL_AT // EVERY * EVERY
    program.make_run(process_group, first=first, resume=True, **settings).start()
    lines, wanted = metrics(tmp_path / "run"), metrics(complete)
    assert [line["step"] for line in lines] == list(range(program.STEPS))
    for line, other in zip(lines, wanted, strict=True):
        assert line.get("skipped") == other.get("skipped")
        assert line.get("loss_scale") == other.get("loss_scale")
        assert line["error"] == pytest.approx(other["error"], rel=1e-2)
    for name in ("model", "model_ema"):
        assert_close(
            weights(complete, 24, name), weights(tmp_path / "run", 24, name), tolerance=5e-3
        )


# ---- the steps of projects -------------------------------------------------------------------


@pytest.fixture(params=["fp16", "bf16"])
def half_precision(request, gpu):
    """A precision of the engine."""
    if request.param == "fp16" and gpu.type == "cpu":
        pytest.skip("needs a GPU")
    return request.param


@pytest.mark.parametrize("kind", ["masked_features", "tokens", "distillation"])
def test_pretraining_steps(steps, process_group, tmp_path, half_precision, kind):
    """Student in half precision, teacher as a frozen module beside it."""
    from eva_pretrain.masked_image_modeling import PretrainStep

    prepared = steps.pretraining(kind)
    parts = prepared.model.to(process_group)
    pretrain = PretrainStep(parts.teacher, parts.objective)
    _train_a_little(prepared, parts.student, pretrain, process_group, half_precision, tmp_path)


@pytest.mark.parametrize("kind", ["plain", "sigmoid", "patch dropout", "checkpoints"])
def test_contrastive_steps(steps, process_group, tmp_path, half_precision, kind):
    """The logit scale is trained too, though it is one number in half precision."""
    prepared = steps.contrastive(kind)
    model = prepared.model.to(process_group)

    def contrast(engine, pairs):
        return prepared.loss(engine, pairs), {}

    _train_a_little(prepared, model, contrast, process_group, half_precision, tmp_path)


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
        loss, _ = function(engine.engine, to_device(prepared.make_batch(), device))
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
    if gpu.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    environment = {
        name: value for name, value in os.environ.items()
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }  # fmt: skip

    def run(processes=2, **settings):
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        text = json.dumps({"device": gpu.type, "log_every": 1, **RUN, **settings})
        ended = subprocess.run(
            [sys.executable, *map(str, command), str(PROGRAM), text],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return ended.returncode, ended.stderr

    return run


def test_two_processes_in_half_precision_continue(torchrun, half, tmp_path):
    """ZeRO-1 shares the optimizer's state; an overflow on both, an accident, and the rest."""
    settings = {"precision": half, "overflow_at": OVERFLOWS if half == "fp16" else ()}
    code, text = torchrun(output=str(tmp_path / "complete"), **settings)
    assert code == 0, text[-4000:]
    code, _ = torchrun(output=str(tmp_path / "run"), fail_at=FAIL_AT, **settings)
    assert code != 0
    first = FAIL_AT // EVERY * EVERY
    code, text = torchrun(output=str(tmp_path / "run"), first=first, resume=True, **settings)
    assert code == 0, text[-4000:]
    for line, other in zip(metrics(tmp_path / "complete"), metrics(tmp_path / "run"), strict=True):
        assert line.get("skipped") == other.get("skipped")
        assert line.get("loss_scale") == other.get("loss_scale")
    for name in ("model", "model_ema"):
        one, other = (weights(tmp_path / folder, 24, name) for folder in ("complete", "run"))
        assert_close(one, other, tolerance=5e-3)
