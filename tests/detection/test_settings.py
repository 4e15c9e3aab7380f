"""Wrong values on the command line: one sentence with the value, at once, no traceback."""

import copy
import re

import pytest
from fvcore.common.param_scheduler import ConstantParamScheduler, ParamScheduler

from eva_detection.building import build, describe
from eva_detection.config import command_line
from eva_detection.config.parser import make_parser
from eva_detection.config.settings import check_schedule
from eva_detection.training import train as train_module

RECIPE = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"


@pytest.fixture(scope="module")
def recipe(load_config):
    """The recipe, read once."""
    return load_config("demo/cascade_mask_rcnn_vitdet_eva_debug")


@pytest.fixture
def parse(repository, tiny_overrides, recipe, tmp_path, monkeypatch):
    """Function: the parsed command line of a tiny run with more words."""

    cfg = recipe
    monkeypatch.setattr(command_line, "load_config_file", lambda file: copy.deepcopy(cfg))

    def parse_words(*words):
        flags = [word for word in words if "=" not in word]
        values = [word for word in words if "=" in word]
        output = f"train.output_dir={tmp_path / 'run'}"
        recipe = ["--config-file", str(repository / RECIPE)]
        parser = make_parser()
        return parser.parse_args([*recipe, *flags, *tiny_overrides, output, *values])

    return parse_words


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iter=abc", "max_iter='abc' must be an integer from 1"),
        ("train.max_iter=0", "max_iter=0 must be"),
        ("train.max_iter=1.5", "max_iter=1.5 must be"),
        ("train.max_iter=null", "max_iter=None must be"),
        ("train.max_iter=true", "max_iter=True must be"),
        ("train.max_iter=${foo}", "train.max_iter cannot be resolved: .*foo"),
        ("train.max_iter=1,2", "the setting 'train.max_iter=1,2' cannot be applied"),
        ("train.max_iter=[", r"the setting 'train.max_iter=\[' cannot be applied"),
        ("train=5", "train=5: the config needs a section train"),
        ("model=null", "model=None: the config needs a section model"),
        ("optimizer=SGD", "optimizer='SGD': the config needs a section"),
        ("lr_multiplier=3", "lr_multiplier=3: the config needs a section"),
        ("train.amp=7", "train.amp=7 must be a section"),
        ("train.amp.enabled=maybe", "enabled='maybe' must be True or False"),
        ("train.amp.precision=fp8", "precision='fp8' must be one of fp16, bf16, fp32"),
        ("train.accumulate=99999999999", "accumulate=99999999999 must be .* to 4,096"),
        ("train.max_bad_images=1000000000000", "max_bad_images=1000000000000 must be"),
        ("train.seed=abc", "seed='abc' must be"),
        ("train.seed=99999999999999", "seed=99999999999999 must be"),
        ("train.checkpointer.period=0", "period=0 must be"),
        ("train.checkpointer.max_to_keep=0", "max_to_keep=0 must be"),
        ("train.checkpointer=none", "checkpointer='none' must be a section"),
        ("train.checkpointer.foo=1", "unknown setting train.checkpointer.foo"),
        ("train.ddp.foo=1", "unknown setting train.ddp.foo"),
        ("train.eval_period=-1", "eval_period=-1 must be"),
        ("train.log_period=0", "log_period=0 must be"),
        ("train.progress_bar=7", "progress_bar=7 must be True or False"),
        ("train.device=gpu", "train.device='gpu' cannot be used"),
        ("train.device=cuda:99", "train.device='cuda:99' cannot be used"),
        ("train.device=meta", "holds no values"),
        ("train.device=null", "train.device=None cannot be used"),
        ("train.output_dir=", "train.output_dir is empty"),
        ("train.output_dir=3", "train.output_dir=3 must be a path"),
        ("train.output_dir=s3://a/b", "must be a local path"),
        ("train.init_checkpoint=5", "init_checkpoint=5 must be a path"),
        ("train.init_checkpoint=https://a/b.pth", "must be a local path or hf://ORG"),
        ("train.init_checkpoint=hf://a", "hf://a"),
        ("dataloader.train=7", "cannot be resolved"),
        ("dataloader.train.total_batch_size=two", "total_batch_size='two' must be"),
        ("dataloader.train.num_workers=1000000", "num_workers=1000000 must be"),
        ("dataloader.test.num_workers=-1", "num_workers=-1 must be"),
        ("dataloader.train.mapper.image_format=XYZ", "image_format='XYZ' must be one of RGB"),
        ("optimizer.lr=abc", "optimizer.lr='abc' must be a finite number, positive"),
        ("optimizer.lr=nan", "optimizer.lr=nan must be"),
        ("optimizer.lr=-1", "optimizer.lr=-1 must be"),
        ("optimizer.weight_decay=-3", "weight_decay=-3 must be a finite number, not negative"),
        ("optimizer._target_=torch.optim.Foo", "optimizer: .*torch.optim.Foo"),
        ("lr_multiplier.warmup_length=3", "warmup_length=3 must be at most 1"),
        ("model.roi_heads=null", "model.roi_heads=None: the detector needs heads"),
        ("model.roi_heads.num_classes=0", "num_classes=0 must be"),
        ("model.backbone.square_pad=abc", "square_pad='abc' must be"),
    ],
)
def test_a_wrong_setting_is_one_sentence(parse, override, message):
    with pytest.raises(ValueError, match=message) as error:
        command_line.load_config(parse(override))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-gpus", "0"), "--num-gpus 0 must be at least 1"),
        (("--num-machines", "0"), "--num-machines 0 must be at least 1"),
        (("--machine-rank", "5"), "--machine-rank 5 must be below --num-machines 1"),
        (("--num-machines", "2", "--dist-url", "auto"), "--dist-url auto is for one machine"),
        (("--num-gpus", "3"), "must be a positive multiple of the 3 processes"),
    ],
)
def test_wrong_numbers_of_processes(parse, flags, message):
    with pytest.raises(ValueError, match=message):
        command_line.load_config(parse(*flags))


