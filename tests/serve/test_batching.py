"""Who is given to the model with whom, and what a failure costs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis
import hypothesis.strategies as st
from PIL import Image

from resurge.serve.batching import Batcher
from resurge.serve.decoding import MemoryBudget


def served(
    work: Callable[[Batcher], Any],
    predict: Callable[[Sequence[Image.Image], float], Sequence[Any]],
    *,
    max_batch: int = 4,
    max_delay: float = 60.0,
    on_their_way: int = 0,
) -> list[int]:
    """Run `work` beside a batcher; gives the sizes of the batches."""
    sizes: list[int] = []

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(
                predict,
                executor,
                max_batch=max_batch,
                max_delay=max_delay,
                on_their_way=lambda: on_their_way,
                observe=lambda images, seconds: sizes.append(images),
            )
            running = asyncio.create_task(batcher.run())
            await asyncio.wait_for(work(batcher), 30)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    asyncio.run(main())
    return sizes


def image(number: int) -> Image.Image:
    return Image.new("L", (number, 1))


def widths(images: Sequence[Image.Image], score: float) -> list[int]:
    return [one.width for one in images]


async def ask(batcher: Batcher, *numbers: int) -> list[Any]:
    return await asyncio.gather(*(batcher.predict(image(number)) for number in numbers), return_exceptions=True)


def test_answers_go_to_those_who_asked() -> None:
    async def work(batcher: Batcher) -> None:
        assert await ask(batcher, *range(1, 11)) == list(range(1, 11))

    assert served(work, widths) == [4, 4, 2]


def test_nobody_waits_when_nothing_is_on_its_way() -> None:
    async def work(batcher: Batcher) -> None:
        assert await ask(batcher, 1) == [1]

    assert served(work, widths, max_delay=1000) == [1]


def test_what_is_on_its_way_is_waited_for_until_the_batch_is_full() -> None:
    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(ask(batcher, 1))
        await asyncio.sleep(0.05)
        assert not first.done()
        assert await ask(batcher, 2) == [2]
        assert await first == [1]

    assert served(work, widths, max_batch=2, max_delay=1000, on_their_way=1) == [2]


def test_but_no_longer_than_the_delay() -> None:
    async def work(batcher: Batcher) -> None:
        assert await ask(batcher, 1) == [1]

    assert served(work, widths, max_delay=0.01, on_their_way=1) == [1]


def test_a_failing_image_spoils_no_other() -> None:
    def predict(images: Sequence[Image.Image], score: float) -> list[int]:
        if any(one.width == 3 for one in images):
            raise StopIteration if len(images) == 1 else ValueError("not that one")
        return widths(images, score)

    async def work(batcher: Batcher) -> None:
        one, two, three, four = await ask(batcher, 1, 2, 3, 4)
        assert (one, two, four) == (1, 2, 4)
        assert isinstance(three, RuntimeError)
        assert await ask(batcher, 5) == [5]

    served(work, predict)


def test_a_model_that_answers_too_little_is_a_failure() -> None:
    async def work(batcher: Batcher) -> None:
        assert all(isinstance(found, RuntimeError) for found in await ask(batcher, 1, 2))

    served(work, lambda images, score: [])


def test_the_lowest_score_of_a_batch_is_asked_for() -> None:
    scores = []

    def predict(images: Sequence[Image.Image], score: float) -> list[int]:
        scores.append(score)
        return widths(images, score)

    async def work(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.predict(image(1), score) for score in (0.5, 0.2, 0.9)))

    served(work, predict)
    assert scores == [0.2]


def test_who_gives_up_is_not_given_to_the_model() -> None:
    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.predict(image(number))) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()
        assert await tasks[2] == 3

    assert served(work, widths) == [1]


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.lists(st.tuples(st.integers(1, 10), st.integers(0, 5), st.integers(0, 8)), max_size=15))
def test_a_budget_of_memory_is_kept_and_given_back(plans: list[tuple[int, int, int]]) -> None:
    """Each holds so many bytes for so many turns, and is cancelled after some; later ones are never forgotten."""
    budget = MemoryBudget(10)
    finished = []

    async def hold(size: int, turns: int) -> None:
        await budget.take(size)
        try:
            assert budget.held <= budget.limit
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            budget.give_back(size)
        finished.append(size)

    async def main() -> None:
        tasks = [asyncio.create_task(hold(size, turns)) for size, turns, _ in plans]
        for turn in range(9):
            for task, (_, _, until) in zip(tasks, plans, strict=True):
                if turn == until and until % 2:
                    task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    asyncio.run(main())
    assert budget.held == 0
    assert len(finished) >= sum(until % 2 == 0 for _, _, until in plans)


def test_a_budget_of_memory_serves_in_order() -> None:
    order = []

    async def main() -> None:
        budget = MemoryBudget(10)

        async def hold(name: str, size: int) -> None:
            await budget.take(size)
            order.append(name)
            await asyncio.sleep(0)
            budget.give_back(size)

        # the small one does not overtake the large one for ever
        await asyncio.gather(hold("a", 8), hold("large", 10), hold("small", 1))

    asyncio.run(main())
    assert order == ["a", "large", "small"]
