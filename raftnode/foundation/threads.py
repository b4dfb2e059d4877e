"""Work in threads that is never left behind: whoever is cancelled while a thread works goes on only when it has ended.

A task's body must end with all its threads, so that nothing of an old run has an effect beside a new one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Other = TypeVar("Other")


async def both(one: Awaitable[T], other: Awaitable[Other]) -> tuple[T, Other]:
    """What the two give, at the same time. Whatever happens to one, or to the caller, both have ended afterwards."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives, called in a thread of the loop's own. A cancellation is raised once it has ended."""
    return await in_executor(None, lambda: function(*args, **kwargs))


async def in_executor(executor: Executor | None, function: Callable[[], T]) -> T:
    """The same in a thread of that executor."""
    future = asyncio.get_running_loop().run_in_executor(executor, function)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as told:
            cancelled = told
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, as the cancellation is raised in its place
        raise cancelled
    return future.result()
