"""The rewrite rules about images: as `table_simplify.py`; of views only windows and padding are listed."""

from __future__ import annotations

from tests.table_simplify import Case, Maker


def columns(m: Maker, x: int, size: int = 3, stride: int = 1) -> int:
    """The windows of (B, C, H, W) as columns (C·k·k, B·H'·W')."""
    seen = m.windows(x, size=(size, size), stride=(stride, stride), dilation=(1, 1))
    b, c, p, q, *_ = m.types[seen].shape
    turned = m.transpose(seen, axes=(1, 4, 5, 0, 2, 3))
    return m.reshape(turned, shape=(c * size * size, b * p * q))


def convolution(m: Maker, batch: int = 16) -> int:
    """(B, 2, 4, 5) → (B, 3, 2, 3)."""
    out = m.matmul(m.arg(3, 18), columns(m, m.arg(batch, 2, 4, 5)))
    return m.transpose(m.reshape(out, shape=(3, batch, 2, 3)), axes=(1, 0, 2, 3))


def folded(m: Maker, stride: int = 1, once: bool = True, batch: int = 16) -> tuple[int, ...]:
    """What a convolution of (B, 2, 5, 7) gives back: the fold of a product."""
    p, q = (5 - 3) // stride + 1, (7 - 3) // stride + 1
    product = m.matmul(m.arg(18, 3), m.arg(3, batch * p * q))
    spread = m.transpose(m.reshape(product, shape=(2, 3, 3, batch, p, q)), axes=(3, 0, 4, 5, 1, 2))
    out = m.fold(spread, output=(5, 7), size=(3, 3), stride=(stride, stride), dilation=(1, 1))
    return (out,) if once else (out, product)


def inner(m: Maker, x: int) -> int:
    """Without the outermost pixels."""
    b, c, h, w = m.types[x].shape
    return m.slice(x, start=(0, 0, 1, 1), stop=(b, c, h - 1, w - 1), step=(1, 1, 1, 1))


def either(m: Maker, swapped: bool = False) -> int:
    """What the larger of two neighbours gives back."""
    c, y, none = m.arg(4, 1, 3, dtype="?"), m.arg(4, 1, 3), m.const(0.0)
    pieces = [m.where(c, none, y), m.where(c, y, none)]
    return m.concatenate(*(pieces[::-1] if swapped else pieces), axis=1)


def either_padded(m: Maker) -> int:
    """The same as a sum of pads, as it comes from two slices."""
    c, y, none = m.arg(4, 1, 3, dtype="?"), m.arg(4, 1, 3), m.const(0.0)
    first = m.pad(m.where(c, none, y), low=(0, 0, 0), high=(0, 1, 0), interior=(0, 0, 0))
    return m.add(first, m.pad(m.where(c, y, none), low=(0, 1, 0), high=(0, 0, 0), interior=(0, 0, 0)))


def zeros(m: Maker) -> tuple[int, int]:
    """The gradient of a maximum of maxima; and a product, without which nobody looks."""
    inner = m.reshape(m.add(m.arg(12, 3), m.const(0.0)), shape=(4, 9))
    return m.add(m.where(m.arg(4, 9, dtype="?"), inner, m.const(0.0)), m.const(0.0)), m.matmul(m.arg(2, 3), m.arg(3, 2))


