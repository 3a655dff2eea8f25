"""Numbers about a trained model.

Each is a function of tensors in a file with one subject, where it says what it estimates, in which unit and with which
bias. Metrics, which `vaelab evaluate` finds by their registration, are functions of a `Subject` that call them.
"""

from vaelab.metrics.registry import Found, Value, mean_of, metric

__all__ = ["Found", "Value", "mean_of", "metric"]
