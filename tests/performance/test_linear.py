"""The products of oneDNN are those of PyTorch, and so are their gradients and the gradients of those."""

import pytest
import torch
import torch.nn.functional as F

from vaelab.performance import linear
from vaelab.performance.linear import Linear

VECTORS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def derivatives(function, x, layer):
    """Outputs, gradients, and gradients of a gradient."""
    y = function(x)
    loss = y.tanh().square().sum()
    first = torch.autograd.grad(loss, [x, *layer.parameters()], create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), [x, *layer.parameters()])
    return [y, *first, *second]


@pytest.mark.skipif(not VECTORS, reason="oneDNN is asked on processors with AVX2 or AVX-512 alone")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "features", "outputs"), [(7, 300, 200), (500, 150, 300)], ids=str)
def test_a_product_of_onednn_has_the_numbers_and_derivatives_of_pytorchs(rows, features, outputs, bias, monkeypatch):
    monkeypatch.setattr(linear, "_onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    layer = Linear(features, outputs, bias=bias)
    x = torch.randn(rows, features, requires_grad=True)
    exact = layer.double()
    expected = derivatives(lambda x: F.linear(x, exact.weight, exact.bias), x.double(), exact)

    asked = []
    layer = layer.float()
    op = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *all_: asked.append(1) or op(*all_))
    result = derivatives(layer, x, layer)

    assert len(asked) >= 3
    for ours, theirs in zip(result, expected, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("x", "layer"),
    [
        (torch.randn(4, 300, dtype=torch.float64), Linear(300, 200).double()),
        (torch.randn(4, 6, 300), Linear(300, 200)),
        (torch.randn(4, 30), Linear(30, 20)),
        (torch.randn(4, 300, device="meta"), Linear(300, 200).to("meta")),
    ],
    ids=["double precision", "three dimensions", "small", "no memory"],
)
def test_what_onednn_is_not_for_is_pytorchs_own(x, layer, monkeypatch):
    monkeypatch.setattr(linear, "_onednn_is_faster", lambda: True)
    monkeypatch.delattr(linear, "_OneDNN")

    y = layer(x)

    assert y.shape == (*x.shape[:-1], layer.out_features)
    if x.device.type != "meta":
        assert y.equal(F.linear(x, layer.weight, layer.bias))


def test_autocast_has_its_way():
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(300, 200)(torch.randn(4, 300)).dtype == torch.bfloat16
