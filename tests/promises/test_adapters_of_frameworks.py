"""Adapters in detection, mmdetection and segmentation: trained, saved, read by anyone, continued.

A run of four steps on the weights of another run, which saves after each second one.
"""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.lora import LoraSettings

TRAINERS = ("detection", pytest.param("mmdetection", marks=pytest.mark.slow), "segmentation")
IMAGES = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
ADAPTER = "adapter/adapter_model.safetensors"
RATE = {"detection": "optimizer.lr=0.02"}  # so high that adapters change what is found


@pytest.fixture(scope="module", params=TRAINERS)
def trainer(request, trainers):
    return trainers(request.param)


@pytest.fixture(scope="module")
def train(trainer, finished, run):
    """Function: train adapters of rank 4 in a folder, on the weights of a finished run."""
    base = finished(trainer.name)
    start = [f"train.init_checkpoint={base}"]
    start = start if trainer.name == "detection" else ["--load-from", base]
    rate = RATE.get(trainer.name, "optim_wrapper.optimizer.lr=0.02")

    def begin(output, *more, steps=4, processes=1, **keywords):
        words = trainer.command(
            output, *start, "--lora", 4, rate, *more, steps=steps, period=2, processes=processes
        )
        return run(*words, code=None, **keywords, **trainer.variables)

    return begin


