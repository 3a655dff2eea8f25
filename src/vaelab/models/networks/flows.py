"""Normalizing flows, as zuko makes them."""

from typing import Literal

import torch
import zuko
from zuko.lazy import Flow

FlowKind = Literal["realnvp", "maf", "nsf"]

_FLOWS = {"realnvp": zuko.flows.RealNVP, "maf": zuko.flows.MAF, "nsf": zuko.flows.NSF}


def flow(kind: FlowKind, dim: int, *, context: int = 0, transforms: int, hidden: list[int]) -> Flow:
    """A flow over R^dim: `realnvp` (Dinh et al. 2017), `maf` (Papamakarios et al. 2017), `nsf` (Durkan et al. 2019).

    Its transform goes from the data to the standard normal; `maf` and `nsf` are autoregressive in that direction.

    Args:
        kind: which.
        dim: size of a vector.
        context: size of the vector that it is conditional on; 0 for none.
        transforms: how many, one after the other.
        hidden: widths of the hidden layers of the networks that give a transform's parameters.
    """
    with torch.device("cpu"):  # zuko works out its masks from their values, which a meta tensor has not
        made = _FLOWS[kind](dim, context, transforms=transforms, hidden_features=hidden)
    return made.to(torch.get_default_device())
