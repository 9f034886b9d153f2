"""One row for each public function of shaping. Data only, as ``table_ops`` (see there)."""

from __future__ import annotations

import math

import numpy as np
from op_rows import B, F, I, Op, S, V, Wrong, each, torch, unary

from slalom.errors import ConfigError, DTypeError, ShapeError

AXIS = Wrong(S(F(2, 3), 2), IndexError, "axis 2: needed an axis of a tensor with 2 dimensions")


def pieces(x, sizes, dim=0):
    return np.split(x, np.cumsum(sizes)[:-1], dim)


def parts(x, size, dim=0):
    n = x.shape[dim]
    return pieces(x, size if isinstance(size, list) else [min(size, n - at) for at in range(0, n, size)] or [0], dim)


def chunks(x, count, dim=0):
    return parts(x, -(-x.shape[dim] // count) if x.shape[dim] else [0] * count, dim)


def padded(x, widths, mode="constant", value=0):
    pairs = [(0, 0)] * (x.ndim - len(widths) // 2) + [*zip(widths[0::2], widths[1::2], strict=True)][::-1]
    cut = x[tuple(slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip(pairs, x.shape, strict=True))]
    added = [(max(0, a), max(0, b)) for a, b in pairs]
    if mode == "constant":
        return np.pad(cut, added, constant_values=value)
    return np.pad(x, added, {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])


RESHAPING = (
    Op(
        "reshape",
        {
            "sizes": S(F(6), (2, 3)),
            "inferred": S(F(2, 3, 4), (3, -1)),
            "inferred_empty": S(F(0, 3), (-1, 3)),
            "flat_empty": S(F(0), (-1,)),
            "scalar": S(F(), (1, 1)),
            "to_scalar": S(F(1), ()),
            "odd": S(F(7), (-1, 1)),
        }
        | each((2, 6)),
        ref=np.reshape,
        errors=(
            Wrong(S(F(2, 3), 4), ShapeError, r"reshape: \(2, 3\) to \(4,\): got 6 elements; needed the same number of"),
            Wrong(
                S(F(2, 3), -1, -1),
                ShapeError,
                r"reshape: \(2, 3\) to \(-1, -1\): got 6 elements; needed .* at most one -1",
            ),
            Wrong(S(F(0, 3), 0, -1), ShapeError, r"reshape: \(0, 3\) to \(0, -1\)"),
            Wrong(S(F(2, 3), -2, -3), ShapeError, r"reshape: \(2, 3\) to \(-2, -3\)"),
            Wrong(
                S(F(2, 3), 2.0, 3), DTypeError, r"reshape: got 2.0, 3; needed whole numbers, one by one or as one seq"
            ),
        ),
    ),
    Op(
        "flatten",
        {
            "scalar": S(F()),
            "vector": S(F(7)),
            "all": S(F(2, 3, 4)),
            "tail": S(F(2, 3, 4), 1),
            "middle": S(F(2, 3, 4, 5), 1, 2),
            "empty": S(F(2, 0, 3), 1),
        }
        | each(),
        ref=lambda x, a=0, b=-1: (
            x.reshape(*x.shape[:a], math.prod(x.shape[a : b % x.ndim + 1]), *x.shape[b % x.ndim + 1 :])
            if x.ndim
            else x.reshape(1)
        ),
        errors=(
            Wrong(S(F(2, 3), 1, 0), ShapeError, "flatten: got start_dim 1, end_dim 0; needed start before end"),
            AXIS,
        ),
    ),
    Op("ravel", unary(), ref=np.ravel),
    Op(
        "unflatten",
        {
            "first": S(F(6, 2), 0, (2, 3)),
            "last": S(F(2, 6), -1, (3, 2)),
            "inferred": S(F(2, 6), 1, (-1, 2)),
            "one": S(F(1), 0, (1, 1)),
            "empty": S(F(0, 2), 0, (0, 3)),
            "to_itself": S(F(7), 0, (7,)),
        },
        ref=lambda x, d, s: x.reshape(*x.shape[: d % x.ndim], *s, *x.shape[d % x.ndim + 1 :]),
        errors=(Wrong(S(F(6), 0, (4, 2)), ShapeError, r"unflatten: \(6,\) to \(4, 2\): got 6 elements"),),
    ),
    Op(
        "squeeze",
        {
            "all": S(F(1, 3, 1)),
            "one_axis": S(F(1, 3, 1), 0),
            "other_size": S(F(2, 3), 0),
            "several": S(F(1, 3, 1, 1), (0, -1)),
            "scalar": S(F(), 0),
            "empty": S(F(1, 0)),
            "nothing": S(F(7)),
        },
        ref=lambda x, d=None: np.squeeze(x, None if d is None else tuple(a for a in axes_of(x, d) if x.shape[a] == 1)),
        errors=(AXIS,),
    ),
    Op(
        "unsqueeze",
        {
            "scalar": S(F(), 0),
            "first": S(F(7), 0),
            "last": S(F(2, 3), -1),
            "middle": S(F(2, 3), 1),
            "empty": S(F(0), 1),
            "one": S(F(1), -2),
        }
        | each(1),
        ref=np.expand_dims,
        errors=(Wrong(S(F(2), 3), IndexError, "unsqueeze: axis 3"),),
    ),
    Op(
        "broadcast_to",
        {
            "scalar": S(F(), (2, 3)),
            "new_axis": S(F(3), (2, 3)),
            "stretched": S(F(2, 1), (2, 4)),
            "same": S(F(7), (7,)),
            "empty": S(F(1), (0,)),
            "one": S(F(1), (1, 1)),
        }
        | each((2, 4, 3)),
        ref=np.broadcast_to,
        errors=(
            Wrong(S(F(3), (4,)), ShapeError, r"broadcast: shapes \(3,\) and \(4,\) do not broadcast"),
            Wrong(S(F(3), (-1, 3)), ShapeError, r"expand: \(3,\) to \(-1, 3\): needed a size for each axis"),
            Wrong(S(F(2, 3), (3,)), ShapeError, r"expand: \(2, 3\) to \(3,\): needed a size for each axis"),
        ),
    ),
)


def axes_of(x, dims):
    return [d % x.ndim for d in np.atleast_1d(dims)] if x.ndim else []


REORDERING = (
    Op(
        "permute",
        {
            "scalar": S(F(), ()),
            "vector": S(F(7), (0,)),
            "three": S(F(2, 3, 4), (2, 0, 1)),
            "negative": S(F(2, 3, 4), (-1, 0, 1)),
            "empty": S(F(0, 3), (1, 0)),
            "one": S(F(1, 1), (1, 0)),
        }
        | each((1, 0)),
        ref=np.transpose,
        errors=(Wrong(S(F(2, 3), (0, 0)), ShapeError, r"transpose: axes: got \(0, 0\); needed each of the 2 axes"),),
    ),
    Op(
        "transpose",
        {
            "matrix": S(F(3, 5), 0, 1),
            "negative": S(F(2, 3, 4), -1, 0),
            "itself": S(F(7), 0, 0),
            "scalar": S(F(), 0, -1),
            "empty": S(F(0, 3), 0, 1),
            "one": S(F(1, 1), 0, 1),
        }
        | each(0, 1),
        ref=lambda x, a, b: np.swapaxes(x, a, b) if x.ndim else x,
        errors=(Wrong(S(F(2, 3), 0, 2), IndexError, "transpose: axis 2"),),
    ),
    Op(
        "t",
        {"scalar": S(F()), "vector": S(F(7)), "matrix": S(F(3, 5)), "empty": S(F(0, 3)), "one": S(F(1, 1))} | each(),
        ref=np.transpose,
        errors=(Wrong(S(F(2, 3, 4)), ShapeError, r"t\(\): got 3 dimensions; needed at most 2"),),
    ),
    Op(
        "movedim",
        {
            "forward": S(F(2, 3, 4), 0, 2),
            "back": S(F(2, 3, 4), -1, 0),
            "several": S(F(2, 3, 4, 5), (0, 2), (3, 0)),
            "itself": S(F(7), 0, 0),
            "empty": S(F(0, 3), 0, 1),
            "one": S(F(1, 1), 0, 1),
        }
        | each(0, 1),
        ref=np.moveaxis,
        errors=(
            Wrong(S(F(2, 3), (0, 1), 0), ShapeError, r"movedim: got \(0, 1\) to 0; needed as many places as axes"),
        ),
    ),
    Op(
        "flip",
        {
            "vector": S(F(7), (0,)),
            "both": S(F(3, 5), (0, 1)),
            "negative": S(F(3, 5), (-1,)),
            "empty": S(F(0, 3), (0,)),
            "one": S(F(1), (0,)),
            "middle": S(F(2, 3, 4), (1,)),
        }
        | each((0,)),
        ref=np.flip,
        errors=(AXIS,),
    ),
    Op(
        "roll",
        {
            "vector": S(F(7), 2, 0),
            "back": S(F(7), -3, 0),
            "around": S(F(3, 5), 12, 1),
            "nothing": S(F(5), 0, 0),
            "flat": S(F(3, 4), 5),
            "several": S(F(3, 4), (1, -1), (0, 1)),
            "empty": S(F(0), 1, 0),
        }
        | each(1, 0),
        ref=np.roll,
        errors=(
            Wrong(S(F(3), (1, 2), 0), ShapeError, r"roll: got shifts \(1, 2\) and dims 0; needed as many of one as"),
        ),
    ),
    Op(
        "tril",
        {
            "square": S(F(4, 4)),
            "above": S(F(3, 5), 1),
            "below": S(F(5, 3), -2),
            "batch": S(F(2, 3, 3)),
            "empty": S(F(0, 3)),
            "one": S(F(1, 1)),
            "bools": S(B(3, 4)),
        }
        | each(),
        ref=np.tril,
        errors=(Wrong(S(F(3)), ShapeError, r"tril: got shape \(3,\); needed at least two dimensions"),),
    ),
    Op(
        "triu",
        {
            "square": S(F(4, 4)),
            "above": S(F(3, 5), 1),
            "below": S(F(5, 3), -2),
            "batch": S(F(2, 3, 3)),
            "empty": S(F(0, 3)),
            "bools": S(B(3, 4)),
            "special": S(V(math.inf, math.nan, math.inf, 1.0, shape=(2, 2)), smooth=False),
        }
        | each(),
        ref=np.triu,
        errors=(Wrong(S(F()), ShapeError, r"triu: got shape \(\); needed at least two dimensions"),),
    ),
    Op("clone", unary(), ref=np.copy),
)

LAYOUTS = ("columns", "backwards", "gaps")


def wide(layout):
    return F(4, 3, layout=layout)


LISTS = {
    "vectors": S([F(3), F(4), F(1)]),
    "matrices": S([F(2, 3), F(1, 3)]),
    "single": S([F(7)]),
    "empty": S([F(0), F(0)]),
    "mixed_types": S([F(2), I(3)]),
    "layouts": S([F(4, 3, layout="columns"), F(2, 3, layout="backwards")]),
}
JOINS = (
    Op(
        "cat",
        LISTS
        | {
            "last": S([F(2, 3), F(2, 2)], -1),
            "nothing_skipped": S([V(), F(2, 3)]),
            "middle": S([F(2, 1, 3), F(2, 2, 3)], dim=1),
        },
        ref=lambda xs, dim=0: np.concatenate([x for x in xs if x.shape != (0,)] or xs[:1], dim),
        errors=(
            Wrong(S([]), ShapeError, "cat: got no tensors; needed at least one"),
            Wrong(
                S([F(2, 3), F(2, 4)]),
                ShapeError,
                r"cat: shapes \(2, 3\) and \(2, 4\): needed equal sizes on all axes but 0",
            ),
            Wrong(S([F(2), F(2, 4)]), ShapeError, r"cat: shapes \(2,\) and \(2, 4\)"),
            Wrong(
                S([F(), F()]),
                ShapeError,
                "cat: got a 0-d tensor; needed at least one dimension. Hint: stack makes a new",
            ),
            Wrong(S([F(2)], 1), IndexError, "cat: axis 1"),
        ),
    ),
    Op(
        "stack",
        {
            "scalars": S([F(), F(), F()]),
            "vectors": S([F(3), F(3)]),
            "last": S([F(3), F(3)], -1),
            "middle": S([F(2, 3), F(2, 3)], 1),
            "single": S([F(7)]),
            "empty": S([F(0), F(0)]),
            "mixed_types": S([F(2), I(2)]),
        },
        ref=lambda xs, dim=0: np.stack(xs, dim),
        errors=(
            Wrong(S([]), ShapeError, "stack: got no tensors; needed at least one"),
            Wrong(S([F(2), F(3)]), ShapeError, r"stack: got \(2,\) and \(3,\); needed equal shapes"),
        ),
    ),
    Op("vstack", LISTS | {"vectors": S([F(3), F(3)]), "mixed_types": S([F(2, 3), I(3)])}, ref=np.vstack),
    Op("hstack", LISTS | {"matrices": S([F(2, 3), F(2, 1)]), "layouts": S([*map(wide, LAYOUTS)])}, ref=np.hstack),
    Op(
        "narrow",
        {
            "first": S(F(7), 0, 0, 3),
            "inner": S(F(3, 5), 1, 2, 2),
            "from_end": S(F(7), 0, -3, 2),
            "nothing": S(F(4), 0, 4, 0),
            "all": S(F(4), 0, 0, 4),
            "empty": S(F(0), 0, 0, 0),
        }
        | each(0, 1, 2),
        ref=lambda x, d, a, n: np.take(
            x, range(a % max(x.shape[d], 1) if a < 0 else a, (a % x.shape[d] if a < 0 else a) + n), d
        ),
        errors=(
            Wrong(S(F(5), 0, 3, 4), ShapeError, "narrow: got 4 elements from 3; needed a range inside an axis of 5"),
            Wrong(S(F(5), 0, -6, 1), ShapeError, "narrow: got 1 elements from -6"),
            Wrong(S(F(5), 0, 3, -1), ShapeError, "narrow: got -1 elements from 3"),
            Wrong(S(F(), 0, 0, 1), IndexError, "narrow: axis 0: needed an axis of a tensor with 0 dimensions"),
        ),
    ),
    Op(
        "split",
        {
            "even": S(F(6), 2),
            "rest": S(F(7), 3),
            "sections": S(F(7), [2, 0, 5]),
            "columns_of": S(F(2, 5), 2, 1),
            "larger": S(F(3), 9),
            "empty": S(F(0, 2), 2),
        },
        ref=parts,
        errors=(
            Wrong(S(F(5), [2, 2]), ShapeError, r"split: sizes: got \[2, 2\] \(sum 4\); needed a sum of 5"),
            Wrong(S(F(5), 0), ShapeError, "split: size: got 0; needed at least 1"),
        ),
    ),
    Op(
        "chunk",
        {
            "even": S(F(6), 3),
            "rest": S(F(7), 3),
            "fewer": S(F(5), 4),
            "columns_of": S(F(2, 5), 2, 1),
            "more": S(F(3), 9),
            "empty": S(F(0), 3),
        },
        ref=chunks,
        errors=(Wrong(S(F(5), 0), ShapeError, "chunk: chunks: got 0; needed at least 1"),),
    ),
    Op(
        "unbind",
        {
            "vector": S(F(7)),
            "rows": S(F(3, 5)),
            "last": S(F(3, 5), -1),
            "middle": S(F(2, 3, 4), 1),
            "one": S(F(1, 2)),
            "no_columns": S(F(2, 0)),
        },
        ref=lambda x, d=0: list(np.moveaxis(x, d, 0)),
        errors=(Wrong(S(F()), IndexError, "unbind: axis 0: needed an axis of a tensor with 0 dimensions"),),
    ),
    Op(
        "tile",
        {
            "vector": S(F(3), (2,)),
            "new_axis": S(F(3), (2, 2)),
            "fewer": S(F(2, 3), (2,)),
            "none": S(F(3), (0,)),
            "scalar": S(F(), (3,)),
            "empty": S(F(0, 2), (2, 2)),
        }
        | each((2, 3)),
        ref=np.tile,
        errors=(Wrong(S(F(3), (-1,)), ShapeError, r"tile: got \(-1,\); needed repetitions of at least 0"),),
    ),
    Op(
        "repeat_interleave",
        {
            "vector": S(F(3), 2, 0),
            "flat": S(F(2, 3), 2),
            "last": S(F(2, 3), 3, -1),
            "none": S(F(3), 0, 0),
            "scalar": S(F(), 3),
            "empty": S(F(0, 2), 2, 0),
        }
        | each(2, 1),
        ref=np.repeat,
        errors=(Wrong(S(F(3), -1, 0), ShapeError, "repeat_interleave: repeats: got -1; needed at least 0"),),
    ),
    Op(
        "pad",
        {
            "ends": S(F(7), (2, 1)),
            "two_axes": S(F(2, 3), (1, 0, 0, 2)),
            "last_only": S(F(2, 3), (1, 1)),
            "cropped": S(F(7), (-2, 3)),
            "value": S(F(3), (1, 1), value=-1.5),
            "value_cropped": S(F(2, 5), (-1, 1, 1, 0), value=2.0),
            "inf": S(F(3), (1, 1), value=math.inf, smooth=False),
            "empty": S(F(0), (1, 1)),
            "nothing": S(F(3), ()),
            "integers": S(I(3), (1, 0), value=7),
            "reflect": S(F(2, 4), (3, 1), "reflect"),
            "replicate": S(F(2, 3), (1, 4), "replicate"),
            "circular": S(F(2, 3), (0, 3), "circular"),
            "circular_integers": S(I(1, 3), (2, 1), "circular"),
        }
        | each((1, 2)),
        ref=padded,
        torch=lambda x, widths, mode="constant", value=None: torch.nn.functional.pad(x, widths, mode, value),
        errors=(
            Wrong(S(F(3), (1,)), ShapeError, "pad: got 1 widths; needed pairs for at most 1 axes"),
            Wrong(
                S(F(3), (-2, -2)), ShapeError, r"pad: got widths \(-2, -2\) for shape \(3,\); needed no more cropped"
            ),
            Wrong(
                S(F(3), (1, 1), "mirror"), ConfigError, "pad: mode: got 'mirror'; needed one of 'constant', 'reflect'"
            ),
            Wrong(
                S(F(3), (3, 1), "reflect"), ShapeError, "reflect: got widths 3 and 1 for an axis of 3; needed at most"
            ),
            Wrong(S(F(0), (1, 1), "replicate"), ShapeError, "pad: replicate: got widths 1 and 1 for an axis of 0"),
        ),
    ),
)

ROWS = (*RESHAPING, *REORDERING, *JOINS)
