"""The private names of torch that we use: a version that no longer has one of them is named with it."""

import ast
from pathlib import Path

import pytest
import torch
import torch._functorch.config

import vaelab
from vaelab.performance import torch_internals

TORCH = f"torch {torch.__version__}"
FULL = Path("/dev/full")
PRIVATE = {"_linear_pointwise", "_foreach_copy_", "_step_supports_amp_scaling", "unexpected pos", "donated_buffer"}


def test_torch_still_has_the_private_names_that_we_use() -> None:
    targets = [torch.zeros(2), torch.zeros(3)]
    try:
        torch_internals.copy_each(targets, [torch.ones(2), torch.ones(3)])
    except AttributeError as error:
        raise AssertionError(f"{TORCH} no longer has what copy_each needs: {error}") from error
    assert all(target.eq(1).all() for target in targets)
    weight = torch.nn.Parameter(torch.zeros(1))
    if torch.backends.mkldnn.is_available():
        assert torch_internals.has_onednn_product(), f"{TORCH} has no torch.ops.mkldnn._linear_pointwise"
    fused = torch.optim.Adam([weight], fused=True)
    assert torch_internals.unscales_gradients(fused), f"{TORCH}: fused Adam has no _step_supports_amp_scaling"
    assert not torch_internals.unscales_gradients(torch.optim.SGD([weight]))
    assert hasattr(torch._functorch.config, "donated_buffer"), f"{TORCH} has no torch._functorch.config.donated_buffer"
    assert hasattr(torch.utils.deterministic, "fill_uninitialized_memory"), f"{TORCH}: training/lightning.py"


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's device that is always full")
def test_torch_still_says_the_same_of_a_full_disk() -> None:
    with pytest.raises((RuntimeError, OSError)) as failed, FULL.open("wb") as file:
        torch.save({"x": torch.zeros(300_000)}, file)
    said = str(failed.value)
    assert isinstance(failed.value, OSError) or torch_internals.FULL_DISK in said, f"{TORCH} says: {said}"


def test_no_other_file_uses_them() -> None:
    package = Path(vaelab.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {getattr(node, "attr", None), getattr(node, "value", None) if isinstance(node, ast.Constant) else 0}
            if names & PRIVATE:
                found.add(path.relative_to(package).as_posix())
    assert found == {"performance/torch_internals.py"}
