"""The composition root: from settings to running services. The one place where the parts meet."""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from socket import socket
from typing import TYPE_CHECKING, Any

import httpx

from careflow.auth import setup as auth
from careflow.auth.middleware import RequireToken
from careflow.backends import Carrier, Shared, open_carrier, open_store
from careflow.clock import FollowedClock, SystemClock
from careflow.errors import SettingsError
from careflow.hosting import Service, listen, url_of
from careflow.ports import Clock, Speech, Store
from careflow.practice import PracticeAccount, with_practice
from careflow.safety import practises, practises_tasks
from careflow.settings import Settings, check_roles

if TYPE_CHECKING:
    from careflow.caller.attempts import AttemptDesk
    from careflow.caller.bridge import MediaBridge
    from careflow.caller.watch import Watch
    from careflow.core.script import Script
    from careflow.lab.app import Lab

_ROLES = ("lab", "tasks", "caller", "pulse", "scheduler")  # in the order in which they can be built
_HELD = {  # by the store: the roles of which a data directory has one process at a time (`tasks` sees to that itself)
    "sqlite": frozenset({"lab", "caller", "pulse", "scheduler"}),
    "firestore": frozenset({"lab", "scheduler"}),
}


@dataclass(frozen=True, slots=True)
class Assembly:
    """What was put together: the services to run, and the parts that a demo or a test looks at."""

    settings: Settings
    clock: Clock
    store: Store
    services: Sequence[Service]
    lab: Lab | None
    in_flight: Callable[[], int]  # tasks that this process is delivering


def roles_here(settings: Settings) -> Sequence[str]:
    """What one machine runs: both agents and the scheduler, and the work-alikes that the settings leave room for."""
    stand_ins = {"lab": practises(settings), "tasks": practises_tasks(settings)}
    return [role for role in _ROLES if stand_ins.get(role, True)]


def bind(settings: Settings, roles: Sequence[str]) -> tuple[Settings, Mapping[str, socket]]:
    """Take the ports of `roles`; the settings then hold every address that was not set explicitly.

    Raises PortInUse, and SettingsError when it is not safe to serve these roles with these settings.
    """
    check_roles(settings, roles)
    sockets = {
        role: listen(settings.host, _port(settings, role), f"CAREFLOW_{role.upper()}_PORT") for role in roles
    }

    def url(role: str) -> str:
        if role in sockets:
            return url_of(sockets[role])
        return f"http://{settings.host}:{_port(settings, role)}"

    known = settings.model_fields_set
    addresses = {f"{role}_url": url(role) for role in ("pulse", "caller", "scheduler")}
    addresses = {name: address for name, address in addresses.items() if name not in known}
    settings = settings.model_copy(update=addresses)
    if "caller_public_url" not in known:
        settings = settings.model_copy(update={"caller_public_url": settings.caller_url})
    if practises_tasks(settings):
        settings = settings.model_copy(update={"cloud_tasks_url": url("tasks")})
    if practises(settings) and {"lab", "caller"} & set(roles):
        settings = with_practice(settings, url("lab"))
    return settings, sockets


def _port(settings: Settings, role: str) -> int:
    port: int = getattr(settings, f"{role}_port")
    return port


def clock_for(settings: Settings) -> Clock:
    """The system's clock, or the virtual one that another process publishes in `clock_file`."""
    if settings.clock_file is None:
        return SystemClock()
    try:
        return FollowedClock(settings.clock_file)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"CAREFLOW_CLOCK_FILE: {settings.clock_file} is not a clock that a running process publishes"
        ) from error


@asynccontextmanager
async def assembled(
    settings: Settings, sockets: Mapping[str, socket], clock: Clock
) -> AsyncIterator[Assembly]:
    """The services of the bound roles, in one process until the end.

    A role whose records are in the data directory is held there: a second process of it raises StoreInUse. On Firestore any
    number of Pulses and Callers work side by side.
    """
    async with AsyncExitStack() as stack:
        for role in sockets:
            if role in _HELD[settings.store]:
                stack.enter_context(_held(settings, role))
        store = await open_store(settings)
        stack.push_async_callback(store.close)
        http = await stack.enter_async_context(httpx.AsyncClient(limits=httpx.Limits(max_connections=None)))
        parts = _Parts(settings, clock, store, http, Shared(settings, clock, store, http, stack))
        services, lab, counts = [], None, []
        if "lab" in sockets:
            lab, service = parts.lab(sockets["lab"])
            services.append(service)
        if "tasks" in sockets:
            in_flight, service = await parts.tasks(sockets["tasks"])
            counts.append(in_flight)
            services.append(service)
        if "caller" in sockets:
            services.append(parts.caller(sockets["caller"]))
        if "pulse" in sockets:
            carrier, service = await parts.pulse(sockets["pulse"])
            counts.append(carrier.in_flight)
            services.append(service)
        if "scheduler" in sockets:
            services.append(await parts.scheduler(sockets["scheduler"]))
        if isinstance(clock, FollowedClock):
            services[0] = _with_background(services[0], clock.run)
        yield Assembly(settings, clock, store, services, lab, lambda: sum(count() for count in counts))


