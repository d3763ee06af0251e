"""A table's columns: which ones a model reads, as what, and the numbers it makes of them.

Nothing here looks at a label. Trees read the plain numbers and the categories' codes; the linear head and the embedding
read `features`, which the graph computes again from the same constants.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from winnow.onnx.features import category_column, number_column
from winnow.tables import RESERVED, Cell

NUMBER_SHARE = 0.95
"""A column holds numbers when so many of its present cells do; the others then count as missing."""

MAX_CATEGORIES = 2_000
"""Codes of a column. The commonest categories get one, the others share "unknown"."""

MAX_TREE_CODE = 254
"""Codes that trees see: scikit-learn's take 255 categories. Rarer ones are unknown to them."""

MAX_ONE_HOT = 2_000
"""Columns of features that all categories together may take; the rarest go without."""

SPARSE_WIDTH, SPARSE_CELLS = 256, 20_000_000
"""Features wider than the first are kept sparse, and so are those of more cells than the second."""

HEAVY_TAIL = 12.0
"""Numbers that reach further than so many of their usual distances are seen through a logarithm."""

_RUN_LENGTH = 200
_LARGEST = 1e37
_TINY = 1e-30
_ID_WORDS = frozenset(("id", "ids", "uuid", "guid", "key", "index", "idx", "rownum", "unnamed"))
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True)
class Number:
    """A number column x as a feature: ((t - shift) * gain), t = u or sign(u) ln(1 + |u|), u = (x - centre) / spread.

    x is first brought into `low`..`high`, the numbers seen in training; a missing x gives 0.
    """

    name: str
    low: float
    high: float
    centre: float
    spread: float
    heavy: bool
    shift: float
    gain: float
    missing: bool
    """Whether cells were missing in training; then that is a feature of its own, 0 or 1."""

    @classmethod
    def learn(cls, name: str, column: npt.NDArray[np.float32]) -> Number:
        """From a column (n,), NaN = missing, that holds at least one number."""
        known = np.clip(column[~np.isnan(column)], -_LARGEST, _LARGEST).astype(np.float64)
        quarter, centre, rest = np.quantile(known, (0.25, 0.5, 0.75))
        usual = rest - quarter if rest > quarter else float(np.abs(known - centre).mean())
        span = float(known.max() - known.min())
        heavy = usual > _TINY and span > HEAVY_TAIL * usual
        shift, gain, spread = 0.0, 1.0, usual
        if heavy:
            scaled = _logarithm((known - centre) / spread)
            shift, gain = float(scaled.mean()), 1.0 / float(scaled.std())
        else:
            centre, spread = float(known.mean()), max(float(known.std()), _TINY)
        numbers = (known.min(), known.max(), centre, spread, shift, gain)
        low, high, centre, spread, shift, gain = (float(np.float32(value)) for value in numbers)
        return cls(name, low, high, centre, spread, heavy, shift, gain, missing=len(known) < len(column))


@dataclass(frozen=True)
class Category:
    """A category column: `values[k]` has code k + 1, commonest first; code 0 is everything else.

    A missing cell is the category "" where training has met it. The first `shown` codes are features.
    """

    name: str
    values: tuple[str, ...]
    shown: int


@dataclass(frozen=True)
class Rows:
    """n rows as models read them."""

    numbers: npt.NDArray[np.float32]
    """(n, p), NaN = missing: for trees."""
    codes: npt.NDArray[np.int64]
    """(n, q), 0 = unknown, up to `MAX_TREE_CODE`: for trees."""
    features: Any
    """(n, width) float32, dense or sparse: for linear heads and the embedding."""

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, places: npt.NDArray[np.int64]) -> Rows:
        """Some of the rows, in the order of `places`, which may repeat."""
        return Rows(self.numbers[places], self.codes[places], self.features[places])


