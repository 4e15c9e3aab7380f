"""Settings that are read, the config of a run, and plug-ins that print nothing."""

import re

import pytest
import torch
from mmengine.runner import CheckpointLoader
from mmseg.models.losses.utils import get_class_weight

from eva_command.main import call
from eva_openmmlab import config
from eva_openmmlab.config import load_config, set_data_root, set_length
from eva_openmmlab.own_data import image_side, set_image_size
from eva_openmmlab.predictor import load_model
from eva_openmmlab.recipes import set_backbone
from eva_openmmlab.run_folder import RUN, config_of_run, write_record
from eva_runs.recipes import find_recipe
from eva_runs.request import RunRequest


def merged(**settings):
    recipe = find_recipe("segmentation", "ade20k/mask2former_eva_g_896_20k")
    return load_config(recipe, {key.replace("__", "."): value for key, value in settings.items()})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("randomness__seed", 1),
        ("find_unused_parameters", True),
        ("auto_scale_lr__enable", True),
        ("custom_hooks", None),
        ("optim_wrapper__clip_grad__max_norm", 0.5),
        ("train_dataloader__drop_last", False),
        ("param_scheduler__0__power", 0.9),
        ("model__backbone__n_points", [2, (3, "x")]),
        ("resume", True),
    ],
)
def test_what_the_runner_the_loaders_and_constructors_read_is_merged(name, value):
    node = merged(**{name: str(value).replace("'", "").replace(" ", "")})
    for part in name.split("__"):
        node = node[int(part) if part.isdigit() else part]
    assert node == value


def test_without_workers_a_loader_keeps_none():
    loader = merged(train_dataloader__num_workers="0").train_dataloader
    assert not loader.persistent_workers


@pytest.mark.parametrize("name", ["randomnes__seed", "learning_rate", "param_scheduler__1__power"])
def test_what_nothing_reads_is_refused(name):
    with pytest.raises(ValueError, match=name.replace("__", r"\.")):
        merged(**{name: "1"})


EOMT = "ade20k/eomt_eva_l_512_24gb"  # trains in mixed precision


