import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from vaelab.models.distributions import BernoulliImage, Delta, StandardNormal


@pytest.mark.parametrize(
    ("event_dims", "batch", "event"), [(0, (2, 3, 4), ()), (1, (2, 3), (4,)), (3, (), (2, 3, 4))], ids=str
)
def test_the_last_dimensions_of_the_value_are_its_event(event_dims, batch, event):
    delta = Delta(torch.rand(2, 3, 4), event_dims)

    assert (delta.batch_shape, delta.event_shape) == (batch, event)


def test_the_mean_is_the_point_and_the_variance_is_zero():
    value = torch.randn(5, 3)
    delta = Delta(value)

    assert delta.mean.equal(value)
    assert delta.variance.equal(torch.zeros(5, 3))


@pytest.mark.parametrize("sample_shape", [(), (1,), (7,), (2, 6)], ids=str)
def test_every_sample_is_the_point(sample_shape):
    value = torch.randn(5, 3)
    delta = Delta(value)

    for sample in (delta.rsample(sample_shape), delta.sample(sample_shape)):
        assert sample.shape == (*sample_shape, 5, 3)
        assert (sample == value).all()


def test_the_gradient_of_samples_reaches_the_point_and_that_of_sample_does_not():
    value = torch.randn(5, 3, requires_grad=True)

    Delta(value).rsample((4,)).sum().backward()

    assert value.grad.equal(torch.full((5, 3), 4.0))
    assert not Delta(value).sample((4,)).requires_grad


def test_it_has_no_density():
    with pytest.raises(NotImplementedError):
        Delta(torch.zeros(5, 3)).log_prob(torch.zeros(5, 3))


def test_its_kl_divergence_to_a_density_is_an_error_and_not_zero():
    normal = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)

    with pytest.raises(NotImplementedError):
        kl_divergence(Delta(torch.zeros(5, 3)), normal)


def test_it_can_be_printed():
    assert "Delta" in repr(Delta(torch.zeros(5, 3)))


@pytest.mark.parametrize("batch", [(), (4,), (5, 4)])
def test_a_bernoulli_image_is_torchs_independent_bernoullis(batch):
    logits = torch.randn(*batch, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    x = torch.rand(4, 3, 5, 4, dtype=torch.float64) if batch else torch.rand(3, 5, 4, dtype=torch.float64)
    ours, theirs = BernoulliImage(logits), Independent(Bernoulli(logits=logits, validate_args=False), 3)
    theirs._validate_args = False  # grey pixels

    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape) == (batch, (3, 5, 4))
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(ours.log_prob(x).sum(), logits)
    (expected,) = torch.autograd.grad(theirs.log_prob(x).sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 1, 127), (1, 1, 131), (3, 32, 32), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("spread", [0.1, 5.0, 100.0])
def test_the_log_likelihood_of_black_and_white_pixels_is_exact_in_float32_however_sure_the_logits_are(shape, spread):
    torch.manual_seed(0)
    logits = spread * torch.randn(50, *shape)
    x = (logits + torch.randn(50, *shape) > 0).float()  # as a good model would have it: sums that nearly cancel
    exact = Independent(Bernoulli(logits=logits.double()), 3).log_prob(x.double())

    # 2^-24 for each pixel's 1 + exp(-|l|), and the rounding of the sum itself.
    atol = x[0].numel() * 2**-24 + 1e-7
    torch.testing.assert_close(BernoulliImage(logits).log_prob(x).double(), exact, rtol=1e-6, atol=atol)


def test_a_bernoulli_image_of_half_precision_logits_sums_in_float32():
    logits = torch.randn(4, 1, 28, 28).bfloat16()
    x = torch.rand(4, 1, 28, 28).round()

    log_prob = BernoulliImage(logits).log_prob(x)

    assert log_prob.dtype == torch.float32
    assert log_prob.equal(BernoulliImage(logits.float()).log_prob(x))


def test_the_gradients_of_a_bernoulli_images_log_likelihood_are_those_of_finite_differences():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    x = torch.rand(3, 1, 2, 2, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda logits, x: BernoulliImage(logits).log_prob(x), (logits, x))
    assert torch.autograd.gradgradcheck(lambda logits, x: BernoulliImage(logits).log_prob(x), (logits, x))


def test_a_bernoulli_image_draws_black_and_white_with_its_probabilities():
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, 0.0, 3.0]).reshape(1, 1, 1, 3)
    drawn = BernoulliImage(logits).sample((20_000,))

    assert drawn.shape == (20_000, 1, 1, 1, 3)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    # Four standard errors of a mean of 20,000 draws with probability 1/2.
    torch.testing.assert_close(drawn.mean(0), logits.sigmoid(), rtol=0, atol=4 * 0.5 / 20_000**0.5)


def normals(*batch):
    loc, scale = torch.randn(*batch, dtype=torch.float64), torch.rand(*batch, dtype=torch.float64) * 3 + 0.01
    return loc.requires_grad_(), scale.requires_grad_()


@pytest.mark.parametrize("batch", [(20,), (7, 20), (3, 7, 20)], ids=str)
def test_the_kl_to_the_standard_normal_and_its_gradient_are_those_of_the_formula_for_any_two(batch):
    loc, scale = normals(*batch)
    zero, one = torch.zeros(20, dtype=torch.float64), torch.ones(20, dtype=torch.float64)
    weights = torch.randn(*batch, dtype=torch.float64)

    found = kl_divergence(Normal(loc, scale), StandardNormal(zero, one))
    expected = kl_divergence(Normal(loc, scale), Normal(zero, one))

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    of_found, of_expected = (torch.autograd.grad((kl * weights).sum(), [loc, scale]) for kl in (found, expected))
    torch.testing.assert_close(of_found, of_expected, rtol=1e-12, atol=1e-12)


def test_the_kl_to_the_standard_normal_has_second_derivatives():
    standard = StandardNormal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))

    assert torch.autograd.gradgradcheck(lambda m, s: kl_divergence(Normal(m, s), standard), normals(3, 2))


def test_the_kl_of_a_normal_with_one_scale_for_all_sums_its_gradient_over_them():
    loc, scale = torch.zeros(4, 3), torch.tensor(2.0, requires_grad=True)

    kl_divergence(Normal(loc, scale), StandardNormal(torch.zeros(3), torch.ones(3))).sum().backward()

    assert scale.grad.item() == pytest.approx(12 * (2 - 1 / 2))


def test_the_standard_normal_is_a_normal():
    standard = StandardNormal(torch.zeros(3), torch.ones(3))
    value = torch.randn(5, 3)

    assert standard.log_prob(value).equal(Normal(torch.zeros(3), torch.ones(3)).log_prob(value))
    assert kl_divergence(standard.expand((2, 3)), standard).equal(torch.zeros(2, 3))
