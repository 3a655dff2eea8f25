import math
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaelab.distributions import Codes, OneHotCodes
from vaelab.metrics import latents
from vaelab.metrics.latents import LatentsOfImages, active_units, information

sys.path.insert(0, str(Path(__file__).parent))
import linear_gaussian


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def gaussian(mean, scale):
    return Independent(Normal(mean, scale), 1)


PRIOR = gaussian(torch.zeros(1), torch.ones(1))


def test_a_unit_is_active_where_the_variance_of_its_mean_over_the_data_exceeds_a_hundredth():
    spread = torch.tensor([0.0, 0.09, 0.0999, 0.1001, 1.0])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]  # variance over these four: spread^2

    assert active_units(7 + sign * spread) == 2


def test_a_unit_is_judged_by_the_spread_of_means_not_by_the_mean_of_spreads():
    """Every mean far from 0, but the same for all images: the unit says nothing."""
    assert active_units(torch.full((100, 3), 5.0)) == 0


def test_one_image_has_no_active_units():
    assert active_units(torch.randn(1, 4)) == 0


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
    assert found.mutual_information == pytest.approx(exact_information, abs=4 * found.mutual_information_error + 1e-5)
    assert found.marginal_kl == pytest.approx(exact_marginal, abs=4 * found.marginal_kl_error + 1e-3)
    assert found.mutual_information <= math.log(3) + 1e-4


def test_mutual_information_of_a_linear_gaussian_model_is_the_closed_form():
    """I(x; z) = 1/2 log det(I + W^T W / scale^2), and the aggregate of exact posteriors is the prior."""
    model = linear_gaussian.exact(latent_dim=2, scale=1.0)
    weight = model.decoder[0].weight.detach()
    exact = 0.5 * torch.logdet(torch.eye(2, dtype=torch.float64) + weight.T @ weight).item()
    x = linear_gaussian.images(model, 8000)

    found = information([model.encode(part) for part in x.split(1000)], model.prior())

    assert exact == pytest.approx(1.5, abs=0.8)  # far enough below log 8,000
    assert found.mutual_information == pytest.approx(exact, abs=4 * found.mutual_information_error + 0.01)
    assert found.marginal_kl == pytest.approx(0, abs=4 * found.marginal_kl_error + 0.01)


def test_marginal_kl_of_a_linear_gaussian_model_on_other_data_is_the_closed_form():
    """Of z' ~ N(0, 4 I) in place of N(0, I), the means of the posteriors and so q(z) spread wider than the prior."""
    model = linear_gaussian.diagonal(latent_dim=2, scale=1.0)
    weight, bias = model.decoder[0].weight.detach(), model.decoder[0].bias.detach()
    x = (2 * torch.randn(8000, 2, dtype=torch.float64)) @ weight.T + bias + torch.randn(8000, 6, dtype=torch.float64)
    gain = model.posterior.mean.weight.detach()
    variance = model.posterior.log_variance.bias.detach().exp()
    covariance = gain @ (4 * weight @ weight.T + torch.eye(6, dtype=torch.float64)) @ gain.T + variance.diag()
    exact = 0.5 * (covariance.trace() - 2 - covariance.logdet()).item()

    found = information([model.encode(part) for part in x.reshape(8, 1000, 1, 2, 3)], model.prior())

    assert exact > 0.3
    assert found.marginal_kl == pytest.approx(exact, abs=4 * found.marginal_kl_error + 0.02)


def test_the_two_parts_add_up_to_the_mean_kl():
    q = gaussian(torch.randn(2000, 3), torch.rand(2000, 3) + 0.1)
    prior = gaussian(torch.zeros(3), torch.ones(3))

    found = information([q], prior)

    error = 4 * math.hypot(found.mutual_information_error, found.marginal_kl_error)
    assert found.mutual_information + found.marginal_kl == pytest.approx(
        kl_divergence(q, prior).mean().item(), abs=error
    )


def test_a_collapsed_posterior_carries_nothing():
    found = information([gaussian(torch.zeros(500, 3), torch.ones(500, 3))], gaussian(torch.zeros(3), torch.ones(3)))

    assert found.mutual_information == pytest.approx(0, abs=1e-5)
    assert found.marginal_kl == pytest.approx(0, abs=1e-5)


def test_posteriors_without_overlap_carry_the_log_of_the_number_of_images():
    found = information([gaussian(100 * torch.arange(300.0)[:, None], torch.ones(300, 1))], PRIOR)

    assert found.mutual_information == pytest.approx(math.log(300), abs=1e-5)


def test_one_image_tells_nothing_and_has_no_standard_error():
    found = information([gaussian(torch.ones(1, 1), torch.ones(1, 1))], PRIOR)

    assert found.mutual_information == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.mutual_information_error)


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

    assert found([10, 10, 5]) == pytest.approx(whole, abs=1e-6)


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
    assert found.means is None
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