def test_an_evaluation_needs_no_settings_of_training(parse):
    cfg, _ = command_line.load_config(parse("--eval-only", "--num-gpus", "3", "train.max_iter=0"))
    assert cfg.train.max_iter == 0


@pytest.fixture
def run(parse, registered_demo_data, own_logging, monkeypatch, capfd):
    """Function: a run in this process, which must end; returns its sentence."""
    monkeypatch.setattr(train_module, "evaluate", lambda test_set, model, **_: {})

    def end(*words):
        with pytest.raises(SystemExit) as stopped:
            train_module.run(parse(*words))
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return str(stopped.value.code)

    return end


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.betas=5", "optimizer cannot be built: TypeError"),
        ("lr_multiplier.scheduler=5", "lr_multiplier cannot be built: TypeError"),
        ("model.backbone.net.depth=abc", "model cannot be built: TypeError"),
        ("model.pixel_mean=[1]", "model cannot be built: AssertionError"),
        ("dataloader.train.dataset.names=none", "dataloader.train.dataset cannot be built: KeyE"),
    ],
)
def test_what_cannot_be_built_is_one_sentence_and_a_traceback_in_the_log(
    run, tmp_path, override, message
):
    sentence = run(override)
    assert sentence.startswith("train_net.py: ")
    assert "\n" not in sentence
    assert re.search(message, sentence), sentence
    assert f"(log: {tmp_path / 'run' / 'log.txt'})" in sentence
    assert "Traceback (most recent call last)" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataloader.test.dataset.names=coco_2017_val", "instances_val2017.json: No such file"),
        ("dataloader.evaluator.tasks=[foo]", "dataloader.evaluator cannot be built: unknown tasks"),
        ("model.roi_heads.num_classes=3", "has an object of class .*num_classes=3: set that to"),
    ],
)
def test_what_is_refused_is_one_sentence_and_leaves_nothing(run, tmp_path, override, message):
    sentence = run(override)
    assert re.fullmatch(rf"train_net.py: .*{message}.*", sentence), sentence
    assert not (tmp_path / "run").exists()


class Failing(ParamScheduler):
    """Fails at the end."""

    def __call__(self, where):
        return [1.0][int(where > 0.95)]


def test_a_schedule_is_tried_up_to_its_end():
    check_schedule(ConstantParamScheduler(0.5), 7)
    with pytest.raises(ValueError, match=r"fails at iteration 9\d: IndexError"):
        check_schedule(Failing(), 100)
    with pytest.raises(ValueError, match="is nan at iteration 0"):
        check_schedule(ConstantParamScheduler(float("nan")), 7)
    with pytest.raises(ValueError, match="is int and not a ParamScheduler"):
        check_schedule(3, 7)


def test_messages_are_one_line():
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert describe(AssertionError()) == "AssertionError"
    assert describe(FileNotFoundError(2, "No such file", "a.json")) == "a.json: No such file"
    assert len(describe(ValueError("word " * 1000))) <= 600
    worker = (
        "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback ...\nKeyError: 'x'"
    )
    assert describe(RuntimeError(worker)) == "KeyError: 'x'"
    with pytest.raises(ValueError, match="a part cannot be built: ZeroDivisionError"):
        build(0, "a part", lambda value: 1 / value)
