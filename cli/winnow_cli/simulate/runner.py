"""Trials as independent tasks over all cores; each finished one is a small file, so that an interrupt loses little."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from winnow.errors import WinnowError
from winnow_cli.errors import UsageError
from winnow_cli.simulate.trial import Contender, Outcome, Problem, Settings, Teach, run_trial

Task = tuple[Contender, int]
"""A strategy and a seed."""

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Experiment:
    """What all trials share. It is sent to the processes that run them."""

    problem: Problem
    teach: Teach
    settings: Settings
    test_from: int | None = None


@dataclass(frozen=True)
class Store:
    """A folder with the finished trials of one experiment."""

    folder: Path

    def get(self, contender: Contender, seed: int) -> Outcome | None:
        """None for a trial that was not finished; a file that cannot be read counts as none."""
        try:
            return Outcome.from_json(json.loads(self._path(contender, seed).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, contender: Contender, outcome: Outcome) -> None:
        path = self._path(contender, outcome.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(outcome.to_json()), encoding="utf-8")
        draft.replace(path)

    def forget(self, tasks: Iterable[Task]) -> None:
        for contender, seed in tasks:
            self._path(contender, seed).unlink(missing_ok=True)

    def _path(self, contender: Contender, seed: int) -> Path:
        version = f"-{hashlib.sha256(contender.version.encode()).hexdigest()[:8]}" if contender.version else ""
        return self.folder / f"{contender.name}{version}-{seed}.json"


def key(facts: Any, settings: Settings) -> str:
    """Name of an experiment: a digest of the data, the options and the code, whatever the jobs or the order."""
    body = json.dumps([facts, settings.__dict__, code_digest()], sort_keys=True, default=str)
    return hashlib.sha256(body.encode()).hexdigest()[:24]


def code_digest() -> str:
    """Of every module that may decide a result: the loop's core, the trainer, and the simulation itself."""
    found = hashlib.sha256()
    for package in ("winnow", "winnow_training", "winnow_cli.simulate"):
        spec = importlib.util.find_spec(package)
        for root in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(root).rglob("*.py")):
                found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def run(
    experiment: Experiment, tasks: Sequence[Task], *, store: Store, jobs: int, tell: Callable[[], None] = lambda: None
) -> tuple[list[Outcome], float]:
    """Outcomes in the order of the tasks, and the most memory used, in MB over all processes together.

    Finished trials are read from the store and not run again; `tell` is called after every round of the others. Raises
    UsageError for what a strategy did wrong, KeyboardInterrupt after the processes are stopped.
    """
    found = {(contender.name, seed): store.get(contender, seed) for contender, seed in tasks}
    left = [(contender, seed) for contender, seed in tasks if found[contender.name, seed] is None]
    here = 0.0
    if left:
        each = _here if min(jobs, len(left)) == 1 else _apart
        for outcome, memory in each(experiment, left, jobs=jobs, tell=tell):
            asked = next(contender for contender, _ in left if contender.name == outcome.strategy)
            store.put(asked, outcome)
            found[outcome.strategy, outcome.seed] = outcome
            here = max(here, memory)
    done = [found[contender.name, seed] for contender, seed in tasks]
    return [outcome for outcome in done if outcome is not None], here + peak_memory()


def _here(
    experiment: Experiment, tasks: Sequence[Task], *, jobs: int, tell: Callable[[], None]
) -> Iterator[tuple[Outcome, float]]:
    with one_thread():
        for contender, seed in tasks:
            yield _trial(experiment, contender, seed, tell=tell), 0.0


def _apart(
    experiment: Experiment, tasks: Sequence[Task], *, jobs: int, tell: Callable[[], None]
) -> Iterator[tuple[Outcome, float]]:
    """Trials in processes of their own, each of which takes the next one when it is done."""
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(tasks))
    peaks: dict[int, float] = {}
    workers: dict[Connection, Any] = {}
    # What a child imports must find this at its very start.
    kept = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        for _ in range(min(jobs, len(tasks))):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, experiment), daemon=True)
            worker.start()
            theirs.close()
            workers[ours] = worker
            ours.send(waiting.pop() if waiting else None)
        while workers:
            for ours in cast(list[Connection], wait(list(workers))):
                try:
                    kind, body, memory = ours.recv()
                except EOFError:
                    worker = workers.pop(ours)
                    worker.join()
                    if worker.exitcode:
                        raise UsageError(
                            f"a process of the simulation ended with status {worker.exitcode}, perhaps for want of memory; run "
                            "the command again with --jobs 1, finished trials are kept"
                        ) from None
                    continue
                peaks[workers[ours].pid] = memory
                if kind == "round":
                    tell()
                elif kind == "refused":
                    raise UsageError(body)
                else:
                    yield Outcome.from_json(body), sum(peaks.values())
                    ours.send(waiting.pop() if waiting else None)
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.join()
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _work(connection: Connection, experiment: Experiment) -> None:
    """A process: trials until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this one
    with one_thread():
        while (task := connection.recv()) is not None:
            contender, seed = task
            try:
                outcome = _trial(
                    experiment, contender, seed, tell=lambda: connection.send(("round", None, peak_memory()))
                )
            except (UsageError, WinnowError) as error:
                connection.send(("refused", str(error), peak_memory()))
                return
            connection.send(("done", outcome.to_json(), peak_memory()))


def _trial(experiment: Experiment, contender: Contender, seed: int, *, tell: Callable[[], None]) -> Outcome:
    try:
        return run_trial(
            experiment.problem, experiment.teach, contender, seed, settings=experiment.settings,
            test_from=experiment.test_from, tell=tell,
        )  # fmt: skip
    except WinnowError as error:
        raise UsageError(f"strategy {contender.name}, seed {seed}: {error}") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of linear algebra: two trials share two cores, and sums in another order would be another result."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def peak_memory() -> float:
    """The most memory this process had at one time, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
