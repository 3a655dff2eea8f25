"""The likelihood of pixels that look at those before them, against all images of a few pixels."""

import itertools

import pytest
import torch

from vaelab.models.likelihoods import AutoregressiveBernoulli, Bernoulli
from vaelab.models.networks.causal import CausalConvolutions

SHAPE = (1, 3, 3)


def likelihood(shape=SHAPE, **options):
    torch.manual_seed(0)
    made = AutoregressiveBernoulli(
        shape, **{"features": 3, "channels": 4, "kernel": 3, "blocks": 1, **options}
    ).double()
    for weights in made.parameters():
        torch.nn.init.normal_(weights, std=0.7)
    return made


def theta(made, *batch):
    return torch.randn(*batch, *made.parameter_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def all_images(shape):
    pixels = torch.tensor(list(itertools.product([0.0, 1.0], repeat=torch.Size(shape).numel())), dtype=torch.float64)
    return pixels.reshape(-1, *shape)


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 2, 2), (1, 2, 4)])
def test_its_probabilities_add_up_to_one_over_all_images(shape):
    made = likelihood(shape)
    p = made(theta(made, 5))
    log_p = torch.stack([p.log_prob(image) for image in all_images(shape)])
    torch.testing.assert_close(log_p.logsumexp(0), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_it_is_the_product_of_the_pixels_probabilities_given_those_before_them():
    made = likelihood()
    at = theta(made)
    p, images = made(at), all_images(SHAPE)
    probability = torch.stack([p.log_prob(image) for image in images]).exp()
    flat = images.flatten(1)
    for image in images[::37]:
        product = 1.0
        for i, value in enumerate(image.flatten()):
            before = (flat[:, :i] == image.flatten()[:i]).all(1)
            product *= probability[before & (flat[:, i] == value)].sum() / probability[before].sum()
        torch.testing.assert_close(p.log_prob(image).exp(), product, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("kernel", "blocks"), [(3, 0), (5, 1), (7, 2)])
def test_a_feature_sees_pixels_before_it_only_and_none_beyond_its_reach(kernel, blocks):
    torch.manual_seed(0)
    network = CausalConvolutions(1, 1, channels=5, kernel=kernel, blocks=blocks).double()
    size = 13
    x = torch.rand(1, 1, size, size, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x)[0, 0].flatten(), x).reshape(size**2, size**2)
    seen = jacobian != 0
    places = torch.arange(size**2)
    rows, columns = places // size, places % size
    assert not seen[places[:, None] <= places].any()
    far = ((rows[:, None] - rows) > network.reach) | ((columns[:, None] - columns).abs() > network.reach)
    assert not seen[far].any()
    centre = size * (size // 2) + size // 2
    expected = [centre - 1, centre - size, centre - network.reach, centre - network.reach * size]
    assert seen[centre, expected].all()


def test_samples_have_its_probabilities():
    made = likelihood((1, 2, 2))
    p, images = made(theta(made)), all_images((1, 2, 2))
    drawn = 20_000
    torch.manual_seed(2)
    samples = p.sample((drawn,))
    assert samples.shape == (drawn, 1, 2, 2)
    numbers = (samples.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1).long()
    found = torch.bincount(numbers, minlength=16) / drawn
    expected = torch.stack([p.log_prob(image) for image in images]).exp()
    sd = (expected * (1 - expected) / drawn).sqrt()
    assert ((found - expected).abs() < 4.5 * sd).all()


def test_samples_of_a_window_are_those_of_the_whole_image():
    """A pixel is drawn from the pixels within reach alone."""
    made = likelihood((1, 9, 8), kernel=3, blocks=1)
    p = made(theta(made, 2))
    torch.manual_seed(3)
    uniform = p._uniform((3,), p.theta)
    torch.manual_seed(3)
    images = p.sample((3,))
    logits = p.theta[:, 0] + p._features(images)[..., 0, :, :, :]
    logits = logits + (p.theta[:, 1:] * p._features(images)[..., 1:, :, :, :]).sum(-4)
    assert torch.equal(images, (uniform < logits.sigmoid()).double())


def test_where_no_pixel_looks_at_another_it_is_the_bernoulli():
    made = likelihood()
    for weights in made.before.last.parameters():
        torch.nn.init.zeros_(weights)
    at = theta(made, 4)
    ours, theirs = made(at), Bernoulli(SHAPE)(at[:, :1])
    x = all_images(SHAPE)[[3, 77, 200, 511]]
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.mean, theirs.mean)


def test_one_image_stands_beside_many_samples_of_z():
    made = likelihood()
    at = theta(made, 6, 2)
    x = all_images(SHAPE)[[100, 300]]
    together = made(at).log_prob(x)
    assert together.shape == (6, 2)
    torch.testing.assert_close(together[4, 1], made(at[4, 1]).log_prob(x[1]))


def test_events_that_are_no_images_and_even_kernels_are_refused():
    with pytest.raises(ValueError, match=r"take another loss"):
        AutoregressiveBernoulli((5,))
    with pytest.raises(ValueError, match=r"kernel=4: should be odd"):
        AutoregressiveBernoulli(SHAPE, kernel=4)
