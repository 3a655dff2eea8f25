import math

import pytest
import torch
from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal, Normal

from vaelab.models.latents import arc, fitted_gaussian, grid_lines, inverse_cdf, line, plane
from vaelab.models.priors import StandardNormal


@pytest.fixture
def ends():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 7, generator=generator), 3 * torch.randn(5, 7, generator=generator)


@pytest.mark.parametrize("way", [line, arc])
def test_a_way_has_its_ends_to_the_bit(way, ends):
    path = way(*ends, 9)

    assert path.shape == (9, 5, 7)
    assert path[0].equal(ends[0])
    assert path[-1].equal(ends[1])


def test_a_line_goes_in_equal_steps(ends):
    steps = line(*ends, 9).diff(dim=0)

    torch.testing.assert_close(steps, ((ends[1] - ends[0]) / 8).expand_as(steps))


def test_an_arc_turns_evenly_while_its_norm_goes_evenly_from_one_end_to_the_other(ends):
    path = arc(*ends, 9).double()
    norms = path.norm(dim=-1)
    directions = path / norms[..., None]
    turns = (directions[1:] * directions[:-1]).sum(-1).acos()

    torch.testing.assert_close(norms, line(norms[0], norms[-1], 9), rtol=1e-5, atol=0)
    whole = torch.nn.functional.cosine_similarity(*ends, dim=-1).double().acos()
    torch.testing.assert_close(turns, (whole / 8).expand_as(turns), rtol=1e-4, atol=0)


def test_between_equal_norms_an_arc_is_shoemakes_formula_and_keeps_the_norm():
    a, b = torch.nn.functional.normalize(torch.randn(2, 50, generator=torch.Generator().manual_seed(1)), dim=-1)
    angle = (a @ b).acos()
    t = torch.linspace(0, 1, 5)[:, None]

    expected = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()

    torch.testing.assert_close(arc(a, b, 5), expected)
    assert line(a, b, 3)[1].norm() < 0.8  # which is why one wants the arc


def test_an_arc_scales_with_its_ends(ends):
    torch.testing.assert_close(arc(4 * ends[0], 4 * ends[1], 6), 4 * arc(*ends, 6))


@pytest.mark.parametrize("factor", [-1, 0, 1, 2])
def test_where_there_is_no_single_arc_it_is_the_line(factor):
    a = torch.tensor([1.0, 2.0])

    torch.testing.assert_close(arc(a, factor * a, 5), line(a, factor * a, 5))


def test_the_lines_of_a_grid_are_the_priors_quantiles():
    lines = grid_lines(4, prior=StandardNormal(2)())

    cumulative = [[0.5 * (1 + math.erf(value / math.sqrt(2))) for value in row] for row in lines.tolist()]
    torch.testing.assert_close(
        torch.tensor(cumulative), torch.tensor([0.125, 0.375, 0.625, 0.875])[:, None].expand(4, 2)
    )


def test_the_lines_of_a_grid_of_codes_part_them_into_equal_shares():
    codes = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).exp()

    below = (codes[None] < grid_lines(4, codes=codes)[:, None]).float().mean(1)

    torch.testing.assert_close(
        below, torch.tensor([0.125, 0.375, 0.625, 0.875])[:, None].expand(4, 2), atol=1e-3, rtol=0
    )


def test_a_plane_needs_two_dimensions_and_somewhere_to_take_its_lines_from():
    with pytest.raises(ValueError, match="2 latent dimensions, this model has 20"):
        grid_lines(4, prior=StandardNormal(20)())
    with pytest.raises(ValueError, match="2 latent dimensions, this model has 3"):
        grid_lines(4, codes=torch.zeros(5, 3))
    with pytest.raises(ValueError, match="give codes"):
        grid_lines(4)


def test_only_a_prior_that_is_a_product_with_inverse_cdfs_has_quantiles():
    component = Independent(Normal(torch.zeros(3, 2), 1), 1)
    mixture = MixtureSameFamily(torch.distributions.Categorical(torch.ones(3)), component)
    by_dimension = MixtureSameFamily(torch.distributions.Categorical(torch.ones(2, 3)), Normal(torch.zeros(2, 3), 1))

    assert inverse_cdf(mixture, torch.tensor([0.5])) is None
    assert inverse_cdf(Independent(by_dimension, 1), torch.tensor([0.5])) is None
    assert inverse_cdf(StandardNormal(2)(), torch.tensor([0.5])).tolist() == [[0, 0]]


def test_on_a_plane_the_first_dimension_grows_to_the_right_and_the_second_upwards():
    points = plane(torch.tensor([[-1.0, -10.0], [0.0, 0.0], [1.0, 10.0]]))

    assert points[..., 0].tolist() == [[-1, 0, 1]] * 3
    assert points[..., 1].tolist() == [[10] * 3, [0] * 3, [-10] * 3]


def test_a_fitted_gaussian_is_that_of_greatest_likelihood():
    mixing = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 3.0]])
    codes = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)) @ mixing + 5

    fitted = fitted_gaussian(codes)

    assert (fitted.batch_shape, fitted.event_shape) == ((), (3,))
    torch.testing.assert_close(fitted.mean, codes.mean(0))
    torch.testing.assert_close(fitted.covariance_matrix, codes.T.cov(correction=0), rtol=1e-4, atol=1e-4)
    best = fitted.log_prob(codes).mean()
    for factor in (0.95, 1.05):
        other = MultivariateNormal(fitted.mean, fitted.covariance_matrix * factor)
        assert other.log_prob(codes).mean() < best


@pytest.mark.parametrize("codes", [torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.ones(1, 2), torch.ones(4, 1)])
def test_codes_that_do_not_vary_in_some_dimension_can_be_fitted(codes):
    drawn = fitted_gaussian(codes).sample((200,))

    assert drawn.isfinite().all()
    still = codes.std(0, correction=0) == 0
    torch.testing.assert_close(drawn[:, still], codes[:1, still].expand(200, -1), atol=0.01, rtol=0)
