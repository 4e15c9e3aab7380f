"""The command that makes the data of the demo recipes, for a sentence about missing data."""

from pathlib import Path

from eva_runs.commands import command_to_run

_FORMATS = ("coco", "semantic")  # folders of `make_demo_data.py` that recipes read


def demo_data(root: Path) -> str | None:
    """Say how to get demo data; None for a folder that is not one of theirs.

    Args:
        root: Folder that a recipe reads.
    """
    if root.name not in _FORMATS or "digit_scenes" not in root.parent.name:
        return None
    form = ("--formats", root.name) if root.name != "coco" else ()
    words = (*form, "--output", root.parent)
    return f"make it with `{command_to_run('data make-demo', 'tools/make_demo_data.py', *words)}`"
