import math
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaelab.metrics import latents
from vaelab.metrics.latents import LatentsOfImages, active_units, expectations, gaussian_total_correlation, information
from vaelab.models.distributions import Codes, Flowed, GaussianChain, OneHotCodes, VonMisesFisher
from vaelab.models.hierarchy import NormalGiven

sys.path.insert(0, str(Path(__file__).parent))
import linear_gaussian


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def gaussian(mean, scale):
    return Independent(Normal(mean, scale), 1)


PRIOR = gaussian(torch.zeros(1), torch.ones(1))


def variances(*posteriors):
    found = LatentsOfImages(None)
    for q in posteriors:
        found.add(q)
    return found.variances


def test_a_unit_is_active_where_the_variance_of_its_mean_over_the_data_exceeds_a_hundredth():
    spread = torch.tensor([0.0, 0.09, 0.0999, 0.1001, 1.0])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]  # variance over these four: spread^2
    means = 7 + sign * spread

    assert active_units(variances(gaussian(means[:3], 1.0), gaussian(means[3:], 1.0))) == 2


def test_a_unit_is_judged_by_the_spread_of_means_not_by_the_mean_of_spreads():
    """Every mean far from 0, but the same for all images: the unit says nothing."""
    assert active_units(variances(gaussian(torch.full((100, 3), 5.0), 2.0))) == 0


def test_one_image_has_no_active_units():
    assert active_units(variances(gaussian(torch.randn(1, 4), 1.0))) == 0


def test_the_expectation_of_a_flow_is_measured_where_its_mean_is_another_point():
    """z = u^2, u ~ N(m, 1): E[z] = m^2 + 1, while f(E[u]) = m^2; and its variance, not that of samples, is counted."""

    class Square:
        def call_and_ladj(self, u):
            return u.square(), (u.abs().log() + math.log(2)).sum(-1)

    torch.manual_seed(0)
    m = torch.linspace(-1, 1, 20_000)[:, None]
    q = Flowed(gaussian(m, torch.ones_like(m)), Square())
    one, other = expectations(q)

    # Var[z] = 4 m^2 + 2, at most 6; five standard errors of the mean over images.
    error = math.sqrt(6 / 16 / len(m))
    assert (one - q.mean).mean().item() == pytest.approx(1, abs=5 * error)
    assert not one.equal(other)
    # Var_x(m^2) = E[m^4] - E[m^2]^2 = 1/5 - 1/9; samples have 6/16 on top. Products of errors have sd 0.21.
    assert variances(q).item() == pytest.approx(4 / 45, abs=0.01)


def test_expectations_of_chains_and_on_the_sphere_are_those_of_many_samples():
    torch.manual_seed(0)
    step = NormalGiven(2, 3, hidden=[5], activation="tanh")
    for parameter in step.parameters():
        parameter.data.mul_(6)  # far from linear
    loc = torch.randn(4, 2)
    chain = GaussianChain(Normal(loc, torch.full_like(loc, 1.5)), [step], sizes=[2, 3], downwards=False)
    sphere = VonMisesFisher(torch.nn.functional.normalize(torch.randn(4, 3), dim=-1), torch.tensor([0.5, 1, 3, 9]))
    with torch.no_grad():
        for q, exact in ((chain, False), (sphere, True)):
            z = q.sample((10_000,))
            truth, error = z.mean(0), z.std(0) / 100
            many = torch.stack([expectations(q)[0] for _ in range(1 if exact else 300)])
            spread = error if exact else z.std(0) / math.sqrt(16 * len(many)) + error
            assert ((many.mean(0) - truth).abs() < 5 * spread).all()
            assert ((q.mean - truth).abs() > 5 * error).any()


