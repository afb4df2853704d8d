"""What the server holds while it runs: the package, its engine, the policy, counters and traces."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from potstill.apps.serve.engine import Engine
from potstill.apps.serve.errors import unavailable
from potstill.apps.serve.exchange import Exchange
from potstill.apps.serve.larger import LargerModel
from potstill.apps.serve.metrics import Metrics
from potstill.apps.serve.package import PackageFiles, ServedPackage, load_package
from potstill.apps.serve.queue import Slots
from potstill.apps.serve.settings import Settings
from potstill.apps.serve.traces import Assumptions, TraceWriter
from potstill.apps.serve.upstream import Upstream
from potstill.apps.serve.watch import DriftWatch
from potstill.components.deferral.decisions import Rules
from potstill.components.deferral.policy import bound_to, read_policy, void_reasons
from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.artifacts.policy import Bound, Policy
from potstill.core.errors import PotstillError

__all__ = ["Service"]

_LOOK_SECONDS = 2.0
_RECENT = 500


class Service:
    """The running server, apart from HTTP. Make it with `open`."""

    def __init__(self, settings: Settings, package: ServedPackage, port: int, note: Callable[[str], None]) -> None:
        self.settings, self.package, self.bound = settings, package, _bound(package)
        self.begun = time.time()
        self._note = note
        self._files = PackageFiles(settings.package)
        self.problem: str | None = None
        """Why the package is not served, as a sentence; None while it is."""
        self.engine = Engine(self._new_server, note)
        self.upstream = Upstream(self.engine)
        self.slots = Slots(settings.parallel, settings.limits.waiting)
        self.policy: Policy | None = read_policy(settings.policy) if settings.policy else None
        folder = settings.state_folder(package.name, port)
        self.watch = DriftWatch(folder, self.policy)
        self.larger = LargerModel(settings.larger, settings.limits.request_seconds) if settings.larger else None
        self.traces = TraceWriter(folder)
        self.metrics = Metrics(self._gauges())
        self.recent: deque[float] = deque(maxlen=_RECENT)
        """Seconds of the last answers."""
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, settings: Settings, port: int, note: Callable[[str], None]) -> Service:
        """Verify the package, and start llama.cpp; `port` is the one that the server listens on.

        Raises:
            PotstillError: the package, the policy or a setting is not valid, or llama.cpp cannot load the file.
        """
        package = await asyncio.to_thread(load_package, settings.package)
        service = cls(settings, package, port, note)
        await service.engine.start()
        if (found := service.engine.slot_context) and found < service.context:
            note(f"A context of {service.context} was asked for, and the model in the package has {found} tokens.")
        service.spawn(service._watch_files())
        return service

    async def close(self) -> None:
        """Stop llama.cpp, and write what is kept."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.watch.save()
        self.traces.close()
        if self.larger:
            await self.larger.close()
        await self.upstream.close()
        await self.engine.stop()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background until the server ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.problem is None and self.engine.address is not None

    @property
    def context(self) -> int:
        """Tokens of prompt and answer of one request."""
        return self.settings.context or self.package.context

    @property
    def rules(self) -> Rules:
        """The policy as it stands now."""
        if self.policy is None:
            return Rules()
        void = void_reasons(self.policy, self.bound)
        return Rules(self.policy, void, self.watch.drifted, self.settings.withhold_on_drift)

    def require_ready(self) -> None:
        """Look at the package's files, and refuse to answer from one that has changed.

        Raises:
            ApiError: a file has changed and is being verified, or is not as its manifest says; status 503.
        """
        if self._files.changed():
            self.spawn(self.verify_again())
            self.problem = "A file of the package has changed and is being verified."
        if self.problem:
            raise unavailable("The package on this server is not as its manifest says; see its status page.", "package")

    async def verify_again(self) -> None:
        """Verify the package after a change; serve it again if it is whole."""
        if not self._files.changed():
            return
        self._files.accept()
        try:
            package = await asyncio.to_thread(load_package, self.settings.package)
            bound = _bound(package)
        except PotstillError as error:
            self.problem = str(error)
            self._note(self.problem)
            return
        replaced = bound.model_sha256 != self.bound.model_sha256
        self.package, self.bound, self.problem = package, bound, None
        if replaced:
            await self.engine.stop()
            await self.engine.start()
        self._note("The package has changed, and is whole again.")

    def ended(self, exchange: Exchange) -> None:
        """Count a request that has ended, and write its trace."""
        exchange.seconds = time.monotonic() - exchange.begun
        self.metrics.record(exchange)
        if exchange.status == 200:
            self.recent.append(exchange.seconds)
        if exchange.path == "chat" and exchange.status == 200:
            for alarm in self.watch.add(exchange):
                self._note(
                    f"Drift: {alarm.feature} of the last requests differs from the calibration rows "
                    f"(p = {alarm.p_value:.2g}). The policy's promise does not hold any more: calibrate again."
                )
        policy = self.policy.sha256 if self.policy else None
        self.traces.write(exchange, self.package.name, Assumptions(**self.bound.model_dump(), policy_sha256=policy))

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.verify_again()

    def _new_server(self) -> GGUFServer:
        settings = self.settings
        return GGUFServer(
            self.package.model,
            context=self.context * settings.parallel,
            parallel=settings.parallel,
            threads=settings.threads,
            alias=self.package.name,
        )

    def _gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        return {
            "ready": ("1 while requests are answered.", lambda: float(self.ready)),
            "requests_active": ("Requests that hold a slot.", lambda: self.slots.active),
            "requests_waiting": ("Requests that wait for a slot.", lambda: self.slots.waiting),
            "engine_restarts": ("Times that llama.cpp was started again.", lambda: self.engine.restarts),
            "promise_holds": ("1 while the policy's promise holds.", lambda: float(self.rules.promise == "holds")),
            "drift_alarms": ("Features whose counts raised an alarm.", lambda: len(self.watch.drifted)),
            "drift_blocks": ("Blocks of requests that were compared.", lambda: self.watch.counts.blocks),
        }  # fmt: skip


def _bound(package: ServedPackage) -> Bound:
    return bound_to(package.model, package.model_sha256, package.quantization)
