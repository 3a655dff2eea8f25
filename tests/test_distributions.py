import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaelab.distributions import Delta


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
