"""Schedules: learning rates as pure functions of time.

``linear(steps=10)`` is a function of t, where t counts steps or epochs from 0: a number, or a 0-d tensor inside a
compiled function. With the default ``start=1`` its value is a factor for the optimizer's own rate; with a rate as
``start`` it is the rate itself. What lies beyond the last step is constant.
"""

from __future__ import annotations

from slalom.optim.schedules import decay, joined, waves
from slalom.optim.schedules.decay import *
from slalom.optim.schedules.joined import *
from slalom.optim.schedules.schedule import Schedule
from slalom.optim.schedules.waves import *

__all__ = ["Schedule"]
__all__ += [name for part in (decay, joined, waves) for name in part.__all__ if name.islower()]
