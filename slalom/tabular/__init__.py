"""From a table to a trained model: ``slalom.tabular.fit(table, target)``."""

from slalom.tabular.fitting import fit
from slalom.tabular.model import Model
from slalom.tabular.reading import from_dataframe, read_table

__all__ = ["Model", "fit", "from_dataframe", "load", "read_table"]

load = Model.load
