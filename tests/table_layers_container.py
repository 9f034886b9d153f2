"""Rows for what holds other modules or parameters. Lists and dicts compute nothing: their rows say what is done."""

from __future__ import annotations

from typing import Any

import twins
from layer_rows import ANY, ROWS_OF_5, Row, Sample, joined, last, library, lines, through


def twice(nn: Any) -> Any:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 5))


TWICE = {"module.0.weight": (4, 5), "module.0.bias": (4,), "module.2.weight": (5, 4), "module.2.bias": (5,)}

MANY = lines((3, 5), (4, 5), (9, 5), (7, 5))  # with a target in each cluster: PyTorch has no gradient of others
HEAD = {"head.weight": (5, 5), "tail.0.0.weight": (2, 5), "tail.0.1.weight": (3, 2), "tail.1.0.weight": (1, 5)}


def _adaptive(nn: Any, bias: bool = False) -> Any:
    return nn.AdaptiveLogSoftmaxWithLoss(5, 11, [3, 6], 2.0, head_bias=bias)


def _of_targets(layer: Any, x: Any) -> Any:
    """Output and loss."""
    return joined(*layer.plain(x, library(x).tensor([7, 1, 4, 10, 3, 8, 0, 5, 2][: x.shape[0]])))


def _refused(target: Any, *options: Any) -> Any:
    return lambda nn: nn.AdaptiveLogSoftmaxWithLoss(1, 4, *(options or ([2],)))(nn.Parameter([[1.0]]), target)


