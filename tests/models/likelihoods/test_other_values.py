"""Likelihoods of counts, outliers and tables, and of events that are no images."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, Normal

from vaelab.models import likelihoods
from vaelab.models.likelihoods import Columns, NegativeBinomial, Poisson, StudentT

OF_ANY_SHAPE = [
    likelihoods.Bernoulli,
    likelihoods.Gaussian,
    likelihoods.SharedScaleGaussian,
    likelihoods.PixelScaleGaussian,
    likelihoods.OptimalScaleGaussian,
    likelihoods.Laplace,
    likelihoods.ContinuousBernoulli,
    likelihoods.DiscretizedLogistic,
    StudentT,
    Poisson,
    NegativeBinomial,
]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", OF_ANY_SHAPE)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 1, 3), (1, 2, 1, 3)], ids=str)
def test_an_event_of_any_shape_has_the_log_probability_of_the_same_numbers_in_an_image(kind, shape):
    """A likelihood of independent places does not ask how they are laid out."""
    likelihood, of_images = kind(shape), kind((shape[0], torch.Size(shape).numel() // shape[0], 1))
    x = torch.randint(0, 2, (4, *shape), generator=torch.Generator().manual_seed(1)).float()
    parameters = drawn(4, *likelihood.parameter_shape)

    p = likelihood(parameters)
    as_image = of_images(parameters.reshape(4, *of_images.parameter_shape))

    assert (p.batch_shape, p.event_shape) == ((4,), shape)
    assert p.mean.shape == (4, *shape)
    torch.testing.assert_close(p.log_prob(x), as_image.log_prob(x.reshape(4, *of_images.shape)))


def test_poissons_log_prob_is_scipys():
    x, log_rate = torch.arange(12.0).reshape(4, 3), drawn(4, 3)
    exact = stats.poisson.logpmf(x.numpy(), log_rate.double().exp().numpy()).sum(1)

    torch.testing.assert_close(Poisson((3,))(log_rate).log_prob(x).double(), torch.from_numpy(exact), rtol=1e-5, atol=0)


def test_the_negative_binomials_log_prob_is_scipys_and_its_mean_the_decoders():
    likelihood = NegativeBinomial((3,))
    with torch.no_grad():
        likelihood.log_dispersion.copy_(torch.tensor([-1.0, 0.5, 3.0]))
    x, log_mean = torch.arange(12.0).reshape(4, 3), drawn(4, 3)
    r, mean = likelihood.log_dispersion.detach().double().exp().numpy(), log_mean.double().exp().numpy()
    exact = stats.nbinom.logpmf(x.numpy(), r, r / (r + mean)).sum(1)

    p = likelihood(log_mean)
    # softly_above moves log r by log(1 + exp(-9)) at most.
    torch.testing.assert_close(p.log_prob(x).double(), torch.from_numpy(exact), rtol=1e-3, atol=0)
    torch.testing.assert_close(p.mean, log_mean.exp())


def test_a_negative_binomial_of_little_dispersion_is_a_poisson():
    likelihood = NegativeBinomial((3,)).double()
    with torch.no_grad():
        likelihood.log_dispersion.fill_(14.0)
    x, log_mean = torch.arange(12.0).reshape(4, 3).double(), drawn(4, 3).double()

    torch.testing.assert_close(
        likelihood(log_mean).log_prob(x), Poisson((3,))(log_mean).log_prob(x), rtol=1e-4, atol=1e-4
    )


def test_students_t_is_scipys_and_has_no_fear_of_outliers():
    likelihood = StudentT((3,), degrees=3.0, start=0.5)
    scale = likelihoods.softly_above(likelihood.log_scale, -6.0).exp().item()
    x, mean = drawn(4, 3), drawn(4, 3, seed=1)
    exact = stats.t.logpdf(x.double().numpy(), 3.0, mean.double().numpy(), scale).sum(1)

    torch.testing.assert_close(likelihood(mean).log_prob(x).double(), torch.from_numpy(exact), rtol=1e-5, atol=1e-5)
    outlier = torch.full((1, 3), 1000.0)
    assert -likelihood(torch.zeros(1, 3)).log_prob(outlier).item() < 100


@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial])
def test_probabilities_of_all_counts_add_up_to_one(kind):
    p = kind((1,))(torch.tensor([[1.3]]))

    assert p.log_prob(torch.arange(3000.0)[:, None]).exp().sum().item() == pytest.approx(1, abs=1e-4)


class TestColumns:
    groups = (1, 3, 1, 2)

    def test_a_row_has_the_density_of_its_numbers_times_the_probability_of_its_categories(self):
        likelihood, parameters = Columns((7,), self.groups), drawn(5, 7)
        with torch.no_grad():
            likelihood.log_scale.copy_(torch.tensor([-1.0, 0.3]))
        scale = likelihoods.softly_above(likelihood.log_scale, -6.0).exp()
        row = torch.tensor([0.4, 0, 0, 1, -2.0, 1, 0])

        expected = (
            Normal(parameters[:, 0], scale[0]).log_prob(row[0])
            + Categorical(logits=parameters[:, 1:4]).log_prob(torch.tensor(2))
            + Normal(parameters[:, 4], scale[1]).log_prob(row[4])
            + Categorical(logits=parameters[:, 5:7]).log_prob(torch.tensor(0))
        )
        torch.testing.assert_close(likelihood(parameters).log_prob(row.expand(5, 7)), expected)

    def test_samples_have_one_category_each_as_often_as_the_mean_says(self):
        p = Columns((7,), self.groups)(drawn(7))
        torch.manual_seed(0)
        samples = p.sample((40_000,))

        for columns in (slice(1, 4), slice(5, 7)):
            assert (samples[:, columns].sum(1) == 1).all()
            assert set(samples[:, columns].unique().tolist()) == {0.0, 1.0}
        # Five standard errors: 0.5 / sqrt(40000) of a share, 0.3 / 200 of a number.
        assert (samples.mean(0) - p.mean).abs().max() < 0.0125

    def test_without_groups_every_column_is_a_number(self):
        assert Columns((4,)).groups == (1, 1, 1, 1)

    def test_an_image_is_refused(self):
        with pytest.raises(ValueError, match=r"rows of a table.*\(1, 2, 2\)"):
            Columns((1, 2, 2))


@pytest.mark.parametrize("likelihood", [Poisson((3,)), NegativeBinomial((3,)), StudentT((3,)), Columns((3,), (1, 2))])
def test_a_gradient_reaches_the_decoder_and_every_parameter(likelihood):
    parameters = drawn(4, 3).requires_grad_()
    x = torch.from_numpy(np.array([[1.0, 0, 1]] * 4, np.float32))
    likelihood(parameters).log_prob(x).sum().backward()

    assert parameters.grad.abs().min() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in likelihood.parameters())


def test_a_mixture_of_pixels_is_of_images_only():
    with pytest.raises(ValueError, match=r"is of images \(C, H, W\)"):
        likelihoods.DiscretizedLogisticMixture((3,))
