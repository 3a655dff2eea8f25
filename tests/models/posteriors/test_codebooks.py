"""Several codebooks, codes of bits and codes on two grids, against brute force."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from vaelab.losses import CodeEntropy, Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import BinarySphericalQuantizer, LookupFreeQuantizer, TwoGrids, VectorQuantizer
from vaelab.models.posteriors.bits import BinaryQuantizer
from vaelab.models.posteriors.codebooks import Codebook


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def transparent(made: VectorQuantizer | BinaryQuantizer) -> VectorQuantizer | BinaryQuantizer:
    """The same, of features that are the vectors themselves."""
    torch.nn.init.eye_(made.project.layers[0].weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(made.project.layers[0].bias)  # type: ignore[arg-type]
    return made


def weights(quantizer: VectorQuantizer) -> list[Tensor]:
    return [codebook.weight.detach() for codebook in quantizer.codebooks if isinstance(codebook, Codebook)]


def test_each_code_of_a_residual_quantizer_is_nearest_to_what_those_before_have_left() -> None:
    q = transparent(VectorQuantizer(3, 3, codebook_size=5, depth=3)).eval()
    assert isinstance(q, VectorQuantizer)
    x = torch.randn(40, 3)
    codes = q(x)

    for row, found, z, commitment in zip(x, codes.indices, codes.mean, codes.commitment, strict=True):
        left, chosen, error = row, [], 0.0
        for book in weights(q):
            number = min(range(5), key=lambda k, left=left, book=book: float((left - book[k]).square().sum()))  # type: ignore[misc]
            left = left - book[number]
            chosen.append(number)
            error += float(left.square().sum())
        assert found.tolist() == chosen
        torch.testing.assert_close(z, row - left)
        assert commitment.item() == pytest.approx(error, rel=1e-5)
    torch.testing.assert_close(q.vectors(codes.indices), codes.mean)
    assert (q.codes, codes.numbers.max().item() >= 10) == (3, True)


def test_the_codes_of_a_product_quantizer_are_the_nearest_of_all_their_combinations() -> None:
    q = transparent(VectorQuantizer(6, 6, codebook_size=4, groups=3)).eval()
    assert isinstance(q, VectorQuantizer)
    every = torch.tensor(list(product(range(4), repeat=3)))  # (64, 3)
    table = torch.stack([torch.cat([book[k] for book, k in zip(weights(q), row, strict=True)]) for row in every])
    x = torch.randn(50, 6)
    codes = q(x)

    torch.testing.assert_close(q.vectors(every), table)
    nearest = torch.cdist(x, table).argmin(1)
    assert codes.indices.equal(every[nearest])
    torch.testing.assert_close(codes.mean, table[nearest])
    torch.testing.assert_close(codes.commitment, (x - table[nearest]).square().sum(1))


def test_pieces_that_do_not_come_out_even_are_refused() -> None:
    with pytest.raises(ValueError, match=r"posterior\.groups=4 does not divide latent_dim=6"):
        VectorQuantizer(6, 6, groups=4)


def test_residual_codebooks_learn_to_leave_less() -> None:
    q = transparent(VectorQuantizer(2, 2, codebook_size=4, depth=3))
    x = torch.randn(500, 2)
    for _ in range(50):
        codes = q(x)
    left = [(x - q.vectors(codes.indices)).square().sum(1).mean().item()]
    left += [(x - weights(q)[0][codes.indices[:, 0]]).square().sum(1).mean().item()]  # type: ignore[arg-type]

    assert left[0] < 0.2 * left[1]


def test_the_codes_of_simvq_are_a_fixed_basis_times_a_matrix_and_the_gradient_is_the_matrixs() -> None:
    q = transparent(VectorQuantizer(2, 2, codebook_size=7, update="linear"))
    (book,) = q.codebooks  # type: ignore[union-attr, misc]
    assert isinstance(book, Codebook)
    x = torch.randn(9, 2)
    codes = q(x)
    table = book.basis @ book.transform.weight.T
    nearest = torch.cdist(x, table).argmin(1)
    assert codes.indices.flatten().equal(nearest)
    torch.testing.assert_close(codes.mean, table[nearest])

    codes.codebook_error.sum().backward()
    by_hand = -2 * (x - table[nearest]).T @ book.basis[nearest]
    torch.testing.assert_close(book.transform.weight.grad, by_hand.detach())
    assert book.basis.grad is None


@pytest.mark.parametrize(("kind", "amplitude"), [(LookupFreeQuantizer, 1.0), (BinarySphericalQuantizer, 0.5)])
def test_bits_are_the_nearest_of_all_combinations_of_signs(kind: type[BinaryQuantizer], amplitude: float) -> None:
    q = transparent(kind(4, 4)).eval()  # type: ignore[call-arg]
    x = torch.randn(60, 4, requires_grad=True)
    table = amplitude * torch.tensor(list(product([-1.0, 1.0], repeat=4)))
    placed = x / x.norm(dim=1, keepdim=True) if kind is BinarySphericalQuantizer else x
    codes = q(x)

    nearest = torch.cdist(placed, table).argmin(1)
    torch.testing.assert_close(codes.mean, table[nearest])
    torch.testing.assert_close(codes.commitment, (placed - table[nearest]).square().sum(1))
    assert sorted(q.vectors(torch.arange(16)[:, None]).tolist()) == sorted(table.tolist())
    assert q.vectors(codes.indices).equal(codes.mean)
    # The soft bits are the marginals of softmax(-t |e - z|^2) over all codes.
    share = (-q.sharpness * torch.cdist(placed, table).square()).softmax(1)
    torch.testing.assert_close(codes.bit_logits[:, 0].sigmoid(), share @ (table > 0).float(), atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(codes.rsample().sum(), x, retain_graph=True)
    expected = torch.autograd.grad(placed.sum(), x)[0] if placed is not x else torch.ones_like(x)
    torch.testing.assert_close(gradient, expected)
    if kind is BinarySphericalQuantizer:
        assert codes.commitment.max() <= 2 - 2 / math.sqrt(4) + 1e-6


def test_the_entropy_of_bits_is_that_of_all_codes_where_bits_are_independent() -> None:
    """E[H(b|e)] by the sum over all codes; H(E[b]) the sum of its bits', once for each of the two codes."""
    encoder = MLPEncoder((1, 3, 4), hidden=[7])
    posterior = LookupFreeQuantizer(encoder.features, 3, codes=2, sharpness=0.3)
    model = Autoencoder(
        encoder=encoder, posterior=posterior, decoder=MLPDecoder(6, (1, 3, 4)), likelihood=Gaussian((1, 3, 4))
    )
    x = torch.randn(20, 1, 3, 4)
    vectors = 5 * posterior.project(encoder(x)).detach()
    posterior.project.layers[0].weight.data *= 5  # type: ignore[operator, union-attr]
    posterior.project.layers[0].bias.data *= 5  # type: ignore[operator, union-attr]
    table = torch.tensor(list(product([-1.0, 1.0], repeat=3)))
    share = (-0.3 * torch.cdist(vectors.flatten(0, 1), table).square()).softmax(1)  # (40, 8)
    each = torch.special.entr(share).sum() / 20
    bits = share.mean(0) @ (table > 0).float()
    together = 2 * (torch.special.entr(bits) + torch.special.entr(1 - bits)).sum()

    torch.testing.assert_close(CodeEntropy(diversity=0.7)(Step(model, x)), each - 0.7 * together)


