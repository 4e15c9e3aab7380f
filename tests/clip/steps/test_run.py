"""Runs of a small CLIP through the engine's loop: killed and continued, limits, locked towers."""

import pytest
from safetensors.torch import load_file

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.step import ContrastiveStep, build_loss, freeze, limits, parameter_groups
from eva_engine.config import OptimizerConfig, RunConfig, as_plain
from eva_engine.loop import TrainingRun


class Killed(BaseException):
    """Ends a run as SIGKILL would: nothing here may catch it."""


@pytest.fixture
def start(small_clip, device, tmp_path):
    """Function: train to the end, with what a recipe says of towers, optimizer and loss."""

    def run(output, *, kill_at=None, loss="contrastive", optimizer="adamw", **changes):
        settings = {"epochs": 2, "batch_size": 4, "accumulate": 2, "workers": 0, "resume": True,
                    "tensorboard": False, "checkpoint_every": 3, "ema_decay": 0.5}  # fmt: skip
        model = small_clip.make_clip(
            sigmoid=loss == "sigmoid", patch_dropout=0.5, drop_path_rate=0.3
        )
        config = ContrastiveConfig(
            model=ModelConfig(variant="eva_debug", text="debug", image_size=32),
            data=DataConfig(train="pairs.csv"),
            loss=loss,
            vision=changes.pop("vision", TowerConfig(lr=3e-3, layer_decay=0.8)),
            text=TowerConfig(lr=1e-3, weight_decay=0.2),
            optimizer=OptimizerConfig(name=optimizer, lr=1e-2, warmup_epochs=0.5, clip_grad=5.0),
            run=RunConfig(output=tmp_path / output, **settings | changes.pop("run", {})),
            **changes,
        )
        freeze(config, model)
        step_fn = ContrastiveStep(build_loss(loss))
        calls = 0

        class Killing:
            """In the middle of a step, after features were cached."""

            begin = step_fn.begin

            def __call__(self, *arguments):
                nonlocal calls
                calls += 1
                if calls == kill_at:
                    raise Killed
                return step_fn(*arguments)

        TrainingRun(
            model=model,
            samples=small_clip.Pairs(32),
            step_fn=step_fn if kill_at is None else Killing(),
            run=config.run,
            optimizer=config.optimizer,
            config=as_plain(config),
            groups=parameter_groups(config, model),
            device=device,
            limits=limits(config),
        ).start()
        return model

    return run


def weights(folder, kind="model", step=8):
    return load_file(folder / f"checkpoints/step_{step:08d}/{kind}.safetensors")


@pytest.mark.parametrize(("loss", "optimizer", "precision"), [
    ("contrastive", "adamw", "fp32"), ("sigmoid", "lamb", "bf16"),
])  # fmt: skip
def test_killed_and_continued(start, metrics, tmp_path, loss, optimizer, precision):
    """In the second micro-batch of step 5; patches and blocks are left out at random."""
    settings = {"loss": loss, "optimizer": optimizer, "run": {"precision": precision}}
    start("complete", **settings)
    with pytest.raises(Killed):
        start("killed", kill_at=10, **settings)
    assert not (tmp_path / "killed/checkpoints/step_00000006").exists()
    start("killed", **settings)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "complete")
    for kind in ("model", "model_ema"):
        one, other = (weights(tmp_path / name, kind) for name in ("complete", "killed"))
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)


def test_lines_of_the_log(start, metrics, tmp_path):
    start("run")
    lines = metrics(tmp_path / "run")
    assert len(lines) == 8
    for line in lines:
        assert {
            "loss",
            "logit_scale",
            "image_to_text_accuracy",
            "text_to_image_accuracy",
        } <= line.keys()
        assert 0 <= line["image_to_text_accuracy"] <= 1
    assert lines[0]["logit_scale"] == pytest.approx(1 / 0.07)


def test_the_logit_scale_stays_below_its_largest(start, metrics, tmp_path):
    """It begins above, and is at its limit after the first step, in weights and their average."""
    start("run", max_logit_scale=9.0)
    lines = metrics(tmp_path / "run")
    assert [line["logit_scale"] <= 9.0001 for line in lines] == [False, *[True] * 7]
    assert weights(tmp_path / "run", step=3)["text.logit_scale"].exp() <= 9.0001


def test_a_locked_tower_stays_as_it_is(start, small_clip, tmp_path):
    first = small_clip.make_clip().state_dict()
    start("run", vision=TowerConfig(lr=1e-3, locked=True))
    last = weights(tmp_path / "run")
    changed = {name for name, value in last.items() if not value.equal(first[name])}
    assert changed == {name for name in last if name.startswith("text.")}
