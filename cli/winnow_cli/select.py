"""`winnow select`: ask for a batch now."""

from __future__ import annotations

import argparse
import json

from winnow_cli.errors import UsageError
from winnow_cli.stack import connect, explained


def run(given: argparse.Namespace) -> int:
    """Invoke select_batch as its schedule would, and print what it decided."""
    stack = connect(given)
    name = f"{stack.settings.stack}-select_batch"
    with explained(f"function {name}"):
        request = {"cause": "command", "anyway": given.anyway}
        answer = stack.client("lambda").invoke(FunctionName=name, Payload=json.dumps(request).encode())
    body = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise UsageError(f"{name}: {body.get('errorType')}: {body.get('errorMessage')}")
    print(json.dumps(body, indent=1, ensure_ascii=False))
    return 0
