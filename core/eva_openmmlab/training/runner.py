"""mmengine's runner: weights fit or stop the run, and a run that ends loses nothing."""

import contextlib
import copy
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank, is_distributed, is_main_process
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner
from torch import nn

from eva_backbone import no_init_weights
from eva_backbone.checkpoints.listing import listed
from eva_data.files import make_folder, replacing
from eva_openmmlab.config.files import SavedConfig
from eva_openmmlab.config.runs import SAYS, has_run, used
from eva_openmmlab.evaluation.predictions import keep_predictions
from eva_openmmlab.terminal import output
from eva_openmmlab.training.checkpoint_files import (
    RUN,
    Evaluation,
    newest_checkpoint,
    read_checkpoint,
    read_evaluation,
)
from eva_openmmlab.training.checkpoint_hook import EVACheckpointHook
from eva_openmmlab.training.errors import (
    NonFiniteError,
    RunError,
    UnfitWeightsError,
    building,
    on_main_process,
)
from eva_openmmlab.training.loops import EVATrainLoop, end_workers
from eva_openmmlab.training.resuming import take_over, what_is_saved
from eva_openmmlab.training.step_guard import GUARDED, StepGuard
from eva_openmmlab.weights import load_start
from eva_runs.interruption import EXIT_KEYBOARD, EXIT_RUN_AGAIN, StopSignal
from eva_runs.messages import ANOTHER
from eva_runs.output_folder import locked
from eva_runs.record import record_start

_FRESH = "initialised from scratch"  # a classifier of other classes
_PRECISIONS = ("highest", "high", "medium")


