"""Linear layers by oneDNN against the same products in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from s2f_rl import products
from s2f_rl.products import linear

INPUTS = {
    "rows": lambda: torch.randn(37, 24),
    "one": lambda: torch.randn(24),
    "tokens": lambda: torch.randn(6, 5, 24),
    "every second": lambda: torch.randn(6, 10, 24)[:, ::2],
    "transposed": lambda: torch.randn(24, 37).t(),
    "expanded": lambda: torch.randn(24).expand(6, 5, 24),
    "none": lambda: torch.randn(0, 5, 24),
}


class Operations(TorchDispatchMode):
    """Names of the operations that run within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def layer(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(products, "_fits", lambda x, weight: False)
    torch.manual_seed(0)
    return torch.randn(16, 24), torch.randn(16)


def largest(x: torch.Tensor) -> float:
    return float(x.detach().abs().max()) if x.numel() else 1.0


class TestLinear:
    @pytest.mark.parametrize("gelu", [False, True])
    @pytest.mark.parametrize("made", INPUTS)
    def test_value_and_gradient_are_those_of_float64(self, layer, made, gelu):
        x = INPUTS[made]()
        ours = [t.clone().requires_grad_() for t in (x, *layer)]
        exact = [t.double().requires_grad_() for t in (x, *layer)]
        expected = F.linear(*exact)
        expected = F.gelu(expected) if gelu else expected
        with torch.no_grad():
            found = linear(*ours, gelu=gelu)
        assert found.shape == expected.shape
        assert torch.allclose(found.double(), expected, atol=1e-6 * largest(expected))
        grown = linear(*ours, gelu=gelu)
        assert torch.allclose(grown.double(), expected, atol=1e-6 * largest(expected))
        slope = torch.randn_like(grown)
        grown.backward(slope)
        expected.backward(slope.double())
        for one, other in zip(ours, exact, strict=True):
            assert torch.allclose(one.grad.double(), other.grad, atol=2e-6 * largest(other.grad)), made

    @pytest.mark.parametrize("frozen", [0, 1, 2])
    def test_what_is_frozen_has_no_gradient(self, layer, frozen):
        tensors = [torch.randn(5, 24), *layer]
        for i, tensor in enumerate(tensors):
            tensor.requires_grad_(i != frozen)
        linear(*tensors).sum().backward()
        assert [tensor.grad is None for tensor in tensors] == [i == frozen for i in range(3)]

    def test_without_a_bias(self, layer):
        x = torch.randn(5, 24)
        assert torch.allclose(linear(x, layer[0]).double(), x.double() @ layer[0].double().T, atol=1e-5)

    def test_bfloat16_weights_bring_the_input_to_their_type(self, layer):
        weight, bias = (t.bfloat16() for t in layer)
        x = torch.randn(50, 24)
        found = linear(x, weight, bias)
        expected = F.linear(x.bfloat16().double(), weight.double(), bias.double())
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.double(), expected, atol=2**-8 * largest(expected))

    def test_float64_stays_float64(self, layer):
        x, (weight, bias) = torch.randn(5, 24).double(), (t.double() for t in layer)
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))

    def test_it_is_onednn_where_there_is_one(self):
        x, weight = torch.ones(3, 24), torch.ones(16, 24)
        with torch.no_grad(), Operations() as ran:
            linear(x, weight, gelu=True)
        assert (ran.names == {"mkldnn::_linear_pointwise"}) == torch.backends.mkldnn.is_available()
