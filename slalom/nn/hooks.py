"""Hooks of a Module: functions that are called around its forward, and when gradients pass it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slalom.core.autodiff import watched
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DTypeError

__all__ = ["HOOKS", "BackwardHooks", "RemovableHandle", "hooked"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where a Module holds them."""


class RemovableHandle:
    """Takes a hook away again: ``remove()``, or the end of a ``with`` block."""

    def __init__(self, hooks: dict[RemovableHandle, Callable[..., Any]], with_kwargs: bool = False) -> None:
        self._hooks = hooks
        self.with_kwargs = with_kwargs

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def hooked(
    hooks: dict[RemovableHandle, Callable[..., Any]],
    hook: Callable[..., Any],
    prepend: bool = False,
    with_kwargs: bool = False,
) -> RemovableHandle:
    """Add a hook, behind the others or before them; returns what takes it away."""
    if not callable(hook):
        raise DTypeError("hook", got=type(hook).__name__, needed="a function")
    handle = RemovableHandle(hooks, with_kwargs)
    later = list(hooks.items()) if prepend else []
    for other, _ in later:
        del hooks[other]
    hooks[handle] = hook
    hooks.update(later)
    return handle


class BackwardHooks:
    """One call of a module with backward hooks: what becomes of the gradients of its outputs and of its arguments."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.grad_output: tuple[Any, ...] | None = None
        """While a backward is between the two."""
        self.arguments: tuple[Any, ...] = ()
        self.differentiable = False

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, whose gradients will be shown to the hooks."""
        self.arguments = tuple(watched(args, self._at_inputs))
        self.differentiable = any(a is not b for a, b in zip(args, self.arguments, strict=True))
        return self.arguments

    def leave(self, out: Any) -> Any:
        """The output, whose gradients will be shown to the hooks."""
        several = isinstance(out, tuple)
        made = watched(out if several else (out,), self._at_outputs)
        if not several:
            return made[0]
        return type(out)(*made) if hasattr(out, "_fields") else tuple(made)

    def _at_outputs(self, cts: list[Tensor | None]) -> Sequence[Tensor | None]:
        for hook in list(self.module._backward_pre_hooks.values()):
            cts = _replaced(cts, hook(self.module, tuple(cts)))
        self.grad_output = tuple(cts)
        if not self.differentiable:
            self._at_inputs([None] * len(self.arguments))
        return cts

    def _at_inputs(self, cts: list[Tensor | None]) -> Sequence[Tensor | None]:
        grad_output, self.grad_output = self.grad_output, None
        if grad_output is None:  # a derivative of gradients comes here without having passed the output
            return cts
        for hook in list(self.module._backward_hooks.values()):
            cts = _replaced(cts, hook(self.module, tuple(cts), grad_output))
        return cts


def _replaced(cts: list[Tensor | None], changed: Any) -> list[Tensor | None]:
    """Gradients after a hook. Raises: ConfigError for another number of them."""
    if changed is None:
        return cts
    new = list(changed) if isinstance(changed, tuple) else [changed]
    if len(new) != len(cts):
        raise ConfigError(
            "a backward hook", got=f"{len(new)} gradients", needed=f"{len(cts)}, as it was given, or None"
        )
    return new