@pytest.mark.parametrize("distance", [0.0, 1.0, 4.0, 40.0])
def test_information_about_few_images_is_that_of_numerical_integration(distance):
    """Three images, each a thousand times, so that the Monte Carlo error is small."""
    mean = distance * torch.tensor([-1.0, 0.0, 1.5])
    q = gaussian(mean.repeat(1000)[:, None], torch.full((3000, 1), 0.8))
    grid = torch.linspace(-75, 75, 300_001, dtype=torch.float64)
    each = Normal(mean.double()[:, None], 0.8).log_prob(grid)  # (3, grid)
    marginal = each.logsumexp(0) - math.log(3)
    width = grid[1] - grid[0]
    exact_information = ((each.exp() * (each - marginal)).sum(1) * width).mean().item()
    exact_marginal = ((marginal.exp() * (marginal - Normal(0.0, 1.0).log_prob(grid))).sum() * width).item()

    found = information([q], PRIOR)

    assert found.draws == 2000
    assert found.mutual_information[0] == pytest.approx(exact_information, abs=4 * found.mutual_information[1] + 1e-5)
    assert found.marginal_kl[0] == pytest.approx(exact_marginal, abs=4 * found.marginal_kl[1] + 1e-3)
    assert found.mutual_information[0] <= math.log(3) + 1e-4


def test_mutual_information_of_a_linear_gaussian_model_is_the_closed_form():
    """I(x; z) = 1/2 log det(I + W^T W / scale^2), and the aggregate of exact posteriors is the prior."""
    model = linear_gaussian.exact(latent_dim=2, scale=1.0)
    weight = model.decoder[0].weight.detach()
    exact = 0.5 * torch.logdet(torch.eye(2, dtype=torch.float64) + weight.T @ weight).item()
    x = linear_gaussian.images(model, 8000)

    found = information([model.encode(part) for part in x.split(1000)], model.prior())

    assert exact == pytest.approx(1.5, abs=0.8)  # far enough below log 8,000
    assert found.mutual_information[0] == pytest.approx(exact, abs=4 * found.mutual_information[1] + 0.01)
    assert found.marginal_kl[0] == pytest.approx(0, abs=4 * found.marginal_kl[1] + 0.01)


def test_marginal_kl_of_a_linear_gaussian_model_on_other_data_is_the_closed_form():
    """Of z' ~ N(0, 4 I) in place of N(0, I), the means of the posteriors and so q(z) spread wider than the prior."""
    model = linear_gaussian.diagonal(latent_dim=2, scale=1.0)
    weight, bias = model.decoder[0].weight.detach(), model.decoder[0].bias.detach()
    x = (2 * torch.randn(8000, 2, dtype=torch.float64)) @ weight.T + bias + torch.randn(8000, 6, dtype=torch.float64)
    gain = model.posterior.mean_and_log_variance.weight[:2].detach()
    variance = model.posterior.mean_and_log_variance.bias[2:].detach().exp()
    covariance = gain @ (4 * weight @ weight.T + torch.eye(6, dtype=torch.float64)) @ gain.T + variance.diag()
    exact = 0.5 * (covariance.trace() - 2 - covariance.logdet()).item()

    found = information([model.encode(part) for part in x.reshape(8, 1000, 1, 2, 3)], model.prior())

    assert exact > 0.3
    assert found.marginal_kl[0] == pytest.approx(exact, abs=4 * found.marginal_kl[1] + 0.02)


def test_total_correlation_of_few_images_is_that_of_numerical_integration():
    """Three images in the plane, each a thousand times."""
    mean = torch.tensor([[-1.5, -1.0], [0.0, 0.3], [1.5, 0.8]])
    q = gaussian(mean.repeat(1000, 1), torch.tensor([0.5, 0.4]).expand(3000, 2))
    line = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    width = line[1] - line[0]
    first, second = (Normal(mean[:, [j]].double(), (0.5, 0.4)[j]).log_prob(line).exp() for j in (0, 1))  # (3, line)
    both = torch.einsum("na,nb->ab", first, second) / 3
    apart = first.mean(0)[:, None] * second.mean(0)
    exact = (torch.special.xlogy(both, both / apart).sum() * width**2).item()

    found = information([q], gaussian(torch.zeros(2), torch.ones(2)))

    assert exact > 0.3
    assert found.total_correlation is not None
    assert found.total_correlation[0] == pytest.approx(exact, abs=4 * found.total_correlation[1])


