"""The line in which requests wait: only those are worked on whose client listens for the answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from weakref import WeakKeyDictionary

from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage

from space.texts import request_language

NETWORKS: dict[str, Any] = {"concurrency_id": "networks", "concurrency_limit": 1}
"""Settings of the events that make networks work, which wait in one line."""

MANY: dict[str, Any] = {"concurrency_id": "many", "concurrency_limit": 2}
LIVE: dict[str, Any] = {"concurrency_id": "live", "concurrency_limit": 4}
"""Settings of the events that last: a request in the line above waits for one piece of each of them at most."""

FILES: dict[str, Any] = {"concurrency_id": "files", "concurrency_limit": 2}
"""Settings of the events that only pack what is there."""

TAKING_TURNS = tuple(line["concurrency_id"] for line in (NETWORKS, MANY, LIVE))

TIME_TO_LISTEN = 5
"""Seconds from a request to its client's listening, which is a call of its own; after that it makes room for others."""

LONGEST_UNHEARD = 60
"""Seconds that a request waits at most for its client to listen. It is in nobody's way meanwhile."""

TIME_TO_ASK_AGAIN = 5
"""Seconds that a page goes on listening after its last answer."""

KEPT_OPEN = "kept open"
"""Stands among the ids of a page's requests that aren't answered yet, so that Gradio doesn't end its listening."""

NOBODY_LISTENED = "Nobody listened for the answer of this request, so it was given up: please send it again."


class AttendedQueue(Queue):
    """Gradio's queue, but for requests whose client has gone, or never asked for the answer.

    Gradio itself removes what waits when a client that listens hangs up, and works on all that no client ever listens
    for. Here such requests are overtaken by those with a listener, and are given up after `LONGEST_UNHEARD` seconds, or
    sooner where the queue is full.

    A client listens if it takes its messages: each request gets one, of its place in the line, when it is accepted.

    Gradio ends a page's listening with its last answer. Where the page asks for something else in that moment, the end
    may come after its request was accepted, and takes the answer away. Pages ask in bursts; so theirs ends later.
    """

    @classmethod
    def in_place_of(cls, queue: Queue) -> AttendedQueue:
        """An empty one with the settings of another."""
        return cls(
            queue.live_updates,
            queue.max_thread_count,
            queue.update_intervals,
            queue.max_size,
            queue.blocks,
            queue.default_concurrency_limit,
        )

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._last_heard: WeakKeyDictionary[Event, float] = WeakKeyDictionary()

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Gradio's own, where room is made in a full queue, and a refusal is in the visitor's language."""
        if self.max_size is not None and len(self) >= self.max_size:
            unheard = [event for event in self._waiting() if not self._is_heard(event)]
            longest = max(unheard, key=self._unheard_seconds, default=None)
            if longest is not None and self._unheard_seconds(longest) > TIME_TO_LISTEN:
                self._give_up(longest)
        accepted, answer, state = await super().push(body, request, username)
        if accepted and request.headers.get("x-gradio-user") == "app":
            self.pending_event_ids_session[body.session_hash].add(KEPT_OPEN)
        return accepted, answer if accepted else request_language(request).sentence(str(answer)), state

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        """Gradio's own, which ends a page's listening some time after its last answer."""
        super().send_message(event, event_message)
        session = event.session_hash
        is_of_page = KEPT_OPEN in self.pending_event_ids_session.get(session, ())
        if is_of_page and isinstance(event_message, ProcessCompletedMessage):
            if session in self._ends:
                self._ends[session].cancel()
            loop = asyncio.get_running_loop()
            self._ends[session] = loop.call_later(TIME_TO_ASK_AGAIN, self._end_listening, session)

    def _end_listening(self, session: str) -> None:
        del self._ends[session]
        messages = self.pending_messages_per_session.get(session)
        if messages is not None and self.pending_event_ids_session.get(session) == {KEPT_OPEN}:
            messages.put_nowait(ProcessCompletedMessage(output={}, success=True, event_id=KEPT_OPEN))

    async def clean_events(self, *, session_hash: str | None = None, event_id: str | None = None) -> None:
        """Gradio's own, which forgets a client that has gone."""
        self.pending_event_ids_session.get(session_hash or "", set()).discard(KEPT_OPEN)
        await super().clean_events(session_hash=session_hash, event_id=event_id)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Gradio's own, which takes the first in the line, of those with a listener."""
        heard = {event for event in self._waiting() if self._is_heard(event)}
        self._last_heard.update(dict.fromkeys(heard, time.monotonic()))
        for event in self._waiting():
            if self._unheard_seconds(event) > LONGEST_UNHEARD:
                self._give_up(event)
        lines = {line: line.queue for line in self.event_queue_per_concurrency_id.values()}
        for line, events in lines.items():
            line.queue = [event for event in events if event in heard]
        found = super().get_events()
        taken = found[0] if found else []
        for line, events in lines.items():
            line.queue = [event for event in events if event not in taken]
        return found

    async def process_events(self, events: list[Event], batch: bool, begin_time: float, fn: Any) -> None:
        """Gradio's own, where a stream ends when its time is over by the clock: Gradio counts only what it computes, so
        that who sends little would keep others out for as long as he likes."""
        if fn.connection != "stream":
            return await super().process_events(events, batch, begin_time, fn)
        timer = asyncio.get_running_loop().call_later(fn.time_limit, _close, events)
        try:
            await super().process_events(events, batch, begin_time, fn)
        finally:
            timer.cancel()

    def _waiting(self) -> list[Event]:
        return [event for line in self.event_queue_per_concurrency_id.values() for event in line.queue]

    def _is_heard(self, event: Event) -> bool:
        messages = self.pending_messages_per_session.get(event.session_hash)
        return messages is not None and messages.empty()

    def _unheard_seconds(self, event: Event) -> float:
        return time.monotonic() - self._last_heard.get(event, event.enqueue_time)

    def _give_up(self, event: Event) -> None:
        self.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
        self.event_ids_to_events.pop(event._id, None)
        if event.session_hash in self.pending_messages_per_session:
            output = {"error": NOBODY_LISTENED}
            self.send_message(event, ProcessCompletedMessage(output=output, title="Error", success=False))


def _close(streams: list[Event]) -> None:
    """End streams as if their clients had: each with its last answer."""
    for stream in streams:
        stream.closed = True
        stream.signal.set()
