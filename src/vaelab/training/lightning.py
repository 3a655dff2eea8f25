"""Make Lightning's objects from a config, by typed functions that import it only when they are called.

Names and meanings are Lightning's own. Positional arguments come from the experiment, keyword-only ones from the
config.
"""

import inspect
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from vaelab.errors import RunError
from vaelab.text import one_line
from vaelab.training.direction import Mode, direction
from vaelab.training.services import wandb_address, without_settings_here

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import Logger

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Epochs = Annotated[int, Field(ge=-1)]
Share = Annotated[float, Field(ge=0, le=1)]
Batches = Annotated[int, Field(ge=0)] | Share
SomeBatches = Positive | Annotated[float, Field(gt=0, le=1)]
Clip = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]

Images = Annotated[int, Field(ge=2)]

OURS = {"callbacks", "logger", "plugins", "use_distributed_sampler", "default_root_dir", "model_registry"} | {
    f"enable_{name}" for name in ("model_summary", "checkpointing", "progress_bar", "autolog_hparams")
}
"""Arguments of Lightning's Trainer that follow from other parts of a config."""

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"]
Matmul = Literal["highest", "high", "medium"]
Devices = Positive | Literal["auto"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


def trainer(
    callbacks: Sequence["pl.Callback"],
    loggers: Sequence["Logger"],
    /,
    *,
    max_epochs: Epochs = 20,
    max_steps: Epochs = -1,
    accelerator: Accelerator = "auto",
    devices: Devices = "auto",
    num_nodes: Positive = 1,
    strategy: Text = "auto",
    precision: Precision = "32-true",
    float32_matmul_precision: Matmul = "highest",
    gradient_clip_val: Clip | None = None,
    gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    accumulate_grad_batches: Positive = 1,
    limit_train_batches: SomeBatches = 1.0,
    limit_val_batches: Batches = 1.0,
    limit_test_batches: Batches = 1.0,
    check_val_every_n_epoch: Positive = 1,
    log_every_n_steps: Positive = 50,
    deterministic: bool = True,
    detect_anomaly: bool = False,
    cuda_graph: bool = False,
    **others: Any,
) -> "pl.Trainer":
    """Make Lightning's Trainer, with atomic checkpoints and without shared random generators.

    `others` are arguments of `pl.Trainer` that conf/ does not list, such as `max_time` or `val_check_interval`.
    """
    import pytorch_lightning as pl
    import torch

    from vaelab.performance.unprofiled import Unprofiled
    from vaelab.training.checkpoints import AtomicCheckpointIO

    torch.set_float32_matmul_precision(float32_matmul_precision)
    torch.backends.cudnn.allow_tf32 = float32_matmul_precision != "highest"  # by default convolutions take TF32
    # Lightning sets it for forked processes, which we do not use. With it, each step of an optimizer searches the
    # disk for NVIDIA's library where there is none: 70 microseconds per step instead of one.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    # Deterministic mode also fills new memory with NaN as a debugging aid, 3 MB per step of a small model. Results do
    # not depend on it, since no memory is read before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    settings: dict[str, Any] = {
        "profiler": Unprofiled(),
        "num_sanity_val_steps": 0,  # the config was checked; a full validation follows the first epoch
    }
    made = pl.Trainer(
        callbacks=list(callbacks),
        logger=list(loggers),
        plugins=[AtomicCheckpointIO()],
        max_epochs=max_epochs,
        max_steps=max_steps,
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,
        limit_train_batches=limit_train_batches,
        limit_val_batches=limit_val_batches,
        limit_test_batches=limit_test_batches,
        check_val_every_n_epoch=check_val_every_n_epoch,
        log_every_n_steps=log_every_n_steps,
        deterministic=deterministic,
        detect_anomaly=detect_anomaly,
        use_distributed_sampler=False,  # our batches know their rank
        enable_model_summary=False,  # print(model) names the parts
        enable_checkpointing=any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks),
        **settings | others,
    )
    made.updates = {  # type: ignore[attr-defined]  # for the module, which takes its own steps
        "accumulate_grad_batches": accumulate_grad_batches,
        "gradient_clip_val": gradient_clip_val,
        "gradient_clip_algorithm": gradient_clip_algorithm,
        "cuda_graph": cuda_graph,
    }
    return made


def _others() -> Mapping[str, inspect.Parameter]:
    """Return the arguments of `pl.Trainer` that a config may set besides those of `trainer`."""
    import pytorch_lightning as pl

    known = inspect.signature(pl.Trainer, eval_str=True).parameters
    return {name: parameter.replace(default=None) for name, parameter in known.items() if name not in OURS}


trainer.passes_on = _others  # type: ignore[attr-defined]


def checkpoints(
    folder: Path, /, *, monitor: Text = "val/loss", mode: Mode | None = None, every_n_steps: Positive | None = None
) -> "pl.Callback":
    """Write `last.ckpt` after every epoch and every `every_n_steps`, and `best.ckpt` by the best `monitor`.

    `mode` says whether the lowest or the highest value is the best; for known metrics it follows from the name.
    """
    from vaelab.training.checkpoints import Checkpoints

    best = mode or direction(monitor) or "min"
    return Checkpoints(folder / "checkpoints", monitor=monitor, mode=best, every_n_steps=every_n_steps)


