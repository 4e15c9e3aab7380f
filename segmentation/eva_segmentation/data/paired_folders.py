"""A data set of two folders, for mmsegmentation's data loaders."""

from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from eva_segmentation.data.pairs import find_pairs, hold_out


@DATASETS.register_module()
class PairedFolders(BaseSegDataset):
    """Images in one folder, label maps of the same names in another; suffixes may differ.

    Args:
        images: Folder of images, searched through.
        maps: Folder of label maps.
        image_ending: End of the names of images, before the suffix.
        map_ending: End of the names of label maps, before the suffix.
        val_share: Share of the pairs that is held out of training; None for none.
        held_out: Whether these are the pairs that are held out, and not the others.
        **options: Further arguments of mmsegmentation's `BaseSegDataset`, such as `metainfo` with
            `classes` and `palette`, `pipeline` and `test_mode`.
    """

    def __init__(
        self,
        *,
        images: str,
        maps: str,
        image_ending: str = "",
        map_ending: str = "",
        val_share: float | None = None,
        held_out: bool = False,
        **options: Any,
    ) -> None:
        self._folders = (Path(images), Path(maps))
        self._val_share, self._held_out = val_share, held_out
        self._endings = {"image_ending": image_ending, "map_ending": map_ending}
        super().__init__(**options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the pairs.

        Raises:
            ValueError: If there are no pairs.
        """
        images, maps = self._folders
        pairs, _, _ = find_pairs(images, maps, **self._endings)
        if not pairs:
            raise ValueError(f"{images} and {maps} have no names in common")
        if self._val_share is not None:
            pairs = hold_out(pairs, images, self._val_share)[self._held_out]
        return [
            {
                "img_path": str(pair.image),
                "seg_map_path": str(pair.label_map),
                "label_map": None,
                "reduce_zero_label": False,
                "seg_fields": [],
            }
            for pair in pairs
        ]
