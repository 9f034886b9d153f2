"""PyTorch's ``torch.autograd`` names: gradients of outputs with respect to inputs, as values."""

from __future__ import annotations

from slalom.core.autodiff import enable_grad, grad_of as grad, no_grad, set_grad_enabled  # isort: skip

__all__ = ["enable_grad", "grad", "no_grad", "set_grad_enabled"]