def test_a_recipe_of_mixed_precision_is_trained_in_float32_by_one_setting():
    recipe, settings = find_recipe("segmentation", EOMT), {"optim_wrapper.type": "OptimWrapper"}
    cfg = load_config(recipe, settings)
    assert not cfg.optim_wrapper.keys() & {"dtype", "loss_scale"}
    cfg = load_config(recipe, settings | {"optim_wrapper.dtype": "bfloat16"})
    assert "dtype" in cfg.optim_wrapper  # which mmengine refuses: it is not left out in silence


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in mixed precision")
def test_mixed_precision_without_a_gpu_is_named(refused, tmp_path):
    with refused("optim_wrapper.type=OptimWrapper"):
        call("segmentation train", [EOMT, "--output", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "setting",
    ["train_cfg.val_interval=0", "train_cfg.max_iters=0", "optim_wrapper.accumulative_counts=0"],
)
def test_counts_below_one_are_refused_before_a_folder_is_made(setting, refused, tmp_path):
    with refused(setting):
        call(
            "segmentation train",
            ["demo/upernet_eva_debug", setting, "--output", str(tmp_path / "run")],
        )
    assert not (tmp_path / "run").exists()


def test_a_data_root_does_not_move_own_folders():
    own = {"type": "PairedFolders", "images": "/a", "maps": "/b"}
    cfg = merged()
    cfg.test_dataloader.dataset = own
    with pytest.raises(ValueError, match=r"--data-root.*/a"):
        set_data_root(cfg, "new")


def test_weights_of_any_program_are_a_state_for_mmengine(tmp_path):
    """Whose hooks read `state_dict` before ours translates names."""
    weights = {"pos_embed": torch.zeros(1, 2, 3)}
    for name, content in (("official", {"model": weights}), ("bare", weights)):
        torch.save(content, tmp_path / f"{name}.pt")
        found = CheckpointLoader.load_checkpoint(str(tmp_path / f"{name}.pt"))
        assert found["state_dict"].keys() == {"pos_embed"}


def test_only_the_config_that_a_record_names_is_of_a_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "other.py").write_text(f"open({str(ran)!r}, 'w')")
    (tmp_path / "mine.py").write_text("name = '{{ fileBasename }}'\n")
    weights = tmp_path / "iter_3.pth"
    weights.write_bytes(b"")
    assert config_of_run(tmp_path) is config_of_run(weights) is None
    with pytest.raises(ValueError, match=r"no config of a run"):
        load_model(weights, None, "cpu", task="segmentation")
    for name in ("../other.py", "none.py"):
        write_record(tmp_path, name)
        assert config_of_run(tmp_path) is None
    write_record(tmp_path, "mine.py")
    assert config_of_run(tmp_path) == config_of_run(weights) == tmp_path / "mine.py"
    assert load_config(tmp_path / "mine.py").name == "{{ fileBasename }}"  # as it was saved
    assert not ran.exists()


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.system('touch RAN')",
        "_base_ = ['other.py']",
        "dict = exec",
        "a = dict(__import__('os').system('touch RAN'))",
        "a = [print for _ in (1,)]",
        "test_pipeline = [dict(type='os.system', command='touch RAN')]",
        "optim_wrapper = dict(constructor='subprocess.Popen')",
        "runner_type = 'subprocess.Popen'",
    ],
)
def test_a_config_in_the_folder_of_a_run_is_data(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved, other = tmp_path / "small.py", tmp_path / "other.py"
    other.write_text("import os; os.system('touch RAN')\n")
    write_record(tmp_path, "small.py")
    saved.write_text("model = dict(type='mmdet.FCOS', out=[-1.0, ('x', None)])\n")
    assert load_config(saved).model.out == [-1.0, ("x", None)]
    saved.write_text(f"{saved.read_text()}{line}\n")
    with pytest.raises(ValueError, match=re.escape(str(saved))):
        load_config(saved)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pkl", b"cos\nsystem\n(S'touch RAN'\ntR."),
        ("w.yaml", b"!!python/object/apply:os.system ['touch RAN']"),
    ],
)
def test_a_file_that_a_config_names_does_not_execute(name, content, tmp_path, monkeypatch):
    """Such as `class_weight` of mmsegmentation's losses."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Exception, match=r"execute|could not determine a constructor"):
        get_class_weight(str(tmp_path / name))
    assert not (tmp_path / "RAN").exists()


def test_every_size_of_a_recipe_follows_the_side_of_its_images():
    cfg = merged()
    set_image_size(cfg, 448)
    sizes = {step.type: step.get("scale", step.get("crop_size"))
             for step in cfg.train_dataloader.dataset.pipeline}  # fmt: skip
    assert (sizes["RandomResize"], sizes["RandomCrop"]) == ((1792, 448), (448, 448))
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1792, 448)
    assert cfg.model.data_preprocessor.size == cfg.model.test_cfg.crop_size == (448, 448)
    assert cfg.model.test_cfg.stride == (256, 256)
    detector = load_config(find_recipe("mmdetection", "coco/cascade_mask_rcnn_eva_g_1280"))
    set_image_size(detector, 320)
    assert detector.model.data_preprocessor.pad_size_divisor == image_side(detector) == 320
    assert detector.test_dataloader.dataset.pipeline[1].scale == (320, 320)
    own = load_config(find_recipe("mmdetection", "custom/cascade_mask_rcnn_eva_small"))
    set_image_size(own, 320)
    assert own.model.backbone.canvas == image_side(own) == 320
    assert own.model.data_preprocessor.pad_size_divisor == 16
    cfg.train_dataloader = cfg.test_dataloader = None
    with pytest.raises(ValueError, match=r"--image-size 448"):
        set_image_size(cfg, 448)


def test_epochs_become_iterations_and_the_warm_up_keeps_its_share(monkeypatch):
    recipe = find_recipe("segmentation", "ade20k/mask2former_eva_g_512_24gb")
    cfg = load_config(recipe)
    monkeypatch.setattr(config.DATASETS, "build", lambda dataset: range(150))
    assert "12 x 150 images" in set_length(cfg, RunRequest(epochs=12))
    assert cfg.train_cfg.max_iters == 1808  # 113 steps of 16
    assert cfg.param_scheduler[0].warmup_iters == round(8000 * 1808 / 80000)


def test_a_config_of_the_framework_counts_epochs(tmp_path):
    """12 of them, of 2 images a step."""
    file = tmp_path / "retina.py"
    file.write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    cfg = load_config(file)
    set_length(cfg, RunRequest(epochs=24, batch=1))
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (24, 1)
    warm_up, steps = cfg.param_scheduler
    assert (steps.milestones, steps.end) == ([16, 22], 24)
    assert warm_up.end == 500 * 2 * 2  # as iterations of half the images, of twice the run
    assert cfg.default_hooks.checkpoint.interval == 1
    assert cfg.optim_wrapper.accumulative_counts == 2


@pytest.mark.parametrize(("processes", "images"), [(2, 2), (1, 8)])
def test_a_run_that_continues_with_other_processes_or_batches_keeps_its_length(
    monkeypatch, tmp_path, processes, images
):
    """An iteration has the images that it had, of 1 x 2 or 8 x 1, and so has a step of 16 x 1."""
    cfg = load_config(find_recipe("segmentation", "ade20k/mask2former_eva_g_512_24gb"))
    cfg.update(work_dir=str(tmp_path), resume=True)
    torch.save(
        {RUN: {"processes": processes, "samples_of_a_batch": images}}, tmp_path / "iter_16.pth"
    )
    monkeypatch.setattr(config.DATASETS, "build", lambda dataset: range(150))
    set_length(cfg, RunRequest(epochs=12, batch=4))
    steps = {2: 57, 8: 113}[images]  # of 32 and 16 images
    assert cfg.train_cfg.max_iters == steps * 16 * processes // images
    assert cfg.optim_wrapper.accumulative_counts == 16 * processes // images
    assert cfg.train_dataloader.batch_size == 4


@pytest.mark.parametrize(
    ("began", "settings", "passes", "accumulate", "iterations"),
    [  # `began`: images of an iteration, configured and with --batch, which is left out now
        ((4, 2), {}, 2, 2, 16),
        ((4, 4), {}, 4, 1, 8),
        ((4, 4), {"optim_wrapper.accumulative_counts": "2"}, 4, 2, 8),  # as in the engine
        ((4, 4), {"train_dataloader.batch_size": "2"}, 2, 1, 8),
        ((2, 4), {"train_dataloader.batch_size": "2", "optim_wrapper.accumulative_counts": "2"},
         2, 1, 4),  # in forward passes of 2
        ((2, 1), {}, 1, 2, 16),
    ],
)  # fmt: skip
def test_a_run_that_continues_keeps_the_images_of_its_iterations(
    tmp_path, began, settings, passes, accumulate, iterations
):
    settings = {"train_dataloader.batch_size": "4", "train_cfg.max_iters": "8"} | settings
    cfg = load_config(find_recipe("segmentation", "demo/upernet_eva_debug"), settings)
    cfg.update(work_dir=str(tmp_path), resume=True)
    place = {"processes": 1, "samples_of_a_batch": began[1], "configured_batch_size": began[0]}
    torch.save({RUN: place}, tmp_path / "iter_2.pth")
    for _ in range(2):  # and with the config that the run has then
        set_length(cfg, RunRequest())
        assert cfg.train_dataloader.batch_size == passes
        assert cfg.optim_wrapper.get("accumulative_counts", 1) == accumulate
        assert cfg.train_cfg.max_iters == iterations
        cfg.dump(tmp_path / "config.py")
        cfg = load_config(tmp_path / "config.py")


def test_the_config_of_a_run_with_batch_is_the_recipe_of_another(tmp_path):
    settings = {"train_dataloader.batch_size": "8", "train_cfg.max_iters": "2"}
    cfg = load_config(find_recipe("segmentation", "demo/upernet_eva_debug"), settings)
    cfg.work_dir = str(tmp_path / "one")
    set_length(cfg, RunRequest(batch=4))
    (tmp_path / "one").mkdir()
    cfg.dump(tmp_path / "one" / "config.py")
    for resume in (False, True):
        cfg = load_config(tmp_path / "one" / "config.py")
        cfg.update(work_dir=str(tmp_path / "two"), resume=resume)
        set_length(cfg, RunRequest(batch=2))
        assert cfg.train_dataloader.batch_size == 2
        assert cfg.optim_wrapper.accumulative_counts == 4
        assert cfg.train_cfg.max_iters == 8
        (tmp_path / "two").mkdir(exist_ok=True)
        place = {"processes": 1, "samples_of_a_batch": 2, "configured_batch_size": 4}
        torch.save({RUN: place}, tmp_path / "two" / "iter_2.pth")


@pytest.mark.parametrize("place", [[], {"processes": 0, "samples_of_a_batch": 2}, {"processes": 1}])
def test_a_damaged_place_in_the_data_is_not_computed_with(monkeypatch, tmp_path, place):
    cfg = load_config(find_recipe("segmentation", "ade20k/mask2former_eva_g_512_24gb"))
    cfg.update(work_dir=str(tmp_path), resume=True)
    torch.save({RUN: place}, tmp_path / "iter_16.pth")
    monkeypatch.setattr(config.DATASETS, "build", lambda dataset: range(150))
    set_length(cfg, RunRequest(epochs=12, batch=4))
    assert cfg.train_dataloader.batch_size == 4


@pytest.mark.parametrize(
    ("task", "recipe"),
    [("segmentation", "custom/upernet_eva_small"), ("mmdetection", "cascade_mask_rcnn_eva_small")],
)
def test_another_backbone_leaves_the_strides_of_the_maps(task, recipe):
    """The small recipes have patches of 8 pixels, other ViTs' have 16."""
    cfg = load_config(find_recipe(task, recipe), {})
    before = [8 / scale for scale in cfg.model.backbone.scale_factors]
    set_backbone(cfg, "eva02_ti14")
    assert [16 / scale for scale in cfg.model.backbone.scale_factors] == before
