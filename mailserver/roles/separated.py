"""The roles in processes of their own: what root runs where mail has many owners. DESIGN decision 7.

    supervisor   root; binds, starts, restarts; parses no remote octet
    front        mail_owner, confined; SMTP, TLS, logins, queue commit; cannot read mail
    queue        mail_owner, confined; schedule, expansion, remote delivery
    helper       root; passwords, keys, who exists; answers the front and the queue
    zygote       root; forks a session host per account, which is that account's user
    agent        root, several; forks a child per delivery, which is the recipient

Channels are Unix sockets in a directory that only root may write. Everything a role needs root for is
done before it becomes somebody else, and before it reads its first octet from the network.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from mailserver.accounts.codec import account_from
from mailserver.accounts.helper import Helper
from mailserver.accounts.helper_client import (
    HelperDirectory,
    HelperPenalties,
    HelperSecrets,
    auth_connection,
)
from mailserver.accounts.helper_logins import HelperLogins
from mailserver.config.config import Config
from mailserver.config.listeners import Listener
from mailserver.delivery.channel import ChannelAgents, handlers
from mailserver.delivery.job import Action
from mailserver.maillog import MailLog
from mailserver.queue.directory import State
from mailserver.queue.taking import prepare as prepare_maildrop
from mailserver.rights.agents import Agent, AgentClient
from mailserver.rights.as_user import Identity, become_confined
from mailserver.rights.fresh_reactor import fresh_reactor
from mailserver.rights.handover import Handover
from mailserver.rights.heart import Heart
from mailserver.rights.listeners import held_channel, listen_channel
from mailserver.rights.messages import Message
from mailserver.rights.service import ChannelService
from mailserver.rights.service_manager import ServiceManager
from mailserver.rights.session_host import SessionHost
from mailserver.rights.supervisor import Role, Supervisor, fork_child
from mailserver.rights.zygote import Zygote, attach
from mailserver.roles.auth_listener import AuthListener, bind_auth
from mailserver.roles.certificates import SecretFiles
from mailserver.roles.instance import lock_queue, runtime_directory
from mailserver.roles.listening import Bound, StartFailed, bind_all, smtp_ports
from mailserver.roles.parts import Parts
from mailserver.roles.python_home import unreachable_path
from mailserver.roles.ready import announce
from mailserver.roles.transports import check_tables, longest_command, password_files, pipes

AGENTS: Final = 4
_FRONT_THREADS: Final = 3  # take mail into the queue; others join while the disk is slow
_QUEUE_THREADS: Final = 100  # each local delivery under way has one, users' slow commands too
_AGENT_GRACE: Final = 100.0  # seconds that an agent waits longer for a command than its time limit
_CHANNELS: Final = ("helper", "zygote", "agents", "queue")
_AUTH: Final = "auth"
_AGENTS_ONLY: Final = "private"  # the directory that only root may enter


def run(config: Config, log: MailLog) -> None:
    """All roles run until SIGTERM. Raises StartFailed, ConfigError before the first one starts."""
    parts = Parts(config, log)
    identity = _front_identity(config, parts)
    queue_lock = lock_queue(config, identity.uid, identity.gid)
    bound = bind_all(config)
    os.makedirs(os.path.join(config.string("state_directory"), "accounts"), mode=0o755, exist_ok=True)
    directory = runtime_directory(config)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    os.makedirs(os.path.join(directory, _AGENTS_ONLY), mode=0o700, exist_ok=True)
    channels = {name: _channel(directory, name, identity) for name in _CHANNELS}
    server = _Server(config, log, identity, bound, channels, directory)
    server.check()
    _prepare_queue(config, log, identity)
    listeners = {**channels, **{_name(listener): taken for listener, taken in bound}}
    if (auth := bind_auth(parts)) is not None:
        listeners[_AUTH] = auth
    server.auth = auth
    version = config.string("mail_version")
    log.write("master", f"daemon started -- version {version}, configuration {config.directory}")
    announce()
    try:
        Supervisor(server.roles(), listeners, log, manager=ServiceManager(os.environ)).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(queue_lock)


def _prepare_queue(config: Config, log: MailLog, identity: Identity) -> None:
    """The queue's directories are there, made by whom they belong to. Raises ConfigError."""

    def make() -> None:
        queue = Parts(config, log).queue
        try:
            queue.prepare()
            prepare_maildrop(queue.path_of("", State.MAILDROP).rstrip("/"), is_shared=True)
        except OSError as error:
            log.write("master", f"fatal: {error.filename}: {error.strerror}")
            raise SystemExit(1) from error

    pid = fork_child(make, lambda: become_confined(identity))
    if os.waitpid(pid, 0)[1]:
        raise config.error(
            "queue_directory",
            f"{identity.name} cannot write there: chown -R {identity.name} it (the log has more)",
        )


