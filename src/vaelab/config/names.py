"""Name parts as a config does."""

from functools import cache

from torch import nn

from vaelab.config.conf import contents
from vaelab.models.parts import Conditional


def config_name(part: object) -> str:
    """Return `group=option` of the first option of conf/ that makes such a part, or the name of its class.

    Args:
        part: an object, or a class or function that makes one.
    """
    if isinstance(part, Conditional):  # around the one that was chosen
        part = part.network
    if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return "normalization=batch"
    kind = part if isinstance(part, type) else type(part)
    for target, group, name in _options():
        module, _, made = target.rpartition(".")
        if kind.__name__ == made and f"{kind.__module__}.".startswith(f"{module}."):
            return f"{group}={name}"
    return kind.__name__


@cache
def _options() -> list[tuple[str, str, str]]:
    """Return the target, group and name of each option of conf/."""
    made = [option for option in contents() if "_target_" in option.content]
    return [(option.content["_target_"], option.group, option.name) for option in made]
