"""Makes the serving toolkit's `pip install .` work in a container without a network.

At its start the toolkit has pip install the code folder as a package, and pip would fetch setuptools for that. The folder's
pyproject.toml names this backend instead, which needs nothing but Python: the package is the folder as it lies.
Interface: PEP 517.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

_NAME = "winnow_serving-1"
_TOOLKIT = ("setup.py", "setup.cfg", "MANIFEST.in", "pyproject.toml")


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Write the wheel of the current folder; returns its name."""
    root, info = Path.cwd(), f"{_NAME}.dist-info"
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in _TOOLKIT and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: winnow-serving\nVersion: 1\n"
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: winnow\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")).encode()
    wheel = f"{_NAME}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel
