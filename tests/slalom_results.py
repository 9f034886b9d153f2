"""What Slalom makes of a row of the tables: beside torch_reference.py, for the tests and for tools/parity.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from layer_cases import cotangent, learned, loss_values, sample_input, state_values
from layer_rows import Row, Sample
from loss_rows import LossRow

import slalom
from slalom import Tensor, nn

Array = np.ndarray[Any, Any]


def _arrays(results: dict[str, Any]) -> dict[str, Array]:
    return {name: t.detach().numpy() for name, t in results.items() if t is not None}


# --- layers -----------------------------------------------------------------------------------------------------------
def made_layer(row: Row, mode: str = "train", dtype: str = "float64") -> Any:
    """The row's layer with the test's own values in it, or its function."""
    built = row.build(nn)
    if isinstance(built, nn.Module):
        built.to(dtype).load_state_dict(state_values(row))
        built.train(mode == "train")
    return built


def as_input(row: Row, sample: Sample, dtype: str = "float64") -> Tensor:
    """The sample in the memory layout it asks for (no copy)."""
    array = sample_input(row.id, sample)
    return slalom.from_numpy(array if sample.how == "index" or dtype == "float64" else array.astype(dtype))


def run_layer(layer: Any, x: Tensor) -> dict[str, Array]:
    """Output, gradients of all that is learned and of the input, and buffers after the call."""
    learned = dict(layer.named_parameters()) if isinstance(layer, nn.Module) else {}
    slalom.manual_seed(0)
    x = x.detach()
    if x.dtype.kind == "f":
        x.requires_grad = True
    out = layer(x)
    if out.requires_grad:
        (out * Tensor(cotangent(out.shape), dtype=out.dtype)).sum().backward()
    results = {"out": out, "input.grad": x.grad} | {f"{name}.grad": p.grad for name, p in learned.items()}
    results |= dict(layer.named_buffers()) if isinstance(layer, nn.Module) else {}
    return _arrays(results)


# --- losses -----------------------------------------------------------------------------------------------------------
def made_loss(row: LossRow, i: int, reduction: str, dtype: str = "float64") -> tuple[Any, list[Tensor]]:
    """The loss, and its inputs, of which some require gradients."""
    inputs, weights = loss_values(row, i)
    loss = row.build(nn, reduction, *(Tensor(w, dtype=dtype) for w in weights))
    given = [slalom.from_numpy(a if a.dtype.kind == "i" or dtype == "float64" else a.astype(dtype)) for a in inputs]
    for n in learned(row, i):
        given[n].requires_grad_()
    return loss, given


def loss_value(row: LossRow, loss: Any, inputs: list[Tensor]) -> Tensor:
    return loss(row.before(inputs[0]), *inputs[1:])


def run_loss(row: LossRow, i: int, loss: Any, inputs: list[Tensor]) -> dict[str, Array]:
    """The loss and its gradients."""
    out = loss_value(row, loss, inputs)
    (out * Tensor(cotangent(out.shape), dtype=out.dtype)).sum().backward()
    return _arrays({"out": out} | {f"input{n or ''}.grad": inputs[n].grad for n in learned(row, i)})
