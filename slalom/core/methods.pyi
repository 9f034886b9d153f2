"""The methods that are attached to Tensor where they are defined.

Written by tools/make_stub.py; do not edit.
"""
# fmt: off

from builtins import bool as _bool
from builtins import float as _float
from builtins import int as _int
from collections.abc import Sequence
from typing import Any, Unpack

from slalom.core.functional.reduce import Dim, NumpyNames, ValuesIndices
from slalom.core.functional.shaping import device
from slalom.core.random import Generator
from slalom.core.tensor import Tensor

class Methods:
    @property
    def T(self) -> Tensor:
        """Axes in reverse order; of a matrix, the transpose."""
    def __abs__(self) -> Tensor: ...
    def __add__(self, other: Any) -> Tensor: ...
    def __and__(self, other: Any) -> Tensor: ...
    def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
    def __floordiv__(self, other: Any) -> Tensor: ...
    def __ge__(self, other: Any) -> Tensor: ...
    def __getitem__(self, key: Any) -> Tensor: ...
    def __gt__(self, other: Any) -> Tensor: ...
    def __iadd__(self, other: Any) -> Tensor: ...
    def __iand__(self, other: Any) -> Tensor: ...
    def __ifloordiv__(self, other: Any) -> Tensor: ...
    def __imatmul__(self, other: Any) -> Tensor: ...
    def __imod__(self, other: Any) -> Tensor: ...
    def __imul__(self, other: Any) -> Tensor: ...
    def __invert__(self) -> Tensor: ...
    def __ior__(self, other: Any) -> Tensor: ...
    def __ipow__(self, exponent: Any) -> Tensor: ...
    def __isub__(self, other: Any) -> Tensor: ...
    def __itruediv__(self, other: Any, *, rounding_mode: str | None = None) -> Tensor: ...
    def __le__(self, other: Any) -> Tensor: ...
    def __lt__(self, other: Any) -> Tensor: ...
    def __matmul__(self, other: Any) -> Tensor: ...
    def __mod__(self, other: Any) -> Tensor: ...
    def __mul__(self, other: Any) -> Tensor: ...
    def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
    def __neg__(self) -> Tensor: ...
    def __or__(self, other: Any) -> Tensor: ...
    def __pos__(self) -> Tensor: ...
    def __pow__(self, other: Any) -> Tensor: ...
    def __radd__(self, other: Any) -> Tensor: ...
    def __rand__(self, other: Any) -> Tensor: ...
    def __rfloordiv__(self, other: Any) -> Tensor: ...
    def __rmatmul__(self, other: Any) -> Tensor: ...
    def __rmod__(self, other: Any) -> Tensor: ...
    def __rmul__(self, other: Any) -> Tensor: ...
    def __ror__(self, other: Any) -> Tensor: ...
    def __rpow__(self, other: Any) -> Tensor: ...
    def __rshift__(self, other: Any) -> Tensor: ...
    def __rsub__(self, other: Any) -> Tensor: ...
    def __rtruediv__(self, other: Any) -> Tensor: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    def __sub__(self, other: Any) -> Tensor: ...
    def __truediv__(self, other: Any) -> Tensor: ...
    def _concatenate(self, rest: Sequence[Tensor], dim: _int) -> Tensor: ...
    def abs(self) -> Tensor:
        """|x|; derivative 0 at 0, elementwise."""
    def abs_(self) -> Tensor: ...
    def absolute(self) -> Tensor:
        """|x|; derivative 0 at 0, elementwise."""
    def add(self, other: Any, *, alpha: _float = 1) -> Tensor:
        """input + alpha · other."""
    def add_(self, other: Any, *, alpha: _float = 1) -> Tensor: ...
    def addcdiv_(self, tensor1: Tensor, tensor2: Tensor, *, value: _float = 1) -> Tensor: ...
    def addcmul_(self, tensor1: Tensor, tensor2: Tensor, *, value: _float = 1) -> Tensor: ...
    def all(self, dim: Dim = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Whether all values are true (nonzero)."""
    def amax(self, dim: Dim = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Maximum over axes; ties share the gradient evenly; NaN wins."""
    def amin(self, dim: Dim = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Minimum over axes; ties share the gradient evenly; NaN wins."""
    def any(self, dim: Dim = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Whether any value is true (nonzero)."""
    def argmax(self, dim: _int | None = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Where the first maximum is, along one axis or in the flattened tensor; NaN counts as the largest."""
    def argmin(self, dim: _int | None = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Where the first minimum is, along one axis or in the flattened tensor; NaN counts as the smallest."""
    def argsort(self, dim: _int = -1, descending: _bool = False, stable: _bool = True) -> Tensor:
        """The order that sorts an axis; always stable; NaN counts as the largest."""
    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: _bool | None = None,
        create_graph: _bool = False,
    ) -> None:
        """Add d self / d leaf to ``.grad`` of every leaf that requires gradients (times ``gradient``; default 1)."""
    def bernoulli_(self, p: _float = 0.5, *, generator: Generator | None = None) -> Tensor: ...
    def bmm(self, other: Any) -> Tensor:
        """Matrix product over the last axes; vectors and leading batch axes as in PyTorch and NumPy."""
    def bool(self) -> Tensor:
        """The same values as bool."""
    def broadcast_to(self, *sizes: Any) -> Tensor:
        """Axes of size 1 stretched, new ones on the left; −1 keeps a size."""
    def byte(self) -> Tensor:
        """The same values as uint8."""
    def ceil(self) -> Tensor:
        """⌈x⌉, without a derivative."""
    def ceil_(self) -> Tensor: ...
    def chunk(self, chunks: _int, dim: _int = 0) -> tuple[Tensor, ...]:
        """At most ``chunks`` pieces of equal size (the last may be smaller); of nothing, as many empty ones."""
    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Values below ``min`` become it, values above ``max`` become it; the gradient passes inside the bounds."""
    def clamp_(self, min: Any = None, max: Any = None) -> Tensor: ...
    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """Values below ``min`` become it, values above ``max`` become it; the gradient passes inside the bounds."""
    def clone(self) -> Tensor:
        """The same value in a buffer of its own (copied when either is written)."""
    def contiguous(self) -> Tensor:
        """The tensor itself: layout is not visible here."""
    def copy_(self, value: Any) -> Tensor: ...
    def cos(self) -> Tensor:
        """cos x, elementwise."""
    def cos_(self) -> Tensor: ...
    def cosh(self) -> Tensor:
        """cosh x = (eˣ + e⁻ˣ)/2."""
    def count_nonzero(self, dim: Dim = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """How many values are not 0."""
    def cpu(self) -> Tensor:
        """The tensor itself."""
    def cuda(self, *args: Any) -> Tensor:
        """Always an error: Slalom trains on the CPU."""
    def cumprod(self, dim: _int = 0, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Running products along an axis, by doubling (Hillis and Steele, 1986): right at zeros too."""
    def cumsum(self, dim: _int = 0, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Running sums along an axis; of integers and bools in int64."""
    @property
    def device(self) -> device:
        """Where the tensor lives: the CPU."""
    def dim(self) -> _int:
        """The number of axes."""
    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """input / other as floats; ``rounding_mode`` "floor" or "trunc" rounds the quotient, and keeps integers."""
    def div_(self, other: Any, *, rounding_mode: str | None = None) -> Tensor: ...
    def divide(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """input / other as floats; ``rounding_mode`` "floor" or "trunc" rounds the quotient, and keeps integers."""
    def dot(self, other: Tensor) -> Tensor:
        """Σᵢ xᵢyᵢ of two vectors."""
    def double(self) -> Tensor:
        """The same values as float64."""
    def element_size(self) -> _int:
        """Bytes of one element."""
    def eq(self, other: Any) -> Tensor:
        """input = other, elementwise."""
    def erf(self) -> Tensor:
        """2/√π ∫₀ˣ e^(−t²) dt, elementwise."""
    def erf_(self) -> Tensor: ...
    def exp(self) -> Tensor:
        """eˣ, elementwise."""
    def exp2(self) -> Tensor:
        """2ˣ, exact for whole x."""
    def exp_(self) -> Tensor: ...
    def expand(self, *sizes: Any) -> Tensor:
        """Axes of size 1 stretched, new ones on the left; −1 keeps a size."""
    def expand_as(self, other: Tensor) -> Tensor:
        """Expanded to the shape of another tensor."""
    def expm1(self) -> Tensor:
        """eˣ − 1, exact near 0, elementwise."""
    def expm1_(self) -> Tensor: ...
    def flatten(self, start_dim: _int = 0, end_dim: _int = -1) -> Tensor:
        """Axes ``start_dim`` to ``end_dim`` as one."""
    def flip(self, *dims: Any) -> Tensor:
        """Axes in reverse order."""
    def float(self) -> Tensor:
        """The same values as float32."""
    def floor(self) -> Tensor:
        """⌊x⌋, without a derivative."""
    def floor_(self) -> Tensor: ...
    def floor_divide(self, other: Any) -> Tensor:
        """⌊input / other⌋; integers stay integers."""
    def floor_divide_(self, other: Any) -> Tensor: ...
    def frac(self) -> Tensor:
        """The fraction x − trunc x."""
    def gather(self, dim: _int, index: Tensor) -> Tensor:
        """out[i, j] = input[index[i, j], j] (for dim 0), as in PyTorch: no broadcasting, no negative indices."""
    def ge(self, other: Any) -> Tensor:
        """input ≥ other, elementwise."""
    def gt(self, other: Any) -> Tensor:
        """input > other, elementwise."""
    def index_add_(self, dim: _int, index: Tensor, source: Tensor) -> Tensor: ...
    def index_select(self, dim: _int, index: Tensor) -> Tensor:
        """The given slices of one axis."""
    def int(self) -> Tensor:
        """The same values as int32."""
    @property
    def is_cuda(self) -> _bool:
        """False: Slalom trains on the CPU."""
    def is_floating_point(self) -> _bool:
        """Whether the dtype is float32 or float64."""
    def isfinite(self) -> Tensor:
        """Whether each value is neither infinite nor NaN."""
    def isinf(self) -> Tensor:
        """Whether each value is +∞ or −∞."""
    def isnan(self) -> Tensor:
        """Whether each value is NaN."""
    def le(self, other: Any) -> Tensor:
        """input ≤ other, elementwise."""
    def lerp(self, end: Any, weight: Any) -> Tensor:
        """input + weight · (end − input)."""
    def lerp_(self, end: Any, weight: Any) -> Tensor: ...
    def log(self) -> Tensor:
        """ln x, elementwise."""
    def log10(self) -> Tensor:
        """log₁₀ x."""
    def log1p(self) -> Tensor:
        """ln(1 + x), exact near 0, elementwise."""
    def log1p_(self) -> Tensor: ...
    def log2(self) -> Tensor:
        """log₂ x."""
    def log_(self) -> Tensor: ...
    def log_softmax(self, dim: _int | None = None, dtype: Any = None) -> Tensor:
        """ln softmax(x) = x − ln Σⱼ exp(xⱼ) along an axis, exact where softmax itself would underflow."""
    def logical_and(self, other: Any) -> Tensor:
        """Both are true (nonzero)."""
    def logical_not(self) -> Tensor:
        """Not true (zero)."""
    def logical_or(self, other: Any) -> Tensor:
        """Either is true (nonzero)."""
    def logical_xor(self, other: Any) -> Tensor:
        """Exactly one is true (nonzero)."""
    def logsumexp(self, dim: Dim = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """ln Σ eˣ over axes, computed from the maximum so that nothing overflows; −∞ of nothing."""
    def long(self) -> Tensor:
        """The same values as int64."""
    def lt(self, other: Any) -> Tensor:
        """input < other, elementwise."""
    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
    def masked_fill(self, mask: Tensor, value: Any) -> Tensor:
        """``value`` where the mask holds, else the input, in the dtype of the input."""
    def masked_fill_(self, mask: Tensor, value: Any) -> Tensor: ...
    def masked_select(self, mask: Tensor) -> Tensor:
        """The values where the mask holds, in one axis. Raises: StagingError while staging."""
    def matmul(self, other: Any) -> Tensor:
        """Matrix product over the last axes; vectors and leading batch axes as in PyTorch and NumPy."""
    def max(self, dim: Any = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Any:
        """The maximum of all elements; along ``dim``, (values, indices); with a tensor, elementwise."""
    def maximum(self, other: Any) -> Tensor:
        """The larger of two, elementwise; ties share the gradient; NaN wins."""
    def maximum_(self, other: Any) -> Tensor: ...
    def mean(
        self,
        dim: Dim = None,
        keepdim: _bool = False,
        *,
        dtype: Any = None,
        **numpy: Unpack[NumpyNames],
    ) -> Tensor:
        """Mean over axes (default: all); NaN of nothing."""
    def median(self, dim: _int | None = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Any:
        """The middle value, the lower of two; along ``dim``, (values, indices); NaN where there is a NaN."""
    def min(self, dim: Any = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Any:
        """The minimum of all elements; along ``dim``, (values, indices); with a tensor, elementwise."""
    def minimum(self, other: Any) -> Tensor:
        """The smaller of two, elementwise; ties share the gradient; NaN wins."""
    def minimum_(self, other: Any) -> Tensor: ...
    def mm(self, other: Any) -> Tensor:
        """Matrix product over the last axes; vectors and leading batch axes as in PyTorch and NumPy."""
    def movedim(self, source: _int | Sequence[_int], destination: _int | Sequence[_int]) -> Tensor:
        """Axes moved to other places; the rest keep their order."""
    def mul(self, other: Any) -> Tensor:
        """input · other."""
    def mul_(self, other: Any) -> Tensor: ...
    def multiply(self, other: Any) -> Tensor:
        """input · other."""
    def nan_to_num(self, nan: _float = 0.0, posinf: _float | None = None, neginf: _float | None = None) -> Tensor:
        """NaN, +∞ and −∞ replaced by numbers; the infinities by the largest and smallest of the dtype if not given."""
    def narrow(self, dim: _int, start: _int, length: _int) -> Tensor:
        """``length`` elements of one axis from ``start``."""
    def ne(self, other: Any) -> Tensor:
        """input ≠ other, elementwise."""
    def neg(self) -> Tensor:
        """−x, elementwise."""
    def neg_(self) -> Tensor: ...
    def negative(self) -> Tensor:
        """−x, elementwise."""
    def new_full(self, size: Any, fill_value: Any, dtype: Any = None) -> Tensor:
        """One value in a shape, in this tensor's dtype."""
    def new_ones(self, *size: Any, dtype: Any = None) -> Tensor:
        """Ones of a shape in this tensor's dtype."""
    def new_tensor(self, data: Any, dtype: Any = None) -> Tensor:
        """Data as a tensor of this tensor's dtype."""
    def new_zeros(self, *size: Any, dtype: Any = None) -> Tensor:
        """Zeros of a shape in this tensor's dtype."""
    def nonzero(self, as_tuple: _bool = False) -> Any:
        """Where the nonzero values are: one row an element, or one tensor an axis."""
    def norm(self, p: _float | str = 2, dim: Dim = None, keepdim: _bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
        """The p-norm (Σ|x|ᵖ)^(1/p) over axes, for p > 0, ∞ or "fro" (p = 2); derivative 0 at 0."""
    def normal_(self, mean: _float = 0.0, std: _float = 1.0, *, generator: Generator | None = None) -> Tensor: ...
    def numel(self) -> _int:
        """The number of elements."""
    def permute(self, *dims: Any) -> Tensor:
        """Axes in the given order."""
    def pow(self, exponent: Any) -> Tensor:
        """input ** exponent; small whole exponents are products."""
    def pow_(self, exponent: Any) -> Tensor: ...
    def prelu(self, weight: Tensor) -> Tensor:
        """x where x > 0, else w · x, with one learned w for all or one for each channel (axis 1)."""
    def prod(
        self,
        dim: Dim = None,
        keepdim: _bool = False,
        *,
        dtype: Any = None,
        **numpy: Unpack[NumpyNames],
    ) -> Tensor:
        """Product over axes, by halves: its gradient is right at zeros too; of integers and bools in int64."""
    def ravel(self) -> Tensor:
        """All elements in one axis."""
    def reciprocal(self) -> Tensor:
        """1 / x."""
    def reciprocal_(self) -> Tensor: ...
    def relu(self) -> Tensor:
        """max(x, 0); derivative 0 at 0, elementwise."""
    def relu_(self) -> Tensor: ...
    def remainder(self, other: Any) -> Tensor:
        """input − other·⌊input/other⌋: the sign is that of ``other``, as in Python."""
    def remainder_(self, other: Any) -> Tensor: ...
    def repeat(self, *dims: Any) -> Tensor:
        """Repeated along each axis the given number of times."""
    def repeat_interleave(self, repeats: _int, dim: _int | None = None) -> Tensor:
        """Each element of an axis repeated in place; without ``dim``, of all elements in one axis."""
    def requires_grad_(self, requires_grad: _bool = True) -> Tensor: ...
    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in row-major order under another shape; one size may be −1."""
    def retain_grad(self) -> None:
        """Keep ``.grad`` of this tensor too at backward, though it is not a leaf."""
    def roll(self, shifts: _int | Sequence[_int], dims: _int | Sequence[_int] | None = None) -> Tensor:
        """Axes rotated by ``shifts`` places; without ``dims``, all elements in row-major order."""
    def round(self, *, decimals: _int = 0) -> Tensor:
        """The nearest whole number (or multiple of 10^−decimals), without a derivative; halves go to the even one."""
    def round_(self, *, decimals: _int = 0) -> Tensor: ...
    def rsqrt(self) -> Tensor:
        """1 / √x."""
    def rsqrt_(self) -> Tensor: ...
    def scatter_add(self, dim: _int, index: Tensor, src: Tensor) -> Tensor:
        """input with ``src`` added at ``index`` along an axis (the transpose of gather); in index order."""
    def short(self) -> Tensor:
        """The same values as int16."""
    def sigmoid(self) -> Tensor:
        """1 / (1 + e⁻ˣ), elementwise."""
    def sigmoid_(self) -> Tensor: ...
    def sign(self) -> Tensor:
        """−1, 0 or 1, elementwise."""
    def sign_(self) -> Tensor: ...
    def sin(self) -> Tensor:
        """sin x, elementwise."""
    def sin_(self) -> Tensor: ...
    def sinh(self) -> Tensor:
        """sinh x = (eˣ − e⁻ˣ)/2, by eˣ − 1, which is exact near 0."""
    def size(self, dim: _int | None = None) -> Any:
        """The shape, or the size of one axis."""
    def softmax(self, dim: _int | None = None, dtype: Any = None) -> Tensor:
        """exp(xᵢ) / Σⱼ exp(xⱼ) along an axis."""
    def softplus(self) -> Tensor:
        """ln(1 + eˣ), elementwise."""
    def softplus_(self) -> Tensor: ...
    def sort(self, dim: _int = -1, descending: _bool = False, stable: _bool = True) -> ValuesIndices:
        """(values in order, the order); always stable; NaN counts as the largest."""
    def split(self, split_size_or_sections: _int | Sequence[_int], dim: _int = 0) -> tuple[Tensor, ...]:
        """Pieces of one size (the last may be smaller) or of the given sizes."""
    def sqrt(self) -> Tensor:
        """√x, elementwise."""
    def sqrt_(self) -> Tensor: ...
    def square(self) -> Tensor:
        """x²."""
    def square_(self) -> Tensor: ...
    def squeeze(self, dim: _int | Sequence[_int] | None = None) -> Tensor:
        """Without its axes of size 1 (or only the given ones)."""
    def std(
        self,
        dim: Dim = None,
        unbiased: _bool | None = None,
        keepdim: _bool = False,
        *,
        correction: _float = 1,
        **numpy: Unpack[NumpyNames],
    ) -> Tensor:
        """Standard deviation over axes: √var, with derivative 0 where that is 0."""
    def sub(self, other: Any, *, alpha: _float = 1) -> Tensor:
        """input − alpha · other."""
    def sub_(self, other: Any, *, alpha: _float = 1) -> Tensor: ...
    def subtract(self, other: Any, *, alpha: _float = 1) -> Tensor:
        """input − alpha · other."""
    def sum(self, dim: Dim = None, keepdim: _bool = False, *, dtype: Any = None, **numpy: Unpack[NumpyNames]) -> Tensor:
        """Sum over axes (default: all); of integers and bools in int64."""
    def sum_to_size(self, *size: Any) -> Tensor:
        """The transpose of broadcasting: summed over axes that were stretched or added."""
    def swapaxes(self, dim0: _int, dim1: _int) -> Tensor:
        """Two axes swapped."""
    def t(self) -> Tensor:
        """The transpose of a matrix; vectors and scalars stay as they are."""
    def take_along_dim(self, indices: Tensor, dim: _int) -> Tensor:
        """out[i, …] = input[i, …, indices[i, …], …] along one axis; the other axes broadcast."""
    def tan(self) -> Tensor:
        """tan x = sin x / cos x."""
    def tanh(self) -> Tensor:
        """tanh x, elementwise."""
    def tanh_(self) -> Tensor: ...
    def tile(self, *dims: Any) -> Tensor:
        """Repeated along each axis the given number of times."""
    def to(
        self,
        *targets: Any,
        dtype: Any = None,
        device: Any = None,
        non_blocking: _bool = False,
        copy: _bool = False,
    ) -> Tensor:
        """The same values in another dtype; a device must be the CPU; another tensor gives its dtype."""
    def topk(self, k: _int, dim: _int = -1, largest: _bool = True, sorted: _bool = True) -> ValuesIndices:
        """The k largest (smallest) values along an axis, in order, and where they are."""
    def transpose(self, dim0: _int, dim1: _int) -> Tensor:
        """Two axes swapped."""
    def tril(self, diagonal: _int = 0) -> Tensor:
        """Zero above the given diagonal."""
    def triu(self, diagonal: _int = 0) -> Tensor:
        """Zero below the given diagonal."""
    def true_divide(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """input / other as floats; ``rounding_mode`` "floor" or "trunc" rounds the quotient, and keeps integers."""
    def trunc(self) -> Tensor:
        """x without its fraction, towards 0; without a derivative."""
    def trunc_(self) -> Tensor: ...
    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of another tensor."""
    def unbind(self, dim: _int = 0) -> tuple[Tensor, ...]:
        """The slices along an axis, without it."""
    def unflatten(self, dim: _int, sizes: Sequence[_int]) -> Tensor:
        """One axis as several."""
    def uniform_(self, a: _float = 0.0, b: _float = 1.0, *, generator: Generator | None = None) -> Tensor: ...
    def unsqueeze(self, dim: _int) -> Tensor:
        """With a new axis of size 1 at ``dim``."""
    def var(
        self,
        dim: Dim = None,
        unbiased: _bool | None = None,
        keepdim: _bool = False,
        *,
        correction: _float = 1,
        **numpy: Unpack[NumpyNames],
    ) -> Tensor:
        """Variance over axes: Σ(x − mean)² / (n − correction); NaN where n ≤ correction."""
    def view(self, *shape: Any) -> Tensor:
        """As ``reshape``. Note: a value, not a view (unlike PyTorch): writing to it changes it alone."""
    def view_as(self, other: Tensor) -> Tensor:
        """Reshaped to the shape of another tensor."""
    def where(self, condition: Any, other: Any) -> Tensor:
        """self where the condition holds, else ``other``."""
