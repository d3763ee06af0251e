"""Unzipped size of every function with its layers, from what `sam build` left; exits 1 when one is too large.

Lambda's limit is 250 MB. We stop at 150, so that a dependency that grows is a decision and not a failed deployment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

LIMIT_BYTES = 150_000_000


class Template(yaml.SafeLoader):
    """A CloudFormation template; `!Ref x` becomes `{"Ref": "x"}`, and other short forms likewise."""


def _short_form(loader: Template, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    return {suffix: loader.construct_mapping(node, deep=True)}


Template.add_multi_constructor("!", _short_form)


def read(template: Path) -> dict[str, Any]:
    """The template as plain dictionaries."""
    body: dict[str, Any] = yaml.load(template.read_text(encoding="utf-8"), Template)  # noqa: S506 - a SafeLoader
    return body


def sizes(build: Path) -> dict[str, int]:
    """Bytes of each function's code and layers, by logical id. Raises FileNotFoundError without a build."""
    resources = read(build / "template.yaml")["Resources"]
    folders: dict[str, int] = {}

    def weigh(name: str, field: str) -> int:
        if name not in folders:
            folders[name] = _bytes(build / str(resources[name]["Properties"][field]))
        return folders[name]

    found = {}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::Serverless::Function":
            layers = resource["Properties"].get("Layers", [])
            found[name] = weigh(name, "CodeUri") + sum(weigh(layer["Ref"], "ContentUri") for layer in layers)
    return found


def table(found: Mapping[str, int]) -> str:
    """One line a function, the largest first.

    >>> print(table({"Small": 1_500_000, "Large": 160_000_000}))
    160.0 MB  Large  TOO LARGE
      1.5 MB  Small
    """
    return "\n".join(
        f"{size / 1e6:5.1f} MB  {name}{'  TOO LARGE' if size > LIMIT_BYTES else ''}"
        for name, size in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    )


def _bytes(folder: Path) -> int:
    return sum(item.stat().st_size for item in folder.rglob("*") if item.is_file() and not item.is_symlink())


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 when a function is too large or there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path, nargs="?", default=Path(".aws-sam/build"), help="what `sam build` left")
    build = parser.parse_args(arguments).build
    try:
        found = sizes(build)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing; run `make build` first", file=sys.stderr)
        return 1
    print(table(found))
    print(f"limit {LIMIT_BYTES / 1e6:.0f} MB unzipped (Lambda allows 250)")
    return 1 if not found or max(found.values()) > LIMIT_BYTES else 0


if __name__ == "__main__":
    sys.exit(main())
