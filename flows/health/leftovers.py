"""What earlier commands have left: runs, servers, the lock of nights, and requests that are late or wait for a person."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from flows.health.finding import Check, Finding, counted, listed, ok, warning
from flows.health.servers import WITHIN_S
from flows.health.subject import Subject
from flows.night_running import LOCK

TOPIC = "leftovers"
# The kernel's list of locks: kind `FLOCK`, and as its sixth word MAJOR:MINOR:INODE of the file.
LOCKS = Path("/proc/locks")
RECENT = timedelta(days=7)


def runs(subject: Subject) -> Finding:
    """Runs that work now, and those that were killed within a week."""
    from tasks._journal import recorded_runs

    records = recorded_runs(subject.workspace / "runs")
    running = [record for record in records if record.state == "running"]
    alive = [record.run for record in running if record.is_alive()]
    killed = [record for record in running if record.as_it_is().state != "running"]
    late = [record.run for record in killed if datetime.fromisoformat(record.started_at) > subject.clock() - RECENT]
    elsewhere = len(running) - len(alive) - len(killed)
    said = f"{counted(len(records), 'run')}, {len(alive)} at work{f' ({listed(alive)})' if alive else ''}"
    said += f", {elsewhere} perhaps at work on another machine" if elsewhere else ""
    if late:
        return warning(
            f"{said}; {counted(len(late), 'was', 'were')} killed within {RECENT.days} days: {listed(late)}",
            "give the same command again: it goes on from what is finished",
        )
    return ok(f"{said}; {counted(len(killed), 'was', 'were')} killed earlier" if killed else said)


def orphans(subject: Subject) -> Finding:
    """Prefect's servers in the workspace whose commands were killed."""
    from flows.servers import orphans as orphans_on

    found = orphans_on(subject.workspace / "prefect")
    if not found:
        return ok("no server of a killed command is left")
    numbers = ", ".join(str(process.pid) for process in found)
    return warning(f"{counted(len(found), 'server')} of killed commands still run (process {numbers})", "the next command ends them")


def lock(subject: Subject) -> Finding:
    """Whether a night holds the workspace; told from the kernel's list, as trying the lock would keep a night from it."""
    path = subject.workspace / LOCK
    if not path.exists():
        return ok("no night is at work")
    if not LOCKS.exists():
        return ok("whether a night is at work is not told on this system")
    inode = str(path.stat().st_ino)
    held = [words for line in LOCKS.read_text().splitlines() if (words := line.split())[1] == "FLOCK" and words[5].split(":")[2] == inode]
    if not held:
        return ok("no night is at work")
    return warning(f"process {held[0][4]} holds {LOCK}: a night is at work", "let it finish; if it hangs, end it or use `--take-over`")


def requests(subject: Subject) -> Finding:
    """Deletion requests that are late, or that nobody but a person can move."""
    try:
        found = subject.ledger()
    except Exception:
        return ok("the ledger cannot be read, so no request is counted")
    if found is None or not found.num_in:
        return ok("there are no deletion requests")
    waiting, unverified, queued = (found.num_in.get(state, 0) for state in ("needs_human", "received", "queued"))
    said = f"{found.num_overdue} overdue, {waiting} wait for a person, {unverified} for `verify`, {queued} for the next night"
    if found.num_overdue or waiting:
        return warning(said, "`e2urec requests list` names them; `e2urec requests approve` queues what waits for a person")
    return ok(said)


CHECKS = (
    Check(TOPIC, "runs", runs),
    Check(TOPIC, "orphans", orphans),
    Check(TOPIC, "nightly lock", lock),
    Check(TOPIC, "requests", requests, WITHIN_S),
)
