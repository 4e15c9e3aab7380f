"""Names of data sets that are certain; a folder's name is a guess, and is not published."""

import json
import re
from pathlib import Path

_REGISTERED = re.compile(
    r"(coco_20\d\d|coco_stuff|lvis_v\d|objects365|cityscapes|voc_20\d\d|ade20k|digit_scenes)\w*"
)
_HUB = re.compile(r"hf:(?P<name>[\w.-]+(/[\w.-]+)?)(:.*)?")
_TORCHVISION = re.compile(r"torchvision:(?P<name>\w+)(:.*)?")
_FORMATS = (  # readers of any data, not data sets
    "ImageFolder", "DatasetFolder", "FakeData", "imagefolder", "videofolder", "audiofolder",
    "parquet", "csv", "json", "text", "arrow", "webdataset", "pandas", "xml", "generator",
)  # fmt: skip
_DEMO = ("tools/make_demo_data.py", "digit_scenes")  # what its manifest says, and its name
_ABOVE = 4  # folders in which the manifest is looked for, from that of the data upwards
_MMENGINE = {
    "ADE20KDataset": "ade20k",
    "COCOStuffDataset": "coco_stuff164k",
    "LVISV1Dataset": "lvis_v1",
    "Objects365V2Dataset": "objects365_v2",
}
_COCO = re.compile(r"ann_file='[^']*\binstances_(train|val)2017\.json'")


def data_name(place: str) -> str:
    """Name a data set by what is certain: its registration, its reader, or its manifest.

    Args:
        place: Path or name of the data, as the settings of a run have it.

    Returns:
        The name, without a place; "" if it is not certain.
    """
    if _REGISTERED.fullmatch(place):
        return place
    if found := _HUB.fullmatch(place) or _TORCHVISION.fullmatch(place):
        name = found["name"]
        return "" if name in _FORMATS or Path(name).exists() else name
    file = Path(re.sub(r"[{*].*", "", place))
    return _DEMO[1] if any(map(_is_demo, [file, *file.parents][:_ABOVE])) else ""


def mmengine_data(part: str) -> str:
    """Name the data of one loader in a config of mmengine.

    Args:
        part: The text of the loader.

    Returns:
        The name of its data set, or else the place of it; "" without one.
    """
    roots = re.findall(r"(?:data_root|annotations|ann_file)='([^']*)'", part)
    if name := next(filter(None, map(data_name, roots)), ""):
        return name
    if "metainfo=" not in part:  # else it has classes of its own
        for kind, name in _MMENGINE.items():
            if f"type='{kind}'" in part:
                return name
        if "type='CocoDataset'" in part and (found := _COCO.search(part)):
            return f"coco_2017_{found[1]}"
    return roots[0] if roots else ""


def _is_demo(folder: Path) -> bool:
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("generator") == _DEMO[0]
