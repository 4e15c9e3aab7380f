"""What own pairs on the command line leave out of a recipe: its classes, sentences and metric."""

import pytest

from eva_contrastive.commands import without_other_classes
from eva_contrastive.config import ContrastiveConfig
from eva_engine.commands.training import parse

DEMO = "output/datasets/digit_captions/captions"
SHARE = ("--data.val-share", "0.1")
OWN = ("--data.train", "pairs.csv")


@pytest.fixture
def adapted(tmp_path, monkeypatch):
    """Function: config of the debug recipe with words, the sentence on it; the demo is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEMO / "zero_shot").mkdir(parents=True)

    def read(*words):
        found = parse(
            ContrastiveConfig, ["eva_debug_captions", *words], program="clip/train.py",
            adapt=without_other_classes,
        )  # fmt: skip
        return found.config, found.changes

    return read


def test_own_pairs_do_without_the_digits(adapted):
    config, said = adapted(*OWN, *SHARE)
    data = config.data
    assert (data.zero_shot, data.val) == ("", "")
    assert config.run.best_metric == "image_to_text_r1"
    assert f"data.zero_shot={DEMO}/zero_shot" in said
    assert "image_to_text_r1" in said
    config, said = adapted(*OWN, "data.val=")
    assert config.run.best_metric == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*OWN, *SHARE, "data.zero_shot=mine"), ("mine", "top1")),
        ((*OWN, *SHARE, "run.best_metric=top5"), (f"{DEMO}/zero_shot", "top5")),
        ((*OWN, *SHARE, "run.best_metric=loss"), ("", "loss")),
        ((*OWN, *SHARE, "data.templates=a {}"), (f"{DEMO}/zero_shot", "top1")),
        (SHARE, (f"{DEMO}/zero_shot", "top1")),
    ],
)
def test_what_the_user_says_stays(adapted, words, expected):
    config, _ = adapted(*words)
    assert (config.data.zero_shot, config.run.best_metric) == expected
