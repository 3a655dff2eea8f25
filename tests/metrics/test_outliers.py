import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from vaelab.metrics.items import complexity, typicality
from vaelab.metrics.outliers import detection


def test_detection_is_scikit_learns_and_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    usual, unusual = rng.normal(size=50).round(1), rng.normal(0.7, size=30).round(1)  # with ties

    found = detection(usual, unusual)

    truth, scores = np.repeat([0, 1], [50, 30]), np.concatenate([usual, unusual])
    assert found.auroc == roc_auc_score(truth, scores)
    assert found.average_precision == average_precision_score(truth, scores)
    assert found.chance == 30 / 80
    pairs = np.mean([[(b > a) + (a == b) / 2 for a in usual] for b in unusual])
    assert found.auroc == pytest.approx(pairs, rel=1e-12)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        detection(np.array([1.0, math.nan]), np.array([2.0]))


def test_typicality_is_high_on_both_sides_of_what_training_items_have() -> None:
    found = typicality(torch.tensor([5.0, 10.0, 25.0]), torch.tensor([8.0, 12.0]))

    assert found.tolist() == [5.0, 0.0, 15.0]


def test_noise_is_more_complex_than_a_ramp_and_a_ramp_more_than_nothing() -> None:
    ramp = torch.arange(32)[None, None, :, None].expand(1, 1, 32, 32) / 255
    noise = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    nothing, simple, complicated = complexity(torch.cat([torch.zeros(1, 1, 32, 32), ramp, noise])).tolist()

    assert nothing <= simple < complicated / 10
    # Noise of 256 levels cannot be compressed: 8 bits a pixel, and zlib's few bytes.
    assert complicated == pytest.approx(1024 * math.log(256), rel=0.02)
