"""Objectives, which are minimized, and the terms that most of them are sums of.

One reduction everywhere: sum over the dimensions of an event, mean over the batch, in nats.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaelab.losses.corruptions import Corruption
from vaelab.losses.needs import concerning, need_uncoupled
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.parts import CodePosterior, UnsuitableError, coupling_module
from vaelab.models.schedules import Schedule, Weight, at
from vaelab.seeding import derive_seed

Terms = Mapping[str, Tensor]
OptimizerOf = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Critics = dict[str, tuple[nn.Module, OptimizerOf]]
RESERVED = ("loss", "reconstruction", "elbo", "mse")  # names of what is reported besides the terms


class Term(nn.Module, ABC):
    """A summand of a loss: a scalar of a step, times a weight.

    A term may own critics or feature networks of any input (z, x, features), which it makes in `build`.

    Args:
        weight: a number, or a schedule of the optimizer's step.
    """

    couples_images: bool = False  # its value is not a mean over the images of a batch
    only_reported: ClassVar[bool] = False  # adds nothing to the loss
    uses_prior: ClassVar[bool] = False  # trains or matches p(z)
    differentiates: ClassVar[Sequence[str]] = ()  # parts of the model whose gradients are in its value
    evaluated_as: ClassVar[str | None] = None  # the name of what an evaluation reports, where it is another quantity

    def __init__(self, *, weight: Weight | Schedule = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, step: Step) -> Tensor | None:
        """The value in nats, unweighted; None where the model has none."""

    def evaluate(self, step: Step) -> Tensor | None:
        """The value in an evaluation, which has to be comparable across steps; None leaves it out."""
        value: Tensor | None = self(step)
        return value

    def contribution(self, step: Step, value: Tensor) -> Tensor:
        """What a value adds to the loss."""
        return step.weight(self.weight) * value

    def requires(self, model: Autoencoder) -> None:
        """Raise UnsuitableError where `model` lacks what this needs."""

    def build(self, model: Autoencoder) -> None:
        """Make its networks."""

    def ready(self, *, fetch: bool) -> None:
        """Look for the files that it needs, before anything is written; download what can be, where it may `fetch`.

        Raises:
            ValueError: one is missing, or not what it should be.
        """

    def bind(self, terms: Mapping[str, "Term"]) -> None:
        """Look up what it needs from the other terms of the loss, which have been built."""

    def critics(self) -> Critics:
        """Networks that are trained against the model, each with its optimizer's factory."""
        return {}

    def critic_losses(self, step: Step) -> dict[str, Tensor]:
        """The loss of each critic; no gradient reaches the model."""
        return {}


class Objective(nn.Module, ABC):
    """step -> "loss", which is minimized, and each term by its name, unweighted: scalars in nats.

    `terms` are its terms by name; an importance-weighted bound, which is not a sum of terms, has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.terms = nn.ModuleDict()

    @abstractmethod
    def forward(self, step: Step) -> Terms:
        """The loss and its terms."""

    def requires(self, model: Autoencoder) -> None:
        """Raise UnsuitableError where `model` lacks what this, or a term, needs."""
        for name, term in self._named():
            with concerning(f"the term {name}"):
                term.requires(model)
                parts = [getattr(model, part) for part in term.differentiates]
                instead = "normalization=layer or group does not"
                need_uncoupled("it takes the gradient of each image", *parts, instead=instead)

    def build(self, model: Autoencoder, seed: int) -> None:
        """Make the terms' networks."""
        for name, term in self._named():
            torch.manual_seed(derive_seed(seed, f"term {name}"))
            with concerning(f"the term {name}"):
                term.build(model)
        for name, term in self._named():
            with concerning(f"the term {name}"):
                term.bind(dict(self._named()))
        reported = {f"{name}_weight" for name in self.terms} | set(self.critics())
        for name in reported & self.terms.keys():
            raise ValueError(f"terms.{name}: another term reports something by this name; take my_{name}")

    def ready(self, *, fetch: bool) -> None:
        """Look for the files that the terms need, before anything is written.

        Raises:
            ValueError: one is missing, or not what it should be.
        """
        for name, term in self._named():
            try:
                term.ready(fetch=fetch)
            except ValueError as error:
                raise ValueError(f"terms.{name}: {error}") from error

    def coupling(self) -> str | None:
        """The first term that couples the images of a batch, by its value or its critic; None where none does."""
        coupled = (name for name, term in self._named() if term.couples_images or coupling_module(term) is not None)
        return next((f"the term {name}" for name in coupled), None)

    def taking_gradients(self) -> str | None:
        """The first term whose value contains gradients; None where none does."""
        return next((f"the term {name}" for name, term in self._named() if term.differentiates), None)

    def weights(self, step: float) -> dict[str, float]:
        """`<term>_weight` of each term."""
        return {f"{name}_weight": at(term.weight, step) for name, term in self._named() if not term.only_reported}

    def critics(self) -> Critics:
        """`<term>_<critic>`."""
        return {f"{name}_{critic}": made for name, term in self._named() for critic, made in term.critics().items()}

    def critic_losses(self, step: Step) -> dict[str, Tensor]:
        """`<term>_<critic>`."""
        losses = [(name, term.critic_losses(step)) for name, term in self._named()]
        return {f"{name}_{critic}": loss for name, own in losses for critic, loss in own.items()}

    def _named(self) -> Iterable[tuple[str, Term]]:
        return self.terms.items()  # type: ignore[return-value]