checkpoints.watches_if_there = True  # type: ignore[attr-defined]  # without the metric there is no best.ckpt


def early_stopping(
    folder: Path,
    /,
    *,
    monitor: Text = "val/loss",
    mode: Mode | None = None,
    patience: Positive = 10,
    min_delta: NonNegative = 0.0,
) -> "pl.Callback":
    """Stop once `monitor` has not improved by more than `min_delta` for `patience` validations."""
    from pytorch_lightning.callbacks import EarlyStopping

    best = mode or direction(monitor) or "min"
    return EarlyStopping(monitor, patience=patience, min_delta=min_delta, mode=best)


def averaging(folder: Path, /, *, decay: Decay = 0.999) -> "pl.Callback":
    """Evaluate an exponential moving average of the weights, over about 1 / (1 - `decay`) steps."""
    from vaelab.training.averaging import Averaging

    return Averaging(decay=decay)


def progress_bar(folder: Path, /, *, refresh_rate: Positive = 5) -> "pl.Callback":
    """Show a bar with the terms, `refresh_rate` times a second; without a terminal, a line per epoch."""
    from vaelab.training.progress import LinePerEpoch, TermsProgressBar

    return TermsProgressBar(refresh_rate=refresh_rate) if sys.stdout.isatty() else LinePerEpoch(folder)


def rates(folder: Path, /) -> "pl.Callback":
    """Log the learning rate, the weights of the objective's terms, images per second."""
    from vaelab.training.monitoring import Rates

    return Rates()


def latents(folder: Path, /) -> "pl.Callback":
    """Log the number of active latent dimensions, and the KL of each, at every validation."""
    from vaelab.training.monitoring import Latents

    return Latents()


def pictures(folder: Path, /, *, every_n_epochs: Positive = 10) -> "pl.Callback":
    """Log reconstructions, samples and traversals after the first epoch and every `every_n_epochs`."""
    from vaelab.training.pictures import Pictures

    return Pictures(every_n_epochs=every_n_epochs)


def generation(
    folder: Path,
    /,
    *,
    every_n_epochs: Positive = 10,
    features: Text = "classifier",
    weights: Text | None = None,
    images: Images = 2000,
) -> "pl.Callback":
    """Frechet and kernel distances of samples and of reconstructions to held-out images, every so many epochs."""
    from vaelab.training.generating import Generation

    return Generation(every_n_epochs=every_n_epochs, features=features, weights=weights, images=images)


def tensorboard(folder: Path, /, *, projector: Count = 1000) -> "Logger":
    """Log to an event file in the run folder's `tensorboard/`, with `projector` test images' latents."""
    from vaelab.training.tensorboard import EventFiles

    return EventFiles(folder / "tensorboard", projector=projector)


def csv(folder: Path, /) -> "Logger":
    """Log to `metrics.csv` in the run folder's `csv/`."""
    from pytorch_lightning.loggers import CSVLogger

    return CSVLogger(folder / "csv", name="", version="")


def wandb(folder: Path, /, *, project: Text = "vaelab", offline: bool = False) -> "Logger":
    """Log to Weights & Biases, its files in the run folder's `wandb/`; needs the extra vaelab[wandb]."""
    import wandb as service
    from pytorch_lightning.loggers import WandbLogger

    try:
        with without_settings_here():
            service.setup()
        mode: dict[str, Any] = {"mode": "offline"} if offline else {}
        settings = service.Settings(base_url=wandb_address(), **mode)
        again: dict[str, Any] = {} if offline else {"resume": "allow"}
        logger = WandbLogger(
            name=folder.name,
            save_dir=folder.absolute(),
            project=project,
            offline=offline,
            id=_wandb_id(folder),
            settings=settings,
            **again,
        )
        _ = logger.experiment
    except (service.errors.Error, ValueError) as error:
        raise RunError(f"logger=wandb: {one_line(str(error), 300)} Or set logger.wandb.offline=true") from error
    return logger


def _wandb_id(folder: Path) -> str:
    """Return W&B's id of the run in a folder: drawn once, so that a resumed run continues there."""
    file = folder / "wandb_id"
    with suppress(FileExistsError), file.open("x") as new:
        new.write(secrets.token_hex(4))
    found = file.read_text()[:100]
    if not re.fullmatch(r"[0-9a-f]{8}", found):
        raise RunError(f"{file} cannot be read: it should have 8 hexadecimal digits")
    return found


wandb.extra = "wandb"  # type: ignore[attr-defined]


def mlflow(folder: Path, /, *, tracking_uri: Text | None = None, experiment_name: Text = "vaelab") -> "Logger":
    """Log to MLflow, at `tracking_uri` or in the run folder's `mlflow.db`; needs the extra vaelab[mlflow]."""
    from pytorch_lightning.loggers import MLFlowLogger

    uri = tracking_uri or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    try:
        logger = MLFlowLogger(experiment_name, run_name=folder.name, tracking_uri=uri)
        _ = logger.experiment
    except Exception as error:  # each kind of server and database raises its own errors
        raise RunError(f"logger=mlflow: {uri} cannot be used: {one_line(str(error), 300)}") from error
    return logger


mlflow.extra = "mlflow"  # type: ignore[attr-defined]