def test_total_correlation_of_a_gaussian_aggregate_is_the_closed_form_and_the_gaussian_one():
    """Means of correlation 0.8 and unit variance, posteriors of variance 1/4: q(z) is N(0, C) of correlation 0.64."""
    z = torch.randn(10_000, 2)
    mean = torch.stack([z[:, 0], 0.8 * z[:, 0] + 0.6 * z[:, 1]], 1)
    q = gaussian(mean, torch.full((10_000, 2), 0.5))
    exact = -0.5 * math.log(1 - 0.64**2)

    found = information([q], gaussian(torch.zeros(2), torch.ones(2)))

    assert found.total_correlation is not None
    assert found.total_correlation[0] == pytest.approx(exact, abs=4 * found.total_correlation[1] + 0.01)
    assert gaussian_total_correlation(q.sample()) == pytest.approx(exact, abs=0.02)


def test_one_dimension_and_independent_ones_have_no_total_correlation():
    grid = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0))
    for mean in (torch.arange(300.0)[:, None], grid):
        found = information(
            [gaussian(mean, torch.ones_like(mean))], gaussian(torch.zeros(mean.shape[1]), torch.ones(mean.shape[1]))
        )
        assert found.total_correlation is not None
        assert found.total_correlation[0] == pytest.approx(0, abs=1e-5)
        assert gaussian_total_correlation(mean) == pytest.approx(0, abs=1e-9)


def test_posteriors_that_are_no_products_have_no_total_correlation_to_estimate():
    model = linear_gaussian.exact(latent_dim=2)
    found = information([model.encode(linear_gaussian.images(model, 100))], model.prior())
    assert found.total_correlation is None


def test_gaussian_total_correlation_has_the_closed_form_of_two_codes_and_does_not_depend_on_scale_or_place():
    z = torch.randn(50, 2, dtype=torch.float64)
    rho = torch.corrcoef(z.T)[0, 1].item()
    still = torch.full((50, 1), 3.0, dtype=torch.float64)
    for codes in (z, 1000 * z - 7, torch.cat([z, still], 1)):
        assert gaussian_total_correlation(codes) == pytest.approx(-0.5 * math.log(1 - rho**2), rel=1e-9)


def test_gaussian_total_correlation_of_codes_that_depend_on_each_other_is_refused():
    z = torch.randn(50, 1)
    with pytest.raises(ValueError, match="linear function"):
        gaussian_total_correlation(torch.cat([z, -3 * z], 1))


def test_the_two_parts_add_up_to_the_mean_kl():
    q = gaussian(torch.randn(2000, 3), torch.rand(2000, 3) + 0.1)
    prior = gaussian(torch.zeros(3), torch.ones(3))

    found = information([q], prior)

    error = 4 * math.hypot(found.mutual_information[1], found.marginal_kl[1])
    assert found.mutual_information[0] + found.marginal_kl[0] == pytest.approx(
        kl_divergence(q, prior).mean().item(), abs=error
    )


def test_a_collapsed_posterior_carries_nothing():
    found = information([gaussian(torch.zeros(500, 3), torch.ones(500, 3))], gaussian(torch.zeros(3), torch.ones(3)))

    assert found.mutual_information[0] == pytest.approx(0, abs=1e-5)
    assert found.marginal_kl[0] == pytest.approx(0, abs=1e-5)


def test_posteriors_without_overlap_carry_the_log_of_the_number_of_images():
    found = information([gaussian(100 * torch.arange(300.0)[:, None], torch.ones(300, 1))], PRIOR)

    assert found.mutual_information[0] == pytest.approx(math.log(300), abs=1e-5)


def test_one_image_tells_nothing_and_has_no_standard_error():
    found = information([gaussian(torch.ones(1, 1), torch.ones(1, 1))], PRIOR)

    assert found.mutual_information[0] == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.mutual_information[1])


