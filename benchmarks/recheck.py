"""How well wrong labels are found: digits, some of whose labels were changed at random."""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits

from winnow.selection.recheck import suspicion

LABELS = (200, 600, 1797)
WRONG = (0.0, 0.02, 0.05, 0.15)


def main() -> None:
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    print("labels  wrong  expected wrong  suspected > 0.5  of them wrong  of the wrong found")
    for count in LABELS:
        for share in WRONG:
            rows = rng.permutation(len(digits))[:count]
            changed = rng.random(count) < share
            labels = np.where(changed, (digits[rows] + rng.integers(1, 10, count)) % 10, digits[rows])
            found = suspicion(images[rows] / 16.0, labels, classes=10)
            blamed = found > 0.5
            precision = f"{changed[blamed].mean():.2f}" if blamed.any() else "-"
            recall = f"{blamed[changed].mean():.2f}" if changed.any() else "-"
            print(
                f"{count:6}  {changed.sum():5}  {found.sum():14.1f}  {blamed.sum():15}  {precision:>13}  {recall:>18}"
            )


if __name__ == "__main__":
    sys.exit(main())
