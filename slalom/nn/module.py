"""Module: a tree of layers with its parameters and buffers, as in PyTorch.

A module is a plain mutable object. While ``slalom.compile`` records, what is read from it becomes a guard of the
recorded graph: which parameter, buffer or submodule stands under a name, ``training``, the hooks of a called module
and the plain attributes that its class lists in ``__constants__``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from slalom.core.autodiff import no_grad
from slalom.core.guards import Equals, Holds, Same, Unset
from slalom.core.node import MODE, Abstract, user_line
from slalom.core.reads import guard_reads
from slalom.core.tensor import Tensor, as_tensor
from slalom.core.trace import Trace, unstaged
from slalom.errors import ConfigError, DTypeError, ModelFileError, SlalomError, StagingError
from slalom.nn.hooks import HOOKS, BackwardHooks, RemovableHandle, hooked
from slalom.nn.plain import is_plain
from slalom.nn.warm import native_call

__all__ = ["Buffer", "Module", "Parameter"]

M = TypeVar("M", bound="Module")
_TABLES = ("_parameters", "_buffers", "_modules")
_OF_CALLS = ("_compiled_call", "_native", "_calls", "_predictions")
"""What a copy does not have."""


class Parameter(Tensor):
    """A tensor that a Module registers as something to learn when it is assigned as an attribute.

    Made from a tensor, it shares its buffer (as in PyTorch); from anything else, it is a copy.
    """

    __slots__ = ()

    def __init__(self, data: Any = (), requires_grad: bool = True) -> None:
        _share(self, data)
        if requires_grad:
            self.requires_grad = True

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Buffer(Tensor):
    """A tensor that belongs to a Module's state but is not learned; registered when it is assigned as an attribute.

    Note: ``register_buffer(name, tensor, persistent=False)`` keeps one out of the state dict.
    """

    __slots__ = ()

    def __init__(self, data: Any = ()) -> None:
        _share(self, data)


def _share(t: Tensor, data: Any) -> None:
    """Make ``t`` a leaf on the buffer of ``data``."""
    source = data.detach() if isinstance(data, Tensor) else Tensor(data)
    t._storage, t._node, t._live, t._grad = source._storage, source._node, False, None


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` left alone."""

    missing_keys: list[str]
    unexpected_keys: list[str]


@dataclass
class _Place:
    """Where in a model an error arose: its origin, the outermost module passed so far, the path between, the fact."""

    origin: Module
    outermost: Module
    path: str
    what: str


