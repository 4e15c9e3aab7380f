"""Adapters (`--lora RANK`): trained, saved, scored, merged, read by anyone, continued.

Those of a framework are trained for four steps on the weights of another run, which has a rate so
high that adapters change what is found; each run saves after each second step.
"""

import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.lora import LoraSettings
from eva_classification.models import load_classifier

FRAMEWORKS = ("detection", "mmdetection", "segmentation")
ENGINE = ("classification", "video", "clip")
OPTIONS = ("--lora.first-block", 2, "--lora.dropout", 0.1)
HALF = {"classification": 12, "video": 4, "clip": 12}  # samples of one of two processes
IMAGES = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
ADAPTER = "adapter/adapter_model.safetensors"


def some(*quick, of=FRAMEWORKS):
    names = [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in quick), id=name) for name in of
    ]
    return pytest.mark.parametrize("trainer", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def trainer(request, trainers):
    return trainers(request.param)


@pytest.fixture(scope="module")
def train(trainer, finished, run):
    """Function: train adapters of rank 4 in a folder."""

    def begin(output, *more, rate=0.02, processes=1, steps=4, **keywords):
        words = ["--lora", 4]
        if trainer.name in ENGINE:
            words += OPTIONS
            words += ["--run.batch-size", HALF[trainer.name]] if processes > 1 else []
        else:
            base, own = finished(trainer.name), trainer.name == "detection"
            words += [f"train.init_checkpoint={base}"] if own else ["--load-from", base]
            words += [f"{'' if own else 'optim_wrapper.'}optimizer.lr={rate}"]
        command = trainer.command(output, *words, *more, steps=steps, period=2, processes=processes)
        return run(*command, code=None, **keywords, **trainer.variables)

    return begin


@pytest.fixture(scope="module")
def output(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "run"
    end = train(folder)
    assert end.code == 0, end.text
    return folder


def steps_of(trainer):
    return {} if trainer.name in ENGINE else {"steps": 4}


# ---- continued -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(train, trainer, tmp_path_factory):
    """A run that was killed inside its second save: its end, and its folder, which continues."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    end = train(folder, accident=f"rename:{trainer.checkpoint(4)}")
    assert trainer.last(folder) == trainer.checkpoint(2)
    return SimpleNamespace(end=end, folder=folder)


@some("segmentation", of=(*FRAMEWORKS, *ENGINE))
def test_a_killed_run_ends_as_an_undisturbed_one_bit_for_bit(killed, output, trainer, train):
    assert killed.end.code == -signal.SIGKILL, killed.end.text
    shutil.rmtree(killed.folder / "adapter", ignore_errors=True)
    end = train(killed.folder, *trainer.resume)
    assert end.code == 0, end.text
    trainer.assert_same_weights(killed.folder, output, **steps_of(trainer))
    if trainer.name in ENGINE:
        trainer.assert_same_end(killed.folder, output)
    else:
        ours, expected = (load_file(folder / ADAPTER) for folder in (killed.folder, output))
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[name], expected[name]) for name in ours)


@some(of=(*FRAMEWORKS, *ENGINE))
def test_two_processes_are_killed_and_continue(trainer, train, tmp_path):
    for name, accident in (("whole", None), ("killed", f"rename:{trainer.checkpoint(4)}")):
        end = train(tmp_path / name, rate=0.001, processes=2, accident=accident)
        assert (end.code == 0) == (accident is None), end.text
    end = train(tmp_path / "killed", *trainer.resume, rate=0.001, processes=2)
    assert end.code == 0, end.text
    trainer.assert_same_weights(tmp_path / "killed", tmp_path / "whole", **steps_of(trainer))


@some()
def test_another_rank_or_base_does_not_continue(output, trainer, train, finished, fails, tmp_path):
    folder = shutil.copytree(output, tmp_path / "run")
    checkpoint = trainer.final.format(steps=4)
    fails(train(folder, "--resume", "lora.rank=2", steps=6), checkpoint, "rank")
    state = trainer.weights(finished(trainer.name))
    other = {name: 1.01 * v if v.is_floating_point() else v for name, v in state.items()}
    torch.save({"model": other}, tmp_path / "other.pth")
    start = [f"train.init_checkpoint={tmp_path / 'other.pth'}"]
    start = start if trainer.name == "detection" else ["--load-from", tmp_path / "other.pth"]
    fails(train(folder, "--resume", *start, steps=6), checkpoint, "base")


@some(of=("classification",))
@pytest.mark.parametrize(
    ("more", "value"), [(("--model.init-checkpoint", "BASE"), "base"), (("--lora", 8), "lora")]
)
def test_a_run_continues_on_its_own_base_alone(output, run, train, fails, tmp_path, more, value):
    base = tmp_path / "base.safetensors"
    run("eva", "convert", "eva_debug", "--to", "official", "--output", base)
    more = [base if word == "BASE" else word for word in more]
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*.safetensors")}
    fails(train(output, "--run.epochs", 3, *more), value)
    assert before == {file: file.stat().st_mtime_ns for file in output.rglob("*.safetensors")}


@some(of=("segmentation",))
def test_mmengine_s_average_lacks_what_is_frozen_and_continues(trainer, train, tmp_path):
    average = "default_hooks.ema.type=EMAHook"
    for name, accident in (("whole", None), ("killed", f"rename:{trainer.checkpoint(4)}")):
        train(tmp_path / name, average, accident=accident)
    end = train(tmp_path / "killed", average, "--resume")
    assert end.code == 0, end.text
    files = [tmp_path / name / trainer.final.format(steps=4) for name in ("whole", "killed")]
    contents = [torch.load(file, weights_only=False) for file in files]
    whole, killed = (content["ema_state_dict"] for content in contents)
    names = {name.removeprefix("module.") for name in whole}
    assert names == {*contents[0]["state_dict"], "steps"}
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@some(of=("mmdetection",))
def test_mmdetection_s_own_program_continues(output, trainer, train, run, tools_of, tmp_path):
    train(tmp_path, accident=f"rename:{trainer.checkpoint(4)}")
    config = tmp_path / json.loads((tmp_path / "run.json").read_text())["config"]
    run("python", tools_of("mmdet") / "train.py", config, "--work-dir", tmp_path, "--resume")
    trainer.assert_same_weights(tmp_path, output, steps=4)


@pytest.mark.slow
def test_mmsegmentation_s_own_program_trains_adapters(
    trainers, finished, demo, run, tools_of, tmp_path
):
    trainer, scenes = trainers("segmentation"), demo("semantic") / "semantic"
    settings = ["train_cfg.max_iters=4", "train_cfg.val_interval=4", "lora.rank=4"]
    settings += [
        f"{part}_dataloader.dataset.data_root={scenes}" for part in ("train", "val", "test")
    ]
    settings.append(f"load_from={finished('segmentation')}")
    program = ("python", tools_of("mmseg") / "train.py", trainer.train[3])
    run(*program, "--work-dir", tmp_path / "out", "--cfg-options", *settings)
    assert any("lora_A" in name for name in trainer.weights(tmp_path / "out", 4))
    assert (tmp_path / "out" / "best" / "adapter" / "adapter_config.json").exists()


# ---- saved, read and scored ----------------------------------------------------------------------


@some("segmentation")
def test_a_checkpoint_lacks_what_is_frozen_and_is_refused_as_weights(output, trainer):
    names, checkpoint = trainer.weights(output, 4).keys(), output / trainer.final.format(steps=4)
    assert any("lora_A" in name for name in names)
    assert any(".simfp_" in name for name in names)
    frozen = ("base_layer.weight", "patch_embed.proj.weight")
    assert not any(name.endswith(frozen) for name in names)
    with pytest.raises(ValueError, match="adapter"):
        read_weights(checkpoint)
    if trainer.name != "detection":  # mmengine would load what fits and leave the ViT at random
        from mmengine.runner import CheckpointLoader

        import eva_openmmlab.weights  # noqa: F401

        with pytest.raises(ValueError, match="adapter"):
            CheckpointLoader.load_checkpoint(str(checkpoint))


def models(trainer, output, *sources):
    """Models of a run's config, with all weights of each of the sources."""
    if trainer.name == "detection":
        from detectron2.config import instantiate

        from eva_detection.building import load_initial_weights
        from eva_detection.config.files import load_config_file

        for source in sources:
            model = instantiate(load_config_file(output / "config.yaml").model)
            load_initial_weights(model, str(source), complete=True)
            yield model.eval()
        return
    from eva_openmmlab.predictor import load_model

    for source in sources:
        config = output / json.loads((output / "run.json").read_text())["config"]
        yield load_model(config, source, "cpu", task=trainer.name)[0].eval()


def maps(model):
    levels = model.backbone(IMAGES)
    return [*(levels.values() if isinstance(levels, dict) else levels)]


@some("segmentation")
def test_peft_loads_the_adapter_and_it_is_the_trained_model(output, trainer, finished):
    """As much as whoever reads the folder of the run, or the adapter in it."""
    import peft  # a slow import, that nothing else needs

    sources = (finished(trainer.name), output, output / "adapter")
    base, ours, by_adapter = models(trainer, output, *sources)
    saved, trained = load_file(output / ADAPTER), trainer.weights(output, 4)
    assert len(trained) == len(saved)
    before = maps(base)
    wrapped = peft.PeftModel.from_pretrained(base, str(output / "adapter")).eval()
    theirs = wrapped.base_model.model.state_dict()
    assert all(torch.equal(theirs[name], trained[name]) for name in trained if "lora_" in name)
    for first, second, third, untrained in zip(
        maps(wrapped), maps(ours), maps(by_adapter), before, strict=True
    ):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
        assert torch.equal(second, third)
        assert (first - untrained).abs().max() > 0.01
    whole, heads = ours.state_dict(), [name for name in trained if "head" in name]
    assert heads
    assert all(torch.equal(whole[name], trained[name]) for name in heads)


@some("segmentation")
def test_an_evaluation_scores_as_the_training_did(output, trainer, run, tmp_path):
    def scores(folder):
        results = next(folder.rglob("results.json"))
        return next(iter(json.loads(results.read_text()).values()))

    place = f"{trainer.output}{tmp_path / 'out'}".split(" ")
    words = (output / "adapter", *place)
    run("eva", trainer.name, "evaluate", *words, **trainer.variables)
    again, first = scores(tmp_path / "out"), scores(output)
    assert first
    for name, value in first.items():
        if value is not None and value == value:
            assert again[name] == pytest.approx(value, abs=0.2), name


@some("classification", of=("classification",))
def test_a_classifier_saves_adapters_alone_and_scores_again(output, run, engine_data, tmp_path):
    best = json.loads((output / "best/best.json").read_text())
    results = best["adapter/adapter_model.safetensors"]["results"]
    val, cpu = engine_data / "folder/val", ("--workers", 0, "--device", "cpu")
    source = output / "best/adapter"
    run("eva", "classification", "evaluate", source, "--data", val, "--output", tmp_path, *cpu)
    again = json.loads((tmp_path / "results.json").read_text())["sets"]["data"]
    assert again["top1"] == results["top1"]
    assert again["loss"] == pytest.approx(results["loss"], abs=1e-5)
    (last,) = output.glob("checkpoints/step_00000008")
    states = torch.load(last / "optimizer_00000.pt")["state"]
    assert not [name for name in states if "base_layer" in name or name.startswith("blocks.0.")]
    assert not [*last.glob("*.safetensors")]
    averages = load_file(last / "adapter_ema/adapter_model.safetensors")
    assert load_file(last / ADAPTER).keys() == averages.keys()


@some("classification", of=("classification",))
def test_merged_weights_are_the_adapters_on_their_base(output, call_eva, fails, tmp_path):
    merged = tmp_path / "merged.safetensors"
    call_eva("eva", "convert", output, "--merge-lora", "--output", merged, code=0)
    words = ("convert", output, "--merge-lora", "--output", tmp_path / "y.pt", "--dtype", "fp16")
    fails(call_eva("eva", *words), "--dtype")
    ours, again = (load_classifier(source)(IMAGES[..., :32, :32]) for source in (output, merged))
    assert torch.equal(ours, again)
    again = ("convert", merged, "--merge-lora", "--output", tmp_path / "x.pt")
    fails(call_eva("eva", *again), merged)
    assert not (tmp_path / "x.pt").exists()


@some("classification", of=("classification",))
def test_adapters_without_a_base_are_refused(train, fails, tmp_path):
    fails(train(tmp_path / "run", "--model.init-checkpoint", ""), "rank=4")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"rank": "x"}, {"rnak": 4}, {"rank": 4, "alpha": "high"}])
def test_values_of_another_type_are_one_error(settings):
    with pytest.raises(ValueError, match="lora"):
        LoraSettings.of(settings)
