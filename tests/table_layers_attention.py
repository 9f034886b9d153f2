from layer_rows import Row

ROWS: tuple[Row, ...] = ()
FUNCTION_ROWS: tuple[Row, ...] = ()
