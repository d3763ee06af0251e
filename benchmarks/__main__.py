"""Prints every ratio; each reference is written out beside it, so that the comparison can be judged."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in a function; has to be said before numpy is imported

from benchmarks import scoring, selection

MODULES = {"scoring": scoring, "selection": selection}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="MODULE", help=f"some of {', '.join(MODULES)} (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.only) - set(MODULES))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; choose among {', '.join(MODULES)}")
    print(f"{'what':<44} {'ours':>12}  {'reference':>12}  {'ratio':>9}  reference")
    for name in given.only or MODULES:
        for result in MODULES[name].results(seed=given.seed):
            print(result.line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
