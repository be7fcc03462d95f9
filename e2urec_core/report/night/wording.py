"""What a night's page says in sentences and tables."""

from __future__ import annotations

from e2urec_core.release.verdict import shown
from e2urec_core.report.night.schema import NightDocument

Lines = list[tuple[str, ...]]
PARTS = {
    "share": ("Users forgotten", "share of the users at the last training"),
    "auc_fall": ("AUC lost", "on test rows, all nights added up"),
    "distance": ("Distance to Retrain", "over that between two Retrains, from shadow Retrains"),
}
PLACES = {
    "store_files": "files of stored artifacts",
    "unfinished": "leftovers of unfinished stages",
    "pages_and_files": "pages and other files",
    "tracking_runs": "tracked runs",
    "model_versions": "versions of the model",
    "tracking_files": "files of tracked runs and versions",
}


def counted(number: int, word: str) -> str:
    """A number and its word, in the plural unless it is one."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def headline(night: NightDocument) -> str:
    """The night in one sentence."""
    certified, unknown = night.counted("certified"), night.counted("no_data")
    done = f"{counted(certified, 'request')} carried out and certified" if certified else "No request was certified"
    return (
        f"{done}; {f'version {night.champion} is the new champion' if night.promoted else f'version {night.champion} stays champion'}"
        + (f"; {unknown:,} about nobody in the data." if unknown else ".")
    )


def sentences(night: NightDocument) -> list[str]:
    """What else must be known."""
    told = _on_pollution(night)
    if kept := night.counted("promoted"):
        told.append(
            f"{counted(kept, 'request')} of this night are forgotten, but not certified yet: earlier versions, or data, are still there."
        )
    if back := night.counted("queued", "needs_human"):
        told.append(f"{counted(back, 'request')} of this night could not be carried out and wait for the next one, or for a person.")
    if night.waiting:
        told.append(f"{counted(night.waiting, 'request')} came in too late for this night and wait for the next.")
    if night.overdue:
        told.append(f"{counted(night.overdue, 'request')} are open after the time by which they must be done.")
    spent = night.drift.spent(night.budget)
    if spent:
        told.append(f"The drift budget is used up ({', '.join(PARTS[name][0].lower() for name in spent)}): the next night trains anew.")
    return told


def _on_pollution(night: NightDocument) -> list[str]:
    """Whether the recommender is better without polluted data, on rows that nobody was trained on and no candidate is reported by."""
    before, best = night.validation_auc, night.best
    if before is None or best is None or best.validation_auc is None:
        return []
    among = f"`{best.method}` is the best of {counted(sum(each.passed for each in night.attempts), 'candidate')} that passed the gates"
    if best.validation_auc > before:
        return [f"Without the polluted data the AUC on validation rows rose from {shown(before)} to {shown(best.validation_auc)}: {among}."]
    return [
        f"Without the polluted data the AUC on validation rows is {shown(best.validation_auc)}, and was {shown(before)}: {among}, and none "
        "is better than the champion before. The data are gone all the same, because somebody asked."
    ]


def budget_table(night: NightDocument) -> Lines:
    """How much of the drift budget is used: what, value, budget, share used."""
    used = night.drift.used(night.budget)
    values = {"share": night.drift.share, "auc_fall": night.drift.auc_fall, "distance": night.drift.distance}
    bounds = {"share": night.budget.share, "auc_fall": night.budget.auc_fall, "distance": night.budget.distance}
    lines: Lines = []
    for name, (title, sentence) in PARTS.items():
        value = values[name]
        told = ("never measured", "–") if value is None else (shown(value), f"{used[name]:.0%}")
        lines.append((f"{title}, {sentence}", told[0], shown(bounds[name]), told[1]))
    return lines


def attempts_table(night: NightDocument) -> Lines:
    """What was tried: method, outcome, AUC on validation rows, reasons."""
    return [(each.method, "passed" if each.passed else "refused", shown(each.validation_auc), each.said or "–") for each in night.attempts]


def results_table(night: NightDocument) -> list[list[str]]:
    """The night in a few lines, the header first: what, value."""
    lines = [["What", "Value"], ["Requests certified", f"{night.counted('certified'):,}"]]
    lines += [["Requests about nobody in the data", f"{night.counted('no_data'):,}"]]
    lines += [["Requests that wait", f"{night.waiting + night.counted('queued', 'needs_human', 'promoted'):,}"]]
    lines += [[f"Gates, {each.method}", "passed" if each.passed else each.said or "refused"] for each in night.attempts]
    lines += [["Champion", f"version {night.champion}{', new' if night.promoted else ''}"]]
    return lines + [[title, f"{value} of {bound}"] for title, value, bound, _ in budget_table(night)]


def requests_table(night: NightDocument) -> Lines:
    """The night's requests: name, scope, state, due, receipt."""
    return [
        (each.id, each.scope, each.state.replace("_", " "), each.due_at[:16].replace("T", " "), each.receipt or "–")
        for each in night.requests
    ]


def erased_table(night: NightDocument) -> Lines:
    """What was erased: how many, of what."""
    return [(PLACES.get(name, name), f"{number:,}") for name, number in night.erased.items() if number]


def seconds_table(night: NightDocument) -> Lines:
    """Where the time went."""
    stages = sorted(night.seconds.items(), key=lambda each: -each[1])
    return [(name, f"{seconds:.1f}") for name, seconds in (*stages, ("The whole night", night.total_seconds))]


def text(night: NightDocument) -> str:
    """The night for a terminal."""
    used = night.drift.used(night.budget)
    parts = ", ".join(f"{PARTS[name][0].lower()} {share:.0%}" for name, share in used.items())
    since = f"{counted(night.drift.nights, 'night')} since the last training"
    return "\n".join([headline(night), *sentences(night), f"Drift budget used: {parts} ({since})."])
