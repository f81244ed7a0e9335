"""What compiled kernels and the host that fills their buffers have to agree on, in one word."""

from __future__ import annotations

import hashlib

from .slots import TILE, Route
from .table_rows import COLUMNS, DRAWS, HISTORY, Column, NextRows

_NUMBERS = {"tile": TILE, "columns": COLUMNS, "draws": DRAWS, "history": HISTORY}

#: Changes with the order of columns and routes, the lengths of rings, and the tiles that buffers are divided into.
LAYOUT = hashlib.sha256(
    repr((_NUMBERS, [[(one.name, int(one)) for one in kind] for kind in (Column, Route, NextRows)])).encode()
).hexdigest()[:16]
