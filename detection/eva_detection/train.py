"""Training and evaluation of a detector from a LazyConfig."""

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_argument_parser, default_setup, default_writers, hooks, launch
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from eva_detection.checkpoint import RunCheckpointer, load_initial_weights
from eva_detection.hooks import ProgressBar
from eva_detection.trainer import DetectionTrainer

logger = logging.getLogger(__name__)

_EPILOG = """
Examples:

Fine-tune on COCO with 8 GPUs:
    python detection/train_net.py --num-gpus 8 \\
        --config-file detection/configs/coco/cascade_mask_rcnn_vitdet_eva_g_1280.py \\
        train.init_checkpoint=eva_o365.pth train.output_dir=output/coco

Continue it after an interruption:
    the same command with --resume

Evaluate:
    python detection/train_net.py --num-gpus 8 --eval-only \\
        --config-file detection/configs/coco/cascade_mask_rcnn_vitdet_eva_g_1536.py \\
        train.init_checkpoint=eva_coco_seg.pth
"""


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Score a model on the config's test set.

    Args:
        cfg: The config; `dataloader.test` and `dataloader.evaluator` are used.
        model: The detector, maybe wrapped for data parallelism.

    Returns:
        The evaluator's results on the main process (also in `results.json` of the output
        folder), an empty dict on others or without an evaluator.
    """
    if "evaluator" not in cfg.dataloader:
        logger.warning("the config has no dataloader.evaluator: nothing is evaluated")
        return {}
    loader = instantiate(cfg.dataloader.test)
    results = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator)) or {}
    if results and comm.is_main_process():
        print_csv_format(results)
        file = Path(cfg.train.output_dir) / "results.json"
        file.write_text(json.dumps(_without_nan(results), indent=2) + "\n", encoding="utf-8")
    return results


def _without_nan(results: Any) -> Any:
    """Replace NaN (no such objects in the set), which JSON does not have, by None."""
    if isinstance(results, dict):
        return {name: _without_nan(value) for name, value in results.items()}
    return None if results != results else results


def train(cfg: DictConfig, *, resume: bool) -> None:
    """Train, evaluating periodically and at the end.

    Args:
        cfg: The config, as for detectron2's `lazyconfig_train_net.py`; besides,
            `train.amp.precision` ("fp16" or "bf16"), `train.accumulate` (batches of an optimizer
            step) and `train.progress_bar` are read.
        resume: Continue from the last checkpoint of the output folder if there is one.
    """
    model = instantiate(cfg.model)
    logger.info("Model:\n%s", model)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    will_resume = resume and RunCheckpointer(model, cfg.train.output_dir).has_checkpoint()
    if not will_resume:
        load_initial_weights(model, cfg.train.init_checkpoint)

    ddp = dict(cfg.train.ddp)
    if cfg.train.device == "cpu":
        ddp["device_ids"] = None
    model = create_ddp_model(model, **ddp)
    amp = cfg.train.amp
    trainer = DetectionTrainer(
        model,
        loader,
        optimizer,
        precision=amp.get("precision", "fp16") if amp.enabled else "fp32",
        accumulate=cfg.train.get("accumulate", 1),
    )
    checkpointer = RunCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    main_process = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main_process else None
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            ProgressBar() if main_process and cfg.train.get("progress_bar", False) else None,
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
            if main_process
            else None,
            hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, model)),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if writers else None,
        ]
    )
    start = 0
    if will_resume:
        checkpointer.resume_or_load("", resume=True)
        start = trainer.iter + 1
        logger.info("Continuing at iteration %d", start)
    trainer.train(start, cfg.train.max_iter)


def run(args: argparse.Namespace) -> None:
    """One process of a run; `args` are those of `main`."""
    cfg = LazyConfig.load(args.config_file)
    cfg = LazyConfig.apply_overrides(cfg, args.opts)
    default_setup(cfg, args)
    for name in ("eva_backbone", "eva_detection"):
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name=name)
    # inside detectron2: poolers, anchors, masks; nothing that a user could do about
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    if not args.eval_only:
        train(cfg, resume=args.resume)
        return
    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    load_initial_weights(model, cfg.train.init_checkpoint, complete=True)
    evaluate(cfg, model)


def main() -> None:
    """Command line of `train_net.py`."""
    args = default_argument_parser(epilog=_EPILOG).parse_args()
    try:
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports Ctrl-C; the log says where training stopped
