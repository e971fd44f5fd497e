"""Take the ids of the task that runs here along to threads, coroutines and generators of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, TypeVar, cast

from django_taskkit.observability.logs.context import carried_facts, facts_here
from django_taskkit.request_ids import of_request

Function = TypeVar("Function", bound=Callable[..., Any])


def carried(function: Function) -> Function:
    """Return ``function`` as one that logs and sends tasks as what runs here does.

    For what a task starts in threads of its own: Celery knows the running task by its thread. So
    ``executor.submit(carried(work), ...)``, and ``async_to_sync(carried(work))()``. Coroutine functions, generators and
    asynchronous generators stay what they are; of a generator each step has the ids, and who asks for it keeps its own.
    """
    facts = facts_here()

    @contextmanager
    def ids() -> Iterator[None]:
        tokens = carried_facts.set(facts), of_request.set(facts.get("request_id", ""))
        try:
            yield
        finally:
            carried_facts.reset(tokens[0])
            of_request.reset(tokens[1])

    if iscoroutinefunction(function):

        @wraps(function)
        async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
            with ids():
                return await function(*args, **kwargs)

        return cast("Function", run_coroutine)

    if isasyncgenfunction(function):

        @wraps(function)
        async def run_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator = function(*args, **kwargs)
            step, given = generator.asend, None
            while True:
                with ids():
                    try:
                        value = await step(given)
                    except StopAsyncIteration:
                        return
                try:
                    step, given = generator.asend, (yield value)
                except GeneratorExit:
                    with ids():
                        await generator.aclose()
                    raise
                except BaseException as exc:
                    step, given = generator.athrow, exc

        return cast("Function", run_async_generator)

    if isgeneratorfunction(function):

        @wraps(function)
        def run_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            step, given = generator.send, None
            while True:
                with ids():
                    try:
                        value = step(given)
                    except StopIteration as end:
                        return end.value
                try:
                    step, given = generator.send, (yield value)
                except GeneratorExit:
                    with ids():
                        generator.close()
                    raise
                except BaseException as exc:
                    step, given = generator.throw, exc

        return cast("Function", run_generator)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with ids():
            return function(*args, **kwargs)

    return cast("Function", run)