def _held(settings: Settings, role: str) -> AbstractContextManager[Any]:
    from careflow.store.locks import hold_role

    return hold_role(settings.data_dir, role)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Builds one service each, out of what they share."""

    settings: Settings
    clock: Clock
    store: Store
    http: httpx.AsyncClient
    shared: Shared

    async def pulse(self, bound: socket) -> tuple[Carrier, Service]:
        from careflow.pulse.app import PUBLIC_PATHS, create_pulse, pulse_rules
        from careflow.pulse.caller_client import A2ACaller

        settings, clock = self.settings, self.clock
        carrier = await open_carrier(self.shared)
        caller = A2ACaller(
            settings.caller_url,
            audience=settings.caller_audience or settings.caller_url,
            tokens=auth.tokens(settings, settings.pulse_account, self.http, clock),
            clock=clock,
        )
        self.shared.stack.push_async_callback(caller.close)
        app = create_pulse(
            store=self.store,
            queue=carrier.queue,
            caller=caller,
            clock=clock,
            settings=settings,
            ids=_fresh_id,
        )
        guarded = self._guarded(app, pulse_rules(settings), PUBLIC_PATHS)
        return carrier, Service(
            "pulse", guarded, bound, background=carrier.background, drain=(app.state.leave,)
        )

    def caller(self, bound: socket) -> Service:
        from careflow.caller.app import caller_rules, create_caller, public_paths
        from careflow.caller.attempts import AttemptDesk
        from careflow.caller.dialling import Limits
        from careflow.caller.recovery import Recovery
        from careflow.caller.twilio import TwilioAccount, TwilioPhone
        from careflow.caller.vendor_errors import CountedPhone
        from careflow.caller.watch import Watch
        from careflow.scripts import load_scripts

        settings, clock = self.settings, self.clock
        scripts = load_scripts()
        watch = Watch(self.store, clock)
        desk = AttemptDesk(
            self.store,
            CountedPhone(TwilioPhone(self.http, TwilioAccount.of(settings), clock, random.random)),
            clock,
            watch,
            recovery=Recovery(scripts=scripts),
            tokens_factory=secrets.token_urlsafe,
            limits=Limits(attempt_deadline=settings.attempt_deadline),
        )
        bridge, warming = self._conversations(desk, watch, scripts) if settings.serves_twilio else (None, [])
        routes = [bridge.route()] if bridge else []
        app = create_caller(desk=desk, watch=watch, store=self.store, settings=settings, routes=routes)
        return Service(
            "caller",
            self._guarded(app, caller_rules(settings), public_paths(settings)),
            bound,
            background=(desk.run, *warming),
            drain=(bridge.hand_over, desk.close) if bridge else (desk.close,),
            stays_open=("/healthz", "/twilio/*"),  # a call asks only once how to go on
        )

    def _conversations(
        self, desk: AttemptDesk, watch: Watch, scripts: Mapping[str, Script]
    ) -> tuple[MediaBridge, Sequence[Callable[[], Awaitable[None]]]]:
        """What a Caller that talks with patients has beside the desk: the media socket, and prompts that are spoken ahead."""
        from careflow.caller.bridge import BridgeConfig, MediaBridge
        from careflow.caller.conversation import ConversationConfig
        from careflow.caller.talks import ScriptedTalks
        from careflow.caller.twiml import stream_url
        from careflow.caller.vendor_errors import CountedSpeech
        from careflow.caller.warming import warm

        settings = self.settings
        speech = CountedSpeech(self._speech())
        bridge = MediaBridge(
            desk,
            watch,
            self.store,
            speech,
            ScriptedTalks(scripts=scripts, hospitals=settings.served),
            self.clock,
            BridgeConfig(
                url=stream_url(settings.caller_public_url),
                auth_token=settings.twilio_auth_token.get_secret_value(),
                conversation=ConversationConfig(),
            ),
        )
        return bridge, [partial(warm, speech, scripts.values(), settings.served)]

    def _speech(self) -> Speech:
        from careflow.caller.elevenlabs import ElevenLabsSpeech
        from careflow.caller.speech_cache import AudioCache

        settings = self.settings
        return ElevenLabsSpeech(
            self.http,
            base_url=settings.elevenlabs_url,
            api_key=settings.elevenlabs_api_key,
            voices=settings.elevenlabs_voices,
            tts_model=settings.elevenlabs_tts_model,
            stt_model=settings.elevenlabs_stt_model,
            zero_retention=settings.elevenlabs_zero_retention,
            cache=AudioCache(settings.audio_dir or settings.data_dir / "audio"),
            clock=self.clock,
            rng=random.Random(),
        )

    def lab(self, bound: socket) -> tuple[Lab, Service]:
        from careflow.lab.app import create_lab
        from careflow.lab.config import LabConfig
        from careflow.peopling import LAB_SEED, keep_lab_peopled

        account = PracticeAccount.of(self.settings.data_dir)
        lab = create_lab(
            LabConfig(
                data_dir=self.settings.data_dir,
                account_sid=account.account_sid,
                auth_token=account.auth_token,
                elevenlabs_api_key=account.elevenlabs_api_key,
                from_numbers=frozenset(one.from_number for one in self.settings.served),
                calls_per_second=self.settings.calls_per_second,
            ),
            self.clock,
        )
        people = partial(keep_lab_peopled, self.store, lab, self.clock, LAB_SEED)
        # The telephone network goes on while the others hand over, though it stops with them.
        return lab, Service("lab", lab.app, bound, background=(people,), stays_open=("/*",))

    async def tasks(self, bound: socket) -> tuple[Callable[[], int], Service]:
        """The work-alike of Cloud Tasks, with our two queues in it; and how many tasks it is delivering."""
        from careflow.lab.cloud_tasks import open_cloud_tasks
        from careflow.tasks.limits import cloud_tasks_settings, queue_limits

        settings, clock = self.settings, self.clock
        service = await open_cloud_tasks(
            settings.data_dir / "lab" / "tasks",
            clock,
            httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None)),
            lambda account: auth.tokens(settings, account, self.http, clock),
            location=settings.location,
            new_id=_fresh_id,
        )
        self.shared.stack.push_async_callback(service.close)
        ids = {"calls": settings.calls_queue, "rounds": settings.rounds_queue}
        parent = f"projects/{settings.project}/locations/{settings.location}/queues"
        limits = queue_limits(
            calls_per_second=settings.calls_per_second, calls_in_flight=settings.calls_in_flight
        )
        queues = {f"{parent}/{ids[name]}": cloud_tasks_settings(limit) for name, limit in limits.items()}
        return lambda: service.in_flight, Service(
            "tasks",
            service.app,
            bound,
            prepare=(partial(service.ensure, queues),),
            background=(service.run,),
            http=service.http,
        )

    async def scheduler(self, bound: socket) -> Service:
        from careflow.google_api.port import rest_and_grpc
        from careflow.pulse.log_entries import latest_entries
        from careflow.scheduler.api import SchedulerApi
        from careflow.scheduler.connections import DirectTransport
        from careflow.scheduler.defaults import default_jobs
        from careflow.scheduler.port import grpc_backend
        from careflow.scheduler.rest import create_scheduler_api
        from careflow.scheduler.seeding import ensure_jobs
        from careflow.scheduler.service import Scheduler

        settings, clock = self.settings, self.clock
        scheduler = Scheduler(
            await self.shared.database(),
            clock,
            DirectTransport(),
            lambda account: auth.tokens(settings, account, self.http, clock),
        )
        api = SchedulerApi(scheduler, clock=clock, location=settings.location, new_id=_fresh_id)
        grpc = grpc_backend(api)

        async def attempts(project: str, limit: int) -> Sequence[dict[str, Any]]:
            return await scheduler.log_entries(f"projects/{project}", limit)

        async def rounds(project: str, limit: int) -> Sequence[dict[str, Any]]:
            if project != settings.project:
                return []
            return await latest_entries(self.store, project, settings.location, limit)

        jobs = default_jobs(settings, settings.pulse_url)
        app = create_scheduler_api(api, logs=[attempts, rounds], on_shutdown=[grpc.close])
        return Service(
            "scheduler",
            app,
            bound,
            prepare=(partial(ensure_jobs, scheduler, jobs),),
            background=(scheduler.serve,),
            http=rest_and_grpc(grpc),
        )

    def _guarded(self, app: Any, rules: Sequence[Any], public: Sequence[str]) -> RequireToken:
        auth.local_issuer(self.settings)  # its keys must be there before the first token is looked at
        return RequireToken(
            app, verifier=auth.verifier(self.settings, self.http, self.clock), rules=rules, public=public
        )


def _with_background(service: Service, work: Callable[[], Any]) -> Service:
    return replace(service, background=(work, *service.background))


def _fresh_id() -> str:
    return uuid.uuid4().hex