def test_batches_of_different_sizes_and_chunks_of_draws_change_nothing(monkeypatch):
    mean, scale = torch.randn(25, 2), torch.rand(25, 2) + 0.1
    prior = gaussian(torch.zeros(2), torch.ones(2))
    noise = torch.randn(25, 2)

    def found(sizes):
        batches = [gaussian(*part) for part in zip(mean.split(sizes), scale.split(sizes), strict=True)]
        for q, part in zip(batches, noise.split(sizes), strict=True):
            q.rsample = lambda q=q, part=part: q.base_dist.loc + q.base_dist.scale * part
        torch.manual_seed(1)
        return information(batches, prior)

    whole = found([25])
    monkeypatch.setattr(latents, "PAIRS_AT_ONCE", 60)

    torch.testing.assert_close(torch.tensor(found([10, 10, 5])[:3]), torch.tensor(whole[:3]), rtol=0, atol=1e-6)


def test_codes_in_use_and_their_perplexity_are_those_of_all_images_together_as_counted_by_hand():
    indices = torch.tensor([[0, 3, 3], [3, 7, 3], [0, 3, 0], [7, 7, 3], [3, 3, 3]])  # of 9 codes, 5 images
    found = LatentsOfImages(None)
    for part in torch.split(indices, 2):
        nothing = torch.zeros(len(part))
        found.add(Codes(torch.zeros(len(part), 6), part, 9, commitment=nothing))

    shares = [3 / 15, 9 / 15, 3 / 15]
    assert found.usage is not None
    assert found.usage.codes_in_use == 3
    assert found.usage.codes == 9
    assert found.usage.perplexity == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-12)
    assert found.variances is None
    assert found.kl_per_dimension is None


def test_categorical_variables_are_counted_each_by_itself():
    logits = torch.randn(7, 2, 4)  # 7 images, 2 variables of 4 values
    found = LatentsOfImages(None)
    for part in torch.split(logits, 3):
        found.add(OneHotCodes(part))

    probability = logits.softmax(-1).double()
    chosen = {(place, int(image[place].argmax())) for image in probability for place in range(2)}
    entropies = [-sum(p * math.log(p) for p in probability[:, place].mean(0).tolist()) for place in range(2)]
    assert found.usage is not None
    assert found.usage.codes_in_use == len(chosen)
    assert found.usage.codes == 8
    assert found.usage.perplexity == pytest.approx(sum(map(math.exp, entropies)) / 2, rel=1e-6)


def test_codes_that_are_all_alike_have_a_perplexity_of_one_and_all_different_ones_as_many_as_they_are():
    for indices, perplexity in ((torch.zeros(6, 2, dtype=torch.int64), 1), (torch.arange(12).reshape(6, 2), 12)):
        found = LatentsOfImages(None)
        found.add(Codes(torch.zeros(6, 4), indices, 12, commitment=torch.zeros(6)))
        assert found.usage is not None
        assert found.usage.perplexity == pytest.approx(perplexity)
        assert found.usage.codes_in_use == perplexity


@pytest.mark.parametrize(
    "batches",
    [
        [gaussian(torch.randn(5, 1), torch.rand(5, 1) + 0.1) for _ in range(3)],
        [Codes(torch.zeros(5, 2), torch.randint(4, (5, 2)), 4, commitment=torch.zeros(5)) for _ in range(3)],
        [OneHotCodes(torch.randn(5, 2, 4), None) for _ in range(3)],
    ],
    ids=["numbers", "codes", "one-hot"],
)
def test_two_processes_that_share_the_batches_find_what_one_does(batches):
    alone, *shares = (LatentsOfImages(PRIOR) for _ in range(3))
    for number, q in enumerate(batches):
        alone.add(q)
        shares[number % 2].add(q)
    both = LatentsOfImages.of(PRIOR, [share.state() for share in shares])

    assert both.usage == alone.usage
    for name in ("variances", "kl_per_dimension"):
        found, expected = getattr(both, name), getattr(alone, name)
        assert found is expected is None or found.equal(expected)
    assert both.no_kl == alone.no_kl
