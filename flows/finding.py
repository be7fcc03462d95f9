"""The command `e2urec find-polluted`, and the settings of a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from e2urec_core.errors import BadSetting
from e2urec_core.pollution.rule import FindRule, FoldRule
from e2urec_core.settings import Settings
from flows.flags import FLAGS, AsJson, Debug, StoreAt, Workspace
from flows.runs import Run, build_run, filled

OWN = {"folds": FoldRule, "finder": FindRule}
# Sections of a run that a search has no use for.
UNUSED = ("method", "forget", "training", "augment", "cache", "evaluate", "gates", "release")


class Finding(Settings):
    """Everything that decides what a search gives."""

    run: Run
    """Where rows come from, how they are cut and worded, the network and the seed; its method forgets nobody."""
    folds: FoldRule = FoldRule()
    """How every user is scored."""
    finder: FindRule = FindRule()
    """Who and what is proposed."""


class _Own(Settings):
    folds: FoldRule = FoldRule()
    """See `Finding`."""
    finder: FindRule = FindRule()
    """See `Finding`."""


def build_finding(dataset: str, backbone: str, preset: str | None, flags: Mapping[str, str]) -> Finding:
    """The settings that two words, a preset and flags such as `folds.num-folds` describe.

    Raises:
        BadSetting: A word, flag or value that the settings do not admit, or a flag that a search has no use for.
    """
    for name in flags:
        if name.split(".")[0] in UNUSED:
            raise BadSetting(f"`--{name}` is refused: a search forgets nobody", hint=f"its own settings: --{', --'.join(OWN)}")
    own = {name: value for name, value in flags.items() if name.split(".")[0] in OWN}
    told = filled(_Own, {}, {}, own)
    run = build_run(
        {"dataset": dataset, "backbone": backbone, "method": "original"}, preset, {k: v for k, v in flags.items() if k not in own}
    )
    return Finding(run=run, folds=told.folds, finder=told.finder)


def find_polluted(
    dataset: Annotated[str, typer.Argument(help="Dataset, such as `sample` or `ml-1m`.")],
    backbone: Annotated[str, typer.Argument(help="Backbone, such as `tiny-t5`.")],
    preset: Annotated[str | None, typer.Option("--preset", help="Named settings to start from, as for `unlearn`.")] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    seed: Annotated[str | None, typer.Option("--seed", help="Seed of everything that is drawn.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Propose users whose labels are improbable, for a person to accept: e2urec find-polluted DATASET BACKBONE."""
    if seed is not None:
        FLAGS["seed"] = seed
    plan = build_finding(dataset, backbone, preset, FLAGS)
    from e2urec_core.pollution.quality import need_cleanlab
    from flows.surroundings import prepare

    need_cleanlab()
    place = prepare(workspace)
    plan.run.dataset.fingerprint()
    plan.run.backbone.fingerprint()
    from flows.pollution import find_polluted as flow

    show_proposal(place, flow(plan, str(place)), as_json=as_json)


def show_proposal(place: Path, name: str, *, as_json: bool) -> None:
    """Print what a search has found; nobody is named."""
    from e2urec_core.report.pollution import PollutionDocument, headline, sentences

    folder = place / "reports" / name
    text = (folder / "pollution.json").read_text()
    if as_json:
        print(text)
        return
    document = PollutionDocument.from_json(text)
    for line in (headline(document), *sentences(document)):
        print(line)
    print(f"draft:  {folder / 'polluted.csv'} (names users; read it before you import it)")
    print(f"report: {folder / 'report.html'}")