@RUNNERS.register_module()
class EVARunner(Runner):
    """Runner of the configs (`runner_type`), here and under the frameworks' own `tools/train.py`.

    `load_from` may name an official file. mmengine would load what fits and log the rest; here a
    file that does not fit is an error. In training a classifier of other classes starts from
    scratch.
    `env_cfg.matmul_precision` ("highest", "high") is the precision of float32 matrix products on
    a GPU; "high" is TF32, which the official runs used without naming it.

    SIGTERM and SIGUSR1 end a training with a checkpoint and exit code 75, Ctrl-C with 130. With
    `EVATrainLoop` and `EVACheckpointHook` a continued run computes what one without a break would.

    Attributes:
        guard: Check on which all processes agree before each step.
        started: Whether everything is built and the loop runs: what fails now is not a setting.
    """

    _has_loaded: bool

    def __init__(self, model: Any, work_dir: str, **settings: Any) -> None:
        make_folder(Path(work_dir))
        self.guard = StepGuard(StopSignal())
        self.started = False
        self._content: dict[str, Any] | None = None  # of the checkpoint to continue from
        self._checkpoint = Path()
        self._evaluation = Evaluation(iteration=-1)
        if isinstance(cfg := settings.get("cfg"), Config):
            settings["cfg"] = SavedConfig.of(cfg)
        replaced = settings.get("resume") and has_run(Path(work_dir))
        with no_init_weights() if replaced else contextlib.nullcontext():
            super().__init__(model, work_dir, **settings)

    @property
    def run_seed(self) -> int:
        """The seed of the run, the same on all processes."""
        different = self._randomness_cfg.get("diff_rank_seed", False)
        return int(self.seed) - (get_rank() if different else 0)

    def build_logger(
        self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """Build mmengine's logger (same arguments), which under our programs writes `log.txt`."""
        log = log_file or output.log_file(Path(self.work_dir))
        logger = super().build_logger(log_level, log and str(log), **kwargs)
        output.take(logger)
        return logger

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up processes and precision.

        Args:
            env_cfg: mmengine's settings and `matmul_precision`.
        """
        if self.distributed and not torch.cuda.is_available() and not is_distributed():
            torch.distributed.init_process_group("gloo")  # mmengine would choose a GPU
        super().setup_env(env_cfg)
        precision = env_cfg.get("matmul_precision", "highest")
        if precision not in _PRECISIONS:
            raise ValueError(f"env_cfg.matmul_precision={precision!r} must be of {_PRECISIONS}")
        torch.set_float32_matmul_precision(precision)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap the model for data parallelism, on CPU too.

        Args:
            model_wrapper_cfg: Config of the wrapper, or None.
            model: The model.

        Returns:
            The wrapped model, or the model itself in a run of one process.
        """
        if self.distributed and not torch.cuda.is_available():
            if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
                self.logger.warning("SyncBN needs a GPU: each process normalises its own batches")
                model = revert_sync_batchnorm(model)
            if model_wrapper_cfg is None:
                model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None)
        wrapped: nn.Module = super().wrap_model(model_wrapper_cfg, model)
        return wrapped

    def _init_model_weights(self) -> None:
        """Draw no weights where a checkpoint replaces them all."""
        if self._content is None:
            super()._init_model_weights()

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer with its wrapper, which asks the guard before each step.

        Args:
            optim_wrapper: A config of `OptimWrapper` or `AmpOptimWrapper`, or one of ours built.

        Raises:
            ValueError: For any other wrapper.
        """
        if isinstance(optim_wrapper, dict):
            kind = optim_wrapper.get("type", "OptimWrapper")
            name = kind if isinstance(kind, str) else kind.__name__
            if name not in {*GUARDED, *GUARDED.values()}:
                raise ValueError(f"optim_wrapper.type must be {' or '.join(GUARDED)}, got {name}")
            optim_wrapper = copy.deepcopy(optim_wrapper)
            optim_wrapper["type"] = GUARDED.get(name, name)
        wrapper = super().build_optim_wrapper(optim_wrapper)
        wrapper.guard = self.guard
        return wrapper

    def build_evaluator(self, evaluator: Any) -> Any:
        """Build metrics that leave their predictions: `evaluator` is metrics or their configs."""
        return keep_predictions(super().build_evaluator(evaluator), Path(self.work_dir))

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a hook, and add the place in the data to a checkpoint.

        Args:
            fn_name: Name of the hooks' method.
            **kwargs: Arguments of the method.
        """
        super().call_hook(fn_name, **kwargs)
        if fn_name in ("before_train", "before_val", "before_test"):
            self.started = True
        if fn_name == "before_save_checkpoint" and isinstance(self._train_loop, EVATrainLoop):
            content = kwargs["checkpoint"]
            content[RUN] = self._train_loop.position(content["meta"]["iter"])
            content["meta"]["seed"] = self.run_seed

    def dump_config(self) -> None:
        """Do nothing; the config is saved once the weights are loaded."""

    def train(self) -> nn.Module:
        """Train.

        Returns:
            The model.

        Raises:
            RunError: A ValueError, if the folder is in use or used, or weights do not fit.
            NonFiniteError: If a loss or gradient is infinite or NaN.
            SystemExit: 75 after a signal and a checkpoint, 130 after Ctrl-C.
        """
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(building(Path(self.work_dir), lambda: self.started))
                if self._stops_at_a_step():
                    stack.enter_context(self.guard.stop.listen())
                on_main_process(lambda: self._enter_folder(stack))
                if self._resume:
                    self._find_checkpoint()
                return super().train()
        except KeyboardInterrupt:
            self._say(SAYS.stopped("Ctrl-C", self.what_is_saved()))
            raise SystemExit(EXIT_KEYBOARD) from None
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; {self.what_is_saved()}") from error
        finally:
            end_workers(self._train_loop, self._val_loop)

    def _stops_at_a_step(self) -> bool:
        """Return whether the loop acts on signals; with one of mmengine's they end the process."""
        loop = self._train_loop
        kind = loop.get("type") if isinstance(loop, dict) else type(loop)
        return kind in (EVATrainLoop, EVATrainLoop.__name__)

    def test(self) -> dict[str, float]:
        """Score the test set."""
        folder = Path(self.work_dir)
        on_main_process(lambda: record_start(folder, "evaluation"))
        with building(folder, lambda: self.started):
            return super().test()

    def val(self) -> dict[str, float]:
        """Score the validation set."""
        try:
            with building(Path(self.work_dir), lambda: self.started):
                return super().val()
        finally:
            end_workers(self._val_loop)

    def what_is_saved(self) -> str:
        """Say what of the run is saved, and how to go on."""
        return what_is_saved(self._checkpoint_hook(), self._content, self._checkpoint)

    def _say(self, sentence: str) -> None:
        output.say(sentence, self.logger)

    def save_and_exit(self, iteration: int) -> NoReturn:
        """Save (unless just done) and exit, after a signal.

        Args:
            iteration: Iterations that are done.

        Raises:
            SystemExit: Always.
        """
        hook, name = self._checkpoint_hook(), self.guard.stop.received or ANOTHER
        # once it is noted, what a launcher sends to those that are left has no effect
        self.guard.stop.received = name
        if hook is None:
            self.logger.warning("stopped by %s: without EVACheckpointHook nothing is saved", name)
            raise SystemExit(1)
        hook.save(self, iteration)
        if self.guard.stop_agreed:  # else each process leaves an evaluation on its own
            barrier()  # the first process that ends takes the others along
        self._say(SAYS.stopped(name, self.what_is_saved()))
        raise SystemExit(EXIT_RUN_AGAIN)

    def _checkpoint_hook(self) -> EVACheckpointHook | None:
        hooks = getattr(self, "_hooks", ())
        return next((hook for hook in hooks if isinstance(hook, EVACheckpointHook)), None)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, completely or not at all; only the main process writes.

        Args:
            out_dir: Folder of the checkpoint.
            filename: Name in the folder.
            *args: Further arguments of mmengine's method.
            **kwargs: Further arguments of the same.

        Raises:
            UnwritableError: If the disk is full or the folder gone, for example.
        """
        if not is_main_process():
            return
        if "://" in out_dir or kwargs.get("backend_args"):  # a store that mmengine writes to
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        folder = Path(out_dir)
        make_folder(folder)
        with replacing(folder / filename) as temporary:
            super().save_checkpoint(str(temporary.parent), temporary.name, *args, **kwargs)

    def load_or_resume(self) -> None:
        """Continue the run of the work folder if asked to and possible, else load `load_from`.

        Raises:
            UnfitWeightsError: A ValueError, if the file does not fit the model or is missing.
        """
        if self._has_loaded:
            return
        try:
            self._load_or_resume()
        except (ValueError, FileNotFoundError) as error:
            raise UnfitWeightsError(str(error)) from error
        self._content = self._content and {"meta": self._content["meta"]}  # the rest is in use
        super().dump_config()

    def _load_or_resume(self) -> None:
        model = self.model.module if is_model_wrapper(self.model) else self.model
        # mmengine would continue from `load_from`, which holds the weights before the run
        if self._content is not None:
            take_over(self, model, self._content, self._checkpoint, self._evaluation)
            self._has_loaded = True
            return
        if self._load_from is None:
            return
        inner = getattr(model, "module", model)  # test-time augmentation wraps it
        complete = not isinstance(self._train_loop, BaseLoop)
        report = load_start(inner, self._load_from, complete=complete)
        self._has_loaded = True
        self.logger.info("%s", report)
        fresh = [name for name, reason in report.missing.items() if reason.startswith(_FRESH)]
        if fresh:
            self.logger.warning("%s: %s", listed(fresh, 2), report.missing[fresh[0]])

    def _enter_folder(self, stack: contextlib.ExitStack) -> None:
        folder = Path(self.work_dir)
        stack.enter_context(locked(folder))
        if not self._resume and has_run(folder):
            raise RunError(used(folder))
        record_start(folder, "training", continues=bool(self._resume) and has_run(folder))

    def _find_checkpoint(self) -> None:
        """Find and read it before anything is built: its seed decides the order of the data."""
        work_dir, hook = Path(self.work_dir), self._checkpoint_hook()
        folder = hook.folder(self.work_dir) if hook else work_dir

        def find() -> tuple[Path | None, Evaluation]:
            return newest_checkpoint(work_dir, folder), read_evaluation(work_dir)

        file, self._evaluation = on_main_process(find, UnfitWeightsError)
        if file is None:
            self._say(SAYS.nothing_to_resume(work_dir))
            return
        try:
            self._content = content = read_checkpoint(file)
        except ValueError as error:
            raise UnfitWeightsError(str(error)) from error
        self._checkpoint = file
        seed, configured = content["meta"].get("seed"), self._randomness_cfg.get("seed")
        if seed is None:
            return
        if configured not in (None, seed):
            self.logger.warning(
                "randomness.seed=%d has no effect: the run that continues began with seed %d",
                *(configured, seed),
            )
        self._randomness_cfg.update(seed=seed)
        self.set_randomness(**self._randomness_cfg)
