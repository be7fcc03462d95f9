"""A workspace with a champion of the tiny network, and what nights do to it, for tests."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from e2urec_console import TINY, Console, copied, trained_users

NO_METHOD = tuple(flag for pair in zip(TINY[::2], TINY[1::2], strict=True) if not pair[0].startswith("--method.") for flag in pair)
# The tiny network guesses worse than lots, and forgets and loses more in a night than a recommender may.
LENIENT = (
    *("--gates.utility.least-auc", "0", "--gates.utility.auc-fall", "1", "--gates.utility.log-loss-rise", "20"),
    *("--gates.utility.calibration-rise", "1", "--gates.utility.group-auc-fall", "1", "--gates.forgetting.level", "0.0001"),
)
NIGHT = ("nightly", "--ladder", "e2urec:training.num-epochs=1", *LENIENT, "--requests.approval-share", "1")


class NightShop:
    """A workspace with a champion, asked through the command, and what its files say."""

    def __init__(self, console: Console) -> None:
        self.console, self.place = console, console.workspace
        answer = console("train", "sample", "tiny-t5", *NO_METHOD, *LENIENT)
        assert answer.code == 0, answer.stderr
        self.users = trained_users(console.workspace, console.last())

    @classmethod
    def opened(cls, story: Path, place: Path, **environment: str) -> NightShop:
        """A shop in a new workspace that takes what it can from a story's store."""
        return cls(Console(copied(story, place), **environment))

    def ask(self, user: str, *items: str) -> str:
        """Hand a request in; returns its name."""
        answer = self.console("requests", "add", "--user", user, *[word for item in items for word in ("--item", item)], "--json")
        assert answer.code == 0, answer.stderr
        return str(answer.json()["id"])

    def states(self) -> dict[str, str]:
        """State of every request by its name."""
        return {each["id"]: each["state"] for each in self.console("requests", "list", "--json").json()}

    def night(self, *flags: str) -> list[dict[str, Any]]:
        """Run a night that must end well; returns the reports."""
        answer = self.console(*NIGHT, *flags, "--json")
        assert answer.code == 0, answer.stderr
        return list(answer.json()["nights"])

    def scan(self, user: str) -> list[str]:
        """Where the user is still named."""
        return list(self.console("scan", "--user", user, "--json").json())

    def receipts(self) -> list[dict[str, Any]]:
        """What the receipts say, in their order."""
        sealed = [json.loads(path.read_bytes()) for path in sorted((self.place / "receipts").glob("0*.json"))]
        return [json.loads(base64.b64decode(each["payload"])) for each in sealed]

    def champion(self) -> int:
        """Version of the champion."""
        return next(int(row["version"]) for row in self.console("models", "list", "--json").json() if row["role"] == "champion")

    def artifacts(self, kind: str) -> list[Path]:
        """Folders of the stored artifacts of one kind."""
        return sorted((self.place / "store" / "objects" / kind).glob("*"))
