"""YAML files with every value as the text that was written: no types, no objects, no aliases.

`names: [yes, 1.0]` are the names "yes" and "1.0"; a number or a truth value would be another text.
"""

from pathlib import Path
from typing import Any

from eva_data.files import require_regular_file

_MOST_BYTES = 2**24


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a file.

    Args:
        file: The file, in UTF-8.

    Returns:
        Its keys and values: texts, and lists and dicts of them.

    Raises:
        ValueError: If it cannot be read or is not a mapping.
    """
    import yaml

    class Texts(yaml.BaseLoader):  # type: ignore[misc]
        """Refuses aliases, by which a small file can stand for billions of values."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has an alias (*name): write the value in its place")
            return super().compose_node(parent, index)

    try:
        require_regular_file(file)
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        text = file.read_bytes().decode("utf-8-sig")
        content = yaml.load(text, Texts)
    except OSError as error:
        raise ValueError(str(error)) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not YAML that can be read: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must have keys and values, such as names and train")
    return content
