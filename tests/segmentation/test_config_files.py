"""Configs are programs in Python alone: data that could name programs are refused."""

import pytest

from eva_segmentation.commands import evaluate, train
from eva_segmentation.inference.predictor import Predictor


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_config_in_another_form_is_refused_and_runs_nothing(suffix, tmp_path, fails):
    mark, file = tmp_path / "mark", tmp_path / f"bad{suffix}"
    file.write_text(f"x: !!python/object/apply:os.mkdir [{mark}]\n")
    assert file.name in fails(train, file, "--work-dir", tmp_path / "run")
    assert file.name in fails(evaluate, file, "eva_debug", "--work-dir", tmp_path / "run")
    with pytest.raises(ValueError, match=file.name):
        Predictor.from_config(file, weights="x.pth")
    assert not mark.exists()
