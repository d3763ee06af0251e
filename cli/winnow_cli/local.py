"""`winnow local up`: an AWS account on this machine, with the template deployed into it, for any AWS client."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from winnow_cli.errors import UsageError

if TYPE_CHECKING:
    from winnow_local.cloud import LocalCloud

CROWD, EXPERTS = "labelers", "experts"
REGION = "us-east-1"
TICK_SECONDS = 0.1


def up(given: argparse.Namespace) -> int:
    """Start, deploy, print how to reach it, and serve until interrupted."""
    from winnow_local.cloud import LocalCloud
    from winnow_local.gateway import door

    template = None if given.empty else given.template or Path(__file__).resolve().parents[2] / "template.yaml"
    if template and not template.is_file():
        raise UsageError(f"{template}: there is no template; name one with --template")
    region = given.region or REGION
    team = f"arn:aws:sagemaker:{region}:{LocalCloud.account}:workteam/private-crowd/"
    parameters = {"WorkteamArn": team + CROWD, "ExpertWorkteamArn": team + EXPERTS}
    cloud = LocalCloud(
        template, stack=given.stack, parameters=parameters, region=region, workers=given.workers,
        start=datetime.now(UTC),
    )  # fmt: skip
    with cloud, ExitStack() as stack:
        for name in (CROWD, EXPERTS):
            cloud.labeling.employ(name, None)
        try:
            url = stack.enter_context(door(cloud, port=given.port))
        except (OSError, SystemExit) as error:  # werkzeug ends the process when the port is taken
            raise UsageError(f"port {given.port} is taken; choose another one with --port") from error
        print(announcement(url, region, cloud.outputs, speed=given.speed), flush=True)
        try:
            follow(cloud, speed=given.speed)
        except KeyboardInterrupt:
            print("stopped; nothing is kept")
    return 0


def follow(cloud: LocalCloud, *, speed: float) -> None:
    """Let virtual time pass as real time does, so much faster, until interrupted."""
    last = time.monotonic()
    while True:
        time.sleep(TICK_SECONDS)
        now = time.monotonic()
        cloud.advance(hours=(now - last) * speed / 3600)
        last = now


def announcement(url: str, region: str, outputs: dict[str, str], *, speed: float) -> str:
    """What to type elsewhere, and what is there."""
    wide = max(map(len, outputs), default=0)
    lines = [
        f"The local cloud is up at {url}; a real second is {speed:g} virtual ones. Elsewhere:",
        "",
        f"  export AWS_ENDPOINT_URL={url} AWS_REGION={region} AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local",
        "  winnow put FILE...    winnow status    winnow select",
        "",
        *(f"{name.ljust(wide)}  {value}" for name, value in sorted(outputs.items())),
        "",
        "Ctrl-C ends it.",
    ]
    return "\n".join(lines)
