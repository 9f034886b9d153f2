"""Deep products: aᵀ·b over very many rows, as the gradients of weights are over sequences, in stretches of k.

For each stretch, what it takes of both sides is first copied, in the order in which it lies in memory, to where it
stays in the second cache while all tiles go through it; the sums of all tiles lie in memory meanwhile. So either side
comes from far away once, at the speed of a copy, and is not read again for every tile of the other. The chain of each
element is that of any other product, in the order of k.

Source: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008 (its loops 3 and 4).
"""

from __future__ import annotations

from slalom.compiler.gemm import Emitter, Epilogue, Lines, Operands, Product, Stretch
from slalom.compiler.ir import LANES, PTR, Builder, Value


def emit(b: Builder, product: Product, operands: Operands, epilogue: Epilogue, *, direct: bool = True) -> None:
    """Write the kernel; its range counts column tiles. ``direct`` as in ``gemm.emit``."""
    with b.when(b.compare("slt", b.begin, b.end)):
        _Deep(b, product, operands, epilogue, direct).runs()


class _Deep(Emitter):
    def runs(self) -> None:
        """All stretches, one after the other, of the column tiles of the range."""
        b, product = self.b, self.product
        most, size = b.number(product.depth), b.number(product.depth * product.columns)
        a_step, self.a_k, self.kept = self.a_k, b.number(LANES), self.word("kept", PTR)
        # Each range has a copy of A of its own, that of its first column tile.
        a_copy = b.offset(self.word("a_copy", PTR), b.mul(b.begin, self.word("a_apart")), self.scalar)
        tiles = b.binary("udiv", b.add(self.m, b.number(product.rows - 1)), b.number(product.rows))
        depth = b.variable(b.number(0))
        with b.repeat_while() as again:
            done = depth.get()
            rest = b.sub(self.k, done)
            stretch = Stretch(done, b.intrinsic("smin", rest, most), b.compare("sgt", rest, most))
            with b.loop(0, stretch.length) as k:
                at = b.add(done, k)
                row = b.offset(self.word("a", PTR), b.mul(at, a_step), self.scalar)
                self.copy_row(row, b.offset(a_copy, b.mul(k, b.number(LANES)), self.scalar))
                line = b.offset(self.word("b", PTR), b.mul(at, self.b_row), self.scalar)
                with b.loop(b.begin, b.end) as panel:
                    self.copy_lines(line, panel, b.add(b.mul(panel, size), b.mul(k, b.number(product.columns))))
            with b.loop(b.begin, b.end) as panel:
                n = b.mul(panel, b.number(product.columns))
                masks = self.masks(b.sub(self.n, n))
                first = b.offset(self.word("b_copy", PTR), b.mul(panel, size), self.scalar)
                with b.loop(0, tiles) as i:
                    m = b.mul(i, b.number(product.rows))
                    number = b.add(b.mul(panel, tiles), i)
                    kept = b.mul(number, b.number(product.rows * product.vectors))
                    lines = Lines(first, b.number(product.columns))
                    self.piece(((), m, n), self.row_addresses(a_copy, i, m), lines, stretch, kept, masks)
            depth.set(b.hidden(b.add(done, most)))
            again.append(stretch.later)

    def copy_row(self, row: Value, target: Value) -> None:
        """One k of A, vector by vector: those of all k of a stretch lie one after the other."""
        b = self.b
        with b.loop(0, self.m, LANES) as at:
            found = b.load_masked(self.vector, b.offset(row, at, self.scalar), b.lanes_below(b.sub(self.m, at)))
            b.store(found, b.offset(target, b.mul(at, b.number(self.product.depth)), self.scalar), 64)

    def row_addresses(self, a: Value, i: Value, m: Value) -> list[Value]:
        b = self.b
        last = b.sub(self.m, b.number(1))
        found = []
        for r in range(self.product.rows):
            row = b.intrinsic("smin", b.add(m, b.number(r)), last)
            lane = b.binary("and", row, b.number(LANES - 1))
            place = b.add(b.mul(b.sub(row, lane), b.number(self.product.depth)), lane)
            found.append(b.offset(a, place, self.scalar))
        return found

    def copy_lines(self, line: Value, panel: Value, place: Value) -> None:
        """One k of a column tile of B, with zeros to its right."""
        b = self.b
        n = b.mul(panel, b.number(self.product.columns))
        target = b.offset(self.word("b_copy", PTR), place, self.scalar)
        for v, mask in enumerate(self.masks(b.sub(self.n, n))):
            source = b.offset(line, b.add(n, b.number(v * LANES)), self.scalar)
            b.store(b.load_masked(self.vector, source, mask), b.offset(target, v * LANES, self.scalar), 64)
