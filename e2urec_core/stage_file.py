"""A stage written down: its inputs' folders, its rules and its seat, so that another process or another machine can run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from e2urec_core.errors import BadSetting
from e2urec_core.settings import Augment, CacheRule, ScoreRule, Seat, Settings, Sharding, Share, Training

StageName = Literal[
    "train_original",
    "train_retrained",
    "train_augmented",
    "train_shards",
    "fold_scores",
    "cache_original",
    "cache_teachers",
    "unlearn",
    "score",
    "evaluate",
    "probe",
    "judge",
]


class StageFile(Settings):
    """One stage; relative folders are taken from the file's own."""

    stage: StageName
    """Function of `e2urec_core/stages.py`."""
    folders: dict[str, str | None] = Field(default_factory=dict)
    """Folder of each input, by argument; none where the stage goes without."""
    earlier: tuple[str, ...] = ()
    """Folders of the original's outputs for other requests, for `cache_original`."""
    models: tuple[tuple[str, str], ...] = ()
    """Name and folder of each recommender, for `evaluate`."""
    scored: tuple[tuple[str, str, str], ...] = ()
    """Role, folder of the scores and the name in them of each recommender, for `judge`."""
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings by argument: backbone, training, augment, sharding, folds, method, rule, asked, prompt, history, gates, handed."""
    subject: str | None = None
    """The method's kind, for `evaluate`."""
    seat: Seat
    """Where and from which seed it works."""
    place: str
    """Folder to write into; it must exist."""
    checkpoints: str | None = None
    """Folder for what an unfinished stage keeps, so that it goes on after a kill."""
    share: Share | None = None
    """Which of the stage's shards are trained and kept among the checkpoints, and nothing else; none runs the stage to its end."""

    @classmethod
    def of(
        cls, stage: str, arguments: Mapping[str, Any], seat: Seat, place: Path, checkpoints: Path | None, share: Share | None = None
    ) -> StageFile:
        """The file of a call of a stage function with `arguments`."""
        given = dict(arguments)
        told: dict[str, Any] = {
            "stage": stage,
            "earlier": [str(folder) for folder in given.pop("earlier", ())],
            "models": [(name, str(folder)) for name, folder in given.pop("models", ())],
            "scored": [(role, str(folder), name) for role, folder, name in given.pop("scored", ())],
            "subject": given.pop("subject", None),
            "rules": {name: value.canonical() for name, value in given.items() if isinstance(value, Settings)},
            "folders": {name: value and str(value) for name, value in given.items() if not isinstance(value, Settings)},
        }
        return cls(**told, seat=seat, place=str(place), checkpoints=checkpoints and str(checkpoints), share=share)

    def arguments(self, root: Path) -> dict[str, Any]:
        """Arguments of the stage function; relative folders are taken from `root`.

        Raises:
            BadSetting: A rule is of no known name, or a folder is not there.
        """
        from e2urec_core.backbones.base import Backbone
        from e2urec_core.data.examples import HistoryRule
        from e2urec_core.data.prompts import PromptRule
        from e2urec_core.methods.base import Method
        from e2urec_core.pollution.rule import FoldRule
        from e2urec_core.release.gates import Gates, Handed

        owners: dict[str, type[Settings]] = {
            "backbone": Backbone,
            "training": Training,
            "augment": Augment,
            "sharding": Sharding,
            "folds": FoldRule,
            "method": Method,
            "rule": CacheRule,
            "asked": ScoreRule,
            "prompt": PromptRule,
            "history": HistoryRule,
            "gates": Gates,
            "handed": Handed,
        }
        strange = sorted(set(self.rules) - set(owners))
        if strange:
            raise BadSetting(f"the stage file has {len(strange)} unknown rules: {', '.join(strange)}", hint=f"rules: {', '.join(owners)}")
        told: dict[str, Any] = {name: owners[name].model_validate(rule) for name, rule in self.rules.items()}
        told |= {name: None if folder is None else _folder(root, folder) for name, folder in self.folders.items()}
        if self.stage == "cache_original":
            told["earlier"] = [_folder(root, folder) for folder in self.earlier]
        if self.stage == "judge":
            told["scored"] = [(role, _folder(root, folder), name) for role, folder, name in self.scored]
        if self.stage == "evaluate":
            if len(self.models) < 3 or not self.subject:
                raise BadSetting(
                    f"the stage file of `evaluate` names {len(self.models)} models and the subject `{self.subject or ''}`",
                    hint="name the models `original`, `retrain` and the method's kind, and that kind as `subject`",
                )
            told["models"] = [(name, _folder(root, folder)) for name, folder in self.models]
            told["subject"] = self.subject
        return told


def _folder(root: Path, named: str) -> Path:
    folder = root / named
    if not folder.is_dir():
        raise BadSetting(
            f"the stage file names the folder `{named}`, which is not there", hint="mend the path; relative ones start at the file's folder"
        )
    return folder
