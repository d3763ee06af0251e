"""The source archive that SageMaker's containers unpack, and the code folder that a model carries to its endpoint."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import io
import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRAINING = (
    "train.py", "inference.py", "boosting.py", "build_backend.py", "columns.py", "committee.py", "encoded.py",
    "examples.py", "fit.py", "heads.py", "image_model.py", "logistic.py", "ridge.py", "search.py", "source.py",
    "table_files.py", "table_model.py", "text_model.py", "vendored.py",
)  # fmt: skip
SERVING = ("build_backend.py", "inference.py", "table_files.py", "vendored.py")
LOCK = "wheels.lock"
PYPROJECT = b'[build-system]\nrequires = []\nbuild-backend = "build_backend"\nbackend-path = ["."]\n'
"""Of the code folder, which the serving toolkit has pip install: with pip's own backend that would need a network."""


def build_source_archive() -> bytes:
    """sourcedir.tar.gz with train.py at its root; the same files give the same bytes.

    Beside the scripts it holds the modules of `winnow` that they import, the lock of the wheels they need, and the
    wheels themselves when the folder `wheels/` is there.
    """
    return _tar_gz(_files(TRAINING))


def serving_files() -> dict[str, bytes]:
    """What `code/` of a model archive holds, by path: inference.py with everything it imports."""
    return {**_files(SERVING), "pyproject.toml": PYPROJECT}


def _files(scripts: tuple[str, ...]) -> dict[str, bytes]:
    files = {name: (HERE / name).read_bytes() for name in scripts}
    root = _package_root()
    for module in sorted(_closure([HERE / name for name in scripts], root=root)):
        files[str(module.relative_to(root.parent))] = module.read_bytes()
    lock = next((path for path in (HERE / LOCK, HERE / "requirements.txt") if path.is_file()), None)
    if lock is not None:
        # Under its own name the container's toolkit would install it, dependencies and all.
        files[LOCK] = lock.read_bytes()
    for wheel in sorted((HERE / "wheels").glob("*.whl")):
        files[f"wheels/{wheel.name}"] = wheel.read_bytes()
    return files


def _package_root() -> Path:
    spec = importlib.util.find_spec("winnow")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package winnow is not importable; put layers/core on PYTHONPATH")
    return Path(spec.submodule_search_locations[0])


def _closure(scripts: list[Path], *, root: Path) -> set[Path]:
    """The files of package `winnow` that the scripts import, directly or through one another."""
    found: set[Path] = set()
    waiting = list(scripts)
    while waiting:
        for name in _imports(waiting.pop()):
            for path in _modules(name, root=root):
                if path not in found:
                    found.add(path)
                    waiting.append(path)
    return found


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Names that a file imports; read once, since a process ships the files it started with."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _modules(name: str, *, root: Path) -> Iterator[Path]:
    """The files that importing `name` runs, packages first; nothing for names outside `winnow`."""
    first, *rest = name.split(".")
    if first != root.name:
        return
    folder = root
    yield folder / "__init__.py"
    for part in rest:
        if (folder / part / "__init__.py").is_file():
            folder = folder / part
            yield folder / "__init__.py"
        else:
            if (folder / f"{part}.py").is_file():
                yield folder / f"{part}.py"
            return


def _tar_gz(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    # Neither layer may carry a time, or the archive's digest would change with every call.
    with (
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(files[name]), 0o644, 0
            archive.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()
