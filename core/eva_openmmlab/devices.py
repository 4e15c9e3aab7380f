"""The device that a demo or predictor runs on."""

import torch


def choose_device(name: str | None) -> torch.device:
    """Find the device of a predictor.

    Args:
        name: Such as "cuda", "cuda:1" or "cpu"; None for the GPU if there is one.

    Raises:
        ValueError: If there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} must be cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: there are {torch.cuda.device_count()} GPUs here")
    return device
