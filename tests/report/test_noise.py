import random

import pytest
from scipy.stats import ttest_ind

from vaelab.report.noise import different, letters


def differ(a: list[float], b: list[float]) -> bool:
    return bool(different([a, b])[0, 1])


def test_settings_differ_where_welchs_test_says_so() -> None:
    draw = random.Random(0)
    answers = set()
    for _ in range(200):
        a = [draw.gauss(0, 1) for _ in range(draw.randint(2, 6))]
        b = [draw.gauss(2, 3) for _ in range(draw.randint(2, 6))]
        expected = ttest_ind(a, b, equal_var=False).pvalue < 0.05
        assert differ(a, b) == expected
        answers.add(bool(expected))
    assert answers == {True, False}


def test_equal_settings_are_told_apart_one_time_in_twenty() -> None:
    draw = random.Random(1)
    false = sum(differ([draw.gauss(0, 1) for _ in range(5)], [draw.gauss(0, 1) for _ in range(5)]) for _ in range(2000))

    assert false / 2000 == pytest.approx(0.05, abs=0.015)


def test_settings_that_share_a_letter_do_not_differ_and_those_that_differ_share_none() -> None:
    draw = random.Random(2)
    settings = [[draw.gauss(mean, 0.6) for _ in range(3)] for mean in (0, 0.5, 1.5, 3, 3.2, 9)]
    found = letters(settings)

    assert len(set(found)) > 2
    for i in range(6):
        for j in range(i):
            if differ(settings[i], settings[j]):
                assert not set(found[i]) & set(found[j])
    assert all(found)


def test_one_seed_has_no_noise_to_compare_with() -> None:
    assert letters([[1.0], [2.0], [3.0]]) == ["", "", ""]
    assert letters([[1.0, 1.1], [1.05, 1.0]]) == ["", ""]
    assert letters([[1.0, 1.1], [5.0], [9.0, 9.2]]) == ["a", "", "b"]
    assert letters([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]) == ["a", "a", "b"]
