"""The run for programs: a JSON object a line for each event, with keys that stay.

Every line has `time` (UTC) and `event`:

- start: `format` of these lines, `version` of tapath, `study`, its run's `run`, and `log`, the log file;
- reused, started, epoch, paused, done, pruned, failed, lost, retry, note of a stage: `path`, `key`, `seed`, `role`,
  `epoch` of `epochs`, `score`, `seconds` of training, `left` until it is done, `images_per_second`, and `reason`: why
  it failed, was given up or is tried again, or what is to be known of it; of one that is lost the key of what failed;
- progress, once a minute: `part` of the work from 0 to 1, `left` of the whole, `counts` of stages by their states;
- note and warning: `text`;
- end, the last: `exit`, the exit code; `reason` if something broke off the run; `metric`; `answers`: of each student
  `student`, `path`, `score`, `gain_over_baseline` and `keys`; `counts`; `report`, the page.

Times are in seconds. What is not known is null. A new key makes no new format.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from orchestrator.board import Board, Row, State
from orchestrator.outlook import Outlook
from orchestrator.plain_lines import HEARTBEAT

FORMAT = 1


class JsonLines:
    """Writes each event of a board to a stream of which nothing else is read."""

    def __init__(self, board: Board, stream: TextIO, outlook: Outlook) -> None:
        self.board, self.stream, self.outlook = board, stream, outlook
        self.lock, self.begun = threading.RLock(), False
        self.known: dict[str, tuple[State, int]] = {}  # the state and epoch last told, by key
        self.over = threading.Event()
        self.heart = threading.Thread(target=self._beat, name="json", daemon=True)

    def begin(self, version: str, log: str) -> None:
        self.begun = True
        self._write("start", format=FORMAT, version=version, study=self.board.name, run=self.board.run, log=log)

    def start(self) -> None:
        self.heart.start()

    def stop(self) -> None:
        self.over.set()
        self.heart.join()

    def say(self, text: str, event: str = "note") -> None:
        self._write(event, text=text)

    def tell(self, event: str, row: Row, text: str) -> None:
        self._write(event, **self._facts(row) | {"reason": text})

    def changed(self, row: Row) -> None:
        with self.lock:
            before, now = self.known.get(row.key), (row.state, row.epoch)
            if now == before or row.state == "waiting":
                self.known[row.key] = now
                return
            self.known[row.key] = now
            again = before is not None and before[0] == "running"
            event = ("epoch" if again else "started") if row.state == "running" else row.state
            self._write(event, **self._facts(row))

    def end(self, code: int, *, reason: str | None = None, **more: Any) -> None:
        """The last line."""
        counts = self._counts()
        self._write("end", exit=code, reason=reason, **{"metric": None, "answers": [], "report": None} | more, **counts)

    def _facts(self, row: Row) -> dict[str, Any]:
        return {
            "path": str(row.path),
            "key": row.key,
            "seed": row.seed,
            "role": row.role,
            "epoch": row.epoch,
            "epochs": row.epochs,
            "score": row.score,
            "seconds": row.seconds,
            "left": self.outlook.left(row),
            "images_per_second": row.speed,
            "reason": row.reason or None,
        }

    def _counts(self) -> dict[str, Any]:
        return {"counts": dict(Counter(row.state for row in list(self.board.rows.values())))}

    def _beat(self) -> None:
        while not self.over.wait(HEARTBEAT):
            part, left = self.outlook.now()
            self._write("progress", part=part, left=left, **self._counts())

    def _write(self, event: str, **facts: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(finite({"time": now, "event": event, **facts}), allow_nan=False)
        with self.lock:
            print(line, file=self.stream, flush=True)


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answers(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the last line has of a summary."""
    found = [
        {"student": answer["student"], "path": None, "score": None, "gain_over_baseline": None, "keys": []}
        | ({name: answer["best"][name] for name in ("score", "gain_over_baseline", "keys")} if answer["best"] else {})
        | ({"path": " > ".join(answer["best"]["path"])} if answer["best"] else {})
        for answer in summary["answers"]
    ]
    return {"metric": summary["metric"], "answers": found}