@dataclass(frozen=True)
class Columns:
    """The columns that a model reads, and those it does not with the reason."""

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    left_out: Mapping[str, str]
    scale: float = 1.0
    """Factor that brings rows of features to a mean square length of 1."""

    @classmethod
    def learn(cls, rows: Sequence[Mapping[str, Cell]], *, declared: Mapping[str, str]) -> Columns:
        """From training rows; `declared` names the columns to use with their kinds, none = find out.

        Raises `ValueError` when no column tells one row from another.
        """
        numbers: list[Number] = []
        counted: list[tuple[str, list[tuple[str, int]]]] = []
        left_out: dict[str, str] = {}
        names = sorted(declared) if declared else sorted(set().union(*rows))
        for name in names:
            cells = [row.get(name) for row in rows]
            kind = declared.get(name) or _kind(cells)
            if name in RESERVED:
                left_out[name] = "the name is reserved; rename the column if it is a feature"
            elif kind == "number":
                column = number_column(cells)[:, 0]
                reason = _useless(column, name="" if declared else name)
                if reason:
                    left_out[name] = reason
                else:
                    numbers.append(Number.learn(name, column))
            else:
                counts = Counter(category_column(cells)[:, 0].tolist())
                common = sorted((item for item in counts.items() if item[1] > 1), key=lambda item: (-item[1], item[0]))
                if len(counts) < 2 or not common:
                    left_out[name] = _empty(counts)
                else:
                    counted.append((name, common[:MAX_CATEGORIES]))
        if not numbers and not counted:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5])
            raise ValueError(f"no column tells one row from another ({reasons or 'the rows are empty'}); add features")
        frequencies = sorted((count for _, common in counted for _, count in common), reverse=True)
        least = frequencies[MAX_ONE_HOT] + 1 if len(frequencies) > MAX_ONE_HOT else 0
        categories = tuple(
            Category(name, tuple(value for value, _ in common), sum(count >= least for _, count in common))
            for name, common in counted
        )
        found = cls(tuple(numbers), categories, left_out)
        features = found.read(rows).features
        squares = np.square(features.data if scipy.sparse.issparse(features) else features)
        length = float(np.sqrt(squares.sum(dtype=np.float64) / len(rows)))
        return cls(found.numbers, categories, left_out, scale=float(np.float32(1.0 / max(length, 1e-6))))

    def read(self, rows: Sequence[Mapping[str, Cell]]) -> Rows:
        """Rows of cells as numbers, codes and features."""
        numbers = [number_column([row.get(column.name) for row in rows]) for column in self.numbers]
        codes = []
        for column in self.categories:
            place = {value: code for code, value in enumerate(column.values, start=1)}
            texts = category_column([row.get(column.name) for row in rows])[:, 0].tolist()
            codes.append(np.array([place.get(text, 0) for text in texts], dtype=np.int64)[:, None])
        whole = np.hstack(numbers) if numbers else np.zeros((len(rows), 0), np.float32)
        coded = np.hstack(codes) if codes else np.zeros((len(rows), 0), np.int64)
        return Rows(whole, np.where(coded > MAX_TREE_CODE, 0, coded), self._features(whole, coded))

    @property
    def width(self) -> int:
        """Number of features."""
        missing = sum(column.missing for column in self.numbers)
        return len(self.numbers) + missing + sum(column.shown for column in self.categories)

    def _features(self, numbers: npt.NDArray[np.float32], codes: npt.NDArray[np.int64]) -> Any:
        """Rows (n, width) float32: scaled numbers, which are missing, then one column a category; sparse when wide."""
        dense = scaled(numbers, self.numbers)
        absent = np.isnan(numbers[:, [column.missing for column in self.numbers]])
        dense = np.hstack([dense, absent.astype(np.float32)]) * np.float32(self.scale)
        blocks = [scipy.sparse.csr_array(dense)]
        for column, code in zip(self.categories, codes.T, strict=True):
            kept = np.where(code <= column.shown, code, 0)
            row = np.flatnonzero(kept)
            ones = np.full(len(row), self.scale, np.float32)
            blocks.append(scipy.sparse.csr_array((ones, (row, kept[row] - 1)), shape=(len(codes), column.shown)))
        whole = scipy.sparse.csr_array(scipy.sparse.hstack(blocks, format="csr", dtype=np.float32))
        large = self.width > SPARSE_WIDTH or self.width * len(numbers) > SPARSE_CELLS
        return whole if large else whole.toarray()


def scaled(numbers: npt.NDArray[np.float32], columns: Sequence[Number]) -> npt.NDArray[np.float32]:
    """Numbers (n, p), NaN = missing, as `Number` describes them; the graph does the same sums."""
    low, high, centre, spread, shift, gain = constants(columns)
    heavy = np.array([column.heavy for column in columns], dtype=bool)
    absent = np.isnan(numbers)
    u = (np.clip(np.where(absent, centre, numbers), low, high) - centre) / spread
    return np.where(absent, np.float32(0), (np.where(heavy, _logarithm(u), u) - shift) * gain)


def constants(columns: Sequence[Number]) -> list[npt.NDArray[np.float32]]:
    """low, high, centre, spread, shift and gain of columns, each (p,)."""
    names = ("low", "high", "centre", "spread", "shift", "gain")
    return [np.array([getattr(column, name) for column in columns], dtype=np.float32) for name in names]


def _logarithm(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.sign(values) * np.log(1 + np.abs(values))


def _kind(cells: Sequence[Cell]) -> str:
    present = [cell for cell in cells if cell is not None]
    numbers = sum(isinstance(cell, float) for cell in present)
    return "number" if present and numbers >= NUMBER_SHARE * len(present) else "category"


def _useless(column: npt.NDArray[np.float32], *, name: str) -> str | None:
    """Why a number column carries nothing, None when it may; the `name` may say that it numbers the rows."""
    known = column[~np.isnan(column)].astype(np.float64)
    if len(known) == 0:
        return "it holds no number"
    varies = float(np.ptp(np.clip(known, -_LARGEST, _LARGEST))) > _TINY
    if not varies:
        return None if len(known) < len(column) else "every value is the same"
    if len(known) < len(column) or len(np.unique(known)) < len(known) or (known != np.rint(known)).any():
        return None
    words = {word.lower() for word in _WORDS.findall(name)}
    if words & _ID_WORDS:
        return "it is another whole number in every row, an id by its name"
    if name and len(known) >= _RUN_LENGTH and np.ptp(known) < 1.05 * len(known):
        return "it numbers the rows"
    return None


def _empty(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return "every value is the same" if next(iter(counts)) else "it holds no value"
    return "no value occurs twice"
