"""Lists and dicts of modules and parameters: they behave like Python's, and Module knows what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn
from slalom.errors import DTypeError, IndexRangeError


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))]


def numbered(kind: Any) -> tuple[Any, list[Any]]:
    """A list, and what it holds."""
    held: list[Any] = [nn.Parameter([float(i)]) if kind is nn.ParameterList else nn.Linear(1, i + 1) for i in range(4)]
    return (kind(*held) if kind is nn.Sequential else kind(held)), held


def same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.ParameterList, nn.Sequential])
def test_a_list_is_changed_like_a_list(kind: Any) -> None:
    made, held = numbered(kind)
    other = numbered(kind)[1][0]
    for change in (
        lambda x: x.append(other),
        lambda x: x.extend([other, held[0]]),
        lambda x: x.insert(1, other),
        lambda x: x.insert(-1, other),
        lambda x: x.__delitem__(-2),
        lambda x: x.__delitem__(slice(0, 2)),
        lambda x: x.__setitem__(2, other),
        lambda x: x.pop(),
        lambda x: x.pop(1),
        lambda x: x.__iadd__([other]),
    ):
        made, plain = numbered(kind)[0], None
        plain = list(made)
        change(made)
        change(plain)
        assert same(list(made), plain) and names(made) == [str(i) for i in range(len(plain))]
    made, held = numbered(kind)
    assert type(made[1:3]) is kind and same(list(made[1:3]), held[1:3]) and made[-1] is held[3]
    assert same(list(made + [other]), [*held, other]) and len(made) == 4  # noqa: RUF005
    assert made.append(other) is made
    for bad in (5, -6):
        with pytest.raises(IndexRangeError, match=f"index {bad}: needed -5 to 4"):
            made[bad]
        with pytest.raises(IndexRangeError):
            del made[bad]
    with pytest.raises(DTypeError, match="part 5: got int"):
        made.append(3)
    assert len(made) == 5


@pytest.mark.parametrize("kind", [nn.ModuleDict, nn.ParameterDict])
def test_a_dict_is_changed_like_a_dict(kind: Any) -> None:
    held: list[Any] = [nn.Parameter([float(i)]) if kind is nn.ParameterDict else nn.Tanh() for i in range(3)]
    made = kind({"a": held[0], "b": held[1]})
    made["c"] = held[2]
    assert list(made) == made.keys() == ["a", "b", "c"] and same(made.values(), held) and len(made) == 3
    assert [key for key, _ in made.items()] == names(made) and "b" in made and "z" not in made
    assert made.pop("b") is held[1] and made.keys() == ["a", "c"] and made["c"] is held[2]
    del made["a"]
    made.update([("d", held[0])])
    made.update(kind({"c": held[1]}))
    assert made.keys() == ["c", "d"] and made["c"] is held[1]
    with pytest.raises(IndexRangeError, match="key: got 'a'; needed one of 'c', 'd'"):
        made["a"]
    made.clear()
    assert len(made) == 0 and names(made) == [] and list(kind()) == []


def test_tensors_become_parameters_that_share_their_buffer() -> None:
    t = slalom.ones(2)
    held = nn.ParameterList([t])
    assert isinstance(held[0], nn.Parameter) and held[0].requires_grad
    t.zero_()
    assert held[0].tolist() == [0, 0]
    assert repr(nn.ParameterDict({"w": t})) == "ParameterDict((w): float32 (2,))"


def test_what_a_list_holds_is_guarded_while_staging() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Tanh()])
            self.scales = nn.ParameterDict({"a": Tensor([2.0])})

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            for scale in self.scales.values():
                x = x * scale
            return x

    net, x = Net(), slalom.ones(1)
    compiled = slalom.compile(net.forward)
    for change in (
        lambda: None,
        lambda: net.layers.append(nn.ReLU()),
        lambda: net.scales.update({"b": Tensor([3.0])}),
        lambda: net.scales.pop("a"),
    ):
        change()
        np.testing.assert_array_equal(compiled(x).numpy(), net(x).detach().numpy())
    assert compiled.traces == 4


def test_a_list_prints_equal_neighbours_once() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()])
    linear = "Linear(in_features=2, out_features=2, bias=True)"
    assert repr(layers) == f"ModuleList(\n  (0-1): 2 x {linear}\n  (2): ReLU()\n)"
    assert repr(nn.ModuleList()) == "ModuleList()"