class Module:
    """Base of all layers and models: subclass it, assign layers and Parameters in ``__init__``, write ``forward``.

    >>> class Net(Module):
    ...     def __init__(self): super().__init__(); self.scale = Parameter([2.0])
    ...     def forward(self, x): return x * self.scale
    >>> Net()(Tensor([3.0])), [name for name, _ in Net().named_parameters()]
    (tensor([6.], grad_fn=<mul>), ['scale'])
    """

    __constants__: tuple[str, ...] = ()
    """Plain attributes whose values a compiled graph depends on."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _compiled_call: Callable[..., Any] | None = None
    """What runs a call instead, once ``slalom.compile`` was given this module; copies do not have it."""
    _native: Any = False
    """What runs a call once there were enough of them. None: nothing yet. False: nothing ever does; so it is of layers
    that are a few operations."""
    _eager_calls: ClassVar[int] = 16
    """So many calls that learn are made operation by operation."""
    _calls: int = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not cls.__module__.startswith(f"{__package__}."):
            cls._native = None  # a user's

    def __init__(self) -> None:
        fresh: dict[str, Any] = {name: {} for name in _TABLES}
        fresh |= {"_non_persistent": set(), "_training": True} | {name: {} for name in HOOKS}
        self.__dict__.update(fresh)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise ConfigError(f"{type(self).__name__}: no forward method")

    # --- calling --------------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace = MODE.get().trace
        if trace is not None:
            self._note(trace)
        elif self._native is not False and args and self._is_worth(args[0]):
            made = native_call(self, args, kwargs)
            if made is not None:
                return made
        try:
            if trace is None and self._compiled_call is not None:
                return self._compiled_call(*args, **kwargs)
            if self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks:
                return self._call_with_hooks(args, kwargs)
            return self.forward(*args, **kwargs)
        except SlalomError as error:
            self._locate(error)
            raise

    def _is_worth(self, x: Any) -> bool:
        """Whether a call with this first argument is one that becomes machine code in the end."""
        return isinstance(x, Tensor)

    def _is_plain(self) -> bool:
        """Whether a call does nothing but compute, draw and keep statistics, so that a record may stand for it."""
        return is_plain(self)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for handle, hook in list(self._forward_pre_hooks.items()):
            changed = hook(self, args, kwargs) if handle.with_kwargs else hook(self, args)
            if changed is not None and handle.with_kwargs:
                args, kwargs = changed
            elif changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        backward = BackwardHooks(self) if self._backward_hooks or self._backward_pre_hooks else None
        if backward is not None:
            args = backward.enter(args)
        out = self.forward(*args, **kwargs)
        for handle, hook in list(self._forward_hooks.items()):
            changed = hook(self, args, kwargs, out) if handle.with_kwargs else hook(self, args, out)
            out = out if changed is None else changed
        return out if backward is None else backward.leave(out)

    def _note(self, trace: Trace) -> None:
        """Name this module's states in the graph, and guard the plain facts that its record depends on."""
        if (id(self), "hooks") in trace.guards:
            return  # called before in this record
        with unstaged():  # walked for the names only: what is not read needs no guard
            for name, t in self._named_members(("_parameters", "_buffers")):
                trace.named(t, name)
        held = self.__dict__
        tables = [held[name] for name in HOOKS]
        before = [[*hooks] for hooks in tables]
        same = (lambda: [[*hooks] for hooks in tables] == before) if any(before) else Unset(tuple(tables))
        trace.guard((id(self), "hooks"), f"the hooks of {self._label()}", same)
        trace.guard((id(self), "forward"), f"forward of {self._label()}", Equals(held, "forward", held.get("forward")))
        for name in self.__constants__:
            value = held.get(name)
            trace.guard((id(self), name), f"{name} of {self._label()}", Equals(held, name, value))
        for function in (self.forward, *(hook for hooks in tables for hook in hooks.values())):
            guard_reads(trace, function)

    def _locate(self, error: SlalomError) -> None:
        """Put this module's place in front of the message of an error that passes through its call."""
        place: _Place | None = getattr(error, "place", None)
        if place is None:
            place = error.place = _Place(self, self, "", error.what)  # type: ignore[attr-defined]
        else:
            name = next((name for name, module in self.named_modules() if module is place.outermost), "")
            if not name:
                return
            place.outermost, place.path = self, f".{name}{place.path}"
        label = place.origin._label()
        where = f"model{place.path} ({label})" if place.path else label
        SlalomError.__init__(error, f"{where}: {place.what}", got=error.got, needed=error.needed, hint=error.hint)

    def _label(self) -> str:
        """The module in a word or two, for messages."""
        return type(self).__name__

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OF_CALLS}

    # --- attributes -----------------------------------------------------------------------------------------------
    def __getattr__(self, name: str) -> Any:
        held = self.__dict__
        for kind in _TABLES:
            table = held.get(kind)
            if table is not None and name in table:
                trace = MODE.get().trace
                if trace is not None:
                    _guard_entry(trace, self, table, name)
                return table[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.register_module(name, value)
        elif isinstance(value, Buffer) or (isinstance(value, Tensor) and name in held.get("_buffers", ())):
            self.register_buffer(name, value, name not in held["_non_persistent"])
        elif (kind := next((kind for kind in _TABLES if name in held.get(kind, ())), None)) is None:
            object.__setattr__(self, name, value)
        elif value is None:
            held[kind][name] = None
        else:
            needed = {"_parameters": "a Parameter", "_buffers": "a Tensor", "_modules": "a Module"}[kind]
            raise DTypeError(
                f"{type(self).__name__}.{name}", got=type(value).__name__, needed=f"{needed} or None, as registered"
            )

    def __delattr__(self, name: str) -> None:
        for kind in _TABLES:
            if name in self.__dict__[kind]:
                del self.__dict__[kind][name]
                self._non_persistent.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _register(self, kind: str, name: str, value: Any) -> None:
        held = self.__dict__
        if kind not in held:
            raise ConfigError(f"{type(self).__name__}.{name} assigned too early", hint="call super().__init__() first")
        if not name or "." in name:
            raise ConfigError("the name of a parameter, buffer or module", got=repr(name), needed="a name without dots")
        if hasattr(type(self), name):
            raise ConfigError(f"{type(self).__name__}.{name}", needed="a name that no method or attribute has")
        if isinstance(value, Tensor) and isinstance(value._storage.array, Abstract):
            raise StagingError(
                f"{type(self).__name__}.{name} rebound while staging, at {user_line()}",
                hint=f"write into it: self.{name}.assign(…)",
            )
        for other in (*(held[table] for table in _TABLES if table != kind), held):
            other.pop(name, None)
        held[kind][name] = value

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Make ``param`` part of what is learned, under a name; None keeps the name free for one."""
        if param is not None and not isinstance(param, Parameter):
            raise DTypeError(f"register_parameter({name!r})", got=type(param).__name__, needed="a Parameter or None")
        self._register("_parameters", name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make ``tensor`` part of the state; in the state dict only if ``persistent``."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise DTypeError(f"register_buffer({name!r})", got=type(tensor).__name__, needed="a Tensor or None")
        self._register("_buffers", name, tensor)
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Make ``module`` a part of this one, under a name."""
        if module is not None and not isinstance(module, Module):
            raise DTypeError(f"add_module({name!r})", got=type(module).__name__, needed="a Module or None")
        self._register("_modules", name, module)

    add_module = register_module

    @property
    def training(self) -> bool:
        """Whether this module is in training mode (dropout drops, batch norm uses the batch)."""
        trace = MODE.get().trace
        now: bool = self._training
        if trace is not None:
            trace.guard((id(self), "training"), f"{self._label()}.training", Equals(self.__dict__, "_training", now))
        return now

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["_training"] = mode

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward; what it returns replaces the output unless None.

        ``with_kwargs``: ``hook(module, args, kwargs, output)``. ``prepend``: before the hooks there are.
        """
        return hooked(self._forward_hooks, hook, prepend, with_kwargs)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward; what it returns replaces the arguments unless None.

        ``with_kwargs``: ``hook(module, args, kwargs)``, which returns both. ``prepend``: before the hooks there are.
        """
        return hooked(self._forward_pre_hooks, hook, prepend, with_kwargs)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` at each backward; what it returns replaces grad_input.

        Both are tuples, of the gradients of the positional arguments and of the outputs (a tensor or a tuple of
        tensors); None stands for what has none.
        Note: inside ``slalom.compile`` it is called while recording, and what it computes is part of the record.
        """
        return hooked(self._backward_hooks, hook, prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before each backward; what it returns replaces grad_output unless None."""
        return hooked(self._backward_pre_hooks, hook, prepend)

    # --- walking the tree -----------------------------------------------------------------------------------------
    def _held(self, kind: str) -> Iterator[tuple[str, Any]]:
        """This module's own entries of a kind; while staging, guarded as a whole."""
        table: dict[str, Any] = self.__dict__[kind]
        trace = MODE.get().trace
        if trace is not None:
            trace.guard((id(self), kind), f"what {self._label()} is made of", Holds(table))
        return iter(list(table.items()))

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """All modules below, with their paths; this one first, under ``prefix``."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._held("_modules"):
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """All modules below, this one first."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below, with their names."""
        return ((name, module) for name, module in self._held("_modules") if module is not None)

    def children(self) -> Iterator[Module]:
        """The modules directly below."""
        return (module for _, module in self.named_children())

    def _named_members(
        self, kinds: tuple[str, ...], prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, t in (entry for kind in kinds for entry in module._held(kind)):
                if t is not None and id(t) not in seen:
                    if remove_duplicate:
                        seen.add(id(t))
                    yield f"{path}.{name}" if path else name, t

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their paths, shared ones once."""
        return self._named_members(("_parameters",), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, shared ones once."""
        return (t for _, t in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their paths, shared ones once."""
        return self._named_members(("_buffers",), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, shared ones once."""
        return (t for _, t in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as ``"layers.2"``; "" is this one."""
        module: Any = self
        for name in target.split(".") if target else ():
            module = getattr(module, name, None)
            if not isinstance(module, Module):
                raise AttributeError(f"{type(self).__name__} has no module at {target!r}")
        return module  # type: ignore[no-any-return]

    def set_submodule(self, target: str, module: Module) -> None:
        """Put ``module`` at a path such as ``"layers.2"``, where there is one."""
        self.get_submodule(target)
        path, _, name = target.rpartition(".")
        setattr(self.get_submodule(path), name, module)

    def _leaf(self, kind: str, what: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path).__dict__[kind].get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no {what} at {target!r}")
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as ``"layers.2.weight"``."""
        return self._leaf("_parameters", "parameter", target)  # type: ignore[no-any-return]

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path such as ``"layers.2.running_mean"``."""
        return self._leaf("_buffers", "buffer", target)  # type: ignore[no-any-return]

    # --- changing all of it ---------------------------------------------------------------------------------------
    def train(self: M, mode: bool = True) -> M:
        """Put this module and all below into training mode (or evaluation mode)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Put this module and all below into evaluation mode."""
        return self.train(False)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` on all modules below, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Let gradients be recorded for all parameters, or freeze them."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def freeze(self: M) -> M:
        """Learn none of the parameters from now on: ``requires_grad_(False)``.

        Note: buffers go on changing while training (batch norm's statistics do): call ``eval()`` for those to rest.
        """
        return self.requires_grad_(False)

    def unfreeze(self: M) -> M:
        """Learn all parameters again: ``requires_grad_(True)``."""
        return self.requires_grad_(True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad = p.grad.detach()._zeros()

    def to(self: M, *targets: Any, **named: Any) -> M:
        """Convert all floating parameters and buffers, in place, to a dtype; a device must be the CPU."""
        for _, t in self._named_members(("_parameters", "_buffers")):
            for part in (t, t._grad):
                if part is None or part.dtype.kind != "f":
                    continue
                converted = part.detach().to(*targets, **named)
                if converted.dtype.kind != "f":
                    raise DTypeError(f"{type(self).__name__}.to", got=converted.dtype.name, needed="a floating dtype")
                if converted.dtype != part.dtype:
                    if isinstance(converted._storage.array, Abstract):
                        converted._storage.array.refuse(f"{type(self).__name__}.to")
                    part._storage, part._node = converted._storage, None
        return self

    def float(self: M) -> M:
        """Convert all floating parameters and buffers to float32."""
        return self.to("float32")

    def double(self: M) -> M:
        """Convert all floating parameters and buffers to float64."""
        return self.to("float64")

    def cpu(self: M) -> M:
        """The module itself."""
        return self

    def cuda(self: M, *args: Any) -> M:
        """Always an error: Slalom trains on the CPU."""
        return self.to("cuda")

    # --- state ----------------------------------------------------------------------------------------------------
    def _state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and persistent buffers, each under every path it has."""
        for path, module in self.named_modules(None, "", False):
            for name, t in (*module._parameters.items(), *module._buffers.items()):
                if t is not None and name not in module._non_persistent:
                    yield f"{prefix}{path}.{name}" if path else f"{prefix}{name}", t

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Parameters and persistent buffers by path, without history, on the same buffers: clone() to keep them."""
        return {name: t if keep_vars else t.detach() for name, t in self._state(prefix)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers of the same paths; nothing is written unless all fit.

        Raises: ModelFileError that lists what is missing, unexpected (both only if ``strict``) and misshapen.
        """
        what = f"load_state_dict into {type(self).__name__}"
        if not isinstance(state_dict, Mapping):
            raise ModelFileError(what, got=type(state_dict).__name__, needed="values by names")
        own = dict(self._state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        given = {name: as_tensor(value).detach() for name, value in state_dict.items() if name in own}
        faults = []
        if strict and missing:
            faults.append(f"missing {', '.join(missing)}")
        if strict and unexpected:
            faults.append(f"unexpected {', '.join(unexpected)}")
        faults += [f"{name} has shape {v.shape}, needs {own[name].shape}" for name, v in given.items()
                   if v.shape != own[name].shape]  # fmt: skip
        if faults:
            raise ModelFileError(what, got="; ".join(faults))
        with no_grad():
            for name, value in given.items():
                own[name].assign(value.to(own[name].dtype))
        return IncompatibleKeys(missing, unexpected)

    # --- text -----------------------------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """The module's own settings, for ``repr``."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().splitlines()
        parts = [f"({name}): {repr(module).replace(chr(10), chr(10) + '  ')}" for name, module in self._modules.items()]
        if not parts and len(extra) <= 1:
            return f"{type(self).__name__}({''.join(extra)})"
        body = "\n  ".join(extra + parts)
        return f"{type(self).__name__}(\n  {body}\n)"


def _guard_entry(trace: Trace, module: Module, table: dict[str, Any], name: str) -> None:
    """Let the record depend on what stands under a name."""
    value = table[name]
    what = f"what {type(module).__name__}.{name} refers to"
    trace.guard((id(module), name), what, Same(table, name, value))
