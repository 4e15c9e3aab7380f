"""Configs are data where they can be, and names in them stay names."""

import json

import pytest

from eva_openmmlab.config import load_config
from eva_segmentation.commands import evaluate, train
from eva_segmentation.inference.predictor import Predictor

HARMFUL = "x: !!python/object/apply:os.mkdir [{place}]\n"


def test_yaml_runs_nothing(tmp_path, fails, tiny_run):
    place, file = tmp_path / "harm", tmp_path / "bad.yaml"
    file.write_text(HARMFUL.format(place=place))
    assert "bad.yaml" in fails(train, file, "--work-dir", tmp_path / "run")
    assert "bad.yaml" in fails(evaluate, file, "eva_debug", "--work-dir", tmp_path / "run")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        Predictor.from_config(file, weights="x.pth")
    assert not place.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"head": [{"type": "mmengine.fileio.load", "file": "harm.pkl"}]}},
        {"custom_imports": {"imports": "harm"}},
        {"_base_": "harm.py"},
        {"runner_type": "os.system"},
    ],
)
def test_data_that_name_programs_are_refused(content, tmp_path):
    (tmp_path / "harm.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for suffix in (".json", ".yaml"):
        file = tmp_path / f"bad{suffix}"
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="bad"):
            load_config(file)
    assert not (tmp_path / "ran").exists()
