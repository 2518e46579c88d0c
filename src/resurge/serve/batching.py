"""Images of many requests go through the model together, in the one thread in which it works."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from resurge.data.bands import Picture
from resurge.tasks.result import Result

log = logging.getLogger("resurge.serve")

P = ParamSpec("P")
T = TypeVar("T")
Predict = Callable[[Sequence[Picture], float], Sequence[Result]]


class Engine(ThreadPoolExecutor):
    """An executor of one thread that knows how long its current call has taken. A thread cannot be stopped, so every
    call of the model goes through here, and a call that hangs is noticed."""

    def __init__(self) -> None:
        super().__init__(1, "resurge-engine")
        self._began: float | None = None
        self._unfinished: set[object] = set()

    @property
    def busy_for(self) -> float:
        """Seconds since the current call began; 0 without one."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def working(self) -> bool:
        """Whether a call is neither finished nor cancelled."""
        return bool(self._unfinished)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def timed() -> T:
            self._began = time.monotonic()
            try:
                return fn(*args, **kwargs)
            finally:
                self._began = None

        future = super().submit(timed)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future


@dataclass(eq=False)
class _Waiting:
    image: Picture
    score: float
    result: asyncio.Future[Result]
    since: float  # of the loop's clock


class Batcher:
    """Gives the model one batch after the other, made of the images that wait when the model is free.

    While the model works, images gather; as soon as it is free it gets up to `max_batch` of them, oldest first. When
    there are fewer, it waits for images that are being decoded, until the oldest has waited for `max_delay` seconds.
    A single request is therefore not delayed for the sake of others that may come, and under load nothing waits.

    A batch that raises is predicted again image by image, so that one image does not cost another its result.

    Args:
        predict: the model, for images and the lowest score of interest; called in `executor`, never twice at a time.
        on_their_way: the number of images that are being decoded.
        observe: called with the size of each batch and the seconds it took.
    """

    def __init__(
        self,
        predict: Predict,
        executor: Executor,
        *,
        max_batch: int,
        max_delay: float,
        on_their_way: Callable[[], int],
        observe: Callable[[int, float], None],
    ) -> None:
        self._predict, self._executor = predict, executor
        self._max_batch, self._max_delay = max_batch, max_delay
        self._on_their_way, self._observe = on_their_way, observe
        self._waiting: list[_Waiting] = []
        self._came = asyncio.Event()

    def __len__(self) -> int:
        """Images that wait for the model."""
        return len(self._waiting)

    async def predict(self, image: Picture, score: float = 0.0) -> Result:
        """The result for one image, perhaps with objects below the score. When this is cancelled, the image is not
        given to the model any more.

        Raises:
            UserError: the model cannot use this image.
            Exception: whatever else the model raised.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(image, score, loop.create_future(), loop.time())
        self._waiting.append(waiting)
        self._came.set()
        try:
            return await waiting.result
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # the model may have it already
                self._waiting.remove(waiting)  # while the model hangs, nothing else would free the image
            raise

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            batch = await self._collect()
            began = time.monotonic()
            images, score = [entry.image for entry in batch], min(entry.score for entry in batch)
            run = asyncio.get_running_loop().run_in_executor
            outcomes = await run(self._executor, self._outcomes, images, score)
            self._observe(len(batch), time.monotonic() - began)
            for entry, outcome in zip(batch, outcomes, strict=True):
                if entry.result.done():  # nobody waits for it any more
                    continue
                if isinstance(outcome, Exception):
                    entry.result.set_exception(outcome)
                else:
                    entry.result.set_result(outcome)

    async def _collect(self) -> list[_Waiting]:
        loop = asyncio.get_running_loop()
        while True:
            waiting = self._waiting = [entry for entry in self._waiting if not entry.result.done()]
            left = waiting[0].since + self._max_delay - loop.time() if waiting else None
            enough = len(waiting) >= self._max_batch
            if left is not None and (enough or left <= 0 or not self._on_their_way()):
                self._waiting = waiting[self._max_batch :]
                return waiting[: self._max_batch]
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), left)
            except asyncio.TimeoutError:
                continue

    def _outcomes(self, images: list[Picture], score: float) -> list[Result | Exception]:
        """For each image a result or an exception. Runs in the executor."""
        try:
            results = list(self._predict(images, score))
            if len(results) != len(images):
                raise RuntimeError(f"the model gave {len(results)} results for {len(images)} images")
            return [*results]
        except Exception as error:
            if len(images) == 1:
                # a future takes no StopIteration
                return [RuntimeError("the model stopped") if isinstance(error, StopIteration) else error]
            log.warning("a batch of %d images failed (%s); trying them one by one", len(images), error)
            return [outcome for image in images for outcome in self._outcomes([image], score)]
