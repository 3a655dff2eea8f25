"""The private names of Lightning and torch that we use: what a version no longer has is named with it."""

import ast
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

import vaelab
from vaelab.training import internals

LIGHTNING = f"Lightning {version('pytorch-lightning')}"


def test_lightning_still_has_the_private_names_that_we_use() -> None:
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_steps=3, logger=False, enable_checkpointing=False)
    uses = {
        "batches_begun": lambda: internals.batches_begun(trainer) == 0,
        "batch_number": lambda: internals.batch_number(trainer) == -1,
        "batch_of_epoch": lambda: internals.batch_of_epoch(trainer) == -1,
        "count_step": lambda: (internals.count_step(trainer), manual(trainer).total.completed == 1)[1],
        "next_batch": lambda: callable(trainer.fit_loop.epoch_loop.batch_progress.increment_started),
        "has_plain_steps": lambda: internals.has_plain_steps(trainer),
        "looks_for_anomalies": lambda: not internals.looks_for_anomalies(trainer),
        "limit_steps": lambda: (internals.limit_steps(trainer, 5), trainer.max_steps == 5)[1],
        "complete_epochs": lambda: (internals.complete_epochs(trainer), trainer.current_epoch == 0)[1],
        "cluster_environment": lambda: not internals.cluster_environment(trainer).creates_processes_externally,
        "starts_processes": lambda: internals.starts_processes(trainer) is None,
        "HOOK": lambda: hasattr(pl.LightningModule(), internals.HOOK),
    }
    for name, holds in uses.items():
        try:
            assert holds(), f"{LIGHTNING} has changed what internals.{name} stands for"
        except AttributeError as error:
            raise AssertionError(f"{LIGHTNING} no longer has what internals.{name} needs: {error}") from error
    two = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    assert internals.starts_processes(two) is not None, f"{LIGHTNING} starts processes in another way"


def manual(trainer: pl.Trainer) -> Any:
    return trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress


def test_no_other_file_uses_private_names_of_lightning() -> None:
    package = Path(vaelab.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pytorch_lightning")
            if imported and any(alias.name.startswith("_") for alias in node.names):  # type: ignore[union-attr]
                found.add(path.relative_to(package).as_posix())
            if isinstance(node, ast.Attribute) and node.attr in ("fit_loop", "_accelerator_connector"):
                found.add(path.relative_to(package).as_posix())
    assert found == {"training/internals.py"}
