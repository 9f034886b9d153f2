"""Module: what it registers, walks, saves, prints, guards while staging, and says when something inside goes wrong."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn
from slalom.errors import (
    ConfigError,
    DTypeError,
    IndexRangeError,
    ModelFileError,
    ShapeError,
    SlalomError,
    StagingError,
)


class Net(nn.Module):
    """Layers in a list of their own, a tied weight, a buffer of each kind and a plain attribute."""

    def __init__(self, hidden: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 3))
        self.tied = nn.Linear(3, hidden, bias=False)
        self.tied.weight = self.layers[0].weight
        self.scale = nn.Parameter([2.0])
        self.count = nn.Buffer(Tensor(0))
        self.register_buffer("cache", slalom.ones(2), persistent=False)
        self.note = "plain"

    def forward(self, x: Tensor) -> Tensor:
        with slalom.no_grad():
            self.count += 1
        return self.layers(x) * self.scale + self.tied(x).sum(-1, keepdim=True)


def names(pairs: Any) -> list[str]:
    return [name for name, _ in pairs]


# --- registering --------------------------------------------------------------------------------------------------
def test_what_is_assigned_is_registered_in_order() -> None:
    net = Net()
    layers = ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
    assert names(net.named_parameters()) == ["scale", *layers]
    assert names(net.named_parameters(remove_duplicate=False))[-1] == "tied.weight"
    assert names(net.named_parameters(recurse=False)) == ["scale"]
    assert names(net.named_parameters(prefix="net"))[:2] == ["net.scale", "net.layers.0.weight"]
    assert names(net.named_buffers()) == ["count", "cache"]
    assert names(net.named_children()) == ["layers", "tied"]
    assert names(net.named_modules()) == ["", "layers", "layers.0", "layers.1", "layers.2", "tied"]
    assert len(list(net.modules())) == 6 and len(list(net.children())) == 2 and len(list(net.buffers())) == 2
    assert sum(p.numel() for p in net.parameters()) == 1 + 16 + 15
    assert {"scale", "layers", "count", "note"} <= set(dir(net))


def test_an_attribute_changes_its_kind() -> None:
    net = nn.Module()
    net.x = 3
    net.x = nn.Parameter([1.0])
    assert "x" not in vars(net) and names(net.named_parameters()) == ["x"]
    net.x = nn.Linear(1, 1)
    assert names(net.named_parameters()) == ["x.weight", "x.bias"]
    net.x = nn.Buffer([1.0])
    assert names(net.named_buffers()) == ["x"] and not names(net.named_modules())[1:]
    net.x = slalom.tensor([5.0])  # a plain tensor goes where a buffer stands
    assert net.x.item() == 5 and names(net.named_buffers()) == ["x"]
    net.x = None
    assert net.x is None and list(net.buffers()) == []
    del net.x
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'x'"):
        net.x  # noqa: B018


class Early(nn.Module):
    def __init__(self) -> None:
        self.weight = nn.Parameter([1.0])


BAD_REGISTRATIONS = [
    (lambda: setattr(Net(), "scale", slalom.ones(1)), DTypeError, r"Net.scale: got Tensor; needed a Parameter or None"),
    (lambda: setattr(Net(), "layers", 3), DTypeError, r"Net.layers: got int; needed a Module or None"),
    (lambda: setattr(Net(), "count", "x"), DTypeError, r"Net.count: got str; needed a Tensor or None"),
    (Early, ConfigError, r"Early.weight assigned too early. Hint: call super\(\).__init__\(\) first"),
    (lambda: Net().register_parameter("a.b", None), ConfigError, r"got 'a.b'; needed a name without dots"),
    (lambda: Net().register_parameter("forward", nn.Parameter([1.0])), ConfigError, r"Net.forward: needed a name"),
    (lambda: Net().register_parameter("p", slalom.ones(1)), DTypeError, r"register_parameter\('p'\): got Tensor"),
    (lambda: Net().register_buffer("b", 3), DTypeError, r"register_buffer\('b'\): got int; needed a Tensor or None"),
    (lambda: Net().add_module("m", 3), DTypeError, r"add_module\('m'\): got int; needed a Module or None"),
    (lambda: nn.Module()(1), ConfigError, r"Module: Module: no forward method|Module: no forward method"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD_REGISTRATIONS)
def test_bad_registration(call: Any, kind: type[SlalomError], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_parameter_shares_a_tensor_and_copies_anything_else() -> None:
    t, array = slalom.ones(2), np.ones(2, np.float32)
    shared, copied = nn.Parameter(t), nn.Parameter(array)
    t.zero_()
    array[:] = 0
    assert shared.tolist() == [0, 0] and copied.tolist() == [1, 1]
    assert shared.is_leaf and shared.requires_grad and not nn.Parameter(t, requires_grad=False).requires_grad
    assert isinstance(shared, Tensor) and type(shared * 2) is Tensor
    assert repr(nn.Parameter([1.0])) == "Parameter containing:\ntensor([1.], requires_grad=True)"
    assert not nn.Buffer(t).requires_grad and type(nn.Buffer(t)) is nn.Buffer
    assert nn.Parameter(slalom.ones(2, requires_grad=True) * 2).is_leaf


# --- changing all of it -------------------------------------------------------------------------------------------
def test_zero_grad_requires_grad_and_apply() -> None:
    net = Net()
    net(slalom.ones(2, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(not p.grad.numpy().any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    seen: list[str] = []
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == ["Linear", "Tanh", "Linear", "Sequential", "Linear", "Net"]


def test_conversion_keeps_identity_and_integers() -> None:
    net = Net()
    before = list(net.parameters())
    net(slalom.ones(2, 3)).sum().backward()
    assert net.double() is net
    assert all(p is q for p, q in zip(before, net.parameters(), strict=True))
    assert all(p.dtype == p.grad.dtype == np.float64 and p.is_leaf for p in net.parameters())
    assert net.count.dtype == np.int64 and net.cache.dtype == np.float64
    net(slalom.ones(2, 3, dtype="float64")).sum().backward()
    assert next(net.to("cpu").float().cpu().parameters()).dtype == np.float32
    with pytest.raises(ConfigError, match="device: got 'cuda'; needed 'cpu'"):
        net.cuda()
    with pytest.raises(DTypeError, match=r"Net\.to: got int64; needed a floating dtype"):
        net.to(slalom.int64)


def test_copies_and_pickles_keep_ties_and_modes() -> None:
    net = Net().eval()
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert copied.tied.weight is copied.layers[0].weight and copied.tied.weight is not net.tied.weight
        assert not copied.layers[2].training and repr(copied) == repr(net)
        x = slalom.ones(1, 3)
        assert copied(x).tolist() == net(x).tolist()


def test_paths() -> None:
    net = Net()
    assert net.get_submodule("layers.2") is net.layers[2] and net.get_submodule("") is net
    assert net.get_parameter("layers.0.bias") is net.layers[0].bias
    for wrong in (lambda: net.get_submodule("layers.9"), lambda: net.get_parameter("layers.1.bias")):
        with pytest.raises(AttributeError, match=r"at 'layers\."):
            wrong()


# --- state dict ---------------------------------------------------------------------------------------------------
def test_state_dict_shares_buffers_and_leaves_out_what_is_not_persistent() -> None:
    net = Net()
    state = net.state_dict()
    assert list(state) == [
        "scale", "count", "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias", "tied.weight",
    ]  # fmt: skip
    assert not any(t.requires_grad for t in state.values())
    with slalom.no_grad():
        net.scale += 1
    assert state["scale"].item() == 3
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    assert list(net.layers[0].state_dict(prefix="a.")) == ["a.weight", "a.bias"]


def test_load_state_dict_takes_arrays_and_converts() -> None:
    net, other = Net(), Net().double()
    given = {name: t.numpy() for name, t in other.state_dict().items()}
    assert net.load_state_dict(given).missing_keys == []
    np.testing.assert_allclose(net.layers[2].weight.detach().numpy(), given["layers.2.weight"], rtol=1e-7)
    assert net.scale.dtype == np.float32 and net.tied.weight is net.layers[0].weight


def test_load_state_dict_lists_all_that_does_not_fit_and_writes_nothing() -> None:
    net = Net()
    state = {name: t.clone() for name, t in net.state_dict().items()}
    state["scale"] = slalom.tensor([9.0])
    del state["count"]
    state["extra"] = slalom.ones(1)
    state["layers.2.bias"] = slalom.ones(5)
    message = r"into Net: got missing count; unexpected extra; layers.2.bias has shape \(5,\), needs \(3,\)"
    with pytest.raises(ModelFileError, match=message):
        net.load_state_dict(state)
    with pytest.raises(ModelFileError, match=r"got layers.2.bias has"):
        net.load_state_dict(state, strict=False)
    assert net.scale.item() == 2
    del state["layers.2.bias"]
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["count", "layers.2.bias"], ["extra"]) and net.scale.item() == 9
    with pytest.raises(ModelFileError, match="into Net: got list; needed values by names"):
        net.load_state_dict(list(state))


# --- hooks --------------------------------------------------------------------------------------------------------
def test_a_hook_is_a_function() -> None:
    with pytest.raises(slalom.errors.DTypeError, match="hook: got int; needed a function"):
        Net().register_forward_hook(3)


def test_hooks_see_and_replace() -> None:
    layer, seen = nn.Identity(), []
    with layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,)):
        handle = layer.register_forward_hook(lambda *call: seen.append((call[0], call[1][0].item(), call[2].item())))
        doubled = layer.register_forward_hook(lambda module, args, out: out * 2)
        assert layer(slalom.tensor(1.0)).item() == 4
        assert seen == [(layer, 2.0, 2.0)]
        handle.remove()
        handle.remove()
    doubled.remove()
    assert layer(slalom.tensor(1.0)).item() == 1 and len(seen) == 1
    with layer.register_forward_pre_hook(lambda module, args: args[0] * 3):
        assert layer(slalom.tensor(1.0)).item() == 3


# --- text ---------------------------------------------------------------------------------------------------------
def test_repr_is_nested() -> None:
    assert repr(Net()) == (
        "Net(\n"
        "  (layers): Sequential(\n"
        "    (0): Linear(in_features=3, out_features=4, bias=True)\n"
        "    (1): Tanh()\n"
        "    (2): Linear(in_features=4, out_features=3, bias=True)\n"
        "  )\n"
        "  (tied): Linear(in_features=3, out_features=4, bias=False)\n"
        ")"
    )


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Sequential(nn.Linear(15, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).reshape(7) if x.ndim == 1 else self.body(x)


def test_errors_name_the_path_and_both_numbers() -> None:
    with pytest.raises(ShapeError) as caught:
        Outer()(slalom.ones(64, 8))
    message = "model.body.2.0 (Linear 15→1): input has 16 features, needs 15; input shape (64, 16)"
    assert str(caught.value) == message
    assert caught.value.what == message  # and so do copies of the error, as a worker process would send
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    hooked = nn.Sequential(nn.Tanh())
    hooked[0].register_forward_hook(lambda module, args, out: out.sum().item())
    with pytest.raises(StagingError, match=r"^model\.0 \(Tanh\): item\(\) while staging") as staged:
        slalom.compile(hooked)(slalom.ones(2))
    assert __file__ in str(staged.value)
    net = Outer()
    net.body[2][0] = nn.Linear(16, 1)
    with pytest.raises(ShapeError, match=r"^Outer: reshape: \(1,\) to \(7,\)"):
        net(slalom.ones(8))


def test_errors_elsewhere_are_left_as_they_are() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor, other: nn.Module) -> Tensor:
            if x.shape == (1,):
                raise KeyError("mine")
            return other(x)

    with pytest.raises(KeyError, match=r"^'mine'$"):
        Odd()(slalom.ones(1), None)
    with pytest.raises(ShapeError, match=r"^Linear 3→1: input has 2 features"):
        Odd()(slalom.ones(2), nn.Linear(3, 1))  # not a part of Odd: no path to name


# --- backward hooks -----------------------------------------------------------------------------------------------
def test_backward_hooks_see_the_gradients_of_arguments_and_outputs() -> None:
    seen: list[Any] = []
    layer = nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda module, *grads: seen.append((module, *grads)))
    x = slalom.randn(4, 3, requires_grad=True)
    weights = slalom.randn(4, 2)
    (layer(x) * weights).sum().backward(retain_graph=True)
    (module, (at_input,), (at_output,)) = seen[0]
    assert module is layer
    np.testing.assert_array_equal(at_input.numpy(), x.grad.numpy())
    np.testing.assert_array_equal(at_output.numpy(), weights.numpy())
    layer(x.detach()).sum().backward()  # an argument without a gradient
    assert seen[1][1] == (None,) and seen[1][2][0].tolist() == slalom.ones(4, 2).tolist()


def test_backward_hooks_replace_gradients() -> None:
    layer, x = nn.Tanh(), slalom.zeros(2, requires_grad=True)
    with layer.register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 10,)):
        layer(x).sum().backward()
    assert x.grad.tolist() == [10, 10]
    x.grad = None
    with layer.register_full_backward_pre_hook(lambda module, grad_output: grad_output[0] * 3):
        layer(x).sum().backward()
    assert x.grad.tolist() == [3, 3]
    x.grad = None
    layer(x).sum().backward()
    assert x.grad.tolist() == [1, 1]
    with layer.register_full_backward_hook(lambda *_: (None, None)):
        out = layer(x).sum()
        with pytest.raises(ConfigError, match="a backward hook: got 2 gradients; needed 1, as it was given"):
            out.backward()
    with layer.register_full_backward_hook(lambda *_: slalom.ones(3)):
        out = layer(x).sum()
        with pytest.raises(ShapeError, match=r"a gradient that a hook returned: got \(3,\); needed \(2,\)"):
            out.backward()


class Pair(nn.Module):
    def forward(self, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return a * scale, (a * b).sum()


def test_backward_hooks_of_several_arguments_are_called_once_for_each_backward() -> None:
    seen: list[Any] = []
    layer = Pair()
    layer.register_full_backward_hook(lambda module, *grads: seen.append(grads))
    a, b = slalom.ones(2, requires_grad=True), slalom.full((2,), 3.0, requires_grad=True)
    first, second = layer(a, b, 5.0)
    (first.sum() + second + a.sum()).backward(retain_graph=True)  # what else is done with a is none of the layer's
    (into, out) = seen[0]
    assert into[0].tolist() == [8, 8] and into[1].tolist() == [1, 1] and into[2] is None
    assert out[0].tolist() == [1, 1] and out[1].item() == 1 and a.grad.tolist() == [9, 9]
    first.sum().backward()
    assert len(seen) == 2 and seen[1][0][1] is None and seen[1][1][1] is None


def test_backward_hooks_are_part_of_a_record() -> None:
    layer = nn.Linear(3, 2)
    x = slalom.randn(4, 3)

    @slalom.compile
    def step(x: Tensor) -> Any:
        x.requires_grad = True
        layer(x).sum().backward()
        return x.grad

    plain = step(x).numpy()
    with layer.register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 2,)):
        np.testing.assert_array_equal(step(x).numpy(), plain * 2)
        assert step.traces == 2
        compiled = slalom.compile(copy.deepcopy(layer))
        given = x.clone().requires_grad_()
        compiled(given).sum().backward()
        np.testing.assert_allclose(given.grad.numpy(), plain * 2, rtol=1e-6)


def test_derivatives_of_gradients_pass_a_hook_by() -> None:
    layer, x = nn.Tanh(), slalom.full((1,), 0.5, requires_grad=True)
    layer.register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 3,))
    layer(x).sum().backward(create_graph=True)
    (x.grad * 1.0).sum().backward()
    t = np.tanh(0.5)
    np.testing.assert_allclose(x.grad.item(), 3 * (1 - t * t) + 3 * -2 * t * (1 - t * t), rtol=1e-5)


def test_forward_hooks_have_an_order_and_keywords() -> None:
    class Scale(nn.Module):
        def forward(self, x: Any, *, by: float = 1.0) -> Any:
            return x * by

    layer, order = Scale(), []
    layer.register_forward_hook(lambda *_: order.append("first"))
    layer.register_forward_hook(lambda *_: order.append("second"))
    layer.register_forward_hook(lambda *_: order.append("before"), prepend=True)
    layer.register_forward_pre_hook(lambda module, args, kwargs: (args, {"by": kwargs["by"] * 2}), with_kwargs=True)
    layer.register_forward_hook(lambda module, args, kwargs, out: out + kwargs["by"], with_kwargs=True)
    assert layer(3.0, by=2.0) == 16.0 and order == ["before", "first", "second"]


def test_freezing_and_reaching_parts() -> None:
    net = Net()
    assert net.freeze() is net and not any(p.requires_grad for p in net.parameters())
    net.layers[0].unfreeze()
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["layers.0.weight", "layers.0.bias"]
    assert net.get_buffer("count") is net.count
    with pytest.raises(AttributeError, match=r"Net has no buffer at 'layers\.0\.count'"):
        net.get_buffer("layers.0.count")
    act = nn.ReLU()
    net.set_submodule("layers.1", act)
    assert net.layers[1] is act
    with pytest.raises(AttributeError, match=r"Net has no module at 'layers\.9'"):
        net.set_submodule("layers.9", act)


# --- Sequential ---------------------------------------------------------------------------------------------------
def test_sequential_is_indexed_sliced_and_changed() -> None:
    a, b, c = nn.Tanh(), nn.ReLU(), nn.Sigmoid()
    model = nn.Sequential(a, b, c)
    assert model[0] is a and model[-1] is c and list(model[1:]) == [b, c] and len(model) == 3
    assert isinstance(model[:2], nn.Sequential) and names(model[1:].named_children()) == ["1", "2"]
    model[1] = nn.Identity()
    assert isinstance(model[1], nn.Identity)
    del model[0]
    assert names(model.named_children()) == ["0", "1"] and model.append(a)[2] is a
    named = nn.Sequential(OrderedDict([("first", a), ("last", b)]))
    assert named.last is b and named[0] is a and names(named.named_children()) == ["first", "last"]
    assert nn.Sequential()(3) == 3
    with pytest.raises(IndexRangeError, match="Sequential: index 3: needed -3 to 2"):
        model[3]


# --- staging ------------------------------------------------------------------------------------------------------
def retraced(change: Any) -> tuple[int, Any, Any]:
    """How often a compiled Net was recorded after ``change``, what it returns then, and what eager returns."""
    net = Net()
    net.drop = nn.Dropout(0.0)

    @slalom.compile
    def step(x: Tensor) -> Tensor:
        return net.drop(net(x)).sum()

    x = slalom.ones(2, 3)
    step(x)
    assert step(x).shape == () and step.traces == 1
    change(net)
    slalom.manual_seed(5)
    found = step(x).item()
    slalom.manual_seed(5)
    return step.traces, found, net.drop(net(x)).sum().item()


CHANGES = {
    "another parameter": lambda net: setattr(net.layers[0], "bias", nn.Parameter(slalom.ones(4))),
    "no parameter": lambda net: setattr(net.layers[0], "bias", None),
    "another module": lambda net: setattr(net, "layers", nn.Linear(3, 3)),
    "another module in a list": lambda net: net.layers.__setitem__(1, nn.ReLU()),
    "one module more": lambda net: net.layers.append(nn.Tanh()),
    "evaluation mode": lambda net: net.drop.eval(),
    "an attribute": lambda net: setattr(net.drop, "p", 0.5),
    "a hook": lambda net: net.drop.register_forward_hook(lambda module, args, out: out * 2),
    "another dtype": lambda net: net.double(),
    "frozen": lambda net: net.requires_grad_(False),
}
REREAD = {
    "a written parameter": lambda net: net.load_state_dict({"scale": slalom.tensor([7.0])}, strict=False),
    "an unused attribute": lambda net: setattr(net, "note", "other"),
    "training again": lambda net: net.train(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_fact_is_recorded_again(change: Any) -> None:
    traces, found, eager = retraced(change)
    assert traces == 2 and found == pytest.approx(eager, rel=1e-6)


@pytest.mark.parametrize("change", REREAD.values(), ids=REREAD)
def test_values_and_what_does_not_matter_need_no_new_record(change: Any) -> None:
    traces, found, eager = retraced(change)
    assert traces == 1 and found == pytest.approx(eager, rel=1e-6)


def test_graphs_name_the_states_by_path() -> None:
    net = Net()
    step = slalom.compile(net.__call__)
    step(slalom.ones(2, 3))
    stated = {place.name for place in step.graph.inputs if place.kind == "state"}
    assert stated == {"scale", "count", "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}
    assert [output.name for output in step.graph.outputs if output.kind == "write"] == ["count"]
    step(slalom.ones(2, 3))
    assert net.count.item() == 2 and step.traces == 1


def test_rebinding_a_buffer_while_staging_says_what_to_do() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", slalom.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            self.mean = x.mean(0)
            return x - self.mean

    layer = Mean()
    assert layer(slalom.ones(3, 2)).sum().item() == 0 and layer.mean.tolist() == [1, 1]
    with pytest.raises(StagingError, match=r"Mean.mean rebound while staging, at .*test_module.py.*self.mean.assign"):
        slalom.compile(layer)(slalom.ones(3, 2))
    assert layer.mean.tolist() == [1, 1]


# --- nn.utils -----------------------------------------------------------------------------------------------------
def with_gradients(seed: int = 0) -> list[nn.Parameter]:
    rng = np.random.default_rng(seed)
    made = [nn.Parameter(np.zeros(shape)) for shape in ((3, 2), (4,), ())]
    for p in made:
        p.grad = Tensor(rng.normal(size=p.shape))
    return [*made, nn.Parameter([1.0])]  # one without a gradient


@pytest.mark.parametrize("norm_type", [2.0, 1, float("inf"), 3.0])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_is_pytorchs(max_norm: float, norm_type: float) -> None:
    parameters = with_gradients()
    gradients = [p.grad.numpy().copy() for p in parameters[:3]]
    flat = np.concatenate([g.reshape(-1) for g in gradients])
    total = nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
    assert total.item() == pytest.approx(np.linalg.norm(flat, norm_type))
    factor = min(1.0, max_norm / (total.item() + 1e-6))
    for p, g in zip(parameters, gradients, strict=False):
        np.testing.assert_allclose(p.grad.numpy(), g * factor, rtol=1e-12)
    torch = pytest.importorskip("torch")
    theirs = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in gradients]
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = torch.from_numpy(g.copy())
    assert torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type).item() == pytest.approx(total.item(), rel=1e-12)
    for p, q in zip(parameters, theirs, strict=False):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


def test_clip_grad_norm_staged_equals_eager() -> None:
    results = []
    for wrap in (slalom.compile, lambda function: function):
        slalom.manual_seed(0)
        net = nn.Linear(4, 3)

        def step(x: Tensor, net: nn.Module = net) -> Tensor:
            net.zero_grad()
            (net(x) ** 2).sum().backward()
            return nn.utils.clip_grad_norm_(net.parameters(), 0.25)

        total = wrap(step)(slalom.randn(5, 4, generator=slalom.Generator(1)))
        results.append((total.item(), net.weight.grad.numpy(), net.bias.grad.numpy()))
    for staged, eager in zip(*results, strict=True):
        np.testing.assert_array_equal(staged, eager)


def test_clipping_edge_cases() -> None:
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0
    p = nn.Parameter([1.0, 2.0])
    p.grad = slalom.tensor([float("inf"), 1.0])
    with pytest.raises(slalom.errors.DivergenceError, match="norm of the gradients: got inf; needed a finite number"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    nn.utils.clip_grad_value_([p], 0.5)
    assert p.grad.tolist() == [0.5, 0.5]
    for clip in (nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_):
        with pytest.raises(slalom.errors.ConfigError, match=r"clip_grad_.*: got -1; needed 0 or more"):
            clip([p], -1)
    assert p.grad.tolist() == [0.5, 0.5]


def test_parameters_as_a_vector() -> None:
    net = Net()
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (32,) and vector.requires_grad
    nn.utils.vector_to_parameters(slalom.arange(32.0), net.parameters())
    np.testing.assert_array_equal(nn.utils.parameters_to_vector(net.parameters()).detach().numpy(), np.arange(32))
    with pytest.raises(ShapeError, match=r"vec: got shape \(31,\); needed \(32,\)"):
        nn.utils.vector_to_parameters(slalom.ones(31), net.parameters())
