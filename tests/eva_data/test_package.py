"""What the modules of `eva_data` load: numpy, Pillow and torch, and all else where it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import eva_data

MODULES = {  # what a group may load -> its modules
    (): (
        *(
            "checks.command",
            "checks.manifests",
            "command_line.any_order",
            "command_line.parsing",
            "command_line.slips",
            "command_line.steps",
            "command_line.weights",
            "commands",
            "extras",
            "files",
            "inputs",
        ),
        *("interruption", "options", "pools", "progress", "recipes", "suffixes", "terminal"),
        *("outputs.folders", "outputs.run_folder", "outputs.run_sentences"),
        "outputs.secrets",
        *("demos.classes", "demos.found", "demos.required_data"),
        *("reports.machine", "reports.provenance", "reports.style"),
        *("object_data.coco_exports", "object_data.content", "object_data.yaml_files"),
    ),
    ("numpy",): (
        *("checks.guessing", "coco.results", "demos.shares", "holdout", "video.array_video"),
        *("object_data.forms", "object_data.voc_files", "object_data.voc_sets"),
        *("object_data.yolo_labels", "object_data.yolo_sets", "sources.names"),
        *("drawing.masks", "drawing.style"),
    ),
    ("numpy", "PIL"): (
        *("checks.findings", "checks.pictures", "checks.picture_folders", "kinetics.classes"),
        *("drawing.class_strip", "drawing.contact_sheet", "drawing.frame_strip"),
        *("drawing.label_maps",),
        *("drawing.lettering", "drawing.objects", "labelled.classes", "pictures"),
        *("coco.rules", "coco.score_table", "demos.predictor_inputs"),
        *("object_data.as_coco", "object_data.sizes"),
        *("reports.confusion", "reports.content", "reports.curves", "reports.markup"),
        *("reports.page", "reports.pictures", "reports.tables"),
    ),
    ("numpy", "cv2"): ("coco.scoring",),
    ("numpy", "PIL", "pycocotools"): (
        *(
            "coco.any_form",
            "coco.demo",
            "coco.examples",
            "coco.files",
            "coco.joined",
            "coco.matching",
        ),
        *("coco.objects", "coco.own_data", "coco.predictions", "coco.report"),
    ),
    ("numpy", "PIL", "safetensors"): (
        *("checks.video_facts", "checks.video_sets", "checks.videos", "sources.index_file"),
        *("sources.list_states",),
        *("sources.manifest_file", "sources.patterns", "sources.tar_members"),
        *("captions.captioned_images", "captions.folders", "captions.indexes"),
        *("captions.early_check", "captions.held_out"),
        *("captions.json_lists", "captions.left_out", "captions.listed", "captions.opening"),
        *("captions.shards", "captions.tables", "captions.texts"),
        *("checks.blocks", "checks.caption_facts", "checks.captions"),
        *("labelled_videos.entries", "labelled_videos.labelled_videos", "labelled_videos.opening"),
        *("labelled_videos.path_lists", "labelled_videos.placing", "labelled_videos.raw_frames"),
        *("labelled_videos.video_files", "labelled_videos.clip_ids", "labelled_videos.tables"),
        *("labelled_videos.ucf101", "labelled_videos.video_index", "labelled_videos.video_shards"),
    ),
    ("av", "numpy", "PIL"): (
        *("video.containers", "video.frame_stream", "video.frame_table", "video.pyav_source"),
        *("video.torchcodec_source", "video.video_source", "video.writer", "video.camera"),
        *("demos.videos",),
    ),
    ("numpy", "PIL", "torch", "tqdm", "safetensors"): (
        *("labelled.folders", "labelled.imagenet", "labelled.labelled_images", "labelled.named"),
        *("outputs.exported", "outputs.tensors", "sampling.seeding", "transforms"),
        *("sources.decoding", "sources.image_source", "sources.manifests", "sources.shards"),
        *("labelled_videos.middle_frames", "checks.manifest_images", "labelled.divided"),
    ),
}
LIBRARIES = (
    "numpy",
    "pycocotools",
    "PIL",
    "torch",
    "torchvision",
    "av",
    "safetensors",
    "datasets",
    "cv2",
    "matplotlib",
    "tqdm",
)


@pytest.mark.parametrize("allowed", MODULES)
def test_nothing_is_loaded_before_it_is_used(allowed):
    names = ", ".join(f"eva_data.{module}" for module in MODULES[allowed])
    script = f"import sys, {names}; print(*({{*{LIBRARIES}}} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert set(done.stdout.split()) <= set(allowed)


def test_every_module_is_looked_at_and_named_in_the_text_of_the_package():
    folder = Path(eva_data.__file__).parent
    listed = {name for group in MODULES.values() for name in group}
    for file in folder.rglob("*.py"):
        name = ".".join(file.relative_to(folder).with_suffix("").parts)
        if not file.stem.startswith("_"):
            assert name in listed
            assert f"`{name.partition('.')[0]}`" in eva_data.__doc__
