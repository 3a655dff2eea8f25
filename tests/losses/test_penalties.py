"""Each penalty against numpy, autograd's own Jacobian, or its formula written out."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

sys.path.insert(0, str(Path(__file__).parent))
from small_models import SHAPE, model_of

import vaelab
from vaelab.config.check import check
from vaelab.losses import (
    DIP,
    CodeNorm,
    DecoderJacobian,
    DecoderNorm,
    EncoderJacobian,
    Sparsity,
    Step,
    vector_quantization,
)
from vaelab.losses.penalties import jacobian_norm
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Delta
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder
from vaelab.models.parts import UnsuitableError
from vaelab.models.posteriors import Deterministic, Gaussian, VectorQuantizer
from vaelab.models.priors import UniformCodes
from vaelab.models.schedules import Linear


@pytest.fixture
def model():
    return model_of()


@pytest.fixture
def images():
    return torch.rand(9, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def penalty(term, model, x, q=None, z=None):
    """A term of images or, where they are given, of posteriors and codes."""
    torch.manual_seed(0)
    step = Step(model, x)
    if q is not None:
        step.q, step.z = q, z
    return term(step)


class TestDIP:
    @pytest.mark.parametrize("which", ["means", "samples"])
    def test_it_is_that_of_numpys_covariance(self, model, images, which):
        q = model.encode(images)
        covariance = np.cov(q.mean.detach().numpy().T, bias=True)
        if which == "samples":
            covariance = covariance + np.diag(q.variance.detach().numpy().mean(0))
        off = covariance - np.diag(np.diag(covariance))
        expected = (off**2).sum() + 7 * ((np.diag(covariance) - 1) ** 2).sum()
        assert penalty(DIP(diagonal=7.0, covariance=which), model, images).item() == pytest.approx(expected)

    def test_full_covariances_count_whole(self, model, images):
        scale = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
        q = MultivariateNormal(torch.zeros(4, 2, dtype=torch.float64), scale_tril=scale.expand(4, 2, 2))
        c = (scale @ scale.T).numpy()
        expected = 2 * c[0, 1] ** 2 + (c[0, 0] - 1) ** 2 + (c[1, 1] - 1) ** 2
        part = DIP(diagonal=1.0, covariance="samples")
        assert penalty(part, model, images, q, q.sample()).item() == pytest.approx(expected)

    def test_codes_of_the_prior_are_not_pushed(self, model, images):
        z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # covariance I
        assert penalty(DIP(), model, images, Delta(z), z).item() == 0


class TestJacobians:
    def exact(self, function, at):
        rows = [torch.autograd.functional.jacobian(function, one[None]).square().sum() for one in at]
        return torch.stack(rows)

    @pytest.mark.parametrize("kind", [Gaussian, Deterministic])
    def test_contraction_is_autograds_full_jacobian_within_its_standard_error(self, kind, images):
        model = model_of(kind, prior=kind is Gaussian)
        x = images[:3]
        exact = self.exact(lambda at: model.encode(at).mean, x)
        torch.manual_seed(0)
        draws = jacobian_norm(lambda at: model.encode(at).mean, x.repeat_interleave(4000, 0)).detach().view(3, -1)
        assert ((draws.mean(1) - exact).abs() < 4 * draws.std(1) / math.sqrt(4000)).all()

    def test_the_decoders_is_autograds_full_jacobian_within_its_standard_error(self, model, images):
        z = model.encode(images[:3]).mean.detach()
        exact = self.exact(lambda at: model.decode(at).mean, z)
        torch.manual_seed(0)
        draws = jacobian_norm(lambda at: model.decode(at).mean, z.repeat_interleave(4000, 0)).detach().view(3, -1)
        assert ((draws.mean(1) - exact).abs() < 4 * draws.std(1) / math.sqrt(4000)).all()

    def test_one_output_is_exact(self):
        """J is one row, and the square of a sign is 1: |J^T v|^2 = |J|^2."""
        weight = torch.tensor([3.0, 4.0])
        drawn = jacobian_norm(lambda at: (at @ weight)[:, None], torch.zeros(5, 2))
        torch.testing.assert_close(drawn, torch.full((5,), 25.0))

    def test_signs_leave_a_third_of_the_spread_of_gaussian_directions_on_the_contractive_preset(self):
        """Both spreads from A = J J^T: 2 sum_{i != j} A_ij^2 of signs, 2 sum_ij A_ij^2 of normal directions."""
        model = check(vaelab.compose(["model=contractive_ae"])).model().double()
        x = torch.rand(2, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

        def encode(at):
            return model.encode(at).mean

        signs, normal = [], []
        for one in x:
            jacobian = torch.autograd.functional.jacobian(encode, one[None])[0].flatten(1)  # (Z, pixels)
            squares = (jacobian @ jacobian.T).square()
            normal.append((2 * squares.sum()).sqrt())
            signs.append((2 * (squares.sum() - squares.diagonal().sum())).sqrt())
        signs, normal = torch.stack(signs), torch.stack(normal)
        torch.manual_seed(0)
        drawn = jacobian_norm(encode, x.repeat_interleave(1000, 0)).detach().view(2, -1)

        torch.testing.assert_close(drawn.std(1), signs, rtol=0.15, atol=0)
        assert (signs / normal).tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.05)

    @pytest.mark.parametrize("part", [EncoderJacobian(), DecoderJacobian()], ids=lambda part: type(part).__name__)
    def test_an_evaluation_without_gradients_has_the_same_value(self, part, model, images):
        value = penalty(part, model, images)
        assert value.requires_grad
        with torch.inference_mode():
            torch.testing.assert_close(penalty(part, model, images.clone()), value.detach())

    def test_the_penalty_shrinks_the_slope_that_it_is_of(self, model, images):
        def slope():
            return self.exact(lambda at: model.encode(at).mean, images).mean().item()

        before = slope()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(100):
            optimizer.zero_grad()
            penalty(EncoderJacobian(), model, images).backward()
            optimizer.step()
        assert slope() < 0.1 * before


def test_the_norm_of_codes_is_half_the_sum_of_their_squares_a_mean_over_images(model, images):
    z = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert penalty(CodeNorm(), model, images, Delta(z), z).item() == pytest.approx((25 / 2 + 1 / 2) / 2)


def test_the_norm_of_the_decoder_is_the_sum_of_the_squares_of_its_weights(model, images):
    expected = sum(float((weights.detach().numpy() ** 2).sum()) for weights in model.decoder.parameters())
    assert penalty(DecoderNorm(), model, images).item() == pytest.approx(expected)


def test_sparsity_is_the_divergence_between_coins(model, images):
    z = torch.tensor([[0.1, 0.5], [0.3, 0.9]], dtype=torch.float64)
    expected = sum(
        kl_divergence(torch.distributions.Bernoulli(0.05), torch.distributions.Bernoulli(active)).item()
        for active in (0.2, 0.7)
    )
    assert penalty(Sparsity(), model, images, Delta(z), z).item() == pytest.approx(expected, rel=1e-6)
    wanted = torch.full((4, 2), 0.05)
    assert penalty(Sparsity(), model, images, Delta(wanted), wanted).item() == pytest.approx(0, abs=1e-7)
    dead = torch.zeros(4, 2)
    assert penalty(Sparsity(), model, images, Delta(dead), dead).isfinite()


def test_a_likelihood_of_black_and_white_has_a_slope_too(images):
    model = model_of(Deterministic, prior=False)
    model.likelihood = Bernoulli(SHAPE)
    assert penalty(DecoderJacobian(), model, images) > 0


def test_a_decoder_without_weights_has_no_norm():
    model = model_of(Deterministic, prior=False)
    model.decoder = nn.Unflatten(-1, SHAPE)
    with pytest.raises(UnsuitableError, match="Unflatten has no weights"):
        DecoderNorm().requires(model)


def quantizing(update="gradient"):
    torch.manual_seed(0)
    posterior = VectorQuantizer(math.prod(SHAPE), 2, codebook_size=4, codes=3, update=update)
    model = Autoencoder(
        encoder=nn.Flatten(),
        posterior=posterior,
        decoder=MLPDecoder(posterior.latent_dim, SHAPE, hidden=[4]),
        likelihood=GaussianLikelihood(SHAPE, scale=0.7),
        prior=UniformCodes(posterior.latent_dim),
    )
    return model.eval()


def test_the_loss_of_a_quantizer_is_reconstruction_commitment_and_the_codebooks_error():
    model, x = quantizing(), torch.rand(7, *SHAPE)
    codes = model.encode(x)
    reconstruction = -model.decode(codes.mean).log_prob(x).mean()
    error = (model.posterior.project(x.flatten(1)).flatten(1) - codes.mean).square().sum(1).mean()

    terms = vector_quantization(commitment_weight=0.25)(Step(model, x))

    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["commitment"], error)
    torch.testing.assert_close(terms["loss"], reconstruction + 1.25 * error)
    assert terms["kl"].item() == pytest.approx(3 * math.log(4))
    usage = codes.indices.flatten().bincount(minlength=4) / 21
    assert terms["batch_perplexity"].item() == pytest.approx(torch.special.entr(usage).sum().exp().item())


def test_averages_that_move_the_codebook_leave_no_error_of_it_in_the_loss():
    model, x = quantizing(update="ema"), torch.rand(7, *SHAPE)
    terms = vector_quantization(commitment_weight=Linear(start=0.0, end=0.5, steps=10))(Step(model, x, number=4))

    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.2 * terms["commitment"])


def test_the_terms_of_a_quantizer_do_not_depend_on_the_batch_size():
    model, x = quantizing(), torch.rand(7, *SHAPE)
    objective = vector_quantization()

    one, many = objective(Step(model, x)), objective(Step(model, x.repeat(5, 1, 1, 1)))

    for name in one:
        torch.testing.assert_close(one[name], many[name])


def test_a_part_that_looks_at_values_is_not_refused():
    """What a model needs is found out without values; where that fails, training says."""

    class Curious(nn.Flatten):
        def forward(self, x):
            return super().forward(x) if x.sum().item() < 1e9 else x

    model = quantizing()
    model.encoder = Curious()

    vector_quantization().requires(model)