def _front_identity(config: Config, parts: Parts) -> Identity:
    owner = parts.mail_owner
    if owner.uid == 0 or owner.gid == 0:
        raise config.error("mail_owner", "is root: name an unprivileged user that owns nothing else")
    closed = unreachable_path()
    if closed is not None:
        raise StartFailed(
            f"{closed}: Python lies below it and no user but root can pass: "
            "install into a directory that everybody may pass (chmod o+x), or use the system's Python"
        )
    return Identity(config.string("mail_owner"), owner.uid, owner.gid)


def _channel(directory: str, name: str, identity: Identity) -> socket.socket:
    """A channel that the front's user may connect to.

    The zygote's is root's alone. The agents' lies where only root may enter, and the queue takes hold of it
    before it becomes the front's user: a captured front can deliver nothing as anybody.
    """
    uid = 0 if name == "zygote" else identity.uid
    return listen_channel(_channel_path(directory, name), 0o600, uid)


def _channel_path(directory: str, name: str) -> str:
    return os.path.join(directory, _AGENTS_ONLY if name == "agents" else "", name)


def _name(listener: Listener) -> str:
    return f"{listener.address}:{listener.port}"


class _Server:
    """What the roles share: made before the first fork, changed by none."""

    def __init__(
        self,
        config: Config,
        log: MailLog,
        identity: Identity,
        bound: Bound,
        channels: Mapping[str, socket.socket],
        directory: str,
    ) -> None:
        self._config = config
        self._log = log
        self._identity = identity
        self._bound = bound
        self._channels = channels
        self._directory = directory
        self._heart = Heart()
        self.auth: socket.socket | None = None  # where other programs have logins checked

    def check(self) -> None:
        """Whatever a role would find wrong with the configuration is raised now."""
        parts = Parts(self._config, self._log)
        for listener, _ in self._bound:
            for service in ("smtp", "imap", "pop3"):
                parts.tls(service, listener.config)
        _ = parts.routing, parts.local_rules, parts.account_sources, parts.retry_times, parts.namespace_rules
        check_tables(parts)
        pipes(self._config)

    def roles(self) -> list[Role]:
        """Those that take mail first: they are told to stop first."""
        public = frozenset(_name(listener) for listener, _ in self._bound)
        return [
            Role("front", self._front, public | {_AUTH}, signal.SIGTERM, self._heart),
            Role("queue", self._queue, frozenset({"queue"}), signal.SIGTERM),
            Role("zygote", self._zygote, frozenset({"zygote"}), signal.SIGTERM),
            *(Role(f"agent-{n}", self._agent, frozenset({"agents"}), signal.SIGTERM) for n in range(AGENTS)),
            Role("helper", self._helper, frozenset({"helper"})),
        ]

    def _path(self, channel: str) -> str:
        return _channel_path(self._directory, channel)

    # Root's roles.

    def _helper(self) -> None:
        from mailserver.roles.logins import dovecot_socket, judge

        parts = Parts(self._config, self._log)
        views = [listener.config for listener, _ in self._bound]
        named = [table for view in views for table in parts.tables_of(view, "tls_server_sni_maps")]
        pairs = (pair for view in views for pair in parts.key_pair_files(view))
        secrets = SecretFiles(pairs, named, password_files(self._config))
        to_host = partial(attach, self._path("zygote"))
        dovecots = frozenset(map(dovecot_socket, views))
        helper = Helper(judge(parts), parts.account_sources, to_host, self._log, secrets, dovecots - {""})
        uids = {0, self._identity.uid}
        ChannelService(self._channels["helper"], helper.handle, uids, self._log).run_as_role()

    def _zygote(self) -> None:
        from mailserver.roles import retrieval

        _ = retrieval  # imported now, so that hosts need not
        state = os.path.join(self._config.string("state_directory"), "accounts")
        Zygote(self._channels["zygote"], self._host, state, self._log, self._host_groups).run()

    def _agent(self) -> None:
        from mailserver.roles.queueing import local_agents

        agents = local_agents(Parts(self._config, self._log))
        uids = {self._identity.uid}
        Agent(
            self._channels["agents"],
            handlers(agents),
            uids,
            self._log,
            groups=self._job_groups,
            is_roots_own=_is_roots_own,
            time_limit=longest_command(self._config) + _AGENT_GRACE,
        ).run()

    def _host_groups(self, account: Message) -> tuple[int, ...]:
        """The spool's group, where the account's INBOX lies there."""
        inbox = Parts(self._config, self._log).layout_for(account_from(account)).inbox
        return self._spool_group(os.path.dirname(inbox))

    def _job_groups(self, request: Message) -> tuple[int, ...]:
        """The spool's group for a delivery to the mailbox itself, never for commands and files."""
        if not _is_for_mailbox(request):
            return ()
        job = request["job"]
        return self._spool_group(os.path.dirname(str(job["target"]).rstrip("/")))

    def _spool_group(self, directory: str) -> tuple[int, ...]:
        spool = self._config.string("mail_spool_directory").rstrip("/")
        if os.path.realpath(directory) != os.path.realpath(spool):
            return ()
        found = os.stat(spool)
        return (found.st_gid,) if found.st_mode & stat.S_IWGRP and found.st_gid != 0 else ()

    # Others' roles.

    def _front(self) -> None:
        from mailserver.dns import Resolver
        from mailserver.roles.listening import Ports
        from mailserver.roles.queue_door import QueueNotifier
        from mailserver.roles.retrieval import RetrievalListeners
        from mailserver.roles.session_door import SessionDoor
        from mailserver.roles.smtp import SmtpListeners

        process = _Process(few_threads=_FRONT_THREADS)
        reactor = process.reactor
        secrets = HelperSecrets(self._path("helper"))
        parts = Parts(
            self._config, self._log, HelperDirectory(self._path("helper")), secrets.read, secrets.stamp
        )
        become_confined(self._identity)
        parts.queue.prepare()
        logins = HelperLogins(reactor, self._path("helper"))
        notifier = QueueNotifier(self._path("queue"), parts.warn("smtpd"))
        threads = process.threads
        smtp = SmtpListeners(
            parts,
            threads,
            reactor,
            Resolver(reactor),
            logins,
            notifier.accepted,
            partial(auth_connection, self._path("helper")),
        )
        handovers = {name: Handover(reactor, name) for name in ("imap", "pop3")}
        retrieval = RetrievalListeners(parts, threads, reactor, logins, None, handovers)
        door = SessionDoor(parts, threads, reactor, HelperPenalties(self._path("helper")))
        ports = Ports(parts, reactor)
        ports.open(self._bound, smtp, retrieval)
        auth = AuthListener(parts, reactor, self.auth, logins) if self.auth is not None else None
        process.beat(self._heart)

        async def stop() -> None:
            door.stop()
            if auth is not None:
                auth.stop()
            await ports.close()

        process.run(stop)

    def _queue(self) -> None:
        from mailserver.dns import Resolver
        from mailserver.roles.local_side import LocalSide
        from mailserver.roles.queue_door import QueueDoor
        from mailserver.roles.queueing import make_runner

        process = _Process(_QUEUE_THREADS)
        reactor = process.reactor
        secrets = HelperSecrets(self._path("helper"))
        parts = Parts(
            self._config, self._log, HelperDirectory(self._path("helper")), secrets.read, secrets.stamp
        )
        _ = parts.default_privs
        agents = ChannelAgents(
            AgentClient(held_channel(self._path("agents")), longest_command(self._config) + 2 * _AGENT_GRACE)
        )
        become_confined(self._identity)
        parts.queue.prepare()
        resolver, ports = Resolver(reactor), smtp_ports(self._bound)
        runner, ways_out = make_runner(
            parts,
            process.threads,
            reactor,
            resolver,
            agents,
            lambda path: None,
            ports,
            agents_are_this_process=False,
        )
        QueueDoor(reactor, self._channels["queue"], runner, {0, self._identity.uid})
        local = LocalSide(parts, process.threads, reactor, runner, is_shared=True)
        process.when_running(runner.start)
        process.when_running(local.start)

        async def stop() -> None:
            await local.stop()
            await runner.stop()
            ways_out.close()
            parts.queue.close()

        process.run(stop)

    def _host(self, account: Message, control: socket.socket) -> None:
        from mailserver.roles.retrieval import RetrievalListeners, behind_acls, make_registry

        process = _Process()
        reactor = process.reactor
        parts = Parts(self._config, self._log)
        registry, notices = make_registry(parts, process.threads, reactor)
        stores = behind_acls(parts, registry, may_share=False)
        retrieval = RetrievalListeners(parts, process.threads, reactor, None, stores)
        factories: dict[str, Any] = {
            "imap": retrieval.imap_host(self._config),
            "pop3": retrieval.pop3_host(self._config),
        }

        def build(account: Message, service: str, preamble: Mapping[str, Any]) -> Any:
            return factories[service].resumed(account_from(account), preamble)

        SessionHost(reactor, control, build, self._log, process.stop)
        process.when_running(notices.start)

        async def stop() -> None:
            for factory in factories.values():
                await factory.shut_down()
            notices.stop()
            await process.threads.run(registry.shut)

        process.run(stop)


