"""Own data of mixed sizes from the first command to overlays, and maps that are not right."""

import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from eva_segmentation.data.classes import read_class_file
from eva_segmentation.evaluation import evaluate
from eva_segmentation.inference import demo
from eva_segmentation.training import train

SIZES = {"a": (32, 32), "sub/a": (40, 48), "b": (64, 32)}  # height, width
LABELS = (7, 40, 200)
CLASSES = "ignore = [0]\n" + "".join(
    f'[[classes]]\nname = "class {label}"\nlabel = {label}\n' for label in LABELS
)
MAPS = ["a.png", "b.png", "sub/a.png"]


@pytest.fixture(scope="module")
def own(tmp_path_factory, write_pairs, tiny):
    """Folders `images` and `maps`, `classes.toml` and a config that validates two at once."""
    root = tmp_path_factory.mktemp("own")
    write_pairs(root / "images", root / "maps", SIZES, (0, *LABELS))
    (root / "classes.toml").write_text(CLASSES)
    cfg = tiny()
    assert cfg.val_dataloader.batch_size > 1
    cfg.dump(root / "tiny.py")
    return root


@pytest.fixture(scope="module")
def flags(own):
    """The flags of training."""
    places = ("images", own / "images", "maps", own / "maps")
    train_part, val_part = (
        [f"--{part}-{item}" if isinstance(item, str) else item for item in places]
        for part in ("train", "val")
    )
    return [*train_part, *val_part, "--classes", own / "classes.toml"]


@pytest.fixture(scope="module")
def run(own, flags, launch):
    """Work folder; its `tiny.py` is all that the other programs need."""
    launch(train, own / "tiny.py", "--work-dir", own / "run", *flags)
    return own / "run"


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def read(path):
    with Image.open(path) as stored:
        return np.asarray(stored)


def test_pictures_of_mixed_sizes_are_validated_in_training(run, scalars):
    log = scalars(run)
    assert sum("loss" in entry for entry in log) == 3
    assert sum("mIoU" in entry for entry in log) == 1
    for name in ("val_dataloader", "test_dataloader"):
        assert Config.fromfile(run / "tiny.py")[name].batch_size == 1


@pytest.fixture(scope="module")
def evaluated(own, run, launch):
    """Three evaluations by the saved config: `plain`, `saved` with maps, `tta` with maps too."""
    before = (run / "tiny.py").read_bytes()
    command = [evaluate, run / "tiny.py", run / "iter_3.pth", "--work-dir"]
    launch(*command, own / "plain")
    launch(*command, own / "saved", "--out", own / "out", "--show-dir", own / "shown")
    launch(*command, own / "tta", "--tta", "--out", own / "out_tta")
    assert (run / "tiny.py").read_bytes() == before
    return own


def test_a_label_map_for_each_picture_with_the_labels_of_the_data_set(evaluated):
    for folder in (evaluated / "out", evaluated / "out_tta"):
        assert files_below(folder) == MAPS
        for name in MAPS:
            values = read(folder / name)
            assert values.shape == SIZES[name.removesuffix(".png")]
            assert set(np.unique(values)) <= set(LABELS)


def test_maps_do_not_change_the_score(evaluated):
    scores = {}
    for name in ("plain", "saved", "tta"):
        (file,) = (evaluated / name).glob("*/*.json")
        scores[name] = {
            key: value
            for key, value in json.loads(file.read_text()).items()
            if key in ("mIoU", "mAcc", "aAcc")
        }
        assert len(scores[name]) == 3
    assert scores["plain"] == scores["saved"]


def test_pictures_with_predictions_are_saved(evaluated):
    shown = list((evaluated / "shown").rglob("*.png"))
    assert len(shown) == len(SIZES)
    assert read(shown[0]).ndim == 3


def test_the_demo_writes_the_same_maps_by_the_saved_config(evaluated, run, launch, tmp_path):
    arguments = ["--device", "cpu", "--output", tmp_path]
    launch(demo, run / "tiny.py", run / "iter_3.pth", evaluated / "images", *arguments)
    assert files_below(tmp_path / "labels") == ["a.png", "b.png", "sub/a.png"]
    assert files_below(tmp_path / "overlays") == ["a.jpg", "b.jpg", "sub/a.jpg"]
    for name in MAPS:
        ours = read(tmp_path / "labels" / name.replace(".jpg", ""))
        np.testing.assert_array_equal(ours, read(evaluated / "out" / name))
    assert read(tmp_path / "overlays" / "a.jpg").shape[1] > 32  # with a legend


@pytest.mark.parametrize("workers", [0, 1])
def test_a_map_of_another_size_stops_a_run_with_one_sentence(
    workers, run, write_pairs, launch, monkeypatch, tmp_path
):
    """The saved config is started again: nothing looks at a sample of the files before."""
    write_pairs(tmp_path / "images", tmp_path / "maps", {"x": (32, 32)}, LABELS)
    Image.new("L", (32, 40), LABELS[0]).save(tmp_path / "maps" / "x.png")
    cfg = Config.fromfile(run / "tiny.py")
    loader = cfg.train_dataloader
    loader.num_workers = workers
    loader.dataset.update(images=str(tmp_path / "images"), maps=str(tmp_path / "maps"))
    cfg.dump(tmp_path / "other.py")
    # torch would wait 5 seconds for the end of the process that loads
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    message = (
        r"train\.py: \S*maps/x\.png is \(40, 32\) \(height, width\) and its picture "
        r"\S*images/x\.jpg \(32, 32\): they must be equal"
    )
    with pytest.raises(SystemExit, match=message) as stop:
        launch(train, tmp_path / "other.py", "--work-dir", tmp_path / "run")
    assert len(str(stop.value).splitlines()) == 1
    del stop
    gc.collect()


def test_an_unknown_label_stops_an_evaluation_with_one_sentence(run, write_pairs, launch, tmp_path):
    write_pairs(tmp_path / "images", tmp_path / "maps", {"x": (32, 32)}, (7, 8))
    cfg = Config.fromfile(run / "tiny.py")
    cfg.test_dataloader.dataset.update(images=str(tmp_path / "images"), maps=str(tmp_path / "maps"))
    cfg.dump(tmp_path / "other.py")
    with pytest.raises(SystemExit, match=r"test\.py: \S*x\.png has labels that .* ignored: 8;"):
        launch(evaluate, tmp_path / "other.py", run / "iter_3.pth", "--work-dir", tmp_path / "run")


def test_a_root_of_other_data_beside_own_data_is_refused(own, flags, launch, tmp_path):
    place = ("--work-dir", tmp_path / "run", "--data-root", tmp_path)
    with pytest.raises(SystemExit, match=r"--data-root .* has no use beside folders of your own"):
        launch(train, own / "tiny.py", *place, *flags)
    assert not (tmp_path / "run").exists()


def test_the_classes_of_the_file_are_those_of_the_saved_config(own, run):
    classes = read_class_file(own / "classes.toml")
    saved = SimpleNamespace(**Config.fromfile(run / "tiny.py").test_dataloader.dataset.metainfo)
    assert tuple(saved.classes) == classes.names
    assert tuple(saved.labels) == classes.labels == LABELS
