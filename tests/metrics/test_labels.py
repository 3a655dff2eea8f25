import itertools

import pytest
import torch

from vaelab.metrics.labels import clustering, linear_probe, nearest_neighbours


def blobs(n, *, spread, seed):
    """Codes (n, 2) around three points, and which of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return centres[labels] + spread * torch.randn(n, 2, generator=generator), labels


def test_separate_classes_are_found_without_error_by_each():
    codes, labels = blobs(60, spread=0.01, seed=0)
    others, of_others = blobs(31, spread=0.01, seed=1)

    assert linear_probe(codes, labels, others, of_others) == 1
    assert nearest_neighbours(codes, labels, others, of_others) == 1
    assert clustering(codes, labels, 0) == (1, 1, 1)


def test_the_probe_does_not_depend_on_the_scale_or_the_origin_of_a_dimension():
    codes, labels = blobs(200, spread=0.5, seed=0)
    others, of_others = blobs(200, spread=0.5, seed=1)
    scale, origin = torch.tensor([1e4, 1e-4]), torch.tensor([-3e3, 7.0])

    accuracy = linear_probe(codes, labels, others, of_others)

    assert 0.5 < accuracy < 1
    assert linear_probe(origin + scale * codes, labels, origin + scale * others, of_others) == accuracy


def test_the_probe_is_the_optimum_of_the_penalised_likelihood():
    """Against an optimizer of torch on the same objective."""
    codes, labels = blobs(90, spread=0.7, seed=0)
    others, of_others = blobs(300, spread=0.7, seed=1)
    mean, deviation = codes.double().mean(0), codes.double().std(0, correction=0)
    x, y = (codes - mean) / deviation, (others - mean) / deviation
    weight = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weight + bias, labels, reduction="sum")
        value = value + weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    expected = ((y @ weight + bias).argmax(1) == of_others).double().mean().item()

    assert linear_probe(codes, labels, others, of_others) == pytest.approx(expected, abs=1 / 300)


def test_neighbours_are_the_five_nearest_by_brute_force():
    codes, labels = blobs(80, spread=0.6, seed=0)
    others, of_others = blobs(50, spread=0.6, seed=1)
    nearest = torch.cdist(others.double(), codes.double()).topk(5, largest=False).indices
    votes = labels[nearest].mode(1).values  # the smallest of equals, as in scikit-learn
    expected = (votes == of_others).double().mean().item()

    assert nearest_neighbours(codes, labels, others, of_others) == pytest.approx(expected)
    assert 0.5 < expected < 1


def test_with_fewer_than_five_codes_all_of_them_vote():
    codes, labels = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([4, 7, 7])

    assert nearest_neighbours(codes, labels, torch.tensor([[0.0]]), torch.tensor([7])) == 1


def test_the_accuracy_of_clusters_is_the_best_over_all_assignments():
    from sklearn.cluster import KMeans

    codes, labels = blobs(90, spread=0.45, seed=0)
    clusters = torch.from_numpy(KMeans(3, n_init=10, random_state=0).fit_predict(codes.double().numpy())).long()
    best = max(
        (torch.tensor(names)[clusters] == labels).double().mean().item() for names in itertools.permutations(range(3))
    )

    assert clustering(codes, labels, 0).accuracy == pytest.approx(best)
    assert best < 1


def test_nmi_and_ari_are_those_of_their_definitions():
    codes, labels = blobs(90, spread=0.45, seed=0)
    found = clustering(codes, labels, 0)
    from sklearn.cluster import KMeans

    clusters = torch.from_numpy(KMeans(3, n_init=10, random_state=0).fit_predict(codes.double().numpy())).long()
    joint = torch.zeros(3, 3, dtype=torch.float64)
    joint.index_put_((clusters, labels), torch.ones(90, dtype=torch.float64), accumulate=True)
    p = joint / 90
    entropy = lambda p: -(p * p.clamp(min=1e-300).log()).sum()  # noqa: E731
    information = entropy(p.sum(0)) + entropy(p.sum(1)) - entropy(p)
    assert found.nmi == pytest.approx((2 * information / (entropy(p.sum(0)) + entropy(p.sum(1)))).item())

    pairs = lambda n: (n * (n - 1) / 2).sum()  # noqa: E731
    expected = pairs(joint.sum(0)) * pairs(joint.sum(1)) / (90 * 89 / 2)
    most = (pairs(joint.sum(0)) + pairs(joint.sum(1))) / 2
    assert found.ari == pytest.approx(((pairs(joint) - expected) / (most - expected)).item())


def test_the_same_seed_finds_the_same_clusters_and_leaves_torchs_generator_alone():
    codes, labels = blobs(300, spread=2.0, seed=0)
    before = torch.get_rng_state()

    assert clustering(codes, labels, 2**40 + 1) == clustering(codes, labels, 2**40 + 1)
    assert torch.get_rng_state().equal(before)


def test_collapsed_codes_get_a_score_and_no_warning():
    labels = torch.arange(30) % 3

    found = clustering(torch.zeros(30, 2), labels, 0)

    assert found == (0, 0, pytest.approx(1 / 3))
    assert linear_probe(torch.zeros(30, 2), labels, torch.zeros(30, 2), labels) == pytest.approx(1 / 3)
