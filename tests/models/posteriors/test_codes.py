import math
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from vaelab.losses.penalties import perplexity
from vaelab.models.distributions import Codes
from vaelab.models.posteriors import FiniteScalarQuantizer, GumbelSoftmax, VectorQuantizer
from vaelab.models.posteriors.codebooks import kmeans, nearest, rotated, sums_by_code
from vaelab.models.posteriors.codes import straight_through
from vaelab.models.schedules import Linear


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def quantizer(size=4, dim=2, **knobs):
    """A vector quantizer of features that are the vectors themselves."""
    made = VectorQuantizer(dim, dim, codebook_size=size, **knobs)
    torch.nn.init.eye_(made.project.layers[0].weight)
    torch.nn.init.zeros_(made.project.layers[0].bias)
    return made


def codebook(quantizer):
    """Its only one."""
    (only,) = quantizer.codebooks
    return only


def blobs(per_blob=50):
    """Points around four places, shuffled."""
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [7.0, 7.0]])
    points = (centres[:, None] + 0.3 * torch.randn(4, per_blob, 2)).flatten(0, 1)
    return points[torch.randperm(len(points))]


def test_z_is_the_nearest_code_to_the_bit():
    q = quantizer().eval()
    x = torch.randn(50, 2)
    codes = q(x)

    by_hand = torch.cdist(x, codebook(q).weight).argmin(1)
    assert codes.indices.flatten().equal(by_hand)
    assert codes.mean.equal(codebook(q).weight[by_hand])
    assert codes.rsample((3,)).equal(codebook(q).weight[by_hand].expand(3, -1, -1))
    assert q.vectors(codes.indices).equal(codes.mean)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_losses_are_the_squared_error_whatever_the_batch_size(update):
    q = quantizer(update=update).eval()
    x = torch.randn(6, 2)
    error = (x - codebook(q).weight[nearest(x, codebook(q).weight)]).square().sum(1)

    for times in (1, 10):
        codes = q(x.repeat(times, 1))
        torch.testing.assert_close(codes.commitment.mean(), error.mean())
        if update == "gradient":
            torch.testing.assert_close(codes.codebook_error.mean(), error.mean())
        else:
            assert codes.codebook_error is None


def test_the_commitment_pulls_the_encoder_alone_and_the_codebook_error_the_codes_alone():
    q = quantizer(update="gradient").eval()
    x = torch.randn(6, 2, requires_grad=True)
    codes = q(x)
    code = codebook(q).weight[codes.indices.flatten()].detach()

    gradients = torch.autograd.grad(
        codes.commitment.sum(), (x, codebook(q).basis), allow_unused=True, retain_graph=True
    )
    torch.testing.assert_close(gradients[0], 2 * (x - code).detach())
    assert gradients[1] is None
    gradients = torch.autograd.grad(codes.codebook_error.sum(), (x, codebook(q).basis), allow_unused=True)
    expected = torch.zeros_like(codebook(q).basis).index_add(0, codes.indices.flatten(), 2 * (code - x.detach()))
    assert gradients[0] is None
    torch.testing.assert_close(gradients[1], expected)


def test_straight_through_hands_the_gradient_on_as_it_is():
    x, codes = torch.randn(6, 2, requires_grad=True), torch.randn(6, 2)
    weights = torch.randn(6, 2)

    (gradient,) = torch.autograd.grad((straight_through(x, codes) * weights).sum(), x)

    assert gradient.equal(weights)


