"""Each divergence against a closed form, numbers one by one, or the whole dataset at once."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

sys.path.insert(0, str(Path(__file__).parent))
from small_models import SHAPE, model_of

from vaelab.losses import KL, MMD, Step, TotalCorrelation, reconstruction
from vaelab.losses import capacity as objective_of_capacity
from vaelab.losses.divergences import mmd, moment_matched_total_correlation, total_correlation
from vaelab.models.posteriors import Deterministic
from vaelab.models.priors import StandardNormal
from vaelab.models.schedules import Linear


@pytest.fixture
def model():
    return model_of()


@pytest.fixture
def images():
    return torch.rand(9, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def posteriors(n, size, seed=0):
    """N independent Gaussians that overlap, as one distribution."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, size, generator=generator, dtype=torch.float64)
    mean[:, 1] += mean[:, 0]  # so that there is something to measure
    scale = 0.5 + torch.rand(n, size, generator=generator, dtype=torch.float64)
    return Independent(Normal(mean, scale), 1)


def aggregated(q, z):
    """log q(z) and sum_j log q(z_j) of q(z) = 1/N sum_n q(z|x_n), one number at a time."""
    mean, scale = q.base_dist.loc, q.base_dist.scale
    values = []
    for point in z:
        joint, marginals = 0.0, [0.0] * z.shape[1]
        for n in range(len(mean)):
            densities = [
                math.exp(-(((point[j] - mean[n, j]) / scale[n, j]) ** 2) / 2) / (scale[n, j] * math.sqrt(2 * math.pi))
                for j in range(z.shape[1])
            ]
            joint += math.prod(densities) / len(mean)
            marginals = [total + density / len(mean) for total, density in zip(marginals, densities, strict=True)]
        values.append(math.log(joint) - sum(map(math.log, marginals)))
    return sum(values) / len(values)


