"""What a config sets of Lightning: typed functions that import it only when they are called.

Names and meanings are Lightning's own. What the experiment gives is taken by position, what a config says by
keyword.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vaelab.errors import RunError

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
Text = Annotated[str, Field(min_length=1)]

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
    strategy: Literal["auto", "ddp"] = "auto",
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
) -> "pl.Trainer":
    """Lightning's Trainer, with checkpoints written atomically and nothing that draws from a shared generator."""
    import pytorch_lightning as pl
    import torch

    from vaelab.performance.unprofiled import Unprofiled
    from vaelab.training.checkpoints import AtomicCheckpointIO

    torch.set_float32_matmul_precision(float32_matmul_precision)
    # Lightning sets it for the sake of forks, which we do not use. With it, each step of an optimizer looks for
    # NVIDIA's library on the disk where there is none: 70 microseconds a step instead of one.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    # Deterministic kernels come with a debugging aid: NaN is written to all memory before anything else is, 3 MB in a
    # step of a small model. What is not read before it is written is the same without.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    made = pl.Trainer(
        callbacks=list(callbacks),
        logger=list(loggers),
        plugins=[AtomicCheckpointIO()],
        profiler=Unprofiled(),
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
        num_sanity_val_steps=0,  # the config was checked; a full validation follows the first epoch
        enable_model_summary=False,  # print(model) names the parts
        enable_checkpointing=any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks),
    )
    made.updates = {  # type: ignore[attr-defined]  # the module, which owns its step, takes them
        "accumulate_grad_batches": accumulate_grad_batches,
        "gradient_clip_val": gradient_clip_val,
        "gradient_clip_algorithm": gradient_clip_algorithm,
    }
    return made


def checkpoints(folder: Path, /, *, monitor: Text = "val/loss", every_n_steps: Positive | None = None) -> "pl.Callback":
    """`last.ckpt` after every epoch and every so many steps, `best.ckpt` by the lowest `monitor`."""
    from vaelab.training.checkpoints import Checkpoints

    return Checkpoints(folder / "checkpoints", monitor=monitor, every_n_steps=every_n_steps)


def early_stopping(
    folder: Path,
    /,
    *,
    monitor: Text = "val/loss",
    patience: Positive = 10,
    min_delta: NonNegative = 0.0,
) -> "pl.Callback":
    """Stop once `monitor` has not fallen by more than `min_delta` for `patience` validations."""
    from pytorch_lightning.callbacks import EarlyStopping

    return EarlyStopping(monitor, patience=patience, min_delta=min_delta, mode="min")


def progress_bar(folder: Path, /, *, refresh_rate: Positive = 5) -> "pl.Callback":
    """A bar with the terms in it, drawn anew `refresh_rate` times a second."""
    from vaelab.training.progress import TermsProgressBar

    return TermsProgressBar(refresh_rate=refresh_rate)


def rates(folder: Path, /) -> "pl.Callback":
    """The learning rate, the weights of the objective's terms, images a second."""
    from vaelab.training.monitoring import Rates

    return Rates()


def latents(folder: Path, /) -> "pl.Callback":
    """How many latent dimensions are active, and the KL that each carries, at every validation."""
    from vaelab.training.monitoring import Latents

    return Latents()


def pictures(folder: Path, /, *, every_n_epochs: Positive = 10) -> "pl.Callback":
    """Reconstructions, samples and traversals after the first epoch and every so many."""
    from vaelab.training.pictures import Pictures

    return Pictures(every_n_epochs=every_n_epochs)


def tensorboard(folder: Path, /, *, projector: Count = 1000) -> "Logger":
    """An event file in the run folder's `tensorboard/`; and so many test images' latents for the projector."""
    from vaelab.training.tensorboard import EventFiles

    return EventFiles(folder / "tensorboard", projector=projector)


def csv(folder: Path, /) -> "Logger":
    """`metrics.csv` in the run folder's `csv/`."""
    from pytorch_lightning.loggers import CSVLogger

    return CSVLogger(folder / "csv", name="", version="")


def wandb(folder: Path, /, *, project: Text = "vaelab", offline: bool = False) -> "Logger":
    """Weights & Biases, its files in the run folder's `wandb/`; needs the extra vaelab[wandb]."""
    from pytorch_lightning.loggers import WandbLogger
    from wandb.errors import UsageError

    logger = WandbLogger(name=folder.name, save_dir=folder, project=project, offline=offline)
    try:
        _ = logger.experiment
    except UsageError as error:
        raise RunError(f"logger=wandb: {error} Or take logger.wandb.offline=true") from error
    return logger


wandb.extra = "wandb"  # type: ignore[attr-defined]


def mlflow(folder: Path, /, *, tracking_uri: Text | None = None, experiment_name: Text = "vaelab") -> "Logger":
    """MLflow, at `tracking_uri` or in the run folder's `mlflow.db`; needs the extra vaelab[mlflow]."""
    from pytorch_lightning.loggers import MLFlowLogger

    uri = tracking_uri or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    return MLFlowLogger(experiment_name, run_name=folder.name, tracking_uri=uri)


mlflow.extra = "mlflow"  # type: ignore[attr-defined]
