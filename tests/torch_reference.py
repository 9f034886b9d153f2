"""What PyTorch makes of a row of the tables: used live by the tests, and by tools/golden_layers.py for the files.

Nothing here imports torch: it is handed in.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from layer_cases import cotangent, learned, loss_values, sample_input, state_values
from layer_rows import Row, Sample
from loss_rows import LossRow


def _arrays(results: dict[str, Any]) -> dict[str, Any]:
    return {name: t.detach().numpy() for name, t in results.items() if t is not None}


def layer_results(torch: Any, row: Row, sample: Sample, mode: str, dtype: str) -> dict[str, Any]:
    """Output, gradients and buffers of a layer."""
    with warnings.catch_warnings(action="ignore"):  # of PyTorch, on how it will compute
        built, kind = (row.reference or row.build)(torch.nn), getattr(torch, dtype)
    if isinstance(built, torch.nn.Module):
        built.to(kind).load_state_dict({name: torch.from_numpy(a) for name, a in state_values(row).items()})
        built.train(mode == "train")
    x = torch.from_numpy(np.asarray(sample_input(row.id, sample)))
    if x.is_floating_point():
        x = x.to(kind).requires_grad_()
    with warnings.catch_warnings(action="ignore"):  # of PyTorch, on how it computes
        out = built(x)
    if out.requires_grad:
        (out * torch.from_numpy(cotangent(tuple(out.shape))).to(kind)).sum().backward()
    results = {"out": out, "input.grad": x.grad}
    if isinstance(built, torch.nn.Module):
        results |= {f"{name}.grad": p.grad for name, p in built.named_parameters()} | dict(built.named_buffers())
    return _arrays(results)


def loss_results(torch: Any, row: LossRow, i: int, reduction: str, dtype: str) -> dict[str, Any]:
    """A loss's value and its gradients."""
    kind = getattr(torch, dtype)
    inputs, weights = loss_values(row, i)
    given = [torch.from_numpy(a) for a in inputs]
    given = [t.to(kind) if t.is_floating_point() else t for t in given]
    for n in learned(row, i):
        given[n].requires_grad_()
    loss = (row.reference or row.build)(torch.nn, reduction, *(torch.from_numpy(w).to(kind) for w in weights))
    with warnings.catch_warnings(action="ignore"):  # that a mean is seldom meant
        out = loss(row.before(given[0]), *given[1:])
    (out * torch.from_numpy(cotangent(tuple(out.shape))).to(kind)).sum().backward()
    return _arrays({"out": out} | {f"input{n or ''}.grad": given[n].grad for n in learned(row, i)})
