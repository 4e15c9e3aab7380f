"""Adapters (`--lora RANK`): training, scores, files, merging, and what a run continues with."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from eva_classification.models import load_classifier

ADAPTERS = ("--lora", 4, "--lora.first-block", 2, "--lora.dropout", 0.1)
TASKS = ("classification", "video", "clip")
FIXED = {"video": ("--model.no-full-position-lr",)}  # positions are frozen
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def words(training):
    return lambda task, output, *more: training(
        task, output, *ADAPTERS, *FIXED.get(task, ()), *more
    )


@pytest.fixture(scope="module")
def adapted(run, words, tmp_path_factory):
    """Output folder of a classifier's training."""
    output = tmp_path_factory.mktemp("adapted") / "run"
    run(*words("classification", output))
    return output


def test_a_run_saves_adapters_alone_and_scores_again(adapted, run, engine_data, tmp_path):
    best = json.loads((adapted / "best/best.json").read_text())
    results = best["adapter/adapter_model.safetensors"]["results"]
    val, cpu = engine_data / "folder/val", ("--workers", 0, "--device", "cpu")
    source = adapted / "best/adapter"
    run("eva", "classification", "evaluate", source, "--data", val, "--output", tmp_path, *cpu)
    again = json.loads((tmp_path / "results.json").read_text())["sets"]["data"]
    assert again["top1"] == results["top1"]
    assert again["loss"] == pytest.approx(results["loss"], abs=1e-5)
    (last,) = adapted.glob("checkpoints/step_00000008")
    states = torch.load(last / "deepspeed/mp_rank_00_model_states.pt", weights_only=False)["module"]
    frozen = {name for name in states if "base_layer" in name or name.startswith("blocks.0.")}
    assert not frozen
    assert not [*last.glob("*.safetensors")]
    assert (
        load_file(last / "adapter/adapter_model.safetensors").keys()
        == load_file(last / "adapter_ema/adapter_model.safetensors").keys()
    )


def test_merged_weights_are_the_adapters_on_their_base(adapted, run, fails, tmp_path):
    merged = tmp_path / "merged.safetensors"
    run("eva", "convert", "--merge-lora", adapted, merged)
    words = ("convert", "--merge-lora", adapted, tmp_path / "y.pt", "--dtype", "fp16")
    fails(run("eva", *words, code=None), "--dtype")
    ours, again = (load_classifier(source)(IMAGE) for source in (adapted, merged))
    assert torch.equal(ours, again)
    fails(run("eva", "convert", "--merge-lora", merged, tmp_path / "x.pt", code=None), merged)
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--model.init-checkpoint", "BASE"), "base"),
        (("--lora", 8), "lora"),
    ],
)
@pytest.mark.slow
def test_a_run_continues_on_its_own_base_alone(adapted, run, words, fails, tmp_path, more, named):
    base = tmp_path / "base.safetensors"
    run("eva", "convert", "eva_debug", "--to", "official", "--output", base)
    more = [base if word == "BASE" else word for word in more]
    before = {file: file.stat().st_mtime_ns for file in adapted.rglob("*.safetensors")}
    ended = run(*words("classification", adapted, "--run.epochs", 3, *more), code=None)
    fails(ended, named)
    assert before == {file: file.stat().st_mtime_ns for file in adapted.rglob("*.safetensors")}


def test_adapters_without_a_base_are_refused(run, words, fails, tmp_path):
    more = ("--model.init-checkpoint", "")
    fails(run(*words("classification", tmp_path / "run", *more), code=None), "rank=4")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_killed_in_a_save_and_continued(run, words, ends_alike, tmp_path, task):
    run(*words(task, tmp_path / "whole"))
    output = tmp_path / "run"
    run(*words(task, output), accident="rename:step_00000004", code=-signal.SIGKILL)
    assert [path.name for path in (output / "checkpoints").glob("step_*")] == ["step_00000002"]
    run(*words(task, output))
    ends_alike(tmp_path / "whole", output)
    run("eva", task, "demo", "--help")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_continue(run, words, ends_alike, tmp_path, task):
    half = ("--run.batch-size", {"classification": 12, "video": 4, "clip": 12}[task])
    launch = ("torchrun", "--nproc-per-node", 2, "-m", "eva_command")
    for name, accidents in (("whole", [None]), ("run", ["rename:step_00000004", None])):
        for accident in accidents:
            output = tmp_path / name
            ended = run(*launch, *words(task, output, *half)[1:], accident=accident, code=None)
            assert (ended.code == 0) == (accident is None), ended.text
    ends_alike(tmp_path / "whole", tmp_path / "run")