def _is_for_mailbox(request: Message) -> bool:
    job = request.get("job")
    return isinstance(job, dict) and job.get("action") == Action.MAILBOX.value


def _is_roots_own(request: Message) -> bool:
    """Root's mailbox and .forward are its own; commands and files of it are nobody's."""
    return request["verb"] == "forward" or _is_for_mailbox(request)


class _Process:
    """A role's reactor and threads, from its start to its orderly end."""

    def __init__(self, threads: int = 16, few_threads: int = 0) -> None:
        """`few_threads`: see `WorkerThreads`."""
        from twisted.logger import globalLogBeginner

        from mailserver.roles.quiet_log import observer
        from mailserver.threads import WorkerThreads

        globalLogBeginner.beginLoggingTo([observer()], redirectStandardIO=False, discardBuffer=True)
        self.reactor = fresh_reactor()
        self.threads = WorkerThreads(self.reactor, threads, "mail", few_threads)

    def when_running(self, function: Callable[[], object]) -> None:
        """The function is called once the reactor runs."""
        self.reactor.callWhenRunning(function)

    def beat(self, heart: Heart) -> None:
        """The supervisor sees every second that the reactor turns."""
        heart.beat()
        self.reactor.callLater(1.0, self.beat, heart)

    def stop(self) -> None:
        """The process ends in order."""
        self.reactor.callLater(0, self.reactor.stop)

    def run(self, stop: Callable[[], Any]) -> None:
        """Runs until SIGTERM or `stop`; then `stop` is awaited."""
        from twisted.internet.defer import Deferred

        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
        self.reactor.addSystemEventTrigger("after", "shutdown", self.threads.stop)
        self.reactor.run()
