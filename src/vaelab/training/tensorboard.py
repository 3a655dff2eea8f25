"""Write TensorBoard's event files: Lightning's logger, and features that only TensorBoard has."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.utils.tensorboard.summary import hparams

from vaelab.figures import drawable


class EventFiles(TensorBoardLogger):
    """Lightning's logger with one event file per session in its folder and nothing else.

    Lightning calls `finalize` after each of its loops, and would write an empty hparams.yaml. This logger stays open
    until `close`, or until a loop fails.

    Args:
        folder: of the event files.
        projector: number of test images whose latents the projector shows; 0 disables it.
    """

    def __init__(self, folder: Path, *, projector: int = 1000) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        self.projector = projector

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None, step: int | None = None) -> None:
        """Begin the run's row of the HParams table; its metrics are the last values of the scalars.

        Names and types of the columns are not written: TensorBoard then finds them in all runs together, instead of
        taking those of one run for all.
        """
        _, started, _ = hparams(dict(params), {})  # type: ignore[no-untyped-call]
        self.experiment.file_writer.add_summary(started)

    @rank_zero_only
    def log_text(self, tag: str, text: str, *, language: str = "") -> None:
        """Log a text, shown as code."""
        self.experiment.add_text(tag, f"```{language}\n{text.rstrip()}\n```", 0)

    @rank_zero_only
    def log_layout(self, charts: Mapping[str, Sequence[str]]) -> None:
        """Define a chart for each name under Custom Scalars, with the scalars of these tags."""
        layout = {name: ["Multiline", [f"^{tag}$" for tag in tags]] for name, tags in charts.items()}
        self.experiment.add_custom_scalars({"training and validation": layout})

    @rank_zero_only
    def log_embedding(self, latents: Tensor, images: Tensor, names: Sequence[str] | None, step: int) -> None:
        """Show latents (N, Z) in the projector, each as its image (N, C, H, W), with the name of its label."""
        height, width = images.shape[-2:]
        side = max(height, width)  # TensorBoard lays out only squares
        squares = nn.functional.pad(drawable(images), (0, side - width, 0, side - height))
        self.experiment.add_embedding(latents, list(names) if names else None, squares, step, "latents")

    def remove_embeddings(self) -> None:
        """Remove the files of `log_embedding`."""
        for latents in Path(self.log_dir).glob("*/latents"):
            shutil.rmtree(latents.parent)
        Path(self.log_dir, "projector_config.pbtxt").unlink(missing_ok=True)

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the event file after a failure; otherwise more follows."""
        if status == "success":
            self.save()
        elif self._experiment is not None:
            self.experiment.close()

    @rank_zero_only
    def close(self) -> None:
        """End the run's row of the HParams table as a success, and close the event file."""
        _, _, ended = hparams({}, {})  # type: ignore[no-untyped-call]
        self.experiment.file_writer.add_summary(ended)
        self.experiment.close()
