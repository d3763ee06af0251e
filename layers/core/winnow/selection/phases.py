"""The phase of the active arm, switched by measured evidence: first the pool is covered, then doubt is asked about.

Asking about doubt pays when a model's doubt tells where it is wrong. Whether it does is measured on labeled train records
that were held out of a fit (`winnow.models.doubt`); evaluation and reward records have no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Phase = Literal["coverage", "uncertainty"]


class Evidence(Protocol):
    """How well doubt told right from wrong on held-out records; `winnow.models.doubt.Doubt` is one."""

    @property
    def wrong(self) -> int:
        """Held-out records that were predicted wrong."""

    @property
    def right(self) -> int:
        """Held-out records that were predicted right."""

    @property
    def auroc(self) -> float | None:
        """Probability that a wrong prediction was in more doubt than a right one."""

    @property
    def low(self) -> float | None:
        """Lower end of the one-sided 90 % interval of `auroc`."""


@dataclass(frozen=True)
class Decision:
    """The phase of the next batch's active arm, and why, in a sentence with its figures."""

    phase: Phase
    reason: str


def decide(found: Evidence | None, *, bootstrap: bool) -> Decision:
    """Coverage until held-out labels show, with 90 % confidence, that doubt tells wrong predictions from right ones.

    A champion that brings no such figures (an imported one, a regression's committee) is believed.

    >>> from winnow.models.doubt import Doubt
    >>> decide(Doubt(wrong=3, right=4, auroc=0.6), bootstrap=False).reason[31:]
    'dicted wrong; doubt ranks those first with AUROC 0.60 (90 % sure: above 0.30)'
    >>> decide(Doubt(wrong=20, right=80, auroc=0.8), bootstrap=False).phase
    'uncertainty'
    """
    if bootstrap:
        return Decision("coverage", "no model has been trained yet, so nothing is known of doubt")
    if found is None:
        return Decision("uncertainty", "the champion brings no held-out figures; its doubt is believed")
    if found.low is None:
        told = f"all of {found.wrong + found.right} held-out labels were predicted"
        return Decision("coverage", f"{told} wrong") if found.wrong else Decision("uncertainty", f"{told} right")
    reason = (
        f"of {found.wrong + found.right} held-out labels {found.wrong} were predicted wrong; doubt ranks those first "
        f"with AUROC {found.auroc:.2f} (90 % sure: above {found.low:.2f})"
    )
    return Decision("uncertainty" if found.low > 0.5 else "coverage", reason)
