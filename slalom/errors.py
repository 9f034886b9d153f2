"""One message format for every error a user can cause: what, got, needed, hint.

A message is one line: ``what: got …; needed …. Hint: …``. The parts that do not apply are left out.
Each class also derives from the built-in error that Python users expect for the case.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DTypeError",
    "DataError",
    "DivergenceError",
    "GradError",
    "IndexRangeError",
    "MissingExtraError",
    "ModelFileError",
    "ShapeError",
    "SlalomError",
    "StagingError",
]


class SlalomError(Exception):
    """Base of all errors raised by Slalom.

    ``what`` says which operation or thing is wrong, ``got`` what was met, ``needed`` what would be right,
    ``hint`` what to do about it (only given when it is sure).
    """

    def __init__(self, what: str, *, got: object = None, needed: object = None, hint: str | None = None) -> None:
        self.what, self.got, self.needed, self.hint = what, got, needed, hint
        facts = [f"{label} {value}" for label, value in (("got", got), ("needed", needed)) if value is not None]
        text = what if not facts else f"{what}: {'; '.join(facts)}"
        if hint is not None:
            text = f"{text.rstrip('.')}. Hint: {hint}"
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only fields would be lost by the default pickling of exceptions (worker processes re-raise them).
        return (_rebuild, (type(self), self.what, self.got, self.needed, self.hint))


def _rebuild(cls: type[SlalomError], what: str, got: object, needed: object, hint: str | None) -> SlalomError:
    return cls(what, got=got, needed=needed, hint=hint)


class ShapeError(SlalomError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(SlalomError, TypeError):
    """A dtype (or Python type) that the operation does not take."""


class IndexRangeError(SlalomError, IndexError):
    """An index outside its axis."""


class GradError(SlalomError, RuntimeError):
    """Differentiation was asked for where there is nothing to differentiate, or values were overwritten."""


class StagingError(SlalomError, RuntimeError):
    """Something that cannot be recorded inside ``slalom.compile``; the message carries the user's line."""


class ConfigError(SlalomError, ValueError):
    """An argument, option or combination of them that makes no sense."""


class DataError(SlalomError, ValueError):
    """A table, file or array that cannot be used as it is."""


class ModelFileError(SlalomError, ValueError):
    """A model or checkpoint file that is damaged, foreign, or does not fit."""


class DivergenceError(SlalomError, ArithmeticError):
    """Training produced a loss that is not finite."""


class MissingExtraError(SlalomError, ImportError):
    """A command or function needs an optional dependency."""
