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


CONFIG = """
from detectron2.config import LazyCall as L
from own import Head, Own, change
model = L(Own)(head=L(Head)(size=1))
train = dict(seed=1)
"""


@pytest.mark.parametrize(
    "text",
    [
        "part = model.head\nchange(part)",
        "part = model.head\nother = change(part)",
        "part = model.head\npart.update({'_target_': Own})",
        "parts = [model.head]\nparts[0]._target_ = Own",
        "parts = (model.head,)\nchange(*parts)",
        "parts = [change(one) for one in [model.head]]",
        "def own():\n    model.head._target_ = Own\nown()",
    ],
)
def test_what_is_changed_under_another_name_is_unknown(tmp_path, text):
    """Else an argument that the class of a user takes would be refused."""
    (tmp_path / "recipe.py").write_text(CONFIG + text)
    outline = read_outline(tmp_path / "recipe.py")
    assert find(outline, "model.head._target_") is find(outline, "model.head.size") is UNKNOWN
    assert find(outline, "train.seed") == 1


def test_a_part_that_is_put_elsewhere_too_is_a_copy(tmp_path):
    text = f"{CONFIG}other = L(Own)(head=model.head)\nother.head.size = 2\nother.foot = other.head"
    (tmp_path / "recipe.py").write_text(f"{text}\nother.foot.size = 3")
    outline = read_outline(tmp_path / "recipe.py")
    sizes = [find(outline, f"{name}.size") for name in ("model.head", "other.head", "other.foot")]
    assert sizes == [1, 2, 3]