def test_the_rotation_hands_the_gradient_on_rotated_and_stretched():
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    codes, weights = torch.randn(2, 6, 2, dtype=torch.float64)
    z = rotated(x, codes)
    (gradient,) = torch.autograd.grad((z * weights).sum(), x)

    angle = torch.atan2(codes[:, 1], codes[:, 0]) - torch.atan2(x[:, 1], x[:, 0]).detach()
    stretch = codes.norm(dim=1) / x.detach().norm(dim=1)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # (6, 2, 2)
    expected = stretch[:, None] * (rotation.transpose(1, 2) @ weights[..., None]).squeeze(-1)
    assert z.equal(codes)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_in_more_dimensions_it_is_a_rotation_that_takes_the_vector_to_its_code():
    x, codes = torch.randn(2, 1, 5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda y: rotated(y, codes), x).reshape(5, 5)
    rotation = jacobian * x.norm() / codes.norm()

    torch.testing.assert_close(rotation @ rotation.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
    torch.testing.assert_close(jacobian @ x[0], codes[0], rtol=1e-9, atol=1e-9)


def test_k_means_is_scikit_learns_from_the_same_start():
    x = blobs()
    start = x[:4].clone()
    centres, counts = kmeans(x, start, 50)
    theirs = KMeans(4, init=start.numpy(), n_init=1, max_iter=50, tol=0, algorithm="lloyd").fit(x.numpy())

    np.testing.assert_allclose(centres.numpy(), theirs.cluster_centers_, atol=1e-4)
    assert counts.tolist() == np.bincount(theirs.labels_).tolist()


def test_counts_sums_and_perplexity_are_those_of_one_hot_codes():
    torch.manual_seed(0)
    vectors, indices = torch.randn(50, 3, dtype=torch.float64), torch.randint(7, (50,))
    one_hot = torch.nn.functional.one_hot(indices, 9).double()
    counts, sums = sums_by_code(vectors, indices, 9)
    share = one_hot.mean(0)

    assert counts.tolist() == one_hot.sum(0).tolist()
    torch.testing.assert_close(sums, one_hot.T @ vectors)
    expected = torch.special.entr(share).sum().exp().float()
    torch.testing.assert_close(perplexity(indices.reshape(10, 5)), expected)
    torch.testing.assert_close(perplexity(indices * 10**12), expected)  # numbers of a huge codebook take no memory


def test_moving_averages_end_at_k_means():
    x = blobs()
    q = quantizer(kmeans_iterations=0, revive_below=0.0, decay=0.9)
    q(x)
    start = codebook(q).weight.clone()
    for _ in range(400):
        q(x)

    centres, counts = kmeans(x, start, 100)
    torch.testing.assert_close(codebook(q).weight.data, centres, atol=1e-3, rtol=0)
    torch.testing.assert_close(codebook(q).counts, counts, atol=1e-3, rtol=0)


def test_without_a_memory_a_batch_is_one_step_of_k_means():
    x = blobs()
    q = quantizer(kmeans_iterations=0, revive_below=0.0, decay=0.0)
    q(x)
    start = codebook(q).weight.clone()
    q(x)

    torch.testing.assert_close(codebook(q).weight.data, kmeans(x, start, 1)[0], atol=1e-5, rtol=0)


def test_the_first_training_batch_places_the_codes_and_evaluation_none():
    x = blobs()
    q = quantizer()
    before = codebook(q).weight.clone()
    assert q.eval()(x)
    assert codebook(q).weight.equal(before)

    commitment = q.train()(x).commitment.mean()

    assert commitment < 30  # before k-means, codes near 0 are 40 away on average
    assert codebook(q).weight.norm(dim=1).max() > 2


def test_more_codes_than_vectors_can_be_placed():
    q = quantizer(size=64)

    assert q(torch.randn(5, 2)).commitment.max() < 1e-9


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_code_out_of_use_is_put_on_a_vector_of_the_batch(update):
    x = blobs()
    q = quantizer(update=update, revive_below=0.5, decay=0.5)
    q(x)
    codebook(q).basis.data[2] = 1000.0
    codebook(q).sums[2], codebook(q).counts[2] = 0.0, 0.0

    q(x)
    assert codebook(q).weight[2].norm() < 20
    assert q(x).indices.unique().tolist() == [0, 1, 2, 3]


def test_with_revival_off_it_stays_out_of_use():
    x = blobs()
    q = quantizer(revive_below=0.0)
    q(x)
    codebook(q).basis.data[2] = 1000.0
    codebook(q).sums[2], codebook(q).counts[2] = 0.0, 0.0
    q(x)

    assert codebook(q).weight[2].tolist() == [1000.0, 1000.0]


def test_a_grid_has_a_code_at_each_place():
    q = VectorQuantizer((8, 2, 3), 5, codebook_size=4).eval()
    features = torch.randn(7, 8, 2, 3)
    codes = q(features)

    assert (q.codes, q.latent_dim, codes.event_shape) == (6, 30, (30,))
    at_place = VectorQuantizer.vectors(q, codes.indices).reshape(7, 2, 3, 5)
    vectors = torch.einsum("bchw,dc->bhwd", features, q.project.layers[0].weight[:, :, 0, 0])
    vectors = vectors + q.project.layers[0].bias
    assert at_place.equal(codebook(q).weight[nearest(vectors, codebook(q).weight)])


def test_a_number_of_codes_that_is_not_the_grids_is_refused():
    with pytest.raises(ValueError, match=r"posterior.codes=4 .* grid of 2 x 3"):
        VectorQuantizer((8, 2, 3), 5, codes=4)


def scalar_quantizer(levels):
    made = FiniteScalarQuantizer(len(levels), len(levels), levels=levels)
    torch.nn.init.eye_(made.project.layers[0].weight)
    torch.nn.init.zeros_(made.project.layers[0].bias)
    return made


@pytest.mark.parametrize("levels", [[2], [3, 2], [8, 5, 5, 5], [4, 3, 7]], ids=str)
def test_finite_scalar_quantization_reaches_each_of_its_codes(levels):
    q = scalar_quantizer(levels)
    values = [torch.linspace(-0.99999, 0.99999, 4 * level + 1).atanh() for level in levels]
    codes = q(torch.cartesian_prod(*values).reshape(-1, len(levels)))

    assert codes.indices.unique().tolist() == list(range(math.prod(levels)))
    every = q.vectors(torch.arange(q.codebook_size)[:, None])
    expected = sorted(product(*[np.linspace(-1, 1, level) for level in levels]))
    np.testing.assert_allclose(sorted(every.tolist()), expected, atol=1e-6)
    torch.testing.assert_close(q.vectors(codes.indices), codes.mean)


def test_finite_scalar_quantization_rounds_and_has_the_gradient_of_tanh():
    q = scalar_quantizer([5, 4])
    x = torch.randn(9, 2, requires_grad=True)
    z = q(x).rsample()
    (gradient,) = torch.autograd.grad(z.sum(), x)

    bounded = x.detach().tanh()
    levels = [torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 4)]
    by_hand = [level[(bounded[:, [j]] - level).abs().argmin(1)] for j, level in enumerate(levels)]
    torch.testing.assert_close(z, torch.stack(by_hand, 1))
    torch.testing.assert_close(gradient, 1 - bounded**2)


