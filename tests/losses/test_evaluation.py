"""What an evaluation reports as the loss chooses the weights that are kept: it has to order models rightly."""

import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from linear_models import linear_gaussian, probabilistic_pca, seeded

import vaelab
from vaelab.config.check import check
from vaelab.losses import Step, TotalCorrelation, adversarial, elbo, factor_vae, reconstruction
from vaelab.losses.divergences import total_correlation
from vaelab.models.networks import Discriminator
from vaelab.training.optimizers import adam

CRITIC = {"discriminator": Discriminator, "discriminator_optimizer": adam}


@pytest.mark.slow
def test_of_exact_linear_models_of_digits_factor_vae_and_beta_tcvae_choose_the_one_that_the_elbo_chooses():
    """With k of 20 components; with ten times the total correlation of the batch the best would be k = 5."""
    splits = check(vaelab.compose(["data=mnist_5k"])).data.splits
    train, x = (part.pixels.double() / 255 for part in (splits.train, splits.validation))
    objectives = {"factor_vae": factor_vae(**CRITIC), "beta_tcvae": elbo(terms={"tc": TotalCorrelation()})}
    losses, of_the_batch = {name: [] for name in ("elbo", *objectives)}, {}
    for used, model in enumerate(probabilistic_pca(train, latent_dim=20, scale=0.25), 1):
        torch.manual_seed(0)
        with torch.no_grad():
            step = Step(model, x, training=False)
            negative_elbo = (step.reconstruction + step.kl()).item()
            losses["elbo"].append(negative_elbo)
            if used in (3, 5, 10, 20):
                of_the_batch[used] = negative_elbo + 10 * total_correlation(step.q, step.z).item()
            for name, objective in objectives.items():
                losses[name].append(objective(step)["loss"].item())
    assert losses["elbo"] == sorted(losses["elbo"], reverse=True)  # each component tells something more
    assert losses["elbo"][2] == pytest.approx(-33.8, abs=0.5)
    assert losses["elbo"][19] == pytest.approx(-174.6, abs=0.5)
    for name in objectives:
        assert losses[name] == sorted(losses[name], reverse=True)
        assert losses[name] == pytest.approx(losses["elbo"], abs=0.2)
    assert min(of_the_batch, key=of_the_batch.get) == 5


def moved(shift, stretch):
    """A model whose z is stretched and moved away from the prior, with a decoder that takes it back."""
    model = linear_gaussian(exact=True)
    with torch.no_grad():
        posterior, decoder = model.posterior, model.decoder
        posterior.weight *= stretch
        posterior.bias.mul_(stretch).add_(shift)
        posterior.log_variance += 2 * math.log(stretch)
        decoder.weight /= stretch
        decoder.bias -= decoder.weight @ torch.full_like(posterior.bias, shift)
    return model


@pytest.mark.parametrize(
    "ways", [[(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 1.0)], [(0.0, 1.0), (0.0, 2.0), (0.0, 4.0)]]
)
def test_an_adversarial_autoencoder_whose_codes_leave_the_prior_is_the_worse_one_at_equal_reconstruction(ways):
    objective = adversarial(**CRITIC)
    origin = linear_gaussian(exact=True)
    torch.manual_seed(0)
    with torch.no_grad():
        x = origin.decode(torch.randn(300, 2, dtype=torch.float64)).sample()
    models = [moved(*way) for way in ways]
    with torch.no_grad():
        evaluated = [seeded(objective, model, x, seed=1) for model in models]
    assert all(set(terms) == {"loss", "reconstruction", "mmd"} for terms in evaluated)
    for terms, model in zip(evaluated, models, strict=True):
        assert terms["reconstruction"].item() == pytest.approx(evaluated[0]["reconstruction"].item(), abs=1e-9)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 10 * terms["mmd"])
        assert terms["reconstruction"].equal(seeded(reconstruction(), model, x, seed=1)["reconstruction"])
    assert evaluated[0]["mmd"].item() == pytest.approx(0, abs=0.02)
    losses = [terms["loss"].item() for terms in evaluated]
    assert losses == sorted(losses)
    assert all(after - before > 0.5 for before, after in pairwise(losses))
