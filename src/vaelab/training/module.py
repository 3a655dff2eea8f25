"""The one LightningModule: an autoencoder, its objective and their optimizers."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import do_nothing_closure
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.parallel import DistributedDataParallel

from vaelab.data import Batch, Batches, in_turn
from vaelab.errors import DivergenceError
from vaelab.losses import Objective, Step, Terms
from vaelab.losses.objective import OptimizerOf
from vaelab.metrics.likelihood import evaluation_terms
from vaelab.models.autoencoder import Autoencoder
from vaelab.performance.denormals import EVERY, flush
from vaelab.performance.torch_internals import copy_each, unscales_gradients
from vaelab.seeding import derive_seed, seed_noise, sharing
from vaelab.training.bundles import Bundles
from vaelab.training.datamodule import as_batch
from vaelab.training.graph import StepGraph, require_capturable
from vaelab.training.internals import HOOK, batch_number, batch_of_epoch, count_step, has_plain_steps
from vaelab.training.learning_rate import FactorOf, TorchSchedule, schedules, step_after_batch, step_on_metrics
from vaelab.training.reading import tensors
from vaelab.training.term_means import TermsOfBatch, everyones, means, on, require_finite


class AutoencoderModule(pl.LightningModule):
    """Minimizes `objective` over `model`, and the losses of the objective's critics over the critics.

    The noise of a training batch is f(seed, number of the batch), that of an evaluation f(seed, split, batch), so
    that neither depends on what ran before. Terms stay on the device; their means over the images of the last
    `log_every` batches are logged together, as `train/<term>` at the optimizer's step.

    It owns its step: every optimizer takes one a batch, or one for every `accumulate_grad_batches`, first the model's,
    then each critic's, all from the same latents. Steps are counted by the model's. Processes that share a batch add
    up their gradients.

    Args:
        model: what is trained.
        objective: the loss and its terms; its critics are made here.
        optimizer: parameters -> optimizer.
        scheduler: (steps of the run, steps of an epoch) -> factor of the learning rate at a step, or a class of torch.
        seed: the run's.
        log_every: batches whose terms are logged together.
        accumulate_grad_batches: batches whose gradients an optimizer's step takes the mean of. Where the last of an
            epoch are fewer, it is the mean of these (Lightning divides them by this number, too); of a loader that
            does not know its length, it is not known in time.
        gradient_clip_val: what the gradients of each optimizer are clipped to; None leaves them.
        gradient_clip_algorithm: by their norm together, or by value.
        cuda_graph: whether the step is captured as a CUDA graph.
    """

    def __init__(
        self,
        model: Autoencoder,
        objective: Objective,
        optimizer: OptimizerOf,
        scheduler: FactorOf | TorchSchedule | None = None,
        *,
        seed: int = 0,
        log_every: int = 50,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        objective.build(model, seed)
        self.model, self.objective, self.optimizer, self.scheduler = model, objective, optimizer, scheduler
        self.seed, self.log_every, self.accumulate_grad_batches = seed, log_every, accumulate_grad_batches
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm
        self.cuda_graph = cuda_graph
        self.shown: dict[str, float] = {}  # the newest terms, for the progress bar
        self._window: list[TermsOfBatch] = []
        self._evaluation: list[TermsOfBatch] = []
        self._dataset_size: int | None = None
        self._bundles: Bundles | None = None  # of the training that is going on
        self._plain_steps = False
        self._graph: StepGraph | None = None
        self._critic_parameters = [p for critic, _ in objective.critics().values() for p in critic.parameters()]

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute: of Lightning's note of the hook it is in, without asking whether it is a parameter.

        It takes one 40 times a step.
        """
        if name == HOOK:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> Any:
        """The model's optimizer, with its learning rate's factor at every step, and the critics'."""
        optimizers = [self.optimizer(self.model.parameters())]
        optimizers += [make(critic.parameters()) for critic, make in self.objective.critics().values()]
        return optimizers, schedules(optimizers[0], self.scheduler, self.trainer, self.accumulate_grad_batches)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """A batch, and those of its bundle after it."""
        loss = self._train_on(batch)
        assert self._bundles is not None
        for another in self._bundles.others():
            loss = self._train_on(another)
        return loss

    def _train_on(self, batch: Batch) -> Tensor:
        """One batch, under the noise of its number: the model's step, then each critic's."""
        batch = as_batch(batch)  # of somebody's own loader, too
        number, batch_idx = batch_number(self.trainer), batch_of_epoch(self.trainer)
        with self._sharing(number, batch_idx, len(batch.images)) as (share, images):
            step = Step(
                self.model, batch.images, batch.labels, number=self.global_step, dataset_size=self._dataset_size
            )
            first = batch_idx - batch_idx % self.accumulate_grad_batches
            share /= min(self.accumulate_grad_batches, self.trainer.num_training_batches - first)
            due = (batch_idx + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch
            terms = self._take(step, share, due) if self._graph is None else self._graph(step)
        if due:
            count_step(self.trainer)
            step_after_batch(self.trainer)
            if self.global_step % EVERY == 0:
                for optimizer in self.trainer.optimizers:
                    flush(optimizer)
        terms = {name: term.detach() for name, term in terms.items()}
        self._window.append((terms, images, step.number))
        return terms["loss"]

    def _take(self, step: Step, share: float = 1.0, due: bool = True) -> Terms:
        """Forward, backward and, where they are `due`, the optimizers' steps; the terms, and the critics' losses."""
        self._train_critics(False)  # the terms ask them, and train them no further
        terms = dict(self.objective(step))
        self._minimize(0, terms["loss"], share, due)
        if self._critic_parameters:
            self._train_critics(True)
            losses = self.objective.critic_losses(step)
            for index, name in enumerate(self.objective.critics(), 1):
                self._minimize(index, losses[name], share, due)
            terms |= losses
        return terms

    @contextmanager
    def _sharing(self, number: int, batch_idx: int, size: int) -> Iterator[tuple[float, int]]:
        """Seed the noise of a batch; this process's share in its loss, and images of its own.

        The sum of the processes' gradients, each of a mean over its own images times its share, is that of the mean
        over all images of the batch.
        """
        rank, seed = self.global_rank, derive_seed(self.seed, "noise", number)
        seed_noise(self.device, derive_seed(self.seed, f"noise/{rank}", number) if rank else seed)
        if self.trainer.world_size == 1:
            yield 1.0, size
            return
        batches = self.trainer.train_dataloader
        assert isinstance(batches, Batches)
        size = batches.size(batch_idx)
        with sharing(size, rank=rank, world_size=self.trainer.world_size, seed=seed, device=self.device):
            own = batches.own(batch_idx)
            yield own / size, own

    def _train_critics(self, on: bool) -> None:
        for parameter in self._critic_parameters:
            parameter.requires_grad_(on)

    def _minimize(self, index: int, loss: Tensor, share: float, due: bool) -> None:
        """Add the gradients of a batch's share in a loss and, where it is `due`, take the optimizer's step."""
        self._backward(loss * share if share != 1 else loss)
        if not due:
            return
        optimizer, others = self.trainer.optimizers[index], self.trainer.optimizers[index + 1 :]
        if self._plain_steps:
            self.on_before_optimizer_step(optimizer)
            optimizer.step()
        else:
            if isinstance(self.trainer.strategy.model, DistributedDataParallel):
                _add_up([p.grad for p in _parameters(optimizer) if p.grad is not None])
            with self._scale_kept(_parameters(*others)):
                self.trainer.precision_plugin.optimizer_step(optimizer, model=self, closure=do_nothing_closure)
        optimizer.zero_grad()

    def _backward(self, loss: Tensor) -> None:
        """The gradients; trainer.detect_anomaly has torch look at each of them.

        Raises:
            DivergenceError: torch found one that is NaN.
        """
        try:
            loss.backward() if self._plain_steps else self.manual_backward(loss)
        except RuntimeError as error:
            if "returned nan values" not in str(error):
                raise
            require_finite(self._window, "train/")
            raise DivergenceError(f"a gradient is NaN at step {self.global_step}: {error}") from error

    @contextmanager
    def _scale_kept(self, others: list[nn.Parameter]) -> Iterator[None]:
        """Have a change of 16-mixed's scale reach the gradients that other parameters have from earlier batches."""
        scaler = self._scaler()
        if scaler is None:
            yield
            return
        one = torch.ones((), device=self.device)
        before = scaler.scale(one)
        yield
        change = scaler.scale(one) / before
        for parameter in others:
            if parameter.grad is not None:
                parameter.grad.mul_(change)

    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip its gradients."""
        if self.gradient_clip_val is None:
            return
        scaler = self._scaler()
        if scaler is not None and unscales_gradients(optimizer):
            scaler.unscale_(optimizer)  # fused kernels would do so themselves, afterwards
        by_norm = self.gradient_clip_algorithm == "norm"
        clip = nn.utils.clip_grad_norm_ if by_norm else nn.utils.clip_grad_value_
        clip(_parameters(optimizer), self.gradient_clip_val)

    def on_train_epoch_end(self) -> None:
        """Step a scheduler that looks at a metric, before the checkpoint of the epoch is written."""
        step_on_metrics(self.trainer, self.scheduler)

    def on_train_end(self) -> None:
        """Free the memory of the graph."""
        self._graph = None

    def on_train_start(self) -> None:
        """Count the images; log the terms restored from a checkpoint between a batch's end and its logging."""
        batches = self.trainer.train_dataloader
        if isinstance(batches, Batches):  # and no loader of somebody's own
            self._dataset_size = len(batches.images)
        self._bundles = Bundles(self.trainer, self.log_every)
        self._plain_steps = has_plain_steps(self.trainer)
        if self.cuda_graph:
            require_capturable(self.trainer, accumulate_grad_batches=self.accumulate_grad_batches)
            scheduled = bool(self.trainer.lr_scheduler_configs)
            self._graph = StepGraph(self._take, self, self.trainer.optimizers, scheduled=scheduled)
        if len(self._window) >= self.log_every:
            self._log_window()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Have several processes start with the buffers of the first, and add up no gradients by themselves.

        Each optimizer's are added up before its step. Lightning and torch set both the other way after every batch.
        """
        if isinstance(wrapped := self.trainer.strategy.model, DistributedDataParallel):
            wrapped.require_backward_grad_sync = False
            wrapped.require_forward_param_sync = True

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the terms, now and then.

        Raises:
            DivergenceError: a term is NaN or infinite.
        """
        if len(self._window) >= self.log_every or self.trainer.is_last_batch:
            self._log_window()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Distribution] | None:
        """The terms of one batch of the validation split; and q(z|x), for callbacks that look at it.

        None of a batch that another process takes.
        """
        q = self._evaluate(batch, "val", batch_idx)
        return None if q is None else {"posterior": q}

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation split."""
        self._log_evaluation("val/")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The terms of one batch of the test split."""
        self._evaluate(batch, "test", batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the means over the test split."""
        self._log_evaluation("test/")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the terms that have not been logged yet, those of every process.

        Raises:
            DivergenceError: a term, a weight or a number of the optimizer is NaN or infinite.
        """
        windows = self._windows()
        states = [state["state"] for state in checkpoint.get("optimizer_states", [])]
        for what, content in [("the weights are", checkpoint["state_dict"]), ("the optimizer's state is", states)]:
            finite = all(bool(tensor.isfinite().all()) for tensor in tensors(content))
            if not self.trainer.strategy.reduce_boolean_decision(finite):  # in any process: all of them stop
                raise DivergenceError(f"{what} NaN or infinite after step {self.global_step}")
        checkpoint["window"] = windows

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the terms that had not been logged yet.

        Raises:
            ValueError: Lightning would find no state for an optimizer, and go on without.
        """
        expected, found = 1 + len(self.objective.critics()), len(checkpoint["optimizer_states"])
        if found != expected:
            raise ValueError(f"expected the state of {expected} optimizer{'s' * (expected > 1)}, found {found}")
        self.trainer.precision_plugin.convert_module(self)  # Lightning does so after it has loaded float64 as float32
        windows = checkpoint["window"]
        if len(windows) == self.trainer.world_size:  # else they are not this process's images
            self._window = on(self.trainer.strategy.root_device, windows[self.global_rank])

    def _evaluate(self, batch: Batch, split: str, number: int) -> Distribution | None:
        batch = as_batch(batch)
        if not len(batch.images):
            return None
        seed_noise(self.device, derive_seed(self.seed, split, number))
        step = Step(self.model, batch.images, batch.labels, number=self.global_step, training=False)
        self._evaluation.append((evaluation_terms(self.objective, step), len(batch.images), self.global_step))
        return step.q

    def _log_window(self) -> None:
        self.shown = means(self._window, "train/", self.trainer.strategy)
        if not all(map(math.isfinite, self.shown.values())):
            self._windows()  # says where
        self._window = []
        for logger in self.loggers:
            logger.log_metrics(self.shown, step=self.global_step)
        if self.trainer.is_last_batch:  # for callbacks that monitor it, which look once an epoch
            self.log_dict(self.shown, logger=False)

    def _windows(self) -> list[list[TermsOfBatch]]:
        """The windows of all processes.

        Raises:
            DivergenceError: a term of one of them is NaN or infinite; in every process, with the first step.
        """
        windows = self._everyones(self._window)
        require_finite(in_turn(windows), "train/")
        return windows

    def _log_evaluation(self, prefix: str) -> None:
        evaluation, self._evaluation = in_turn(self._everyones(self._evaluation)), []
        found = means(evaluation, prefix)
        if not all(map(math.isfinite, found.values())):
            require_finite(evaluation, prefix)
        self.shown |= found
        self.log_dict(found, logger=False, sync_dist=True)  # its loggers would get the step before
        for logger in self.loggers:
            logger.log_metrics(found, step=self.global_step)

    def _everyones(self, batches: list[TermsOfBatch]) -> list[list[TermsOfBatch]]:
        several = self.trainer.world_size > 1
        return everyones(on(torch.device("cpu"), batches) if several else batches, self.trainer.strategy)


def _add_up(gradients: list[Tensor]) -> None:
    """Sum gradients over the processes, in place."""
    together = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(together)
    sums = together.split([gradient.numel() for gradient in gradients])
    copy_each(gradients, [part.view_as(like) for part, like in zip(sums, gradients, strict=True)])


def _parameters(*optimizers: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