class TestTotalCorrelation:
    def test_with_the_whole_dataset_in_the_batch_it_is_exact(self):
        q = posteriors(12, 3)
        z = q.sample()
        torch.testing.assert_close(total_correlation(q, z).item(), aggregated(q, z))
        torch.testing.assert_close(total_correlation(q, z, images=12).item(), aggregated(q, z))

    def test_over_all_batches_the_density_that_it_estimates_has_the_mean_that_it_should(self):
        """Every batch of 3 of 6 images that has image 0 in it: the mean of the estimates of q(z_0) is q(z_0)."""
        q = posteriors(6, 2)
        z = q.sample()
        exact = q.log_prob(z[:1].expand(6, -1)).exp().mean()
        estimates = []
        for others in itertools.combinations(range(1, 6), 2):
            chosen = torch.tensor([0, *others])
            own, rest = q.log_prob(z[:1].expand(6, -1)).exp()[chosen].split([1, 2])
            estimates.append(own.sum() / 6 + rest.sum() * (1 - 1 / 6) / 2)
        torch.testing.assert_close(torch.stack(estimates).mean(), exact)

    def test_the_diagonal_has_the_weight_of_an_image_in_its_dataset(self):
        """Where posteriors do not overlap only an image's own is left: TC = log w - Z log w with w on the diagonal."""
        mean = torch.arange(5, dtype=torch.float64)[:, None].expand(5, 3) * 1e4
        q = Independent(Normal(mean, torch.ones_like(mean)), 1)
        images = 400
        expected = -2 * math.log(1 / images)
        torch.testing.assert_close(total_correlation(q, q.sample(), images=images).item(), expected)
        weighted = total_correlation(q, q.sample(), images=images, estimator="weighted").item()
        torch.testing.assert_close(weighted, -2 * math.log(1 / (images * 5)))

    @pytest.mark.parametrize("estimator", ["stratified", "weighted"])
    def test_in_a_batch_of_a_larger_dataset_it_is_the_sum_of_its_weights_one_by_one(self, estimator):
        q, images, batch = posteriors(5, 3), 40, 5
        z = q.sample()
        total = 0.0
        for i in range(batch):
            weights = [1 / images if i == n else (1 - 1 / images) / (batch - 1) for n in range(batch)]
            if estimator == "weighted":
                weights = [1 / (images * batch)] * batch
            densities = q.base_dist.log_prob(z[i]).exp().tolist()  # [n][j]
            joint = sum(w * math.prod(row) for w, row in zip(weights, densities, strict=True))
            marginals = [sum(w * row[j] for w, row in zip(weights, densities, strict=True)) for j in range(3)]
            total += (math.log(joint) - sum(map(math.log, marginals))) / batch
        torch.testing.assert_close(total_correlation(q, z, images=images, estimator=estimator).item(), total)

    def test_minibatch_weighted_sampling_differs_from_it_by_its_constant_for_a_whole_dataset(self):
        q = posteriors(8, 3)
        z = q.sample()
        weighted = total_correlation(q, z, estimator="weighted").item()
        torch.testing.assert_close(weighted, aggregated(q, z) + (3 - 1) * math.log(8))

    def test_it_is_that_of_a_gaussian_where_q_z_is_one(self):
        """Means on N(0, C) and narrow posteriors: TC = -1/2 log det of the correlations, here within its noise."""
        n, rho = 3000, 0.8
        torch.manual_seed(0)
        covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
        mean = MultivariateNormal(torch.zeros(2, dtype=torch.float64), 0.99 * covariance).sample((n,))
        q = Independent(Normal(mean, torch.full_like(mean, 0.1)), 1)
        estimate = total_correlation(q, q.sample()).item()
        assert estimate == pytest.approx(-0.5 * math.log(1 - (0.99 * rho) ** 2), abs=0.06)

    def test_one_dimension_and_one_image_have_none(self):
        q = posteriors(5, 2)
        one = Independent(Normal(q.base_dist.loc[:, :1], q.base_dist.scale[:, :1]), 1)
        torch.testing.assert_close(total_correlation(one, one.sample()).item(), 0.0)
        alone = Independent(Normal(q.base_dist.loc[:1], q.base_dist.scale[:1]), 1)
        torch.testing.assert_close(total_correlation(alone, alone.sample(), images=70).item(), 0.0)

    def test_it_takes_the_size_of_the_dataset_in_training_and_a_gaussian_in_evaluation(self, model, images):
        term = TotalCorrelation()
        step = Step(model, images, dataset_size=1000)
        torch.testing.assert_close(term(step), total_correlation(step.q, step.z, images=1000))
        torch.testing.assert_close(term.evaluate(step), moment_matched_total_correlation(step.q))


def independent(kl, *, images, size=20, seed=0):
    """Posteriors of `kl` nats with independent dimensions: means N(0, 1 - s^2), deviations s, so q(z) is N(0, I)."""
    scale = math.exp(-kl / size)
    generator = torch.Generator().manual_seed(seed)
    mean = (1 - scale**2) ** 0.5 * torch.randn(images, size, dtype=torch.float64, generator=generator)
    return Independent(Normal(mean, torch.full_like(mean, scale)), 1)


