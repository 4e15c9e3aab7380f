"""Records of a training set that one process of each machine reads and all of it map."""

import copy
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from eva_openmmlab.own_data import dicts
from eva_runs.processes import world_size
from eva_runs.sharing import share_list


def with_shared_records(loader: Any) -> Any:
    """Change the config of a loader so that its datasets share their records on each machine."""
    if world_size() == 1 or not isinstance(loader, dict):
        return loader
    loader = copy.deepcopy(loader)
    with DATASETS.switch_scope_and_registry(None) as registry:
        for node in dicts(loader["dataset"]):
            kind = registry.get(node["type"]) if isinstance(node.get("type"), str) else None
            if isinstance(kind, type) and issubclass(kind, BaseDataset):
                node.update(type=build_shared, kind=kind)
    return loader


def build_shared(*, kind: type[BaseDataset], **settings: Any) -> BaseDataset:
    """Build a dataset of mmengine, whose annotations are read once on each machine."""
    dataset = kind(**{**settings, "lazy_init": True})
    if not dataset.serialize_data:  # each process needs a list of its own
        return dataset
    before = {*vars(dataset)} - {"_metainfo"}

    def read() -> tuple[Any, Any]:
        dataset.serialize_data = False
        dataset.full_init()
        # images of each class, a number for each object, which filtering alone has needed
        vars(dataset).pop("cat_img_map", None)
        return dataset.data_list, {k: v for k, v in vars(dataset).items() if k not in before}

    records, state = share_list(read)
    vars(dataset).update(state, data_list=[], serialize_data=True)
    dataset.data_bytes, dataset.data_address = records.content, records.ends
    return dataset
