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
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mailserver.accounts.codec import account_from
from mailserver.accounts.helper import Helper
from mailserver.accounts.helper_client import (
    HelperDirectory,
    HelperPenalties,
    HelperSecrets,
    auth_connection,
    leave_penalties,
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
from mailserver.rights.as_user import NOBODY, Identity, become_confined
from mailserver.rights.generation import Closable, Generation, Passage, Role
from mailserver.rights.handed_down import HandedDown
from mailserver.rights.handover import Handover
from mailserver.rights.heart import Heart
from mailserver.rights.listeners import held_channel, listen_channel
from mailserver.rights.messages import Message
from mailserver.rights.service import ChannelService
from mailserver.rights.service_manager import ServiceManager
from mailserver.rights.supervisor import BEGIN, RETIRE, Supervisor, fork_child
from mailserver.rights.zygote import Zygote, attach
from mailserver.roles.auth_listener import AuthListener, bind_auth
from mailserver.roles.certificates import SecretFiles
from mailserver.roles.instance import app_password_channel, guest_channel, lock_queue, runtime_directory
from mailserver.roles.listening import Bound, StartFailed, bind_all, by_address, smtp_ports
from mailserver.roles.parts import Parts
from mailserver.roles.permission import allowed_users
from mailserver.roles.process import RoleProcess
from mailserver.roles.public import groups_for, prepare_public
from mailserver.roles.python_home import unreachable_path
from mailserver.roles.ready import announce
from mailserver.roles.reload import Outcome, OutcomeFile, Reloading, addresses
from mailserver.roles.transports import client_key_pairs, longest_command, password_files
from mailserver.roles.trial import try_out

if TYPE_CHECKING:
    from mailserver.guests.introductions import Introductions

AGENTS: Final = 4
_QUEUE_THREADS: Final = 100  # each local delivery under way has one, users' slow commands too
_FRONT_THREADS: Final = 3  # take mail into the queue; others join while the disk is slow
_AGENT_GRACE: Final = 100.0  # seconds that an agent waits longer for a command than its time limit
_CHANNELS: Final = ("helper", "zygote", "agents")
_AUTH: Final = "auth"
_COUNTS: Final = "counts"
_PENALTIES: Final = "penalties"
_APP_PASSWORDS: Final = "app-passwords"
_GUESTS: Final = "guests"
_AGENTS_ONLY: Final = "private"  # the directory that only root may enter


def run(config: Config, log: MailLog) -> None:
    """All roles run until SIGTERM. Raises StartFailed, ConfigError before the first one starts."""
    os.umask(0o022)  # whatever the shell has: the roles pass through directories that are made here
    identity = _front_identity(config, Parts(config, log))
    queue_lock = lock_queue(config, identity.uid, identity.gid)
    bound = bind_all(config)
    try_out(config, log)
    os.makedirs(os.path.join(config.string("state_directory"), "accounts"), mode=0o755, exist_ok=True)
    _prepare_queue(config, log, identity)
    directory = runtime_directory(config)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory, mode=0o755)
    try:
        queue_channel = _channel(directory, "queue", identity)
        app_passwords = listen_channel(app_password_channel(config), 0o666)
        guests = listen_channel(guest_channel(config), 0o666)
        auth = bind_auth(Parts(config, log))
        site = _Site(identity, directory, queue_channel, app_passwords, guests, auth)
        first = _Server(config, log, bound, site, is_first=True)
        file = OutcomeFile(config.string("queue_directory"), 0, 0)
        renewal = _Renewal(first, Reloading(config, log, file, has_fixed_mode=True))
        version = config.string("mail_version")
        log.write("master", f"daemon started -- version {version}, configuration {config.directory}")
        announce()
        Supervisor(first.generation(), manager=ServiceManager(os.environ), renewal=renewal).run()
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


@dataclass(slots=True)
class _Site:
    """What all generations share: the front's user, the runtime directory, and four sockets.

    One is the way to the queue, one where users ask the helper for app passwords, one where their session
    hosts ask it for what others share with them, the last where other programs have logins checked, if they
    do. Fronts and helpers leave to their successors what they counted.
    """

    identity: Identity
    directory: str
    queue_channel: socket.socket
    app_passwords: socket.socket
    guests: socket.socket
    auth: socket.socket | None
    generations: int = 0
    counts: HandedDown = field(default_factory=lambda: HandedDown("counts"))  # what fronts counted
    penalties: HandedDown = field(default_factory=lambda: HandedDown("penalties"))


