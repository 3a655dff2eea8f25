"""Which differences between settings are within the noise of their seeds."""

from collections.abc import Sequence
from itertools import combinations
from math import sqrt
from statistics import fmean, variance
from string import ascii_lowercase

LEVEL = 0.05


def differ(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether the means of two settings differ by more than their seeds explain, at the level of 5 %.

    Welch's t-test, two-sided, for numbers of different variances; of fewer than two seeds a side it cannot be said.
    """
    from scipy.stats import t

    errors = variance(a) / len(a), variance(b) / len(b)
    gap, error = abs(fmean(a) - fmean(b)), sum(errors)
    if error == 0:
        return gap > 0
    freedom = error**2 / sum(e**2 / (len(x) - 1) for e, x in zip(errors, (a, b), strict=True))
    return bool(gap / sqrt(error) > t.ppf(1 - LEVEL / 2, freedom))


def letters(settings: Sequence[Sequence[float]]) -> list[str]:
    """Letters of settings, given a number a seed each: two that share one do not differ.

    The compact letter display of Piepho (2004), with letters for runs of neighbours in the order of the means. Settings
    of fewer than two seeds have none; where no two differ, or there are not two, nor has any other.

    >>> letters([[1.0, 1.1], [1.0, 1.2], [9.0, 9.1], [5.0]])
    ['a', 'a', 'b', '']
    """
    known = sorted((i for i, values in enumerate(settings) if len(values) > 1), key=lambda i: fmean(settings[i]))
    different = {pair for pair in combinations(range(len(known)), 2) if differ(*(settings[known[i]] for i in pair))}
    found = [""] * len(settings)
    if not different:
        return found
    end, number = -1, 0
    for start in range(len(known)):
        last = start
        while last + 1 < len(known) and not any((i, last + 1) in different for i in range(start, last + 1)):
            last += 1
        if last > end:  # not within the run before
            for i in range(start, last + 1):
                found[known[i]] += _letter(number)
            end, number = last, number + 1
    return found


def _letter(number: int) -> str:
    """a, b, ..., z, a1, b1, ..."""
    again, place = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(again) if again else "")
