"""Information in latent codes (N, Z) about labels (N,)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

NEIGHBOURS = 5


def linear_probe(codes: Tensor, labels: Tensor, test_codes: Tensor, test_labels: Tensor) -> float:
    """Accuracy of a logistic regression on standardised codes.

    With scikit-learn's L2 penalty, C = 1; means and standard deviations are those of `codes`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with single_threaded():
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        probe.fit(codes.double().numpy(), labels.numpy())
        return float(probe.score(test_codes.double().numpy(), test_labels.numpy()))


def nearest_neighbours(codes: Tensor, labels: Tensor, test_codes: Tensor, test_labels: Tensor) -> float:
    """Accuracy of the most frequent label among the 5 nearest `codes`, by Euclidean distance."""
    from sklearn.neighbors import KNeighborsClassifier

    with single_threaded():
        vote = KNeighborsClassifier(min(NEIGHBOURS, len(codes))).fit(codes.double().numpy(), labels.numpy())
        return float(vote.score(test_codes.double().numpy(), test_labels.numpy()))


class Clustering(NamedTuple):
    """Agreement of clusters and labels; 1 = perfect. By chance, `ari` is 0 and `accuracy` 1 / clusters or more."""

    nmi: float
    ari: float
    accuracy: float


def clustering(codes: Tensor, labels: Tensor, seed: int) -> Clustering:
    """Compare the k-means clusters of codes, as many as there are labels, with the labels.

    Normalized mutual information (arithmetic mean), adjusted Rand index, and the accuracy under the best one-to-one
    assignment of clusters to labels (Hungarian method). Of ten starts of k-means the best by inertia is taken.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    with single_threaded():
        clusters = KMeans(len(torch.unique(labels)), n_init=10, random_state=seed % 2**32).fit_predict(
            codes.double().numpy()
        )
    counts = contingency_matrix(labels.numpy(), clusters)
    return Clustering(
        nmi=float(normalized_mutual_info_score(labels.numpy(), clusters)),
        ari=float(adjusted_rand_score(labels.numpy(), clusters)),
        accuracy=float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels)),
    )


@contextmanager
def single_threaded() -> Iterator[None]:
    """The same bits every time: threads would add up their parts in the order in which they finish."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        # Collapsed codes have fewer different points than there are clusters; the score says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
