"""The model behind the server: loaded in the background, given work while there is room, drained at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np

from resurge.data.bands import Picture
from resurge.data.images import UnreadableImage
from resurge.errors import UserError
from resurge.serve.batching import Batcher, Engine
from resurge.serve.decoding import Decoder, MemoryBudget
from resurge.serve.limits import Limits
from resurge.serve.loading import Loaded
from resurge.serve.metrics import Metrics
from resurge.serve.requests import Upload
from resurge.serve.responses import Entry, Options, ServeError, entry
from resurge.tasks.table import get_task

log = logging.getLogger("resurge.serve")
P = ParamSpec("P")
T = TypeVar("T")

WARM_UP = (256, 192)
"""Width and height of the image that a model predicts before it is called ready."""


class Service:
    """Loads a model and predicts images with it, within limits.

    Args:
        load: makes the model; called once, in the thread that later predicts.

    Attributes:
        state: "starting", "ready", "draining" or "failed".
        failure: what `load` raised, in the state "failed".
        accepted: images that have a place in the queue.
    """

    def __init__(self, load: Callable[[], Loaded], limits: Limits, metrics: Metrics | None = None) -> None:
        self.limits = limits
        self.metrics = metrics or Metrics()
        self.state = "starting"
        self.failure: Exception | None = None
        self.accepted = 0
        self.buffered = MemoryBudget(limits.buffered_bytes)
        self._load = load
        self._loaded: Loaded | None = None
        self._engine = Engine()
        self._threads = ThreadPoolExecutor(limits.decoders, "resurge-decoder")
        self._decoder = Decoder(limits, self._threads)
        self._batcher = Batcher(
            lambda images, score: self.loaded.predictor.predict(images, score=score),
            self._engine,
            max_batch=limits.max_batch,
            max_delay=limits.max_delay,
            on_their_way=lambda: self._decoding,
            observe=self._observe,
        )
        self._decoding = 0
        self._pace = 0.0  # seconds per image, a running mean
        self._tasks: list[asyncio.Task[None]] = []
        self.metrics.queue.set_function(lambda: self.accepted)
        self.metrics.waiting.set_function(lambda: len(self._batcher))
        self.metrics.queue_limit.set(limits.queue)
        self.metrics.ready.set_function(lambda: float(self.ready))

    # ---------------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Begin to load the model, and return at once."""
        self._tasks = [asyncio.create_task(self._start()), asyncio.create_task(self._batcher.run())]

    async def _start(self) -> None:
        try:
            self._loaded = await asyncio.get_running_loop().run_in_executor(self._engine, self._load_and_warm)
        except Exception as error:
            self.failure, self.state = error, "failed"
            return
        if self.state == "starting":
            self.state = "ready"

    def _load_and_warm(self) -> Loaded:
        loaded = self._load()
        # The first result is slow, for each size of batch, and a model that gives none should not be called ready.
        count = min(self.limits.max_batch, 8)
        pixels = np.full((WARM_UP[1], WARM_UP[0], 3), (120, 130, 140), dtype=np.uint8)
        image = loaded.predictor.preprocessing.made_of(pixels)
        while count:
            loaded.predictor.predict([image] * count)
            count //= 2
        return loaded

    def drain(self) -> None:
        """Accept no more requests, and finish those that were accepted."""
        if self.state != "failed":
            self.state = "draining"

    async def stop(self) -> None:
        """End. What has no result yet gets none."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for executor in (self._threads, self._engine):
            executor.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        return self.state == "ready" and not self.stuck

    @property
    def stuck(self) -> bool:
        """Whether the model has worked on one batch or image for longer than any request waits."""
        return not self.loading and self._engine.busy_for > self.limits.timeout

    @property
    def loading(self) -> bool:
        """Whether there is no model yet, which may take a while."""
        return self._loaded is None

    @property
    def working(self) -> bool:
        """Whether the thread of the model has something to do: load, predict or explain."""
        return self._engine.working

    @property
    def loaded(self) -> Loaded:
        """The model.

        Raises:
            ServeError: 503, there is none yet.
        """
        if self._loaded is None:
            raise ServeError(503, "starting", "the model is being loaded. Try again later.", {"Retry-After": "2"})
        return self._loaded

    # ------------------------------------------------------------------------------------------------- work

    def require_open(self) -> None:
        """Raise the ServeError (503) of a request whose body would be read for nothing: the server is starting or
        draining, the model hangs, or the queue is full."""
        if self.state == "draining":
            message = "the server is shutting down. Use another one, or try again later."
            raise ServeError(503, "draining", message, {"Retry-After": "5"})
        _ = self.loaded
        self._require_room(1)

    @contextlib.contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Places in the queue for the images of a complete request, kept for the block: a client that is still sending
        keeps nobody out. Raises ServeError (503) when the queue is full or the model hangs."""
        self._require_room(images)
        self.accepted += images
        try:
            yield
        finally:
            self.accepted -= images

    def _require_room(self, images: int) -> None:
        if self.stuck:  # a request accepted now would wait in vain
            message = f"the model has not come back for more than {self.limits.timeout:g} seconds."
            raise ServeError(503, "stuck", message, {"Retry-After": "30"})
        if self.accepted + images > self.limits.queue:
            raise ServeError(503, "busy", "the queue is full. Try again later.", {"Retry-After": self.retry_after()})

    def retry_after(self) -> str:
        """Whole seconds until there should be room again."""
        return str(max(1, min(60, math.ceil(self._pace * self.accepted / 2))))

    async def in_thread(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run something short outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments, **options))

    async def predict(self, uploads: Sequence[Upload], options: Options) -> list[Entry | ServeError]:
        """The entry or the error of each upload, in order; within `limits.timeout`."""
        tasks = [asyncio.create_task(self._entry(index, upload, options)) for index, upload in enumerate(uploads)]
        try:
            await asyncio.wait(tasks, timeout=self.limits.timeout)
            outcomes = [task.result() if task.done() else self._late() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
        for outcome in outcomes:
            self.metrics.images.labels(outcome.kind if isinstance(outcome, ServeError) else "ok").inc()
        return outcomes

    async def _entry(self, index: int, upload: Upload, options: Options) -> Entry | ServeError:
        predictor = self.loaded.predictor
        try:
            with _known_errors("predicted"):
                async with contextlib.AsyncExitStack() as stack:
                    self._decoding += 1
                    try:
                        image = await stack.enter_async_context(self._open(upload))
                    finally:
                        self._decoding -= 1
                    predictor.preprocessing.require(image)
                    result = await self._batcher.predict(image, options.score)
                    parts = (index, upload.name, image.size, result, predictor.classes, options)
                    quick = get_task(predictor.task).annotation == "labels"  # masks and label maps take long to encode
                    return entry(*parts) if quick else await self.in_thread(entry, *parts)
        except ServeError as error:
            return error

    async def explain(self, upload: Upload, explain: Callable[[Picture], bytes]) -> bytes:
        """The image with a heat map over it, as PNG; within `limits.timeout`.

        Raises:
            ServeError: the image cannot be used, or there was no result in time.
        """

        async def explained() -> bytes:
            with _known_errors("explained"):
                async with self._open(upload) as image:
                    return await asyncio.get_running_loop().run_in_executor(self._engine, explain, image)

        try:
            return await asyncio.wait_for(explained(), self.limits.timeout)
        except asyncio.TimeoutError:
            raise self._late() from None

    def _open(self, upload: Upload) -> AbstractAsyncContextManager[Picture]:
        if upload.problem is not None:
            raise upload.problem
        return self._decoder.open(upload.data, upload.name, not self.loaded.predictor.preprocessing.plain)

    def _late(self) -> ServeError:
        return ServeError(504, "timeout", f"there was no result within {self.limits.timeout:g} seconds.")

    def _observe(self, images: int, seconds: float) -> None:
        self._pace += 0.1 * (seconds / images - self._pace) if self._pace else seconds / images
        self.metrics.batch(images, seconds)


@contextlib.contextmanager
def _known_errors(what: str) -> Iterator[None]:
    """Give whatever goes wrong with an image the form of a ServeError."""
    try:
        yield
    except ServeError:
        raise
    except UnreadableImage as error:
        raise ServeError.of(error) from error
    except UserError as error:
        raise ServeError(422, "unusable", str(error)) from error
    except Exception as error:
        log.exception("an image could not be %s", what)
        raise ServeError(500, "failed", "the model failed on this image. The server's log says why.") from error
