"""Prints every ratio beside its limit; each reference is written out in its module, so that the comparison can be judged."""

from __future__ import annotations

import argparse
import json
import os
import sys

# One thread, as in a function; has to be said before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import growth, memory, peers, scoring, selection
from benchmarks.measure import HEAD

MODULES = {"scoring": scoring, "selection": selection, "growth": growth, "memory": memory, "peers": peers}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="MODULE", help=f"some of {', '.join(MODULES)} (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="smaller pools, in seconds: without the limits they are for"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one list at the end, the lines while at it to stderr"
    )
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.only) - set(MODULES))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; choose among {', '.join(MODULES)}")
    progress = sys.stderr if given.json else sys.stdout
    print(HEAD, file=progress)
    found = []
    for name in given.only or MODULES:
        module = MODULES[name]
        for constant, smaller in getattr(module, "QUICK", {}).items() if given.quick else ():
            setattr(module, constant, smaller)
        for result in module.results(seed=given.seed):
            found.append({"module": name, **result.body()})
            print(result.line(), file=progress, flush=True)
    judged = [one["verdict"] for one in found if one["verdict"]]
    print(f"{judged.count('PASS')} of {len(judged)} ratios that have a limit keep it", file=progress)
    if given.json:
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
