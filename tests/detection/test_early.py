"""Mistakes on a command line are answered before torch and detectron2 are imported."""

import contextlib
import subprocess
import sys

import pytest
from detectron2.data import MetadataCatalog

from eva_detection.config import early
from eva_detection.config.early import check_early
from eva_detection.config.parser import make_parser
from eva_detection.data import places

DEMO = "demo/cascade_mask_rcnn_vitdet_eva_debug"
WEIGHTS = "train.init_checkpoint=sets/digit_scenes/coco/annotations/instances_val.json"  # a file
HEAVY = ("torch", "detectron2", "omegaconf", "hydra", "cv2")


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Function: check a command line in an empty folder, where no data and no weights are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVA_NO_DOWNLOAD", "1")
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))

    def check_words(*words):
        check_early(make_parser().parse_args(words))

    return check_words


@pytest.fixture
def with_data(check, tmp_path):
    """As `check`, with files of the demo data."""
    for images, annotations in places.COCO_STYLE.values():
        (tmp_path / "sets" / images).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sets" / annotations).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sets" / annotations).touch()
    return check


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name a recipe, such as demo/"),
        (("demo/cascade_mask_rcnn_vitdet_eva_debgu",), "there is no recipe .* close to it: demo/"),
        (
            (DEMO, "train.max_itre=3"),
            "unknown setting 'train.max_itre'.* close to it: train.max_iter",
        ),
        ((DEMO, "dataloder.train=3"), "unknown setting .* close to it: dataloader"),
        ((DEMO, "train.amp.enable=3"), "unknown setting .* close to it: train.amp.enabled"),
        (
            (DEMO, "model.backbone.net.drop_path_rat=0.1"),
            "unknown setting model.backbone.net.drop_path_rat: VisionTransformer takes no "
            "'drop_path_rat'; close to it: drop_path_rate",
        ),
        ((DEMO, "model.backbon.net.depth=3"), "setting model.backbon: .* close to it: backbone"),
        ((DEMO, "optimizer.lrr=1"), "optimizer.lrr: ClippedAdamW takes no 'lrr'; close to it: lr"),
        ((DEMO, "dataloader.train.total_batch_siz=1"), "close to it: total_batch_size"),
        ((DEMO, "dataloader.train.foo=1"), "takes no 'foo'; known: dataset, mapper, sampler, "),
        ((DEMO, "train.checkpointer.perod=3"), "nothing reads it; close to it: .*period"),
        ((DEMO, "train.ddp.fp16=3"), "nothing reads it; known: .*fp16_compression"),
        ((DEMO, "train.max_iter=abc"), "train.max_iter='abc' must be an integer from 1 to"),
        ((DEMO, "train.max_iter=1.5"), "train.max_iter=1.5 must be an integer"),
        ((DEMO, "train.seed=10k"), "train.seed='10k' must be an integer"),
        ((DEMO, "optimizer.lr=-1e-3"), "optimizer.lr=-0.001 must be a finite number, positive"),
        ((DEMO, "train.amp.enabled=maybe"), "'maybe' must be True or False"),
        ((DEMO, "train.amp.precision=fp8"), "'fp8' must be one of fp16, bf16, fp32"),
        (
            ("--eval-only", DEMO, "dataloader.test.num_workers=two"),
            "dataloader.test.num_workers='two' must be an integer",
        ),
        ((DEMO, "--data", "nowhere"), "nowhere"),
        ((DEMO, "--val-images", "x"), "--train-annotations, .* missing: name"),
    ],
)
def test_recipes_settings_and_flags(check, words, sentence):
    with pytest.raises((ValueError, OSError), match=sentence) as error:
        check(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [None, "train.output_dir=mine"])
def test_a_run_on_own_data_has_a_folder_of_its_own(check, monkeypatch, given):
    monkeypatch.setattr(early, "read_own_data", lambda args: None)
    parsed = make_parser().parse_args([DEMO, "--data", "coins/data.yaml", *([given] * bool(given))])
    with contextlib.suppress(OSError, ValueError):
        check_early(parsed)
    assert parsed.opts == [given or "train.output_dir=./output/coins_eva_debug"]


