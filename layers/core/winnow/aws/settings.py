"""The only module that reads the environment. Every name derives from the stack's, so nothing else is passed in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from winnow.errors import ConfigError

VARIANT = "AllTraffic"
"""An UpdateEndpoint must keep the variant's name, so there is one for ever."""


@dataclass(frozen=True)
class Settings:
    stack: str
    account: str
    region: str
    partition: str = "aws"
    workteam: str = ""
    expert_workteam: str = ""
    training_image: str = ""
    endpoint: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises ConfigError naming the variable that is missing."""
        try:
            region = environment.get("AWS_REGION") or environment["AWS_DEFAULT_REGION"]
            return cls(
                stack=environment["WINNOW_STACK"],
                account=environment["WINNOW_ACCOUNT"],
                region=region,
                partition="aws-cn" if region.startswith("cn-") else "aws-us-gov" if "-gov-" in region else "aws",
                workteam=environment.get("WINNOW_WORKTEAM", ""),
                expert_workteam=environment.get("WINNOW_EXPERT_WORKTEAM", ""),
                training_image=environment.get("WINNOW_TRAINING_IMAGE", ""),
                endpoint=environment.get("WINNOW_ENDPOINT", "true") == "true",
            )
        except KeyError as error:
            raise ConfigError(
                f"environment variable {error} is not set; template.yaml sets it for every function"
            ) from None

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def role(self, name: str) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/{self.stack}-{name}"

    def function(self, hop: str) -> str:
        return self.arn("lambda", f"function:{self.stack}-{hop}")

    def state_machine(self, machine: str) -> str:
        return self.arn("states", f"stateMachine:{self.stack}-{machine}")

    def execution(self, machine: str, name: str) -> str:
        return self.arn("states", f"execution:{self.stack}-{machine}:{name}")

    @property
    def pool_bucket(self) -> str:
        return f"{self.stack}-pool-{self.account}-{self.region}"

    @property
    def data_bucket(self) -> str:
        return f"{self.stack}-data-{self.account}-{self.region}"

    def named(self, identifier: str) -> str:
        """Name of a SageMaker resource of ours: `{stack}-{identifier}`."""
        return f"{self.stack}-{identifier}"

    def identifier(self, name: str) -> str:
        """The inverse of `named`. Names that are not ours raise ConfigError."""
        prefix = f"{self.stack}-"
        if not name.startswith(prefix):
            raise ConfigError(f"{name!r} does not belong to stack {self.stack!r}")
        return name.removeprefix(prefix)
