"""How sure a fit is of its coefficients, jointly; a draw is a set of coefficients that it may as well have found.

Draws are Student's t around the fitted values. One that is negative is moved to the nearest that is not, by what the
fitted steps would notice: the others take up its time, so that a step lasts as long as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator
from scipy.optimize import nnls

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.statistics import student_quantile

Matrix = tuple[tuple[float, ...], ...]
Term = Literal[
    "intercept_s",
    "prefill_token_s",
    "decode_request_s",
    "context_token_s",
    "prefill_attention_s",
    "prefill_step_s",
    "launch_s",
    "submit_lag_s",
    "output_lag_s",
]


class Uncertainty(Record):
    """The joint uncertainty of the coefficients of a fit."""

    terms: tuple[Term, ...] = Field(min_length=1, description="Keys of the profile that were fitted, in order.")
    covariance: Matrix = Field(description="Covariance of the estimates of these.", json_schema_extra={"unit": "s^2"})
    gram: Matrix = Field(
        description="Mean over the fitted rows of the product of two terms, each over the row's fitted duration.",
        json_schema_extra={"unit": "1/s^2"},
    )
    freedom: int = Field(ge=3, description="Degrees of freedom of Student's t that the estimates have.")

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        size = len(self.terms)
        if len(set(self.terms)) < size:
            raise InputError(f"terms must differ, got {', '.join(self.terms)}")
        for name in ("covariance", "gram"):
            rows = getattr(self, name)
            if len(rows) != size or any(len(row) != size for row in rows):
                raise InputError(f"{name} must have {size} rows and columns, one for each of terms")
            matrix = np.array(rows)
            if not np.allclose(matrix, matrix.T, rtol=1e-9, atol=0) or (np.diag(matrix) < 0).any():
                raise InputError(f"{name} must be symmetric, with nothing negative on its diagonal")
        return self

    @classmethod
    def around(cls, terms: Sequence[str], covariance: np.ndarray, gram: np.ndarray, freedom: int) -> Self:
        """The record of these arrays, (terms, terms) in s^2 and in 1/s^2, made symmetric to the last bit."""
        plain = [((matrix + matrix.T) / 2).tolist() for matrix in (covariance, gram)]
        return cls.of({"terms": tuple(terms), "covariance": plain[0], "gram": plain[1], "freedom": freedom})

    def half_widths(self) -> dict[str, float]:
        """Half of the 95 % interval of each term (s)."""
        deviations = np.sqrt(np.diag(np.array(self.covariance)))
        return {
            term: float(student_quantile(self.freedom) * deviation)
            for term, deviation in zip(self.terms, deviations, strict=True)
        }

    def drawn(self, values: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Coefficients (s, in the order of ``terms``) that may be true where ``values`` were fitted; none negative.

        >>> one = Uncertainty(terms=("intercept_s",), covariance=((1e-8,),), gram=((1.0,),), freedom=9)
        >>> random = np.random.default_rng(0)
        >>> draws = np.array([one.drawn(np.array([0.01]), random)[0] for _ in range(2000)])
        >>> inside = abs(draws - 0.01) < one.half_widths()["intercept_s"]
        >>> bool(0.94 < inside.mean() < 0.96)
        True
        """
        covariance, gram = np.array(self.covariance), np.array(self.gram)
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        variances, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
        normal = random.standard_normal(len(scale)) * np.sqrt(np.maximum(variances, 0.0))
        student = normal / np.sqrt(random.chisquare(self.freedom) / self.freedom)
        drawn = np.asarray(values + scale * (vectors @ student))
        return drawn if (drawn >= 0).all() else nnls_of_gram(gram, gram @ drawn)

    def summed(self, into: str, other: str) -> Uncertainty:
        """That of ``into + other`` in place of both, for rows in which nothing tells one from the other."""
        if not {into, other} <= set(self.terms):
            return self
        kept = [place for place, term in enumerate(self.terms) if term != other]
        sums = np.eye(len(self.terms))
        sums[self.terms.index(into), self.terms.index(other)] = 1.0
        covariance = (sums @ np.array(self.covariance) @ sums.T)[np.ix_(kept, kept)]
        gram = np.array(self.gram)[np.ix_(kept, kept)]
        return Uncertainty.around([self.terms[place] for place in kept], covariance, gram, self.freedom)


def nnls_of_gram(gram: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """The non-negative x with the least x'Gx/2 - x'm, by way of a factor of G."""
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    scaled = gram / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(scaled)
    root = np.sqrt(np.maximum(values, 1e-14))
    factor = root[:, None] * vectors.T
    target = (vectors.T @ (moment / scale)) / root
    return np.asarray(nnls(factor, target)[0] / scale)
