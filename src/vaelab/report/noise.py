"""Which differences between settings are within the noise of their seeds."""

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

LEVEL = 0.05


def different(settings: Sequence[Sequence[float]]) -> np.ndarray:
    """Whether the means of two settings differ by more than their seeds explain, of each pair: (N, N), bool.

    Welch's t-test, two-sided at 5 %, of a number a seed; every setting has two seeds or more.
    """
    from scipy.stats import t

    counts = np.array([len(values) for values in settings])
    errors = np.array([np.var(values, ddof=1) for values in settings]) / counts
    means = np.array([np.mean(values) for values in settings])
    gap = np.abs(means[:, None] - means)
    error = errors[:, None] + errors
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = errors**2 / (counts - 1)
        freedom = error**2 / (shares[:, None] + shares)
        found = gap > np.sqrt(error) * t.ppf(1 - LEVEL / 2, freedom)
    differ: np.ndarray = np.where(error > 0, found, gap > 0)
    return differ


def letters(settings: Sequence[Sequence[float]]) -> list[str]:
    """Letters of settings, given a number a seed each: two that share one do not differ.

    The compact letter display of Piepho (2004), with letters for runs of neighbours in the order of the means. Settings
    of fewer than two seeds have none; where no two differ, nor has any other.

    >>> letters([[1.0, 1.1], [1.0, 1.2], [9.0, 9.1], [5.0]])
    ['a', 'a', 'b', '']
    """
    known = sorted((i for i, values in enumerate(settings) if len(values) > 1), key=lambda i: np.mean(settings[i]))
    found = [""] * len(settings)
    if len(known) < 2:
        return found
    differ = different([settings[i] for i in known])
    if not differ.any():
        return found
    end, number = 0, 0
    for start in range(len(known)):
        after = start + 1
        while after < len(known) and not differ[start:after, after].any():
            after += 1
        if after > end:  # not within the run before
            for i in known[start:after]:
                found[i] += _letter(number)
            end, number = after, number + 1
    return found


def _letter(number: int) -> str:
    """a, b, ..., z, a1, b1, ..."""
    again, place = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(again) if again else "")