class TestGaussianTotalCorrelation:
    @pytest.mark.parametrize(
        ("kl", "of_the_batch"), [(4.5, 0.28), (10.2, 3.5), (18.3, 11.3), (24.1, 17.1), (32.2, 25.1)]
    )
    def test_of_independent_dimensions_it_is_none_where_that_of_the_batch_measures_information(self, kl, of_the_batch):
        q = independent(kl, images=1000)
        assert kl_divergence(q, StandardNormal(20)()).mean().item() == pytest.approx(kl, abs=0.5)
        assert moment_matched_total_correlation(q).item() == pytest.approx(0, abs=0.1)
        torch.manual_seed(1)  # another than that of the means
        assert total_correlation(q, q.sample()).item() == pytest.approx(of_the_batch, abs=0.5)

    @pytest.mark.parametrize("kl", [10.2, 32.2])
    def test_chance_correlations_of_few_images_are_taken_off(self, kl):
        """To first order in 1/B: of what is there without, less than a tenth is left, in the mean of many sets."""
        images, size = 200, 10
        sets = [independent(kl * size / 20, images=images, size=size, seed=seed) for seed in range(300)]
        left = torch.stack([moment_matched_total_correlation(q) for q in sets])
        share = 1 - math.exp(-2 * kl / 20)  # of the means in the variance of z
        by_chance = size * (size - 1) / 2 * share**2 / (2 * images)
        assert abs(left.mean().item()) < 0.1 * by_chance
        assert 4 * left.std().item() / math.sqrt(300) < 0.1 * by_chance

    def test_of_correlated_gaussians_it_is_the_closed_form(self):
        """Means whose covariance is C - s^2 I, exactly: q(z) has the covariance C, and TC is -1/2 log det corr(C)."""
        c = torch.tensor([[1.0, 0.7, 0.2], [0.7, 2.0, -0.5], [0.2, -0.5, 0.8]], dtype=torch.float64)
        scale, images = 0.4, 200_000
        noise = torch.randn(images, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        noise = noise - noise.mean(0)
        white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / images)).T
        mean = white @ torch.linalg.cholesky(c - scale**2 * torch.eye(3)).T
        q = Independent(Normal(mean, torch.full_like(mean, scale)), 1)
        correlations = np.array([[c[i, j] / math.sqrt(c[i, i] * c[j, j]) for j in range(3)] for i in range(3)])
        expected = -0.5 * math.log(np.linalg.det(correlations))
        assert expected > 0.3
        assert moment_matched_total_correlation(q).item() == pytest.approx(expected, abs=3 * 3 / (4 * images))

    def test_the_units_of_a_dimension_do_not_matter(self):
        q = posteriors(50, 3)
        units = torch.tensor([1e-3, 1.0, -1e4], dtype=torch.float64)
        other = Independent(Normal(5 + units * q.base_dist.loc, units.abs() * q.base_dist.scale), 1)
        torch.testing.assert_close(moment_matched_total_correlation(other), moment_matched_total_correlation(q))
        assert moment_matched_total_correlation(q) > 0.1

    def test_it_is_of_the_precision_of_what_it_is_asked_of_and_one_image_has_none(self):
        mean = torch.randn(1, 3)
        alone = moment_matched_total_correlation(Independent(Normal(mean, torch.ones_like(mean)), 1))
        assert alone == 0
        assert alone.dtype == torch.float32