class _Renewal:
    """The roles of a changed configuration: a `Renewal`."""

    def __init__(self, server: _Server, reloading: Reloading) -> None:
        self._server = server
        self._reloading = reloading
        self._coming: tuple[_Server, Outcome] | None = None

    def next(self) -> Generation | None:
        """See `Renewal.next`."""
        begun = self._reloading.begin()
        if begun is None:
            return None
        outcome, config, log = begun
        try:
            try_out(config, log)
            bound = bind_all(config, by_address(self._server.bound))
            server = _Server(config, log, bound, self._server.site)
        except Exception as error:  # whatever it is: the old configuration runs on
            self._reloading.refuse(outcome, error)
            return None
        self._coming = server, outcome
        return server.generation()

    def taken(self, problem: str) -> None:
        """See `Renewal.taken`."""
        assert self._coming is not None
        (server, outcome), self._coming = self._coming, None
        old, new = by_address(self._server.bound), by_address(server.bound)
        left, right = (new, old) if problem else (old, new)
        for address in left.keys() - right.keys():
            left[address].close()
        if problem:
            self._reloading.refuse(outcome, StartFailed(problem))
            return
        outcome.opened, outcome.closed = (
            addresses(new.keys() - old.keys()),
            addresses(old.keys() - new.keys()),
        )
        self._server = server
        self._reloading.accept(outcome, server.config, server.log)