@pytest.mark.parametrize(
    "words",
    [
        ("model._target_=my.Detector", "model.my_own=3"),
        ("model.backbone={}", "model.backbone.anything=1"),
        ("~train.seed", "train.max_iter=abc"),
        ("train.max_iter=abc", "train.max_iter=3"),
        ("train.max_iter=${dataloader.train.num_workers}",),
        ("model.roi_heads.box_heads.0.conv_norm=BN",),
        ("model.backbone.net.depth=3", "+model.roi_heads.maskness_thresh=0.5"),
        ("--eval-only", "train.max_iter=abc", "optimizer.no=3", WEIGHTS),  # neither is read
    ],
)
def test_what_may_work_is_left_to_the_config(with_data, words):
    with_data(DEMO, *words)


@pytest.mark.parametrize(
    ("recipe", "file", "remedy"),
    [
        (DEMO, "digit_scenes/.*train.json", "make_demo_data.py --output .*sets/digit_scenes$"),
        (
            "coco/cascade_mask_rcnn_vitdet_eva_l_1280",
            "coco/.*2017.json",
            "that holds coco,",
        ),
        ("lvis/cascade_mask_rcnn_vitdet_eva_l_1280", "lvis/lvis_v1_train.json", "that holds lvis,"),
    ],
)
def test_missing_data_names_the_variable_and_the_remedy(check, tmp_path, recipe, file, remedy):
    stated = rf"looked for {tmp_path}/sets/{file} \(DETECTRON2_DATASETS is {tmp_path}/sets\)"
    with pytest.raises(FileNotFoundError, match=rf"{stated}; .*{remedy}"):
        check(recipe)


def test_without_the_variable(check, tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS")
    with pytest.raises(FileNotFoundError, match=rf"is not set, so it is {tmp_path}/datasets\)"):
        check(DEMO)


def test_places_are_detectron2s():
    root = "/".join(MetadataCatalog.get("coco_2017_val").json_file.split("/")[:-3])
    for name, (images, annotations) in places.BUILTIN.items():
        entry = MetadataCatalog.get(name)
        assert (entry.json_file, entry.image_root.rstrip("/")) == (
            f"{root}/{annotations}",
            f"{root}/{images}",
        )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train.init_checkpoint=no/file.pth",), "there is no file 'no/file.pth'"),
        (("train.init_checkpoint=eva_debgu",), "Close matches: eva_debug"),
        (("train.init_checkpoint=eva_coco_det.pth",), "eva_coco_det.pth .* not on this machine"),
        (("train.init_checkpoint=sets",), "is a folder without weights of a run"),
        (("--eval-only", "train.init_checkpoint="), "evaluation needs weights"),
        (("--eval-only", "train.init_checkpoint=eva_debug"), "eva_debug holds a backbone .*train"),
        (("--eval-only", "train.init_checkpoint=eva_psz14to16.pt"), "holds a backbone .*train"),
        (("train.output_dir=used",), "used has a run that reached model_0000004.pth: continue"),
    ],
)
def test_weights_and_the_folder(with_data, tmp_path, words, sentence):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "last_checkpoint").write_text("model_0000004.pth")
    (tmp_path / "used" / "model_0000004.pth").touch()
    with_data(DEMO)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        with_data(DEMO, *words)
    with_data(DEMO, "train.output_dir=used", "--resume", "train.init_checkpoint=no/file.pth")


def test_nothing_heavy_is_imported():
    script = (
        "import sys; from eva_detection.training.command import main\n"
        f"try: main(['{DEMO}', 'train.init_checkpoint=no/file.pth', 'train.output_dir=no'])\n"
        "except SystemExit as end: print(end.code)\n"
        f"sys.exit(' '.join(set({HEAVY}) & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("train_net.py: the data set digit_scenes_train is not there")
