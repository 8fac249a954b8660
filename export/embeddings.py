"""The embedding tables: looked up as they are, or stored as int8 with one scale per row."""

from collections.abc import Mapping

import numpy as np

from export.builder import GraphBuilder
from export.grids import row_grid

NAMES = ("word_embeddings", "token_type_embeddings", "position_embeddings")
_ROWS_AT_ONCE = 2048


class Tables:
    """Rows of the float tables."""

    def __init__(self, builder: GraphBuilder, tensors: Mapping[str, np.ndarray]) -> None:
        self.builder, self.tensors = builder, tensors

    def look_up(self, name: str, indexes: str) -> str:
        """The rows that an int64 tensor [B, S] names: float32 [B, S, H]."""
        return self.builder.node("Gather", [self._table(name), indexes], f"bert/embeddings/{name}/Gather", axis=0)

    def first_rows(self, name: str, count: str) -> str:
        """The first rows; count: int64 [1]. float32 [count, H]."""
        return self._slice(self._table(name), count, f"bert/embeddings/{name}/Slice")

    def _table(self, name: str) -> str:
        return self.builder.constant(f"bert/embeddings/{name}", self.tensors[f"bert/embeddings/{name}"])

    def _slice(self, table: str, count: str, name: str) -> str:
        zero = self.builder.constant("bert/embeddings/zero", np.array([0]))
        return self.builder.node("Slice", [table, zero, count], name)


class Int8Tables(Tables):
    """Rows of int8 tables: only the rows that are looked up are turned into floats, and multiplied by their scales."""

    def look_up(self, name: str, indexes: str) -> str:
        scope = f"bert/embeddings/{name}"
        integers = self.builder.node("Gather", [self._table(name), indexes], f"{scope}/Gather", axis=0)
        scales = self.builder.node("Gather", [self._scales(name), indexes], f"{scope}/scale/Gather", axis=0)
        return self._scaled(integers, scales, scope)

    def first_rows(self, name: str, count: str) -> str:
        scope = f"bert/embeddings/{name}"
        integers = self._slice(self._table(name), count, f"{scope}/Slice")
        return self._scaled(integers, self._slice(self._scales(name), count, f"{scope}/scale/Slice"), scope)

    def _table(self, name: str) -> str:
        table = self.tensors[f"bert/embeddings/{name}"]
        return self.builder.constant(f"bert/embeddings/{name}", row_grid(name, table).integers(table))

    def _scales(self, name: str) -> str:
        table = self.tensors[f"bert/embeddings/{name}"]
        return self.builder.constant(f"bert/embeddings/{name}/scale", row_grid(name, table).scale[:, None])

    def _scaled(self, integers: str, scales: str, scope: str) -> str:
        real = self.builder.node("Cast", [integers], f"{scope}/Cast", to=1)
        return self.builder.node("Mul", [real, scales], f"{scope}/Mul")


def rounded_tables(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with their embedding tables as Int8Tables gives them, for a reference of the same numbers."""
    rounded = dict(tensors)
    for name in NAMES:
        table = tensors[f"bert/embeddings/{name}"]
        rounded[f"bert/embeddings/{name}"] = result = np.empty_like(table)
        for start in range(0, len(table), _ROWS_AT_ONCE):  # the whole table's intermediate results are several tables
            rows = table[start : start + _ROWS_AT_ONCE]
            grid = row_grid(name, rows)
            result[start : start + _ROWS_AT_ONCE] = grid.integers(rows).astype(np.float32) * grid.scale[:, None]
    return rounded
