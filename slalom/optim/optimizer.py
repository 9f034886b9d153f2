"""The base of all optimizers: parameter groups, state, and the walk that applies one rule to every parameter.

An optimizer is one rule, ``update(param, grad, slots, hyper) -> (new_param, new_slots)``, a pure function of tensors.
Everything else stands here once: eager and staged, the same lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from numbers import Real
from operator import is_
from typing import Any, ClassVar, Final

import numpy as np

from slalom.core.autodiff import enable_grad, no_grad
from slalom.core.dtype import DType, float64
from slalom.core.guards import Same
from slalom.core.ops.structural import CAST
from slalom.core.reads import guard_reads
from slalom.core.tensor import Tensor, apply
from slalom.core.trace import current, natively, steering, unstaged
from slalom.errors import ConfigError, ModelFileError, StagingError

Group = dict[str, Any]
Hyper = Mapping[str, Any]
Slots = Mapping[str, Tensor]
Constraints = Mapping[str, tuple[str, Callable[[Any], bool]]]
ParamsT = Iterable[Tensor] | Iterable[Group] | Iterable[tuple[str, Tensor]]

_EAGER_STEPS: Final = 2
"""So many steps are made operation by operation, so that short scripts do not wait for a compiler."""
_RECORDS: Final = 8
"""After so many records, whatever changes all the time is not worth another."""


class Optimizer:
    """Moves parameters against their gradients.

    ``param_groups``: a list of dicts, each with ``params`` and its own hyper-parameters, which may be set at any time;
    a compiled step sees the new value at its next call. ``state[p]``: what is kept for a parameter, ``step`` (how often
    it was moved) and the tensors named in ``slots``.

    A subclass gives ``slots`` and ``update``, and what of the following it needs:
    ``scalars``: what follows from the step count and the hyper-parameters alone, once a step ·
    ``slot``: the first value of a slot, where it is not zeros of the parameter's shape ·
    ``slots_of``, ``slots_for``: which slots there are, where that depends on options or on the parameter's shape ·
    ``constraints``: which values of its hyper-parameters make sense, as (words, test) by name ·
    ``optional``: the numbers that switch something off where they are 0: the rule gets None for them ·
    ``fixed``: the numbers that decide which operations run (how often something is repeated): they stay Python's, and
    a changed one records anew.

    Raises: ConfigError for no parameters, tensors that are not leaves, or options that make no sense.

    Note: a parameter whose ``grad`` is None is left alone, and its count stands still. Parameters with equal counts
    share one tensor ``step``, so that what follows from it (bias corrections) is computed once.
    Note: a slot that ``update`` returns is kept as 0 where it would be denormal (below 1.2e-38 in float32): running
    means of what no longer comes (of dead units, of rare words) end there, and would slow every step down.
    Note: from its third step on in an ordinary loop, ``step()`` runs as machine code where that is possible. ``update``
    and ``scalars`` are then called while they are recorded only.
    Note: a subclass in PyTorch's style, with a ``step()`` of its own in place of ``update``, works too; inside
    ``slalom.compile`` it must keep its numbers in tensors.

    >>> class SignSGD(Optimizer):
    ...     @staticmethod
    ...     def update(param, grad, slots, hyper):
    ...         return param - hyper["lr"] * grad.sign(), {}
    >>> w = Tensor([1.0, -2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> SignSGD([w], {"lr": 0.5}).step(); w
    tensor([ 0.5, -1.5], requires_grad=True)
    """

    slots: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset({"weight_decay"})
    fixed: frozenset[str] = frozenset()
    constraints: ClassVar[Constraints] = {}
    _steps: int = 0
    """How many steps were made in ordinary loops."""
    _compiled: Any = None
    """What makes them as machine code; None: not tried yet, False: not possible."""

    def __init__(self, params: ParamsT, defaults: Group) -> None:
        self.defaults: Group = defaults
        self.param_groups: list[Group] = []
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        given = self._listed(params)
        if not given:
            raise ConfigError(f"{type(self).__name__}: params", got="none", needed="at least one parameter")
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_compiled"}

    # --- the rule -------------------------------------------------------------------------------------------------
    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """The parameter and its slots after one step: a pure function of tensors.

        ``hyper``: what ``scalars`` returned, its tensors in the dtype of the parameter.
        """
        raise NotImplementedError("an optimizer needs update(param, grad, slots, hyper), or a step() of its own")

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        """What follows from the hyper-parameters and the step count (1 at the first step) alone.

        Runs once a step for all parameters of a group, on 0-d float64 tensors. Options that are no numbers come as
        they are.
        """
        return hyper

    def slots_of(self, group: Group) -> tuple[str, ...]:
        """The names of the tensors kept for each parameter of a group."""
        return self.slots

    def slots_for(self, param: Tensor, group: Group) -> tuple[str, ...]:
        """The names of the tensors kept for one parameter, where they depend on its shape."""
        return self.slots_of(group)

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        """What a tensor that is kept for a parameter begins as: zeros of its shape, unless the rule wants another."""
        return param._zeros()

    # --- one step -------------------------------------------------------------------------------------------------
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient; ``closure`` evaluates the loss first, and its value is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            if current() is not None or not self._step_natively():
                self._step_groups()
        return loss

    def _step_groups(self) -> None:
        for group in self.param_groups:
            self._step_group(group)

    def _step_natively(self) -> bool:
        """Make the step as machine code; False if it is left to be made operation by operation."""
        self._steps += 1
        if self._steps <= _EAGER_STEPS or self._compiled is False:
            return False
        if self._compiled is None:
            self._compiled = natively(self._step_groups) or False
        if self._compiled and self._compiled.traces < _RECORDS:
            try:
                self._compiled()
            except StagingError:
                self._compiled = False
            else:
                return True
        return False

    def _step_group(self, group: Group) -> None:
        grads = [(p, p.grad) for p in group["params"]]
        moving = [(p, grad) for p, grad in grads if grad is not None]
        names = {id(p): self.slots_for(p, group) for p, _ in moving}
        with unstaged():
            self._prepare(group, [p for p, _ in moving], names)
        self._guard(group, names, moving)
        hyper = self._hyper(group)
        ready: dict[tuple[int, DType], Hyper] = {}  # by step count and dtype
        counted: dict[int, Hyper] = {}
        for param, grad in moving:
            state = self.state[param]
            step = state["step"]
            scalars = counted.get(id(step))
            if scalars is None:
                step.assign(step + 1)
                scalars = counted[id(step)] = self.scalars(hyper, step)
            key = (id(step), param.dtype)
            cast = ready.get(key)
            if cast is None:
                cast = ready[key] = {name: _cast(value, param.dtype) for name, value in scalars.items()}
            if group.get("maximize"):
                grad = -grad
            new, slots = self.update(param, grad, {name: state[name] for name in names[id(param)]}, cast)
            param._write(new)
            for name, value in slots.items():
                state[name]._write(_normal(value))

    def _hyper(self, group: Group) -> Hyper:
        """The group's numbers as 0-d float64 tensors that steer; what is no number stays as it is."""
        return {
            name: group[name] if name in self.fixed else _steered(group, name, name in self.optional)
            for name in self.defaults
        }

    def _prepare(self, group: Group, moving: Sequence[Tensor], names: Mapping[int, Sequence[str]]) -> None:
        """Make the state that is missing, and give each parameter that stands still a step count of its own."""
        state = self.state
        fresh: Tensor | None = None
        for p in moving:
            held = state[p]
            if "step" not in held:
                fresh = held["step"] = Tensor(0.0, dtype=float64) if fresh is None else fresh
            for name in names[id(p)]:
                if name not in held:
                    held[name] = self.slot(name, p, group)
        if len(moving) == len(group["params"]):
            return
        shared = {id(state[p]["step"]) for p in moving}
        going = set(map(id, moving))
        for p in group["params"]:
            if id(p) not in going and p in state and id(state[p]["step"]) in shared:
                state[p]["step"] = Tensor(state[p]["step"])

    def _guard(self, group: Group, names: Mapping[int, Sequence[str]], moving: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Tell the trace, if there is one, what its record depends on."""
        trace = current()
        if trace is None:
            return
        what = type(self).__name__
        trace.guard(
            ("group", id(group)),
            f"the groups of {what}, their parameters, or which of their options are on",
            _Unchanged(self, group),
        )
        labels = group.get("param_names") or [f"parameter {i}" for i in range(len(group["params"]))]
        label = {id(p): text for p, text in zip(group["params"], labels, strict=True)}
        facts = [Same(vars(self), "state", self.state)]
        for p, _ in moving:
            held = self.state[p]
            facts.append(Same(self.state, p, held))
            for name in ("step", *names[id(p)]):
                trace.named(held[name], name if name == "step" else f"{name} of {label[id(p)]}")
                facts.append(Same(held, name, held[name]))
        for rule in self._rules():
            guard_reads(trace, rule)
        for fact in facts:
            trace.guard(("slot", id(fact.table), fact.name), f"the state of {what}", fact)

    def _rules(self) -> tuple[Callable[..., Any], ...]:
        """The functions whose reading of names a record depends on."""
        return self.update, self.scalars

    def _structure(self, group: Group) -> list[Any]:
        """What of the groups, and of this one's options, decides which operations run."""
        optional, fixed = self.optional, self.fixed
        return [*map(id, self.param_groups), *map(id, group["params"])] + [
            # A plain number is the common case: all that counts is whether it switches something off.
            value
            if name in fixed
            else value != 0 or name not in optional
            if type(value) in (float, int)
            else _kind(value, name in optional)
            for name in self.defaults
            for value in (group[name],)
        ]

    # --- PyTorch's surface ----------------------------------------------------------------------------------------
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None  # unread: a record must not depend on whether there was one
                elif p.grad is not None:
                    p.grad = p._zeros()

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters, with options of their own where the defaults do not suit.

        Raises: ConfigError for options that make no sense, tensors that are no leaves, or parameters given twice.
        """
        what = type(self).__name__
        if "params" not in param_group:
            raise ConfigError(
                f"{what}: a parameter group", got=f"keys {sorted(param_group)}", needed="the key 'params'"
            )
        given = param_group["params"]
        listed = [given] if isinstance(given, Tensor) else self._listed(given)
        group: Group = {**self.defaults, **param_group}
        if listed and isinstance(listed[0], tuple):
            group["param_names"] = [name for name, _ in listed]
            listed = [p for _, p in listed]
        group["params"] = listed
        seen = {id(p) for other in self.param_groups for p in other["params"]}
        for p in listed:
            if not isinstance(p, Tensor):
                raise ConfigError(f"{what}: a parameter", got=type(p).__name__, needed="a tensor")
            if not p.is_leaf:
                got = "the result of an operation"
                raise ConfigError(f"{what}: a parameter of shape {p.shape}", got=got, needed="a leaf")
            if id(p) in seen:
                raise ConfigError(f"{what}: a parameter of shape {p.shape}", got="given twice", needed="given once")
            seen.add(id(p))
        self._check(group)
        self.param_groups.append(group)

    def _listed(self, params: Any) -> list[Any]:
        if isinstance(params, (Tensor, Mapping, set)) or not isinstance(params, Iterable):
            got = f"a {type(params).__name__}"
            raise ConfigError(f"{type(self).__name__}: params", got=got, needed="a list of tensors, or of dicts")
        return list(params)

    def _check(self, group: Group) -> None:
        refuse_wrong(type(self).__name__, {**_EVERYWHERE, **self.constraints}, group)

    def state_dict(self) -> dict[str, Any]:
        """State and options by the position of each parameter, in PyTorch's layout; tensors are not copied."""
        params = [p for group in self.param_groups for p in group["params"]]
        position = {id(p): i for i, p in enumerate(params)}
        groups = [{**group, "params": [position[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": {position[id(p)]: dict(held) for p, held in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned (PyTorch's own is taken too); everything is copied.

        Raises: ModelFileError when groups, their sizes or the shapes of tensors do not fit.
        """
        saved, what = state_dict["param_groups"], type(self).__name__
        sizes, needed = ([len(g["params"]) for g in groups] for groups in (saved, self.param_groups))
        if sizes != needed:
            raise ModelFileError(f"{what}: saved groups", got=f"sizes {sizes}", needed=f"sizes {needed}")
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for group, other in zip(self.param_groups, saved, strict=True):
            meant = {**group, **other, "params": group["params"]}
            state.update(self._restored(meant, other["params"], state_dict["state"]))
        for group, other in zip(self.param_groups, saved, strict=True):
            options = {name: deepcopy(value) for name, value in other.items() if name != "params"}
            for name, default in self.defaults.items():
                if isinstance(default, tuple) and name in options:
                    options[name] = tuple(options[name])  # JSON knows lists only
            self._check({**group, **options})
            group.update(options)
        self.state = state
        # A run that goes on makes its next step in the same way as one that was never interrupted.
        self._steps = max((int(held["step"].item()) for held in state.values() if "step" in held), default=0)

    def _restored(self, group: Group, places: Sequence[int], saved: Mapping[int, Any]) -> dict[Tensor, dict[str, Any]]:
        """The state of a group's parameters, whose saved state stands at these places."""
        state: dict[Tensor, dict[str, Any]] = {}
        counts: dict[float, Tensor] = {}
        ruled = type(self).update is not Optimizer.update
        for p, i in zip(group["params"], places, strict=True):
            held = {name: value for name, value in saved.get(i, {}).items() if value is not None}
            if not held:
                continue
            state[p] = {}
            if ruled:
                count = float(held.pop("step", 1))  # PyTorch's SGD keeps no count
                state[p]["step"] = counts.setdefault(count, Tensor(count, dtype=float64))
            for name, value in held.items():
                if not ruled and np.shape(value) not in (p.shape, ()):
                    state[p][name] = deepcopy(value)  # what a step() of its own keeps is its own affair
                    continue
                like = self.slot(name, p, group) if name in self.slots_for(p, group) else p
                state[p][name] = _loaded(value, like, f"{type(self).__name__}: saved {name}")
        return state

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            options = ", ".join(
                f"{name}={group[name]}" for name in sorted(group) if name not in ("params", "param_names")
            )
            lines.append(f"  group {i}: {len(group['params'])} parameters, {options}")
        return "\n".join([*lines, ")"])


# --- hyper-parameters ---------------------------------------------------------------------------------------------
def _steered(group: Group, name: str, optional: bool) -> Any:
    value = group[name]
    if isinstance(value, tuple):
        readers = (_reader(group, name, i) for i in range(len(value)))
        return tuple(
            steering(reader, f"{name}[{i}]") if isinstance(value[i], Real) else value[i]
            for i, reader in enumerate(readers)
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if optional and value == 0:
        return None
    return steering(_reader(group, name), name)


class _Unchanged:
    """The fact that an optimizer's groups hold these parameters, and options with which these operations run.

    It is looked at closely only where an option is another object than before.
    """

    def __init__(self, optimizer: Optimizer, group: Group) -> None:
        self._optimizer, self._group, self._structure = optimizer, group, optimizer._structure(group)
        self._ids = self._look()
        self._options = self._given()

    def _look(self) -> list[int]:
        return [*map(id, self._optimizer.param_groups), *map(id, self._group["params"])]

    def _given(self) -> list[Any]:
        """The options, if a change of each means another object."""
        options = list(map(self._group.get, self._optimizer.defaults))
        return options if all(map(_is_fixed, options)) else []

    def __call__(self) -> bool:
        if self._look() != self._ids:
            return False
        options, group = self._options, self._group
        if options and all(map(is_, map(group.get, self._optimizer.defaults), options)):
            return True
        if self._optimizer._structure(group) != self._structure:
            return False
        self._options = self._given()
        return True


def _is_fixed(option: Any) -> bool:
    """Whether nothing that decides which operations run can change inside of an option."""
    if isinstance(option, tuple):
        return all(map(_is_fixed, option))
    return option is None or isinstance(option, (Real, str, Tensor))


def _reader(group: Group, name: str, i: int | None = None) -> Callable[[], float]:
    return (lambda: group[name]) if i is None else (lambda: group[name][i])


def _kind(value: Any, optional: bool) -> Any:
    """What of an option is part of a recorded graph: all of it, unless it is a number, which steers."""
    if isinstance(value, Tensor):
        return id(value)
    if isinstance(value, tuple):
        return (tuple, *(Real if isinstance(item, Real) else item for item in value))
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return (Real, bool(optional and value == 0))


def _normal(value: Tensor) -> Tensor:
    """A slot with 0 in place of numbers below the smallest normal one, 1.2e-38 in float32.

    A running mean of gradients that are 0 (of a dead unit, of a word that has become rare) would else come to rest at
    4 · 2⁻¹⁴⁹, since 0.9 times that rounds to itself; and processors need a hundred cycles for such a number.
    """
    if value.dtype.kind != "f":
        return value
    return value.masked_fill(value.abs() < float(np.finfo(value.dtype).tiny), 0.0)


def _cast(value: Any, dtype: DType) -> Any:
    """A number in the dtype of a parameter; conditions, and what is no tensor, as they are."""
    if not isinstance(value, Tensor) or value.dtype == dtype or value.dtype.kind != "f":
        return value
    return apply(CAST, value, dtype=dtype)


def _loaded(value: Any, p: Tensor, what: str) -> Any:
    """A saved value for parameter ``p``: arrays of any library as tensors of its dtype."""
    if not hasattr(value, "shape"):
        return deepcopy(value)
    tensor = Tensor(np.asarray(value), dtype=p.dtype)
    if tensor.shape not in (p.shape, ()):
        raise ModelFileError(what, got=f"shape {tensor.shape}", needed=f"shape {p.shape}")
    return tensor


def refuse_wrong(what: str, constraints: Constraints, group: Group) -> None:
    """Raise ConfigError for the first option of a group that makes no sense."""
    for name, (needed, holds) in constraints.items():
        if name in group and not isinstance(group[name], Tensor) and not _holds(holds, group[name]):
            raise ConfigError(f"{what}: {name}", got=group[name], needed=needed)


def _holds(rule: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(rule(value))
    except (IndexError, TypeError):
        return False


AT_LEAST_0: Final = ("a number of at least 0", lambda value: 0 <= value < float("inf"))
BETAS: Final = ("two numbers of at least 0, below 1", lambda value: len(value) == 2 and all(0 <= b < 1 for b in value))
COUNT: Final = ("an integer of at least 1", lambda value: type(value) is int and value >= 1)
FRACTION: Final = ("a number from 0 to 1", lambda value: 0 <= value <= 1)
SWITCH: Final = ("True or False", lambda value: isinstance(value, bool))
_EVERYWHERE: Final[Constraints] = {"lr": AT_LEAST_0, "weight_decay": AT_LEAST_0, "maximize": SWITCH}