class SumOfTerms(Objective):
    """loss = reconstruction_weight * E_q[-log p(x|z)] + sum_i w_i(step) T_i, q = q(z|c(x)), c a corruption or nothing.

    An evaluation takes the reconstruction at weight 1, and `Term.evaluate` of each term: a critic's value at one step
    cannot be compared with that at another.

    Args:
        terms: name -> T_i; None is left out.
        corruption: applied to the encoder's images in training (Vincent et al. 2010).
        reconstruction_weight: of -log p(x|z) in training.

    Raises:
        ValueError: a term has a name that cannot be one, or two have the same.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        more: Mapping[str, Term | None] | None = None,
        *,
        corruption: Corruption | None = None,
        reconstruction_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.corruption, self.reconstruction_weight = corruption, reconstruction_weight
        for name, term in [*terms.items(), *(more or {}).items()]:
            if name in self.terms:
                raise ValueError(f"there are two terms {name}: give the one that you add, terms.{name}, another name")
            if name in RESERVED or not name.isidentifier() or hasattr(self.terms, name):
                raise ValueError(f"terms.{name}: no term can have this name; take another, such as my_{name}")
            if term is not None:
                self.terms[name] = term

    def forward(self, step: Step) -> Terms:
        if step.training and self.corruption is not None:
            step.seen = self.corruption(step.x)
        loss, values = step.reconstruction, {"reconstruction": step.reconstruction}
        if step.training and self.reconstruction_weight != 1:
            loss = self.reconstruction_weight * loss
        for name, term in self._named():
            value = term(step) if step.training else term.evaluate(step)
            if value is None:
                continue
            step.loss_before = loss
            values[name if step.training else self._evaluated_as(name, term, values)] = value
            loss = loss if term.only_reported else loss + term.contribution(step, value)
        return {"loss": loss, **values}

    def _evaluated_as(self, name: str, term: Term, taken: Terms) -> str:
        """The name of a term's value in an evaluation: its own, where the other name is taken."""
        other = term.evaluated_as
        return name if other is None or other in self.terms or other in taken else other

    def requires(self, model: Autoencoder) -> None:
        super().requires(model)
        terms = dict(self._named())
        if isinstance(model.posterior, CodePosterior) and not model.posterior.has_density and "commitment" not in terms:
            message = "nothing trains the codes of {}: take the objective vector_quantization"
            raise UnsuitableError(message, model.posterior)
        if model.prior is not None and not any(term.uses_prior for term in terms.values()):
            raise UnsuitableError(
                f"no term ({', '.join(terms) or 'there is none'}) trains {{}} or anything against it: add one that "
                "does, such as kl or mmd, or leave the prior out",
                model.prior,
            )
