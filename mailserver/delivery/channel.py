"""`Agents` over the channel to the delivery agents, and the agents' side of it.

The queue process asks (`ChannelAgents`); a delivery agent's child, which is the owner by then,
answers with what `handlers` makes of a `LocalAgents`. Where nobody knows whether a delivery was
done, it is deferred: a second copy rather than none (P3).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import asdict

from mailserver.delivery.job import Action, Agents, Forward, Job, Owner
from mailserver.envelope import Outcome, Status
from mailserver.rights.agents import AgentClient, AgentFailure, Handler
from mailserver.rights.messages import Message, to_octets, to_text


class ChannelAgents:
    """`Agents` that asks. *Blocking*; safe in threads."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    def read_forward(self, owner: Owner, paths: tuple[str, ...]) -> tuple[Forward | None, tuple[str, ...]]:
        """See `Agents.read_forward`."""
        answer = self._ask("forward", owner, {"paths": paths})
        found = answer["forward"]
        forward = Forward(found["path"], to_octets(found["text"])) if found else None
        return forward, tuple(answer["warnings"])

    def read_include(self, owner: Owner, path: str) -> bytes:
        """See `Agents.read_include`."""
        return to_octets(self._ask("include", owner, {"path": path})["text"])

    def perform(self, job: Job, content: int) -> Outcome:
        """See `Agents.perform`."""
        request = {**asdict(job), "action": job.action.value, "prefix": to_text(job.prefix)}
        request["environment"] = dict(job.environment)
        del request["owner"]
        try:
            answer = self._client.ask("perform", asdict(job.owner), {"job": request}, (content,))
            return Outcome(**{**answer["outcome"], "status": Status(answer["outcome"]["status"])})
        except (AgentFailure, KeyError, TypeError, ValueError) as error:
            return Outcome.deferred(f"delivery agent unavailable: {error}", "4.3.0")

    def _ask(self, verb: str, owner: Owner, message: Message) -> Message:
        """The answer. Raises OSError, with the errno that the agent met."""
        answer = self._client.ask(verb, asdict(owner), message)
        if "errno" in answer:
            raise OSError(answer["errno"], answer["text"], answer["filename"])
        return answer


def handlers(agents: Agents) -> Mapping[str, Handler]:
    """The verbs of `ChannelAgents`, done by `agents` with the rights of the process."""

    def forward(message: Message, descriptors: list[int]) -> Message:
        found, warnings = agents.read_forward(Owner(**message["owner"]), tuple(message["paths"]))
        shown = {"path": found.path, "text": to_text(found.text)} if found else None
        return {"forward": shown, "warnings": warnings}

    def include(message: Message, descriptors: list[int]) -> Message:
        return {"text": to_text(agents.read_include(Owner(**message["owner"]), message["path"]))}

    def perform(message: Message, descriptors: list[int]) -> Message:
        fields = dict(message["job"])
        fields["action"] = Action(fields["action"])
        fields["prefix"] = to_octets(fields["prefix"])
        fields["arguments"] = tuple(fields["arguments"])
        outcome = agents.perform(Job(owner=Owner(**message["owner"]), **fields), descriptors[0])
        return {"outcome": {**asdict(outcome), "status": outcome.status.value}}

    return {"forward": _with_errors(forward), "include": _with_errors(include), "perform": perform}


def _with_errors(handler: Handler) -> Handler:
    def handle(message: Message, descriptors: list[int]) -> Message:
        try:
            return handler(message, descriptors)
        except OSError as error:
            return {
                "errno": error.errno or errno.EIO,
                "text": error.strerror or str(error),
                "filename": str(error.filename or ""),
            }

    return handle
