"""Own folders of images and label maps in a config."""

import argparse
import errno
from unittest.mock import Mock

import pytest
from mmseg.registry import DATASETS
from PIL import Image

from eva_data.label_maps import LabelMapError
from eva_segmentation.data import custom_data


@pytest.fixture
def data(own):
    """What a command line with all flags for `own` names."""
    parser = argparse.ArgumentParser()
    custom_data.add_arguments(parser)
    words = ["--classes", own / "classes.toml"]
    for part in ("train", "val"):
        words += [f"--{part}-images", own / "images", f"--{part}-maps", own / "maps"]
    assert custom_data.check(parser.parse_args([])) is None
    return custom_data.check(parser.parse_args([*map(str, words)]))


def _check(*words, training=True):
    parser = argparse.ArgumentParser()
    custom_data.add_arguments(parser, training=training)
    return custom_data.check(parser.parse_args([*map(str, words)]))


def test_an_evaluation_takes_the_classes_of_the_run_and_writes_nothing(
    load_config, data, own, tmp_path
):
    run = custom_data.apply(load_config("demo/mask2former_eva_debug"), data)
    other = tmp_path / "other"
    for kind in ("images", "maps"):
        (other / kind).mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(other / "images/1.png")
    Image.new("L", (30, 20), 40).save(other / "maps/1.png")
    words = ("--val-images", other / "images", "--val-maps", other / "maps")
    cfg = custom_data.apply(run, _check(*words, training=False))
    assert not (other / "classes.toml").exists()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert dataset.metainfo["classes"] == ["road", "sky"]
    assert dataset.metainfo["labels"] == [7, 40]
    assert {"type": "LoadLabelMap", "labels": [7, 40], "ignore": [0]} in [
        dict(step) for step in cfg.test_dataloader.dataset.pipeline
    ]
    plain = load_config("demo/mask2former_eva_debug")  # of other data
    with pytest.raises(ValueError, match="--classes"):
        custom_data.apply(plain, _check(*words, training=False))


def test_classes_lie_above_the_training_data_where_validation_lies_elsewhere(own, tmp_path_factory):
    words = ["--train-images", own / "images", "--train-maps", own / "maps"]
    far = tmp_path_factory.mktemp("far") / "deep"
    for kind in ("images", "maps"):
        (far / kind).mkdir(parents=True)
        words += [f"--val-{kind}", far / kind]
    assert _check(*words).classes == own / "classes.toml"


@pytest.fixture
def new_data(tmp_path):
    """The flags for two pairs without a class file."""
    words = []
    for kind in ("images", "maps"):
        (tmp_path / kind).mkdir()
        words += [f"--train-{kind}", tmp_path / kind, f"--val-{kind}", tmp_path / kind]
        for number in (0, 1):
            Image.new("L", (30, 20), number).save(tmp_path / kind / f"{number}.png")
    return words


def test_no_class_file_is_written_where_a_map_is_missing(new_data, tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "2.png")
    with pytest.raises(ValueError, match=r"1 of 3 images in .*no label map.*2\.png"):
        _check(*new_data)
    assert not (tmp_path / "classes.toml").exists()


def test_where_the_class_file_cannot_be_written_another_is_asked_for(new_data, monkeypatch):
    read_only = OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr("os.replace", Mock(side_effect=read_only))
    with pytest.raises(ValueError, match=r"classes\.toml cannot be written.*--classes"):
        _check(*new_data)


@pytest.mark.parametrize("name", ["demo/mask2former_eva_debug", "ade20k/mask2former_eva_g_896_20k"])
def test_apply_sets_data_and_classes_everywhere(load_config, data, own, name):
    before = load_config(name)
    text = before.pretty_text
    cfg = custom_data.apply(before, data)
    assert before.pretty_text == text
    assert cfg.model.decode_head.num_classes == 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataset = loader.dataset
        assert (dataset.type, dataset.images) == ("PairedFolders", str(own / "images"))
        assert dataset.metainfo["classes"] == ["road", "sky"]
    assert "LoadAnnotations" not in cfg.pretty_text  # in no pipeline, tta_pipeline included
    assert {"type": "LoadLabelMap", "labels": [7, 40], "ignore": [0]} in [
        dict(step) for step in cfg.train_dataloader.dataset.pipeline
    ]
    assert cfg.train_dataloader.dataset.pipeline[-1].type == "PackSegInputs"


def test_a_map_that_was_not_sampled_stops_the_loader(load_config, data, own):
    cfg = custom_data.apply(load_config("demo/mask2former_eva_debug"), data)
    Image.new("L", (30, 20), 8).save(own / "maps" / "d.png")
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    with pytest.raises(ValueError, match=r"d.png .* 8;"):
        dataset[2]
    Image.new("L", (20, 30), 7).save(own / "maps" / "d.png")
    with pytest.raises(LabelMapError, match=r"d\.jpg .*d\.png"):
        dataset[2]