@pytest.fixture(scope="module")
def output(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "run"
    end = train(folder)
    assert end.code == 0, end.text
    return folder


def checkpoint(output, trainer):
    return output / trainer.final.format(steps=4)


def test_a_checkpoint_lacks_what_is_frozen_and_is_refused_as_weights(output, trainer):
    names = trainer.weights(output, 4).keys()
    assert any("lora_A" in name for name in names)
    assert any(".simfp_" in name for name in names)
    assert not any(
        name.endswith(("base_layer.weight", "patch_embed.proj.weight")) for name in names
    )
    with pytest.raises(ValueError, match="adapter"):
        read_weights(checkpoint(output, trainer))
    if trainer.name != "detection":  # mmengine would load what fits and leave the ViT at random
        from mmengine.runner import CheckpointLoader

        import eva_openmmlab.weights  # noqa: F401

        with pytest.raises(ValueError, match="adapter"):
            CheckpointLoader.load_checkpoint(str(checkpoint(output, trainer)))


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
    found = model.backbone(IMAGES)
    return [*(found.values() if isinstance(found, dict) else found)]


def test_peft_loads_the_adapter_and_it_is_the_trained_model(output, trainer, finished):
    """As much as whoever reads the folder of the run, or the adapter in it."""
    import peft  # a slow import, that nothing else needs

    places = (finished(trainer.name), output, output / "adapter")
    base, ours, by_adapter = models(trainer, output, *places)
    saved = load_file(output / ADAPTER)
    kept = trainer.weights(output, 4)
    assert len(kept) == len(saved)
    before = maps(base)
    wrapped = peft.PeftModel.from_pretrained(base, str(output / "adapter")).eval()
    theirs = wrapped.base_model.model.state_dict()
    assert all(torch.equal(theirs[name], kept[name]) for name in kept if "lora_" in name)
    for first, second, third, untrained in zip(
        maps(wrapped), maps(ours), maps(by_adapter), before, strict=True
    ):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
        assert torch.equal(second, third)
        assert (first - untrained).abs().max() > 0.01
    whole = ours.state_dict()
    heads = [name for name in kept if "head" in name]
    assert heads
    assert all(torch.equal(whole[name], kept[name]) for name in heads)


def scores(folder):
    results = next(folder.rglob("results.json"))
    return next(iter(json.loads(results.read_text()).values()))


def test_an_evaluation_scores_as_the_training_did(output, trainer, run, tmp_path):
    place = f"{trainer.output}{tmp_path / 'out'}".split(" ")
    words = (output / "adapter", *place)
    run("eva", trainer.name, "evaluate", *words, **trainer.variables)
    again, first = scores(tmp_path / "out"), scores(output)
    assert first
    for name, value in first.items():
        if value is not None and value == value:
            assert again[name] == pytest.approx(value, abs=0.2), name


@pytest.fixture(scope="module")
def killed(train, trainer, tmp_path_factory):
    """A run that was killed inside its second save: its end, and its folder, which continues."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    end = train(folder, accident=f"rename:{trainer.checkpoint(4)}")
    assert not checkpoint(folder, trainer).exists()
    return SimpleNamespace(end=end, folder=folder)


@pytest.mark.parametrize(
    "trainer",
    [
        "segmentation",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mmdetection", "detection")),
    ],
    indirect=True,
)
def test_a_killed_run_ends_as_an_undisturbed_one_bit_for_bit(killed, output, trainer, train):
    assert killed.end.code == -9, killed.end.text
    shutil.rmtree(killed.folder / "adapter")
    end = train(killed.folder, "--resume")
    assert end.code == 0, end.text
    expected, ours = (trainer.weights(folder, 4) for folder in (output, killed.folder))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    theirs, own = (load_file(folder / ADAPTER) for folder in (output, killed.folder))
    assert theirs.keys() == own.keys()
    assert all(torch.equal(theirs[name], own[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["segmentation"], indirect=True)
def test_mmengine_s_average_lacks_what_is_frozen_and_continues(trainer, train, tmp_path):
    average = "default_hooks.ema.type=EMAHook"
    for name, accident in (("whole", None), ("killed", f"rename:{trainer.checkpoint(4)}")):
        train(tmp_path / name, average, accident=accident)
    end = train(tmp_path / "killed", average, "--resume")
    assert end.code == 0, end.text
    files = [tmp_path / name / trainer.final.format(steps=4) for name in ("whole", "killed")]
    found = [torch.load(file, weights_only=False) for file in files]
    whole, killed = (content["ema_state_dict"] for content in found)
    names = {name.removeprefix("module.") for name in whole}
    assert names == {*found[0]["state_dict"], "steps"}
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["mmdetection"], indirect=True)
def test_mmdetection_s_own_program_continues(output, trainer, train, run, tools_of, tmp_path):
    train(tmp_path, accident=f"rename:{trainer.checkpoint(4)}")
    config = tmp_path / json.loads((tmp_path / "run.json").read_text())["config"]
    run("python", tools_of("mmdet") / "train.py", config, "--work-dir", tmp_path, "--resume")
    expected, ours = (trainer.weights(folder, 4) for folder in (output, tmp_path))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_another_rank_or_base_does_not_continue(output, trainer, train, finished, fails, tmp_path):
    folder = shutil.copytree(output, tmp_path / "run")
    named = checkpoint(folder, trainer).name
    fails(train(folder, "--resume", "lora.rank=2", steps=6), named, "rank")
    state = trainer.weights(finished(trainer.name))
    other = {name: 1.01 * v if v.is_floating_point() else v for name, v in state.items()}
    torch.save({"model": other}, tmp_path / "other.pth")
    start = [f"train.init_checkpoint={tmp_path / 'other.pth'}"]
    start = start if trainer.name == "detection" else ["--load-from", tmp_path / "other.pth"]
    fails(train(folder, "--resume", *start, steps=6), named, "base")


@pytest.mark.slow
def test_two_processes_are_killed_and_continue(trainer, train, tmp_path):
    rate = RATE.get(trainer.name, "optim_wrapper.optimizer.lr=0.02").replace("0.02", "0.001")
    for name, accident in (("whole", None), ("killed", f"rename:{trainer.checkpoint(4)}")):
        end = train(tmp_path / name, rate, processes=2, accident=accident)
        assert (end.code == 0) == (accident is None), end.text
    end = train(tmp_path / "killed", rate, "--resume", processes=2)
    assert end.code == 0, end.text
    expected, ours = (trainer.weights(tmp_path / name, 4) for name in ("whole", "killed"))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_mmsegmentation_s_own_program_trains_adapters(
    trainers, finished, demo, run, tools_of, tmp_path
):
    trainer, scenes = trainers("segmentation"), demo("semantic") / "semantic"
    settings = ["train_cfg.max_iters=4", "train_cfg.val_interval=4", "lora.rank=4"]
    settings += [f"{one}_dataloader.dataset.data_root={scenes}" for one in ("train", "val", "test")]
    settings.append(f"load_from={finished('segmentation')}")
    program = ("python", tools_of("mmseg") / "train.py", trainer.train[3])
    run(*program, "--work-dir", tmp_path / "out", "--cfg-options", *settings)
    assert any("lora_A" in name for name in trainer.weights(tmp_path / "out", 4))
    assert (tmp_path / "out" / "best" / "adapter" / "adapter_config.json").exists()


@pytest.mark.parametrize("given", [{"rank": "x"}, {"rnak": 4}, {"rank": 4, "alpha": "high"}])
def test_values_of_another_type_are_one_error(given):
    with pytest.raises(ValueError, match="lora"):
        LoraSettings.of(given)
