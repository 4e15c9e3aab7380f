"""Run checkpoints that an interruption cannot break, and that are checked before they are restored.

detectron2 and torch load what fits and warn of the rest, or fail some steps later.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from eva_backbone.checkpoints.reading import read_torch_file
from eva_backbone.checkpoints.run_folders import ADAPTER, LATEST, LORA
from eva_data.saving import write_text
from eva_detection.building import error_context
from eva_detection.training.output_folder import TrainingFolder
from eva_runs.adapters import Adapters, complete
from eva_runs.checkpoint_store import CheckpointStore
from eva_runs.fits import check_model, check_optimizer, take_settings


class RunCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer: saves completely or not at all, and restores all or nothing.

    A run that is killed while it saves keeps the checkpoint before. A file is read as data alone,
    and only one of the folder itself; detectron2 would unpickle whatever `last_checkpoint` names.

    Attributes:
        store: Writes the checkpoints while training goes on.
        saved_iteration: The iteration of the latest checkpoint written or restored here.
        keep: How many numbered checkpoints are kept; None for all.
        adapters: Adapters of the model. A checkpoint then lacks what is frozen, and the weights are
            in `adapter/`.
    """

    saved_iteration: int | None = None
    adapters: Adapters | None = None
    keep: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.store = CheckpointStore()

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `name`.pth with the model and `kwargs`, and let `last_checkpoint` point to it."""
        if not self.save_dir or not self.save_to_disk:
            return
        self.store.writer.wait()
        state, folder = self.model.state_dict(), Path(self.save_dir)
        adapters, file = self.adapters, folder / f"{name}.pth"
        data: dict[str, Any] = {"model": adapters.cut(state) if adapters else state}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        data |= kwargs | {"logs": TrainingFolder(folder).logs.sizes()}
        if adapters:
            data[LORA] = adapters.identity
            weights = copy.deepcopy(data["model"])
            self.store.writer.submit(lambda: adapters.write(weights, (folder / ADAPTER).parent))
        self.store.save_state(file, data, name="checkpoint", then=lambda: self._finish(file))
        self.saved_iteration = kwargs.get("iteration")

    def _finish(self, file: Path) -> None:
        """Note a checkpoint that is written, and remove those that are not kept."""
        write_text(file.with_name(LATEST), file.name)
        numbered = sorted(file.parent.glob(f"model_{'[0-9]' * 7}.pth"))
        before = [other for other in numbered if other.name <= file.name]
        for other in before[: -self.keep] if self.keep else ():
            other.unlink()

    def read(self, file: Path, optimizer: torch.optim.Optimizer, max_iter: int) -> dict[str, Any]:
        """Read a checkpoint and check that it is one of this run; nothing is changed."""
        with error_context(f"{file} cannot be restored"):
            content = read_torch_file(file, mapped=True)
            content = content if isinstance(content, dict) else {}
            trainer, done = content.get("trainer") or {}, content.get("iteration")
            complete(content, "model", self.model, self.adapters)
            check_model(content.get("model"), self.model)
            check_optimizer(trainer.get("optimizer"), optimizer)
            take_settings(trainer["optimizer"], optimizer)
            if not isinstance(done, int) or done != trainer.get("iteration") or done >= max_iter:
                raise ValueError(
                    f"it is after iteration {done} (from 0), and train.max_iter={max_iter}: raise "
                    "it, or choose another train.output_dir"
                )
        return content

    def restore(self, content: dict[str, Any]) -> None:
        """Restore the model and what else is registered."""
        self.model.load_state_dict(content.pop("model"))
        for name, part in self.checkpointables.items():
            if name in content:
                part.load_state_dict(copy.deepcopy(content.pop(name)))  # no longer of the file
        self.saved_iteration = content.get("iteration")