def test_levels_have_to_be_those_of_the_dimensions_and_countable():
    with pytest.raises(ValueError, match=r"levels has 2 entries and latent_dim=3.*latent_dim=2 fits"):
        FiniteScalarQuantizer(6, 3, levels=[8, 5])
    with pytest.raises(ValueError, match="more than can be numbered"):
        FiniteScalarQuantizer(6, 32, levels=[8] * 32)


def test_the_temperature_follows_its_schedule_by_the_batches_seen_and_evaluation_is_hard():
    posterior = GumbelSoftmax(6, 3, codes=2, temperature=Linear(start=1.0, end=0.5, steps=2))
    features = torch.randn(4, 6)

    assert [posterior(features).temperature for _ in range(4)] == [1.0, 0.75, 0.5, 0.5]
    assert posterior.eval()(features).temperature is None
    assert set(posterior(features).rsample().unique().tolist()) == {0.0, 1.0}
    other = GumbelSoftmax(6, 3, codes=2, temperature=Linear(start=1.0, end=0.5, steps=8))
    other.load_state_dict(posterior.state_dict())
    assert other(features).temperature == 0.75  # after four batches


def test_a_temperature_that_reaches_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        GumbelSoftmax(6, 3, temperature=Linear(start=0.0, end=1.0, steps=8))


def test_the_vectors_of_gumbel_codes_are_one_hot():
    posterior = GumbelSoftmax(6, 3, codes=2)

    assert posterior.vectors(torch.tensor([[2, 0]])).tolist() == [[0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize("kind", [VectorQuantizer, lambda f, d: FiniteScalarQuantizer(f, d, levels=[5, 4, 3])])
def test_quantizers_return_codes_without_a_density(kind):
    posterior = kind(6, 3)
    codes = posterior(torch.randn(7, 6))

    assert isinstance(codes, Codes)
    assert not posterior.has_density
    with pytest.raises(NotImplementedError):
        codes.log_prob(codes.rsample())