TWO = {"size": (2, 2), "stride": (1, 1), "dilation": (1, 1)}
SUNK = {"batch_last", "turned_again", "turned_reshape", "reshape_again"}
IMAGES: dict[str, Case] = {
    "a convolution": (convolution, "matmul windows", SUNK),
    "a convolution of few examples": (
        lambda m: convolution(m, 1),
        "matmul windows",
        {"reshape_again", "transpose_again"},
    ),
    "what follows a convolution": (
        lambda m: m.relu(m.add(convolution(m), m.arg(3, 1, 1))),
        "add matmul relu windows",
        SUNK | {"transpose_again", "turned_elements"},
    ),
    "an image beside it": (
        lambda m: m.add(m.arg(16, 3, 2, 3), convolution(m)),
        "add matmul windows",
        SUNK | {"turned_elements"},
    ),
    "the mean of each channel": (
        lambda m: m.sum(convolution(m), axes=(0, 2, 3), keepdims=True),
        "matmul sum windows",
        SUNK | {"transpose_again", "turned_reduction"},
    ),
    "rows of a convolution": (
        lambda m: m.amax(convolution(m), axes=(3,), keepdims=False),
        "amax matmul windows",
        SUNK | {"turned_reduction"},
    ),
    "padding and parts": (
        lambda m: inner(m, m.pad(convolution(m), low=(0, 0, 1, 2), high=(0, 0, 2, 1), interior=(0, 0, 1, 0))),
        "matmul pad slice windows",
        SUNK | {"turned_part"},
    ),
    "joined": (
        lambda m: m.concatenate(convolution(m), m.arg(16, 1, 2, 3), axis=1),
        "concatenate matmul windows",
        SUNK | {"turned_parts"},
    ),
    "repeated": (
        lambda m: m.neg(m.broadcast(m.amax(convolution(m), axes=(3,), keepdims=True), shape=(16, 3, 2, 5))),
        "amax broadcast matmul neg windows",
        SUNK | {"turned_broadcast", "turned_reduction", "turned_elements", "broadcast_last"},
    ),
    "repeated beside it": (
        lambda m: m.mul(convolution(m), m.broadcast(m.arg(16, 3, 1, 1), shape=(16, 3, 2, 3))),
        "matmul mul windows",
        SUNK | {"broadcast_last", "turned_elements"},
    ),
    "columns of pixels that are chosen": (
        lambda m: m.gather(m.transpose(convolution(m), axes=(3, 0, 1, 2)), m.const([2, 0, 0, 1], "i8")),
        "gather matmul windows",
        SUNK | {"turned_gather", "transpose_again"},
    ),
    "rows of pixels that are placed": (
        lambda m: m.scatter_add(
            m.transpose(convolution(m), axes=(2, 3, 0, 1)), m.const([3, 1], "i8"), shape=(4, 3, 16, 3)
        ),
        "matmul scatter_add windows",
        SUNK | {"turned_scatter", "transpose_again"},
    ),
    "sums of windows": (
        lambda m: m.sum(m.windows(convolution(m), **TWO), axes=(4, 5), keepdims=False),
        "matmul sum windows windows",
        SUNK | {"turned_windows", "turned_reduction"},
    ),
    "some of the windows": (
        lambda m: m.slice(m.windows(convolution(m), **TWO), start=(0,) * 6, stop=(16, 3, 1, 1, 2, 2), step=(1,) * 6),
        "matmul slice windows windows",
        SUNK | {"turned_windows", "turned_part"},
    ),
    "what sums of windows give back": (
        lambda m: m.fold(
            m.broadcast(m.reshape(convolution(m), shape=(16, 3, 2, 3, 1, 1)), shape=(16, 3, 2, 3, 2, 2)),
            output=(3, 4),
            **TWO,
        ),
        "broadcast fold matmul windows",
        SUNK | {"turned_broadcast", "turned_fold"},
    ),
    "flattened": (lambda m: m.reshape(convolution(m), shape=(16, 18)), "matmul windows", SUNK),
    "flattened with the batch": (lambda m: m.reshape(convolution(m), shape=(48, 6)), "matmul windows", SUNK),
    "cut into pieces": (lambda m: m.reshape(convolution(m), shape=(16, 1, 3, 2, 1, 3)), "matmul windows", SUNK),
    "two convolutions": (
        lambda m: (lambda y: m.matmul(m.arg(2, 12), columns(m, y, 2)))(convolution(m)),
        "matmul matmul windows windows",
        SUNK | {"transpose_again"},
    ),
    "the gradient of a convolution's weight": (
        lambda m: m.matmul(m.arg(3, 96), m.transpose(columns(m, m.arg(16, 2, 4, 5)), axes=(1, 0))),
        "matmul windows",
        {"batch_last"},
    ),
    "the gradient of maxima of two": (either, "eq where", {"either_place"}),
    "the gradient of maxima of two slices": (either_padded, "add eq where", {"either_place", "tiled_pads"}),
    "of two that are chosen otherwise": (lambda m: either(m, swapped=True), "concatenate where where", set()),
    "zeros added twice": (zeros, "add matmul where", {"zero_again"}),
    "windows on the left": (
        lambda m: m.matmul(columns(m, m.arg(1, 2, 4, 5)), m.arg(6, 3)),
        "matmul windows",
        {"windows_right"},
    ),
    "the gradient of a layer after a convolution": (
        lambda m: (
            lambda y: (
                m.relu(y),
                m.where(
                    m.le(y, m.const(0.0)),
                    m.const(0.0),
                    m.reshape(m.matmul(m.arg(16, 4), m.arg(4, 18)), shape=(16, 3, 2, 3)),
                ),
            )
        )(convolution(m)),
        "le matmul matmul relu where windows",
        SUNK | {"turned_elements", "turned_product"},
    ),
    "what is left of a mean": (
        lambda m: (
            lambda y: m.mul(
                y, m.abs(m.mul(m.reshape(m.matmul(m.arg(16, 4), m.arg(4, 18)), shape=(16, 3, 2, 3)), m.const(0.5)))
            )
        )(convolution(m)),
        "abs matmul matmul mul mul windows",
        SUNK | {"turned_elements", "turned_product", "scaled_product"},
    ),
    "the gradient of a convolution's input": (folded, "flip matmul pad windows", SUNK | {"fold_of_product"}),
    "that of strides": (lambda m: folded(m, 2), "flip matmul pad windows", SUNK | {"fold_of_product"}),
    "of strides and few examples": (lambda m: folded(m, 2, batch=2), "fold matmul", set()),
    "a product that is used otherwise": (lambda m: folded(m, once=False), "fold matmul", set()),
    "the gradient of what was padded": (
        lambda m: inner(m, *folded(m)),
        "flip matmul pad windows",
        SUNK | {"fold_of_product", "slice_of_fold"},
    ),
}