class _Server:
    """What the roles of one configuration share: made before the first fork, changed by none."""

    def __init__(
        self, config: Config, log: MailLog, bound: Bound, site: _Site, is_first: bool = False
    ) -> None:
        site.generations += 1
        self.config = config
        self.log = log
        self.bound = bound
        self.site = site
        self._begins_at_once = is_first
        self._identity = site.identity
        self._directory = os.path.join(site.directory, str(site.generations))
        os.makedirs(os.path.join(self._directory, _AGENTS_ONLY), mode=0o700)
        os.chmod(self._directory, 0o755)
        self._channels = {name: _channel(self._directory, name, site.identity) for name in _CHANNELS}
        self._heart = Heart()
        self._front_passage, self._queue_passage = Passage(), Passage()
        self._share_namespaces()

    def _share_namespaces(self) -> None:
        """Public namespaces can be shared; what keeps one from it is told. As root."""
        parts = Parts(self.config, self.log)
        accounts = os.path.join(self.config.string("state_directory"), "accounts")
        for problem in prepare_public(parts, accounts):
            parts.warn("master")(problem)

    def generation(self) -> Generation:
        """The roles, those that take mail first: they are told to stop first."""
        public = {_name(listener): taken for listener, taken in self.bound}
        if self.site.auth is not None:
            public[_AUTH] = self.site.auth
        front_has = frozenset({*public, _COUNTS})
        roles = [
            Role("front", self._front, front_has, signal.SIGTERM, self._heart, self._front_passage),
            Role("queue", self._queue, frozenset({"queue"}), signal.SIGTERM, passage=self._queue_passage),
            Role("zygote", self._zygote, frozenset({"zygote"}), signal.SIGTERM),
            *(Role(f"agent-{n}", self._agent, frozenset({"agents"}), signal.SIGTERM) for n in range(AGENTS)),
            Role("helper", self._helper, frozenset({"helper", _APP_PASSWORDS, _GUESTS, _PENALTIES})),
        ]
        heritage: dict[str, Closable] = {_COUNTS: self.site.counts, _PENALTIES: self.site.penalties}
        sockets = {**self._channels, "queue": self.site.queue_channel, **public}
        sockets |= {_APP_PASSWORDS: self.site.app_passwords, _GUESTS: self.site.guests}
        return Generation(roles, {**sockets, **heritage}, self.log, self._begins, self._ended)

    def _begins(self) -> None:
        self._begins_at_once = True

    def _ended(self) -> None:
        for channel in self._channels.values():
            channel.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, channel: str) -> str:
        directory = self.site.directory if channel == "queue" else self._directory
        return _channel_path(directory, channel)

    # Root's roles.

    def _helper(self) -> None:
        from mailserver.accounts.app_password_admin import OwnAppPasswords
        from mailserver.guests import introductions
        from mailserver.rights.user_service import UserService
        from mailserver.roles.logins import app_password_admin, dovecot_socket, judge

        parts = Parts(self.config, self.log)
        views = [listener.config for listener, _ in self.bound]
        named = [table for view in views for table in parts.tables_of(view, "tls_server_sni_maps")]
        served = (pair for view in views for pair in parts.tls.key_pair_files(view))
        pairs = [*served, *client_key_pairs(self.config)]
        secrets = SecretFiles(pairs, named, password_files(self.config))
        to_host = partial(attach, self._path("zygote"))
        dovecots = frozenset(map(dovecot_socket, views))
        may, nobodys = allowed_users(parts, "authorized_app_password_users"), {NOBODY, self._identity.uid}
        own = OwnAppPasswords(app_password_admin(parts), may, nobodys, self.log)
        users = UserService(self.site.app_passwords, own.handle, self.log)
        users.start()
        visits = self._introductions(parts, to_host, nobodys)
        most = introductions.MOST_OF_A_USER, introductions.MOST_CONNECTIONS
        neighbours = UserService(self.site.guests, visits.handle, self.log, *most)
        neighbours.start()

        def leave() -> None:
            users.stop()
            neighbours.stop()

        helper = Helper(
            judge(parts),
            parts.account_sources,
            to_host,
            self.log,
            secrets,
            dovecots - {""},
            self.site.penalties,
            leave,
        )
        uids = {0, self._identity.uid}
        ChannelService(self._channels["helper"], helper.handle, uids, self.log).run_as_role()

    def _introductions(self, parts: Parts, to_host: Any, nobodys: Collection[int]) -> Introductions:
        from mailserver.accounts.groups import groups_of
        from mailserver.guests.introductions import Introductions
        from mailserver.guests.sharers import Sharers

        sharers = Sharers(os.path.join(self.config.string("state_directory"), "accounts"))
        has_global_acls = ":" in self.config.string("acl")
        sources = parts.account_sources
        return Introductions(sources, groups_of, sharers, to_host, nobodys, self.log, has_global_acls)

    def _zygote(self) -> None:
        from mailserver.roles.hosting import read_settings
        from mailserver.roles.quiet_log import begin_logging
        from mailserver.roles.rehearsal import rehearse

        begin_logging()
        read_settings(self.config)
        try:
            rehearse(self.config, os.path.join(self._directory, "rehearsal"))
        except Exception as error:  # whatever it is: sessions begin all the same, only slower
            problem = f"{type(error).__name__}: {error}"
            self.log.write("imap", f"Warning: no rehearsal of a session, first logins take longer: {problem}")
        state = os.path.join(self.config.string("state_directory"), "accounts")
        Zygote(self._channels["zygote"], self._host, state, self.log, self._host_groups).run()

    def _agent(self) -> None:
        from mailserver.roles.queueing import local_agents

        agents = local_agents(Parts(self.config, self.log))
        uids = {self._identity.uid}
        Agent(
            self._channels["agents"],
            handlers(agents),
            uids,
            self.log,
            groups=self._job_groups,
            is_roots_own=_is_roots_own,
            time_limit=longest_command(self.config) + _AGENT_GRACE,
        ).run()

    def _host_groups(self, account: Message) -> tuple[int, ...]:
        """The spool's group, where the account's INBOX lies there; those of public namespaces it is in."""
        parts, whose = Parts(self.config, self.log), account_from(account)
        inbox = parts.store.layout_for(whose).inbox
        return tuple({*self._spool_group(os.path.dirname(inbox)), *groups_for(parts, whose)})

    def _job_groups(self, request: Message) -> tuple[int, ...]:
        """The spool's group for a delivery to the mailbox itself, never for commands and files."""
        if not _is_for_mailbox(request):
            return ()
        job = request["job"]
        return self._spool_group(os.path.dirname(str(job["target"]).rstrip("/")))

    def _spool_group(self, directory: str) -> tuple[int, ...]:
        spool = self.config.string("mail_spool_directory").rstrip("/")
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

        process = RoleProcess(few_threads=_FRONT_THREADS)
        reactor = process.reactor
        secrets = HelperSecrets(self._path("helper"))
        parts = Parts(
            self.config, self.log, HelperDirectory(self._path("helper")), secrets.read, secrets.stamp
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
            smtp_ports([listener for listener, _ in self.bound]),
        )
        handovers = {name: Handover(reactor, name) for name in ("imap", "pop3")}
        retrieval = RetrievalListeners(parts, threads, reactor, logins, None, handovers)
        penalties = HelperPenalties(self._path("helper"))
        doors: list[SessionDoor] = []
        auths: list[AuthListener] = []
        ports = Ports(parts, reactor)
        ports.make([listener for listener, _ in self.bound], smtp, retrieval)

        async def begin() -> None:
            """Who comes is served; said again at the end of the generation before."""
            if not doors:
                smtp.limits.adopt(self.site.counts.take() or ())
                doors.append(SessionDoor(parts, threads, reactor, penalties))
                if self.site.auth is not None:
                    auths.append(AuthListener(parts, reactor, self.site.auth, logins))
                ports.open(self.bound)

        async def retire() -> None:
            for door in doors:
                door.step_aside()
            for auth in auths:
                auth.leave()
            await ports.leave()
            for _, taken in self.bound:
                taken.close()
            try:
                self.site.counts.leave(smtp.limits.exported())
                await threads.run(leave_penalties, self._path("helper"))
            except OSError as error:
                parts.warn("master")(f"rates and penalties are counted anew: {error}")
            self._front_passage.released.give()
            await ports.ended()
            process.stop()

        async def stop() -> None:
            for door in doors:
                door.stop()
            for auth in auths:
                auth.stop()
            await ports.close()

        process.beat(self._heart)
        process.at(BEGIN, begin)
        process.at(RETIRE, retire)
        if self._begins_at_once:
            process.when_running(lambda: process.spawn(begin))
        process.when_running(self._front_passage.ready.give)
        process.run(stop)

    def _queue(self) -> None:
        from mailserver.dns import Resolver
        from mailserver.roles.local_side import LocalSide
        from mailserver.roles.queue_door import QueueDoor
        from mailserver.roles.queueing import make_runner

        process = RoleProcess(_QUEUE_THREADS)
        reactor = process.reactor
        secrets = HelperSecrets(self._path("helper"))
        parts = Parts(
            self.config, self.log, HelperDirectory(self._path("helper")), secrets.read, secrets.stamp
        )
        _ = parts.default_privs
        agents = ChannelAgents(
            AgentClient(held_channel(self._path("agents")), longest_command(self.config) + 2 * _AGENT_GRACE)
        )
        become_confined(self._identity)
        parts.queue.prepare()
        resolver, ports = Resolver(reactor), smtp_ports([listener for listener, _ in self.bound])
        runner, _, ways_out = make_runner(
            parts,
            process.threads,
            reactor,
            resolver,
            agents,
            lambda path: None,
            ports,
            agents_are_this_process=False,
        )
        doors: list[QueueDoor] = []
        sides: list[LocalSide] = []

        async def begin() -> None:
            """The queue is this process's; said again when another process has left it messages."""
            if not doors:
                doors.append(QueueDoor(reactor, self.site.queue_channel, runner, {0, self._identity.uid}))
                sides.append(LocalSide(parts, process.threads, reactor, runner, is_shared=True))
                sides[0].listen()
                sides[0].start()
            await runner.rescan()

        async def stop() -> None:
            """Nothing is begun any more; returns when nothing is under way."""
            for door in doors:
                door.stop()
            idle = runner.stop()
            for side in sides:
                await side.stop()
            self._queue_passage.released.give()
            await idle
            ways_out.close()
            parts.queue.close()

        async def retire() -> None:
            await stop()
            process.stop()

        process.at(BEGIN, begin)
        process.at(RETIRE, retire)
        if self._begins_at_once:
            process.when_running(lambda: process.spawn(begin))
        process.when_running(self._queue_passage.ready.give)
        process.run(stop)

    def _host(self, account: Message, control: socket.socket) -> None:
        from mailserver.roles.hosting import serve

        serve(self.config, self.log, account_from(account), control)


def _is_for_mailbox(request: Message) -> bool:
    job = request.get("job")
    return isinstance(job, dict) and job.get("action") == Action.MAILBOX.value


def _is_roots_own(request: Message) -> bool:
    """Root's mailbox and .forward are its own; commands and files of it are nobody's."""
    return request["verb"] == "forward" or _is_for_mailbox(request)
