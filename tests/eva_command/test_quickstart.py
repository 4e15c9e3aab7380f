"""`eva quickstart TASK`: its steps are commands that exist; one that fails is the last."""

import pytest

from eva_command import quickstart
from eva_command.table import COMMANDS
from eva_demo import command as make_demo
from eva_runs.recipes import find_recipe


@pytest.fixture
def steps(monkeypatch):
    """The words of the steps that are run, and the code that each ends with."""
    ran, codes = [], {}

    def run(command, **_):
        ran.append(command[3:])
        return codes.get(command[4], 0)

    monkeypatch.setattr(quickstart, "run_step", run)
    return ran, codes


@pytest.mark.parametrize("task", quickstart.RECIPES)
def test_data_and_training_belong_together(steps, task, tmp_path):
    ran, _ = steps
    assert quickstart.main([task, "--output", str(tmp_path / "a run"), "--more", "1"]) == 0
    data, train = ran[:2]
    assert data[:2] == ["data", "make-demo"]
    folder = make_demo.parse(data[2:]).output.as_posix()
    assert train[:2] == [task, "train"]
    assert f"{task} train" in COMMANDS
    recipe = find_recipe(task, train[2])
    texts = [
        recipe.read_text(),
        *(file.read_text() for file in recipe.parent.parent.glob("_base_/*.py")),
    ]
    assert task == "detection" or any(folder in text for text in texts)
    assert any(word.endswith(str(tmp_path / "a run")) for word in train)
    assert train[-2:] == ["--more", "1"]
    shows = [task] if quickstart.RECIPES[task].afterwards else []
    assert [words[0] for words in ran[2:]] == shows
    assert not any("{" in word for words in ran for word in words)


def test_a_step_that_fails_is_the_last(steps):
    ran, codes = steps
    codes["train"] = 75
    assert quickstart.main(["clip"]) == 75
    assert [words[1] for words in ran] == ["make-demo", "train"]
