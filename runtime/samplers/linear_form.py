"""Sparse linear forms: what a solver computes with while it is being compiled to a table.

A solver is run once on symbols in place of tensors. Its states are sums of

    ("x", k)   the state that evaluation k sees,
    ("d", k)   the stored (converted) model output of evaluation k,
    ("z", j)   the j-th noise tensor that the run draws,

each with a float64 weight.
"""

from __future__ import annotations

from collections.abc import Mapping

Symbol = tuple[str, int]

# A weight smaller than this fraction of the terms it was summed from is a rounding residue of terms that cancel (a
# corrector that undoes the predictor leaves some). Keeping it would make the history longer than the solver needs.
CANCELLED = 1e-12


class LinearForm:
    """An immutable weighted sum of symbols, closed under ``+``, ``-`` and multiplication by a number."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Symbol, float]):
        self.terms = dict(terms)

    def __add__(self, other: LinearForm) -> LinearForm:
        return self._plus(other, 1.0)

    def __sub__(self, other: LinearForm) -> LinearForm:
        return self._plus(other, -1.0)

    def __mul__(self, factor: float) -> LinearForm:
        return LinearForm({symbol: weight * factor for symbol, weight in self.terms.items()} if factor else {})

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> LinearForm:
        return LinearForm({symbol: weight / divisor for symbol, weight in self.terms.items()})

    def __neg__(self) -> LinearForm:
        return self * -1.0

    def weight(self, symbol: Symbol) -> float:
        """The weight of ``symbol``, 0 when the form does not contain it."""
        return self.terms.get(symbol, 0.0)

    def without(self, symbol: Symbol) -> LinearForm:
        """The form less its ``symbol`` term."""
        return LinearForm({key: weight for key, weight in self.terms.items() if key != symbol})

    def __repr__(self) -> str:
        return " + ".join(f"{weight:.6g} {kind}{index}" for (kind, index), weight in self.terms.items()) or "0"

    def _plus(self, other: LinearForm, sign: float) -> LinearForm:
        terms = dict(self.terms)
        for symbol, weight in other.terms.items():
            old = terms.get(symbol, 0.0)
            new = old + sign * weight
            if abs(new) <= CANCELLED * abs(old):
                terms.pop(symbol, None)
            else:
                terms[symbol] = new
        return LinearForm(terms)


def symbol(kind: str, index: int) -> LinearForm:
    """The form that is one symbol with weight 1."""
    return LinearForm({(kind, index): 1.0})


ZERO = LinearForm({})
