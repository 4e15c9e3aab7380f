"""Data that is not there is one sentence."""

import pytest

from eva_runs.required_data import require_data


def test_what_is_there_or_cannot_be_looked_for(tmp_path):
    (tmp_path / "list.json").touch()
    (tmp_path / "a{b.tar").touch()
    for location in ("", "/list.json", "/list.json#train", "/{0..9}.tar", "/*.tar", "/a{b.tar"):
        require_data(f"{tmp_path}{location}", name="data.train")
    require_data("hf:name:train", name="data.train")


def test_demo_data_names_its_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["video/train.py"])
    with pytest.raises(ValueError, match=r"data.train: there is no a/digit_motion/video") as found:
        require_data("a/digit_motion/video", name="data.train")
    assert str(found.value).endswith(
        "this makes it: python tools/make_demo_data.py --output a/digit_motion --formats video "
        "--train 4000 --val 400"
    )


def test_other_data_names_its_forms(tmp_path):
    with pytest.raises(ValueError, match=r"--data: there is no .*/none; name a folder of photos"):
        require_data(f"{tmp_path}/none/{{0..9}}.tar", name="--data", forms="a folder of photos")