class TestMMD:
    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    def test_equal_samples_have_none(self, kernel):
        a = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert mmd(a, a.flip(0), kernel=kernel, scales=[0.5, 2.0], unbiased=False).item() == pytest.approx(0, abs=1e-14)

    @pytest.mark.parametrize("kernel", ["rbf", "imq"])
    @pytest.mark.parametrize("shift", [0.0, 0.7])
    def test_between_gaussians_it_is_the_closed_form_within_its_standard_error(self, shift, kernel):
        """E exp(-d^2 / c) = (c / (c + 2 s))^(Z/2) exp(-|m|^2 / (c + 2 s)) for d ~ N(m, s I), s the sum of variances.

        And c / (c + d^2) is the integral over t > 0 of exp(-t) exp(-t d^2 / c).
        """
        size, scale, variance, n = 3, 0.8, 0.49, 200
        c = 2 * size * scale

        def rbf(c, of_variances, distance):
            widened = c + 2 * of_variances
            return (c / widened) ** (size / 2) * math.exp(-size * distance**2 / widened)

        def expected(of_variances, distance):
            if kernel == "rbf":
                return rbf(c, of_variances, distance)
            return quad(lambda t: math.exp(-t) * rbf(c / t, of_variances, distance), 0, math.inf)[0]

        exact = expected(2 * variance, 0) + expected(2, 0) - 2 * expected(variance + 1, shift)
        torch.manual_seed(0)
        estimates = [
            mmd(
                shift + variance**0.5 * torch.randn(n, size, dtype=torch.float64),
                torch.randn(n, size, dtype=torch.float64),
                kernel=kernel,
                scales=[scale],
            )
            for _ in range(100)
        ]
        mean, error = torch.stack(estimates).mean().item(), torch.stack(estimates).std().item() / 10
        assert abs(mean - exact) < 4 * error
        assert error < 0.1 * exact + 1e-3

    def test_the_inverse_multiquadratic_kernel_is_that_of_its_formula(self):
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 4, 2, dtype=torch.float64, generator=generator)

        def k(one, other):
            d = sum((float(p) - float(q)) ** 2 for p, q in zip(one, other, strict=True))
            return sum(2 * 2 * scale / (2 * 2 * scale + d) for scale in (0.5, 3.0))

        pairs = list(itertools.permutations(range(4), 2))
        expected = sum(k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs) / 12
        expected -= 2 * sum(k(p, q) for p in a for q in b) / 16
        assert mmd(a, b, kernel="imq", scales=[0.5, 3.0]).item() == pytest.approx(expected)

    def test_a_batch_of_one_image_is_no_error(self, model, images):
        assert MMD()(Step(model, images[:1])).isfinite()

    def test_it_moves_codes_to_the_prior(self):
        scales = [0.1, 1.0, 10.0]
        torch.manual_seed(0)
        z = (3 + 0.1 * torch.randn(100, 2)).requires_grad_()
        prior = torch.randn(2000, 2)
        before = mmd(z.detach().repeat(20, 1), prior, kernel="imq", scales=scales, unbiased=False)
        optimizer = torch.optim.Adam([z], 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            mmd(z, torch.randn(100, 2), kernel="imq", scales=scales).backward()
            optimizer.step()
        after = mmd(z.detach().repeat(20, 1), prior, kernel="imq", scales=scales, unbiased=False)
        assert after < 0.1 * before


def test_the_loss_takes_the_distance_of_the_kl_from_its_capacity(model, images):
    """Burgess et al. 2018, equation 8, below the capacity and above it; an evaluation takes the final one."""
    kl = kl_divergence(model.encode(images), model.prior()).mean()
    for capacity, distance in [(kl.item() / 3, kl * 2 / 3), (3 * kl.item(), 2 * kl)]:
        terms = objective_of_capacity(kl_weight=7.0, capacity=capacity)(Step(model, images))
        torch.testing.assert_close(terms["kl"], kl)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 7 * distance)
    rising = objective_of_capacity(kl_weight=2.0, capacity=Linear(start=0.0, end=50.0, steps=10))
    for step, capacity in [(Step(model, images, number=4), 20.0), (Step(model, images, training=False), 50.0)]:
        terms = rising(step)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 2 * (kl - capacity).abs())


def test_a_kl_couples_images_where_the_loss_takes_more_than_its_mean(model, images):
    assert not KL(weight=4.0).couples_images
    assert KL(free_bits=0.1).couples_images
    assert KL(capacity=25.0).couples_images
    with pytest.raises(ValueError, match=r"free_bits .*kl=closed_form, and no capacity"):
        KL(free_bits=0.1, capacity=25.0)


def test_the_sampled_kl_agrees_with_the_closed_form_in_the_mean(model, images):
    x = images[:1].repeat(20_000, 1, 1, 1)
    torch.manual_seed(0)
    step = Step(model, x)
    ratio = (step.q.log_prob(step.z) - model.prior().log_prob(step.z)).detach()
    difference = KL(kl="monte_carlo")(step) - KL()(step)
    assert abs(difference.item()) < 4 * ratio.std().item() / math.sqrt(20_000)


def test_a_deterministic_code_is_matched_to_a_prior_by_its_samples(images):
    model = model_of(Deterministic)
    objective = reconstruction(terms={"mmd": MMD()})
    objective.requires(model)
    assert objective(Step(model, images))["mmd"].isfinite()
