"""What looked wrong in an earlier run of reconcile: only what stays wrong is repaired, and not more often than it helps.

Events are late more often than they are lost. A thing that should have happened is first written down as suspect; a later
run repairs it if it is still wrong, and waits longer each time. Time is the loop's clock: what S3 or SageMaker say about
when something was written is not needed.
"""

from __future__ import annotations

from datetime import timedelta

from winnow.ports import JsonDict, Ports

PARTITION = "SUSPECT"
MAX_REPAIRS = 5
"""What five repairs did not bring home needs a person; the list of repairs goes on naming it."""


class Suspects:
    """The suspects of one run. `due` notes one and says whether to repair it now; `close` forgets those that healed."""

    def __init__(self, ports: Ports) -> None:
        self._table = ports.table
        self._now = ports.clock.now().timestamp()
        self._known: dict[str, JsonDict] = {str(item["sk"]): item for item in ports.table.query(PARTITION)}
        self._seen: set[str] = set()

    def due(self, kind: str, name: str, *, grace: timedelta) -> bool:
        """Whether `name` has been wrong for `grace`, doubled with every repair that did not help."""
        key = f"{kind}#{name}"
        self._seen.add(key)
        known = self._known.get(key)
        if known is None:
            known = {"since": self._now, "repairs": 0}
            self._known[key] = known
            self._table.put(PARTITION, key, known)
        repairs = int(known["repairs"])
        return repairs < MAX_REPAIRS and self._now - float(known["since"]) >= grace.total_seconds() * 2**repairs

    def repaired(self, kind: str, name: str) -> None:
        """Note a repair, after it was made: a run that dies in between repairs again, which is harmless."""
        key = f"{kind}#{name}"
        known = {"since": self._now, "repairs": int(self._known[key]["repairs"]) + 1}
        self._known[key] = known
        self._table.put(PARTITION, key, known)

    def hopeless(self, kind: str) -> list[str]:
        """Names of this kind that were repaired as often as it makes sense and are still wrong."""
        prefix = f"{kind}#"
        return sorted(
            key.removeprefix(prefix)
            for key in self._seen
            if key.startswith(prefix) and self._known[key]["repairs"] >= MAX_REPAIRS
        )

    def close(self) -> None:
        """Forget what is no longer wrong."""
        for key in self._known.keys() - self._seen:
            self._table.delete(PARTITION, key)
