"""Rows of activations, distances and penalties, as layers and as functions. Data only; joined in table_layers.py."""

from __future__ import annotations

from typing import Any

from layer_rows import ANY, AXIS_1, BOTH, ONE, Row, Sample, library, lines, on_a_copy, through

EXTREME = (Sample((6,), "huge", ONE),)
EVERY = (*ANY, *EXTREME)
FEW = lines((0, 5), (3, 5), (1, 1), (7,))
IMAGES = lines(
    (0, 3, 2, 2), (2, 3, 2, 4), (1, 1, 1, 1), (3, 2, 2), (1, 3, 2, 5), extra=(Sample((3, 1, 4), "huge", ONE),)
)
HALVES = lines((0, 6), (4, 6), (1, 2), (6,), (2, 3, 4), extra=EXTREME)
PAIRS = lines((1, 8), (4, 6), (3, 2), (2, 3, 4), (5, 2), (0, 4), extra=(Sample((4, 6), "large", ONE),))


def _less_last(shape: Any) -> Any:
    return shape[:-1]


def _angles(shape: Any) -> Any:
    """Of the halves' angles along axis 1."""
    return shape[:1] if len(shape) == 2 else (shape[0], shape[2] // 2)


def _halved(shape: Any, axis: int = -1) -> Any:
    return tuple(n // 2 if i == axis % len(shape) else n for i, n in enumerate(shape))


def _scalar(shape: Any) -> Any:
    return ()


def _pair(call: Any) -> Any:
    """A function of two tensors as one of the two halves of a tensor's last axis."""
    return lambda x: call(x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :])


def _two(layer: Any) -> Any:
    return through(layer, lambda self, x: _pair(lambda a, b: type(self).plain(self, a, b))(x))


def _step(at_zero: float) -> Any:
    def reference(x: Any) -> Any:
        return library(x).heaviside(x.detach(), x.detach().new_full((), at_zero)) + (x - x)

    return lambda nn: reference


def _hardsigmoid(nn: Any) -> Any:
    """What hardsigmoid is: PyTorch's own takes a float32 for the sixth in its derivative, also in float64."""
    return lambda x: nn.functional.relu6(x + 3) / 6


def _penalty(l1: float, l2: float) -> Any:
    return lambda nn: lambda x: l1 * x.abs().sum() + l2 * (x * x).sum()


def _squared_relu(nn: Any) -> Any:
    return lambda x: nn.functional.relu(x) ** 2


ROWS: tuple[Row, ...] = (
    Row("SquaredReLU", lambda nn: nn.SquaredReLU(), EVERY, reference=_squared_relu),
    Row("L1Penalty", lambda nn: nn.L1Penalty(0.3), ANY, out=_scalar, reference=_penalty(0.3, 0),
        bad=((lambda nn: nn.L1Penalty(-1)([nn.Parameter([1.0])]), r"strength: got -1; needed 0 or more"),)),
    Row("L2Penalty", lambda nn: nn.L2Penalty(0.3), ANY, out=_scalar, reference=_penalty(0, 0.15)),
    Row("ElasticNetPenalty", lambda nn: nn.ElasticNetPenalty(2.0, l1_ratio=0.25), ANY, out=_scalar,
        reference=_penalty(0.5, 0.75),
        bad=((lambda nn: nn.ElasticNetPenalty(1.0, 2.0)([nn.Parameter([1.0])]), r"l1_ratio: got 2.0"),)),
    Row("ELU", lambda nn: nn.ELU(), EVERY),
    Row("ELU", lambda nn: on_a_copy(nn.ELU(alpha=0.3, inplace=True)), EVERY, variant="flat"),
    Row("CELU", lambda nn: nn.CELU(), EVERY),
    Row("CELU", lambda nn: on_a_copy(nn.CELU(0.5, True)), EVERY, variant="flat",
        bad=((lambda nn: nn.CELU(0)(nn.Parameter([1.0])), r"celu: alpha: got 0; needed a number other than 0"),)),
    Row("SELU", lambda nn: nn.SELU(), EVERY),
    Row("Mish", lambda nn: nn.Mish(), EVERY),
    Row("LogSigmoid", lambda nn: nn.LogSigmoid(), EVERY),
    Row("Softsign", lambda nn: nn.Softsign(), EVERY),
    Row("Tanhshrink", lambda nn: nn.Tanhshrink(), EVERY),
    Row("Hardshrink", lambda nn: nn.Hardshrink(), EVERY),
    Row("Hardshrink", lambda nn: nn.Hardshrink(0.2), EVERY, variant="narrow"),
    Row("Softshrink", lambda nn: nn.Softshrink(), EVERY,
        bad=((lambda nn: nn.Softshrink(-1.0)(nn.Parameter([1.0])), r"softshrink: lambd: got -1.0; needed 0 or more"),)),
    Row("Softshrink", lambda nn: nn.Softshrink(0.2), EVERY, variant="narrow"),
    Row("Hardsigmoid", lambda nn: nn.Hardsigmoid(), EVERY, reference=_hardsigmoid),
    Row("Hardswish", lambda nn: nn.Hardswish(), EVERY),
    Row("Hardtanh", lambda nn: nn.Hardtanh(), EVERY),
    Row("Hardtanh", lambda nn: on_a_copy(nn.Hardtanh(-0.4, 0.3, True)), EVERY, variant="narrow",
        bad=((lambda nn: nn.Hardtanh(1.0, -1.0)(nn.Parameter([1.0])), r"min_val: got 1.0; needed less than max_val"),)),
    Row("ReLU6", lambda nn: nn.ReLU6(), EVERY),
    Row("RReLU", lambda nn: nn.RReLU(), lines((0, 5), (4, 5), (1, 1), (7,), (2, 3, 5), modes=BOTH), random=True,
        bad=((lambda nn: nn.RReLU(0.5, 0.1)(nn.Parameter([1.0])), r"rrelu: lower: got 0.5; needed at most upper"),)),
    Row("RReLU", lambda nn: on_a_copy(nn.RReLU(0.2, 0.2, True)), ANY, variant="fixed"),
    Row("Threshold", lambda nn: nn.Threshold(0.1, 20.0), EVERY,
        bad=((lambda nn: nn.Threshold(0.1), r"Threshold: missing.*value.*: needed Threshold\(threshold"),)),
    Row("Step", lambda nn: nn.Step(), EVERY, reference=_step(1.0)),
    Row("Step", lambda nn: nn.Step(0.5), EVERY, reference=_step(0.5), variant="half"),
    *(Row(name, lambda nn, name=name: on_a_copy(getattr(nn, name)(inplace=True)), FEW, variant="inplace")
      for name in ("ReLU", "SiLU", "SELU", "Mish", "ReLU6")),
    Row("Hardsigmoid", lambda nn: on_a_copy(nn.Hardsigmoid(True)), FEW, reference=_hardsigmoid, variant="inplace"),
    Row("Hardswish", lambda nn: on_a_copy(nn.Hardswish(True)), FEW, variant="inplace",
        reference=lambda nn: nn.Hardswish()),  # whose text does not say that it writes over its input
    Row("Threshold", lambda nn: on_a_copy(nn.Threshold(-0.2, -1, True)), FEW, variant="inplace"),
    Row("GLU", lambda nn: nn.GLU(), HALVES, out=_halved,
        errors=((Sample((4, 3)), r"GLU: glu: input: got shape \(4, 3\); needed an even number along axis -1"),)),
    Row("GLU", lambda nn: nn.GLU(0), lines((0, 5), (4, 5), (2, 1), (6,), (2, 3, 5), extra=EXTREME),
        out=lambda shape: _halved(shape, 0), variant="first"),
    Row("Softmin", lambda nn: nn.Softmin(1), AXIS_1, errors=((Sample((4,)), r"Softmin: softmin: axis 1"),)),
    Row("Softmin", lambda nn: nn.Softmin(dim=-1), EVERY, variant="last"),
    Row("Softmax2d", lambda nn: nn.Softmax2d(), IMAGES,
        errors=((Sample((4, 3)), r"Softmax2d: input: got shape \(4, 3\); needed \(B, C, H, W\)"),)),
    Row("CosineSimilarity", lambda nn: _two(nn.CosineSimilarity()), PAIRS, out=_angles,
        errors=((Sample((4, 5)), r"CosineSimilarity: cosine_similarity: shapes \(4, 2\) and \(4, 3\) do not broadcast"),
            (Sample((4,)), r"CosineSimilarity: norm: axis 1"))),
    Row("CosineSimilarity", lambda nn: _two(nn.CosineSimilarity(-1, 1e-3)), PAIRS, out=_less_last, variant="last"),
    Row("PairwiseDistance", lambda nn: _two(nn.PairwiseDistance()), PAIRS, out=_less_last,
        errors=((Sample((4, 5)), r"PairwiseDistance: sub: shapes \(4, 2\) and \(4, 3\) do not broadcast"),)),
    Row("PairwiseDistance", lambda nn: _two(nn.PairwiseDistance(3.0, 0.01, keepdim=True)), PAIRS,
        out=lambda shape: (*shape[:-1], 1), variant="cubic"),
    Row("PairwiseDistance", lambda nn: _two(nn.PairwiseDistance(1.0)), PAIRS, out=_less_last, variant="city",
        bad=((lambda nn: nn.PairwiseDistance(0)(nn.Parameter([1.0]), nn.Parameter([2.0])), r"norm: p: got 0"),)),
)  # fmt: skip

FUNCTION_ROWS: tuple[Row, ...] = (
    Row("elu", lambda nn: lambda x: nn.functional.elu(x, 2.0), EVERY),
    Row("celu", lambda nn: lambda x: nn.functional.celu(x, 2.0), EVERY),
    Row("selu", lambda nn: nn.functional.selu, EVERY),
    Row("mish", lambda nn: nn.functional.mish, EVERY),
    Row("logsigmoid", lambda nn: nn.functional.logsigmoid, EVERY),
    Row("softsign", lambda nn: nn.functional.softsign, EVERY),
    Row("tanhshrink", lambda nn: nn.functional.tanhshrink, EVERY),
    Row("hardshrink", lambda nn: lambda x: nn.functional.hardshrink(x, 0.3), EVERY),
    Row("softshrink", lambda nn: lambda x: nn.functional.softshrink(x, 0.3), EVERY),
    Row("squared_relu", lambda nn: nn.functional.squared_relu, EVERY, reference=_squared_relu),
    Row("hardsigmoid", lambda nn: nn.functional.hardsigmoid, EVERY, reference=_hardsigmoid),
    Row("hardswish", lambda nn: nn.functional.hardswish, EVERY),
    Row("hardtanh", lambda nn: lambda x: nn.functional.hardtanh(x, -0.5, 0.7), EVERY),
    Row("relu6", lambda nn: nn.functional.relu6, EVERY),
    Row("rrelu", lambda nn: lambda x: nn.functional.rrelu(x, 0.1, 0.2), EVERY),
    Row("threshold", lambda nn: lambda x: nn.functional.threshold(x, 0.2, -1.0), EVERY),
    Row("step", lambda nn: lambda x: nn.functional.step(x, 0.0), EVERY, reference=_step(0.0)),
    Row("glu", lambda nn: lambda x: nn.functional.glu(x, -1), HALVES, out=_halved,
        errors=((Sample(()), r"glu: input: got shape \(\)"),)),
    Row("softmin", lambda nn: lambda x: nn.functional.softmin(x, 0), EVERY),
    Row("gumbel_softmax", lambda nn: lambda x: nn.functional.gumbel_softmax(x, 0.7, dim=-1), ANY, random=True,
        bad=((lambda nn: nn.functional.gumbel_softmax(nn.Parameter([1.0]), 0.0), r"tau: got 0.0; needed above 0"),)),
    Row("normalize", lambda nn: lambda x: nn.functional.normalize(x, dim=-1), EVERY),
    Row("normalize", lambda nn: lambda x: nn.functional.normalize(x, 1, 0, 0.5), ANY, variant="city"),
    Row("cosine_similarity", lambda nn: _pair(nn.functional.cosine_similarity), PAIRS, out=_angles),
    Row("cosine_similarity", lambda nn: lambda x: nn.functional.cosine_similarity(x[..., :1], x[..., 1:], -1), PAIRS,
        out=_less_last, variant="broadcast"),
    Row("pairwise_distance", lambda nn: _pair(nn.functional.pairwise_distance), PAIRS, out=_less_last),
    Row("l1_penalty", lambda nn: lambda x: nn.functional.l1_penalty([x, x * 2], 0.3), ANY, out=_scalar,
        reference=_penalty(0.9, 0),
        bad=((lambda nn: nn.functional.l1_penalty([]), r"l1_penalty: parameters: got none; needed at least one"),
            (lambda nn: nn.functional.l1_penalty([nn.Parameter([1.0])], -1), r"strength: got -1; needed 0 or more"))),
    Row("l2_penalty", lambda nn: lambda x: nn.functional.l2_penalty(x, 0.3), ANY, out=_scalar,
        reference=_penalty(0, 0.15),
        bad=((lambda nn: nn.functional.l2_penalty(iter(())), r"l2_penalty: parameters: got none"),)),
    Row("elastic_net_penalty", lambda nn: lambda x: nn.functional.elastic_net_penalty(iter([x]), 2.0, 0.25), ANY,
        out=_scalar, reference=_penalty(0.5, 0.75),
        bad=((lambda nn: nn.functional.elastic_net_penalty([nn.Parameter([1.0])], 1.0, 2.0), r"l1_ratio: got 2.0"),)),
)  # fmt: skip
