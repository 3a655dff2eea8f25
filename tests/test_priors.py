import math

import pytest
import torch

from vaelab.priors import StandardNormal


def test_the_prior_has_no_batch_and_an_event_of_the_latent_dimensions():
    p = StandardNormal(3)()

    assert (p.batch_shape, p.event_shape) == ((), (3,))
    assert p.sample((4, 2)).shape == (4, 2, 3)


@pytest.mark.parametrize("latent_dim", [1, 2, 20])
def test_log_prob_is_the_standard_normals_summed_over_the_dimensions(latent_dim):
    z = torch.randn(5, 4, latent_dim, generator=torch.Generator().manual_seed(0))

    expected = -0.5 * z.square().sum(-1) - 0.5 * latent_dim * math.log(2 * math.pi)

    torch.testing.assert_close(StandardNormal(latent_dim)().log_prob(z), expected)


def test_samples_have_mean_zero_and_variance_one():
    torch.manual_seed(0)
    z = StandardNormal(4)().sample((20_000,))

    # Standard errors: 1 / sqrt(n) of the mean, sqrt(2 / n) of the variance; five of them.
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=5 / math.sqrt(20_000), rtol=0)
    torch.testing.assert_close(z.var(0), torch.ones(4), atol=5 * math.sqrt(2 / 20_000), rtol=0)


def test_the_prior_goes_where_the_model_goes_and_leaves_nothing_in_a_checkpoint():
    prior = StandardNormal(3)

    assert prior.double()().sample().dtype == torch.float64
    assert prior.to("meta")().mean.device.type == "meta"
    assert prior.state_dict() == {}