ROWS: tuple[Row, ...] = (
    Row(
        "AdaptiveLogSoftmaxWithLoss",
        lambda nn: through(_adaptive(nn), _of_targets),
        MANY,
        out=lambda shape: (shape[0] + 1,),
        state=HEAD | {"tail.1.1.weight": (5, 1)},
        errors=(
            (Sample((3, 4)), r"head \(Linear 5→5\): input has 4 features, needs 5"),
            (Sample((2, 3, 5)), r"adaptive_log_softmax: input: got shape \(2, 3, 5\); needed \(B, D\), or in a call"),
        ),
        bad=(
            (_refused([2], [2, 1]), r"AdaptiveLogSoftmaxWithLoss: cutoffs: got \[2, 1\]; needed whole numbers tha"),
            (_refused([2], [0, 2]), r"cutoffs: got \[0, 2\]"),
            (_refused([2], [2, 4]), r"cutoffs: got \[2, 4\]; needed .* from above 0 to below 4, the number of classes"),
            (_refused([2], []), r"cutoffs: got \[\]"),
            (_refused([2], [1.5]), r"cutoffs: got \[1.5\]"),
            (_refused([1, 2]), r"target: got shape \(2,\); needed \(1,\) a class for each row"),
            (_refused([4]), r"adaptive_log_softmax: target: got 4 to 4; needed 0 to 3"),
            (_refused([-1]), r"target: got -1 to -1; needed 0 to 3"),
            (_refused([1.0]), r"target: got float32; needed class numbers"),
            (lambda nn: _adaptive(nn).predict(nn.Parameter([1.0])), r"input: got shape \(1,\); needed \(B, D\)"),
        ),
    ),
    Row(
        "AdaptiveLogSoftmaxWithLoss",
        lambda nn: through(_adaptive(nn, True), lambda layer, x: layer.log_prob(x)),
        lines((3, 5), (4, 5), (1, 5), (9, 5), (0, 5), (2, 5)),
        out=lambda shape: (shape[0], 11),
        state={"head.weight": (5, 5), "head.bias": (5,)} | HEAD | {"tail.1.1.weight": (5, 1)},
        variant="all",
    ),
    Row(
        "ModuleList",
        lambda nn: through(
            nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5), nn.Sequential(nn.Tanh()), nn.Linear(5, 2)]),
            lambda layers, x: layers[-1](layers[2](layers[1](layers[0](x)) + x)),
        ),
        ROWS_OF_5,
        out=last(2),
        state={f"{n}.weight": (5, 5) for n in (0, 1)} | {f"{n}.bias": (5,) for n in (0, 1)}
        | {"3.weight": (2, 5), "3.bias": (2,)},
        errors=((Sample((3, 4)), r"model\.0 \(Linear 5→5\): input has 4 features, needs 5"),),
        bad=(
            (lambda nn: nn.ModuleList([nn.Identity(), len]), r"ModuleList: part 1: got builtin.*needed a Module"),
            (lambda nn: nn.ModuleList([nn.Identity()])["0"], r"ModuleList: index: got str; needed an integer or a"),
            (lambda nn: nn.ModuleList([nn.Identity()])[1], r"ModuleList: index 1: needed -1 to 0"),
            (lambda nn: nn.ModuleList()(1), r"ModuleList: no forward method"),
        ),
    ),
    Row(
        "ModuleDict",
        lambda nn: through(
            nn.ModuleDict({"first": nn.Linear(5, 4), "act": nn.Tanh(), "last": nn.Linear(4, 2, bias=False)}),
            lambda parts, x: parts["last"](parts["act"](parts["first"](x))),
        ),
        ROWS_OF_5,
        out=last(2),
        errors=((Sample((4,)), r"model\.first \(Linear 5→4\): input has 4 features, needs 5"),),
        state={"first.weight": (4, 5), "first.bias": (4,), "last.weight": (2, 4)},
        bad=(
            (lambda nn: nn.ModuleDict({"a": 3}), r"ModuleDict: part 'a': got int; needed a Module"),
            (lambda nn: nn.ModuleDict({3: nn.Identity()}), r"ModuleDict: key: got int; needed str"),
            (lambda nn: nn.ModuleDict({"a": nn.Identity()})["b"], r"ModuleDict: key: got 'b'; needed one of 'a'"),
            (lambda nn: nn.ModuleDict({"pop": nn.Identity()}), r"ModuleDict.pop: needed a name that no method"),
        ),
    ),
    Row(
        "ParameterList",
        lambda nn: through(
            nn.ParameterList([nn.Linear(5, 2).weight, nn.Linear(3, 2).bias]),
            lambda held, x: nn.functional.linear(x, held[0], held[-1]),
        ),
        ROWS_OF_5,
        out=last(2),
        errors=((Sample((4,)), r"ParameterList: input has 4 features, needs 5"),),
        state={"0": (2, 5), "1": (2,)},
        bad=((lambda nn: nn.ParameterList([3.0]), r"ParameterList: part 0: got float; needed a Parameter or"),),
    ),
    Row(
        "ParameterDict",
        lambda nn: through(
            nn.ParameterDict({"scale": nn.Linear(3, 5).bias, "shift": nn.Linear(1, 5).bias}),
            lambda held, x: x * held["scale"] + held["shift"],
        ),
        ROWS_OF_5,
        errors=((Sample((4,)), r"ParameterDict: mul: shapes \(4,\) and \(5,\) do not broadcast"),),
        state={"scale": (5,), "shift": (5,)},
        bad=((lambda nn: nn.ParameterDict({"a": nn.Identity()}), r"ParameterDict: part 'a': got Identity"),),
    ),
    Row(
        "Residual",
        lambda nn: twins.of(nn, "Residual")(twice(nn)),
        ROWS_OF_5,
        state=TWICE,
        errors=((Sample((3, 4)), r"model\.module\.0 \(Linear 5→4\): input has 4 features"),),
        bad=(
            (lambda nn: nn.Residual(len), r"Residual: module: got builtin.*needed a Module"),
            (lambda nn: nn.Residual(nn.Identity(), 3), r"Residual: shortcut: got int; needed a Module"),
        ),
    ),
    Row(
        "Residual",
        lambda nn: twins.of(nn, "Residual")(nn.Sequential(nn.Linear(5, 2), nn.ReLU()), nn.Linear(5, 2, bias=False)),
        ROWS_OF_5,
        out=last(2),
        state={"module.0.weight": (2, 5), "module.0.bias": (2,), "shortcut.weight": (2, 5)},
        variant="shortcut",
    ),
    Row(
        "Residual",
        lambda nn: twins.of(nn, "Residual")(nn.Flatten(1)),
        lines((0, 5), (4, 5), (1, 1), (2, 3)),
        errors=((Sample((2, 3, 5)), r"Residual: \(2, 3, 5\) \+ \(2, 15\): needed equal shapes\. Hint: give a"),),
        variant="same",
    ),
    Row("Residual", lambda nn: twins.of(nn, "Residual")(nn.Identity()), ANY, variant="identity"),
)  # fmt: skip

FUNCTION_ROWS: tuple[Row, ...] = ()
