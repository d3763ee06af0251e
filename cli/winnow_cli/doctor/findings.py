"""What the doctor looks at, each as a finding with a figure, what it means, and what to do about it.

Everything here is arithmetic on arrays and settings; models are fitted elsewhere.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from winnow_cli.simulate.statistics import Interval

Verdict = Literal["fits", "does not fit", "unsure"]
Sign = Literal["good", "bad", "open", "note"]
"""`bad` speaks against active learning, `open` leaves it undecided, `note` says what to watch, whatever the verdict."""

RATIO, LEAST_RATIO = 10.0, 2.0
"""Records a label: choosing pays from the first on, and has next to nothing to choose from below the second."""
RARE, OF_RARE = 0.02, 10
"""Share under which a class is rare, and how many of it teach a model something."""
NEAR = 0.02
"""Cosine distance under which two records count as near-duplicates, as in selection."""
MOST_COMPARED = 5_000
CALIBRATED, MISCALIBRATED = 0.05, 0.1
DOUBT, NO_DOUBT = 0.65, 0.55
"""AUROC of doubt against errors: from the first on it points at errors, below the second it does not."""
STEEP, FLAT = 0.01, 0.005
"""Gain of a doubling of the labels, in shares of the measure's range."""
_BLOCK = 512


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    sign: Sign
    figure: str
    meaning: str
    remedy: str = ""
    values: tuple[tuple[str, Any], ...] = ()
    """The figures behind the sentence, for programs."""

    def to_json(self) -> dict[str, Any]:
        return {
            "finding": self.name, "sign": self.sign, "figure": self.figure, "meaning": self.meaning, "remedy": self.remedy,
            **dict(self.values),
        }  # fmt: skip


def verdict(findings: Sequence[Finding]) -> Verdict:
    """One bad finding speaks against it, an open one leaves it undecided.

    >>> verdict([Finding("slope", "good", "", ""), Finding("pool", "open", "", "")])
    'unsure'
    """
    signs = {one.sign for one in findings}
    return "does not fit" if "bad" in signs else "unsure" if "open" in signs else "fits"


def pool_ratio(pool: int | None, labels: int, *, known: str) -> Finding:
    """Unlabeled records for each label that there is or can be bought; `known` says what the labels are."""
    remedy = "say how many unlabeled records there are with --pool, and what may be spent with --budget and --price"
    if pool is None:
        return Finding(
            "pool", "open", "unknown", "Choosing pays when there is much more to choose from than to label.", remedy
        )
    share = pool / max(labels, 1)
    sign: Sign = "good" if share >= RATIO else "open" if share >= LEAST_RATIO else "bad"
    meaning = {
        "good": "There is far more than can be labeled, so it matters what is labeled first.",
        "open": "Some choice is left, but less than the tenfold pool at which choosing is known to pay.",
        "bad": "Nearly everything can be labeled, so the order hardly matters.",
        "note": "",
    }[sign]
    todo = {"good": "", "open": "simulate before you decide (winnow simulate)", "bad": "label all of it", "note": ""}[
        sign
    ]
    figure = f"{share:.1f} unlabeled records for each of {labels:,} labels ({known})"
    return Finding(
        "pool", sign, figure, meaning, todo, (("pool", pool), ("labels", labels), ("ratio", round(share, 4)))
    )


def label_price(price: float | None, budget: float | None, *, pool: int | None) -> Finding:
    """What a label costs against what may be spent."""
    if price is None:
        return Finding(
            "price", "open", "unknown", "Saved labels are worth what a label costs.", "say what one costs with --price"
        )
    values = (("price", price), ("budget", budget))
    if price <= 0.0:
        return Finding(
            "price", "bad", "labels are free", "Free labels need no choosing.", "take every label you can get", values
        )
    figure = f"{price:g} a label"
    if budget is None:
        meaning = "Labels cost something; what may be spent in all was not said."
        return Finding("price", "note", figure, meaning, "say what may be spent with --budget", values)
    affordable = int(budget / price)
    figure = f"{price:g} a label, {budget:,.2f} in all: {affordable:,} labels"
    if pool is not None and affordable >= pool:
        return Finding(
            "price", "bad", figure, "The budget pays for every label there could be.", "label all of it", values
        )
    return Finding(
        "price", "good", figure, "The budget pays for a part of the pool only, so the part matters.", "", values
    )


def balance(labels: Sequence[str]) -> Finding:
    """The rarest class, and how many random labels it takes to meet ten of it."""
    counts = Counter(labels)
    name, count = min(counts.items(), key=lambda item: (item[1], item[0]))
    share = count / len(labels)
    until = math.ceil(OF_RARE / share)
    figure = f"{len(counts)} classes; rarest {name!r} with {100 * share:.2g} % ({count} of {len(labels):,})"
    values = (
        ("classes", len(counts)),
        ("rarest", name),
        ("share", round(share, 6)),
        ("random_labels_until_ten", until),
    )
    if share >= RARE:
        return Finding("balance", "note", figure, f"Ten of it come with about {until:,} random labels.", "", values)
    return Finding(
        "balance", "good", figure, f"Ten of it take about {until:,} random labels; choosing finds them earlier.",
        f"name it under task.rare_classes and give arms.rare a share; judge by it with --positive {name}", values,
    )  # fmt: skip