def test_two_grids_have_the_nearest_codes_of_each_and_z_holds_both() -> None:
    q = TwoGrids((6, 5, 4), 3, codebook_size=8).eval()
    features = torch.randn(7, 6, 5, 4)
    codes = q(features)
    top, bottom = weights(q)  # type: ignore[arg-type]
    upper, lower = codes.indices.split([2 * 2, 5 * 4], 1)

    vectors = q.projections[0](q.down(features))
    assert upper.equal(torch.cdist(vectors, top).argmin(-1))
    above = top[upper].reshape(7, 2, 2, 3)[:, [0, 0, 0, 1, 1]][:, :, [0, 0, 1, 1]]  # (7, 5, 4, 3)
    own = q.projections[1](torch.cat([features, above.permute(0, 3, 1, 2)], 1))
    assert lower.equal(torch.cdist(own, bottom).argmin(-1))
    z = torch.cat([above, bottom[lower].reshape(7, 5, 4, 3)], -1).flatten(1)
    torch.testing.assert_close(codes.mean, z)
    torch.testing.assert_close(q.vectors(codes.indices), z)
    assert (q.grids, q.codes, q.latent_dim) == (((2, 2), (5, 4)), 24, 120)


def test_two_grids_need_a_grid_that_can_be_halved() -> None:
    with pytest.raises(ValueError, match=r"encoder\.features=null"):
        TwoGrids(64, 3)
    with pytest.raises(ValueError, match=r"grid of 1 x 1, which cannot be halved"):
        TwoGrids((6, 1, 1), 3)
