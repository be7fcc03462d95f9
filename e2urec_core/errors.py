"""What the user can mend: one sentence with the fact and its numbers, indented facts, and a hint.

Everything else that goes wrong is ours and is an `assert` or an ordinary exception. The command prints a `UserError` without a
traceback and exits with 2.
"""

from __future__ import annotations

from collections.abc import Mapping


class UserError(Exception):
    """A fault in the input or the settings, said so that it can be mended.

    Args:
        fact: One sentence with its numbers, no trailing period, no user identifier.
        facts: Further lines, name to value, shown indented.
        hint: The command, field or file to change.
    """

    def __init__(self, fact: str, *, hint: str, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(fact)
        self.fact, self.hint, self.facts = fact, hint, dict(facts or {})

    def __str__(self) -> str:
        width = max((len(name) for name in self.facts), default=0)
        lines = [f"{type(self).__name__}: {self.fact}"]
        lines += [f"  {name:<{width}}   {value}" for name, value in self.facts.items()]
        return "\n".join([*lines, f"hint: {self.hint}"])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.fact, self.hint, self.facts))


def _rebuild(kind: type[UserError], fact: str, hint: str, facts: dict[str, object]) -> UserError:
    return kind(fact, hint=hint, facts=facts)


class BadSetting(UserError):
    """A word, flag or value that the settings do not admit."""


class BadInput(UserError):
    """A file, table or row that is not what its format says."""


class ContractBroken(UserError):
    """A table that breaks its data contract."""


class SplitLeak(UserError):
    """A split under which training would see rows newer than those it is tested on."""


class BadRequest(UserError):
    """A choice of users to forget that cannot be carried out."""


class MissingPackage(UserError):
    """A package that only some commands need, and that is not installed."""


class BadBackbone(UserError):
    """A tokenizer or network that cannot answer with one token."""


class StaleCache(UserError):
    """A teacher cache that was made from other models than those at hand."""


class Diverged(UserError):
    """A loss that is no longer a finite number, or that has risen far above what it was."""


class NotSolved(UserError):
    """A system of equations whose solution did not come near enough within the iterations allowed."""


class TooLarge(UserError):
    """A row or a network that the device's memory does not hold."""


class ProcessDied(UserError):
    """A stage's own process that ended without saying why."""


class DamagedArtifact(UserError):
    """A file of the store whose bytes are not those that were written."""


class StorageFailed(UserError):
    """A workspace that cannot be written or is full."""


class UnknownRun(UserError):
    """A run or stage that this workspace does not hold."""


class TrackingFailed(UserError):
    """A tracking server or model registry that does not do what it is asked for."""


class TrackingRefused(TrackingFailed):
    """A call that a tracking server or model registry answers with no, whenever it is made."""


class BadRelease(UserError):
    """A released recommender whose bytes or scores are not those that were released."""


class DamagedLedger(UserError):
    """A ledger whose bytes or whose history are not what was written."""


class NewerLedger(UserError):
    """A ledger that a newer version of this program has written."""


class UnknownRelease(UserError):
    """A release that the ledger does not hold."""


class ReleaseRefused(UserError):
    """A release that may not be registered or become champion as things are."""


class ChampionChanged(UserError):
    """A promotion that was decided on while another champion was in place."""


class UnknownRequest(UserError):
    """A deletion request that the ledger does not hold."""


class RequestRefused(UserError):
    """A step of a deletion request that may not be taken as things are."""


class KeyReused(UserError):
    """A name that was given to one deletion request, given to another."""


class Fenced(UserError):
    """A run that goes on with deletion requests after another run has taken them over."""


class BadKey(UserError):
    """A secret or public key that is missing, malformed, not the one used so far, or open to others."""


class BadReceipt(UserError):
    """A receipt, or a chain of receipts, that is not what was signed."""


class ServiceFailed(UserError):
    """A server or worker that `e2urec serve` starts, and that does not come up or does not do what it is told."""


class WorkspaceBusy(UserError):
    """Another run works on what this one needs for itself."""


class NoChampion(UserError):
    """There is no recommender in production yet."""


class NightFailed(UserError):
    """No recommender that forgets passed its gates; the requests wait for the next night."""


class NotErased(UserError):
    """Something that names people who are forgotten is still there after everything was erased."""


class DamagedBackup(UserError):
    """A back-up that is none, or whose bytes are not those that were copied."""


class NotRestorable(UserError):
    """A back-up that cannot be put in place without bringing back people who were forgotten, or losing what newer records say."""