def copies(
    payloads: Sequence[Hashable], labels: Sequence[str], embedding: npt.NDArray[np.float32] | None
) -> list[Finding]:
    """Exact and near duplicates, and copies whose labels contradict each other. Without an embedding whose directions mean
    likeness (rows of a few numbers have none) only exact ones."""
    n = len(payloads)
    by_payload: dict[Hashable, set[str]] = {}
    for payload, label in zip(payloads, labels, strict=True):
        by_payload.setdefault(payload, set()).add(label)
    exact = 1.0 - len(by_payload) / n
    near = 0.0 if embedding is None else near_copies(embedding)
    figure = f"{100 * exact:.1f} % exact copies"
    figure += "" if embedding is None else f", {100 * near:.1f} % with a near-duplicate"
    values = (("exact", round(exact, 6)), ("near", round(near, 6)))
    if max(exact, near) < 0.05:
        found = [Finding("duplicates", "note", figure, "Hardly any label would be spent twice.", "", values)]
    else:
        found = [Finding(
            "duplicates", "good", figure,
            "A random sample pays for copies, and so does taking the highest scores; Winnow asks one of each.",
            "keep acquisition.near_duplicate_distance above 0, and take no top_k", values,
        )]  # fmt: skip
    torn = sum(len(names) > 1 for names in by_payload.values())
    if torn:
        found.append(Finding(
            "contradictions", "note", f"{torn} contents have more than one label",
            "Those labels are mistakes or the classes overlap; doubt stays high there however many are bought.",
            "look at them and sharpen the guideline", (("contradictions", torn),),
        ))  # fmt: skip
    return found


def near_copies(embedding: npt.NDArray[np.float32], *, threshold: float = NEAR) -> float:
    """Share of at most 5,000 records that have another one nearer than the cosine distance `threshold`.

    >>> near_copies(np.float32([[1, 0], [1, 0.01], [0, 1], [1, 1]]))
    0.5
    """
    kept = np.random.default_rng(0).permutation(len(embedding))[:MOST_COMPARED]
    rows = embedding[kept].astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.maximum(lengths, 1e-12)
    found = 0
    for start in range(0, len(units), _BLOCK):
        likeness = units[start : start + _BLOCK] @ units.T
        likeness[np.arange(len(likeness)), start + np.arange(len(likeness))] = -1.0
        found += int((likeness.max(axis=1) > 1.0 - threshold).sum())
    return found / max(len(units), 1)


def calibration(error: float, *, labels: int) -> Finding:
    """Expected calibration error of a model that learned from so many labels."""
    figure = f"calibration error {error:.3f} with {labels:,} random labels"
    values = (("calibration_error", round(error, 6)),)
    if error <= CALIBRATED:
        return Finding(
            "calibration", "note", figure, "Probabilities mean what they say, so doubt can be trusted.", "", values
        )
    if error <= MISCALIBRATED:
        return Finding(
            "calibration", "note", figure, "Probabilities are roughly right; they get better with labels.", "", values
        )
    return Finding(
        "calibration", "open", figure, "Probabilities are off, so strategies that rely on their size may be misled.",
        "start with coverage (the default does), or give it an encoder (--encoder)", values,
    )  # fmt: skip


def doubt(auroc: float | None, *, labels: int, what: str) -> Finding:
    """Whether the model errs where it doubts: the AUROC of `what` against its errors."""
    if auroc is None:
        return Finding("doubt", "bad", "no error to find", "The model is right, or wrong, everywhere that it was tried.",
                       "there is nothing left to ask about", (("auroc", None),))  # fmt: skip
    figure = f"AUROC {auroc:.2f} of {what} against errors, with {labels:,} random labels"
    values = (("auroc", round(auroc, 6)),)
    if auroc >= DOUBT:
        return Finding(
            "doubt", "good", figure, "The model errs where it doubts: asking there finds its errors.", "", values
        )
    if auroc >= NO_DOUBT:
        meaning, todo = "Doubt says a little about errors.", "simulate before you decide (winnow simulate)"
        return Finding("doubt", "open", figure, meaning, todo, values)
    return Finding(
        "doubt", "open", figure, "Doubt says nothing about errors: strategies of uncertainty choose by chance at best.",
        "rely on coverage (strategy typicality, selector k_center), give it an encoder, or more labels first", values,
    )  # fmt: skip


def slope(levels: Sequence[int], values: Sequence[float], gain: Interval, *, measure: str) -> Finding:
    """What doublings of random labels brought; the last one's gain with its interval."""
    curve = ", ".join(f"{value:.3f} with {labels:,}" for labels, value in zip(levels, values, strict=True))
    bounds = "" if gain.low is None or gain.high is None else f" ({gain.low:+.3f} to {gain.high:+.3f})"
    figure = f"{measure} {curve}; the last doubling brought {gain.value or 0.0:+.3f}{bounds}"
    found = (("levels", list(levels)), ("values", [round(value, 6) for value in values]), ("gain", gain.to_json()))
    if max(abs(after - before) for before, after in itertools.pairwise(values)) < FLAT:
        return Finding(
            "slope", "bad", figure, "The curve is flat: more labels of this kind bring next to nothing, however chosen.",
            "spend on better inputs (an encoder, features) or cleaner labels instead", found,
        )  # fmt: skip
    if (gain.value or 0.0) < STEEP:
        meaning = "The curve is nearly flat: labels bring little."
        return Finding("slope", "open", figure, meaning, "simulate up to your budget before you decide", found)
    return Finding("slope", "good", figure, "Labels still teach, so it pays to choose them.", "", found)
