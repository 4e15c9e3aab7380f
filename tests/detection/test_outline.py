"""What a recipe sets, read off its text."""

import pytest

from eva_detection.config.outline import UNKNOWN, find, read_outline, with_overrides

PARENT = """
from os import path
def helper(): ...
train = dict(seed=1, amp=dict(enabled=True), device="cuda" if path else "cpu")
data = dict(train=dict(names="a"), **{})
left = dict(x=1)
"""
CHILD = """
from .parent import train as _train, train, data, left
size, other = 3, train
train.amp.update(enabled=False, precision="bf16")
train["steps"] = -5
del train.seed
helper(left)
model = L(Class)(size=size, name="${train.steps}")
"""


@pytest.fixture
def outline(tmp_path):
    """The outline of a recipe with a parent."""
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "child.py").write_text(CHILD)
    return read_outline(tmp_path / "child.py")


def test_statements_are_followed(outline):
    assert outline["train"] == {
        "amp": {"enabled": False, "precision": "bf16"},
        "device": UNKNOWN,
        "steps": -5,
    }
    assert find(outline, "model.size") == 3
    assert find(outline, "model.nothing") is None


def test_what_is_not_plain_is_unknown(outline):
    assert find(outline, "data") is find(outline, "data.train.names") is UNKNOWN
    assert find(outline, "left") is UNKNOWN, "a function of another kind may have changed it"
    assert find(outline, "model.name") is UNKNOWN, "it refers to another value"


def test_settings_of_the_command_line(outline):
    changed = with_overrides(outline, ["train.steps=7", "+new.deep='x'", "train.amp=[1]", "~left"])
    assert find(changed, "train.steps") == "7"
    assert find(changed, "new.deep") == "x"
    assert find(changed, "train.amp.enabled") is UNKNOWN
    assert find(outline, "train.steps") == -5


@pytest.mark.parametrize(
    "text", ["for x in y:\n  train = x", "from .a import *", "x[y] = 1", "train = ("]
)
def test_other_recipes_are_left_alone(tmp_path, text):
    (tmp_path / "a.py").write_text("")
    (tmp_path / "recipe.py").write_text(text)
    with pytest.raises(ValueError, match=r"plain|computed|imports \*"):
        read_outline(tmp_path / "recipe.py")


def test_a_saved_config(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("train: {seed: 3, f: !!python/name:os.system ''}\nt: !!python/tuple [1]\n")
    assert read_outline(file) == {"train": {"seed": 3, "f": UNKNOWN}, "t": UNKNOWN}
    file.write_text("train: [")
    with pytest.raises(ValueError, match="not plain"):
        read_outline(file)
