"""What the data of a run are once they are resolved, and what a detector learns of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eva_data.classes import list_names
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.tiles import Slicing

TOLD = "Own data: "  # begins notes for the log alone
FOLDER = "data"  # of a run, for the annotation files that are made for it
NO_FEDERATED_LOSS = (  # a note of both detectors
    "No federated loss, which is for LVIS: every object of a class counts as annotated. The "
    "recipe's sigmoid classifier and sampler stay"
)
# what notes begin with that are shown
NO_MASK_HEAD, NO_MASK_AP = "The detector has no mask head", "No mask AP"


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """The resolved data of a run: a dataset for each part, from the command line to the loader.

    Attributes:
        parts: "train" and "val", or one of them.
        notes: Messages for the log.
        generated: Whether the parts are not annotation files on disk; their paths then name their
            sources until `place` gives them files.
        boxes_only: Whether masks were left alone.
        tile: Tiles that are trained on.
    """

    parts: Mapping[str, CocoDataset]
    notes: tuple[str, ...] = ()
    generated: bool = False
    boxes_only: bool = False
    tile: Slicing | None = None

    def place(self, folder: Path) -> "DetectionData":
        """Give generated parts their files in the folder of a run; `write` writes them."""
        if not self.generated:
            return self
        names = {"train": "train", "val": "val" if "train" in self.parts else "evaluated"}
        parts = {
            part: replace(dataset, path=folder.absolute() / FOLDER / f"{names[part]}.json")
            for part, dataset in self.parts.items()
        }
        return replace(self, parts=parts)

    def as_json(self) -> dict[str, Any]:
        """State files, tiles and use of masks for the record of a run."""
        return {
            "boxes_only": self.boxes_only,
            "tile": [self.tile.size, self.tile.overlap] if self.tile else None,
            **{
                part: {"annotations": str(dataset.path), "images": dataset.folder}
                for part, dataset in self.parts.items()
            },
        }

    def write(self, *, continues: bool) -> None:
        """Write the files of generated parts, see `CocoDataset.write`."""
        for dataset in self.parts.values() if self.generated else ():
            dataset.write(continues=continues)

    def for_detector(
        self, saved: Mapping[int, str] | None, *, masks: bool, segments: bool = False
    ) -> "DetectorTargets":
        """Decide what a detector learns of these data, or one with `saved` categories has learnt.

        `masks` and `segments` say whether it can learn masks, and panoptic ones.
        """
        train, val = self.parts.get("train"), self.parts["val"]
        if val.panoptic and not segments:
            raise ValueError(
                f"{val.path} has panoptic segments: `eva mmdetection train` learns them, by a "
                "recipe with queries, such as custom/eomt_eva_small"
            )
        categories = train.categories if train is not None else saved or val.categories
        if train is None:
            val.check_categories(categories, of="the config")
        else:
            val.check_fits(train)
        reason = "--boxes-only" if self.boxes_only else None
        if reason is None and (train is not None or not saved):  # else as it was trained
            reason = (train or val).reason_against_masks(training=train is not None)
        classes = list_names([f"{key} {name}" for key, name in categories.items()], 12)
        datasets = self.parts.values()
        plural = "class" if len(categories) == 1 else "classes"
        notes = [
            *self.notes,
            *(f"{TOLD}{dataset.describe()}" for dataset in datasets),
            *(
                f"{dataset.path} is in LVIS format: read as if all objects were annotated"
                for dataset in datasets
                if dataset.lvis
            ),
            f"{TOLD}{len(categories)} {plural} (id, name): {classes}",
        ]
        if masks and reason:
            notes.append(f"{NO_MASK_HEAD}: {reason}")
        lacking, masks = len(val.without_masks), masks and not reason
        if masks and lacking:
            objects = f"{lacking} of {len(val.instances)} objects for evaluation"
            notes.append(f"{NO_MASK_AP}: {objects} have no mask")
        return DetectorTargets(
            categories=dict(categories),
            reason_against_masks=reason,
            masks=masks,
            scores_masks=masks and not lacking,
            notes=notes,
        )

    def keypoints_for_detector(self, *, required: bool) -> KeypointNames | None:
        """Return the keypoints that a detector learns of these data, as is `required` of some.

        Raises:
            ValueError: If no category lists any, or no object has any.
        """
        train = self.parts.get("train")
        first = train or self.parts["val"]
        points = first.keypoints if train is not None or required else None
        if required and points is None and not self.boxes_only:
            raise ValueError(
                f"{first.path}: no category lists `keypoints`, names that the keypoint_head of the "
                "recipe learns; list them, take another recipe, or leave them with --boxes-only"
            )
        if points and train and not any(any(entry["keypoints"]) for entry in train.instances):
            raise ValueError(
                f"{train.path}: categories list keypoints ({list_names(points.names)}), and no "
                "object has any: label them, or leave them with --boxes-only"
            )
        return points


@dataclass(frozen=True, kw_only=True)
class DetectorTargets:
    """What a detector learns of own data.

    Attributes:
        categories: Name of each category id, in the order of the classes.
        reason_against_masks: Why it cannot have masks; None if it can.
        masks: Whether it has masks.
        scores_masks: Whether its masks are scored.
        notes: Messages for the log.
    """

    categories: dict[int, str]
    reason_against_masks: str | None
    masks: bool
    scores_masks: bool
    notes: list[str]
