"""One Modbus RTU relay board as a lock: the `Driver` on top of the frames in `rtu`.

Sans-I/O: no port, no thread, no logger; every time is passed in. Laws of this file:
- nothing is sent after an order's `valid_until`, and an unlock is never repeated before the
  output was read and found locked: a lost echo must not lengthen a pulse;
- a board without a timer is relocked by us, and one of its outputs that is found unlocked with no
  pulse of ours on it is locked again;
- a timeout means unknown.

No authentication on this wire: the board belongs on the secure side of the door. An adapter that
echoes what it sends must be named to the bus (`local_echo`): its echo of a write looks exactly like
the board's reply.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from drivers.base import (
    Capabilities,
    Event,
    InputChanged,
    Offline,
    Online,
    OrderDone,
    OrderFailed,
    OrderSent,
    Outcome,
    Unlock,
)
from drivers.errors import BadOrder, LinkDown, LockError, LockTimeout, OrderExpired, PeerFault
from drivers.rtu import (
    CHAR_BITS,
    COIL_OFF,
    COIL_ON,
    FLASH_TENTHS_MAX,
    READ_COILS,
    READ_INPUTS,
    WRITE_COIL,
    WRITE_COILS,
    Reply,
    Request,
    flash,
)

REPLY_S = 0.2  # a board's own time to answer, beside the wire time of both frames
POLL_S = 1.0  # reading two registers takes 60 ms at 9600 baud: 6% of the line per board
MISSES_TO_OFFLINE = 3  # one lost frame in ten gives a false alarm once in a thousand polls
PROBE_FIRST_S = 0.25
PROBE_MAX_S = 4.0  # plus one reply time: a board that returns is served within 5 s
SENDS_MAX = 2
READ_BACKS_MAX = 2
PULSE_MIN_S = 0.1
PULSE_MAX_S = FLASH_TENTHS_MAX / 10
# A board's timer may end a pulse a little early; a read-back after this part of it proves nothing.
PULSE_SURE = 0.8
HEARD_MAX_BYTES = 256  # longest RTU frame; older bytes cannot belong to a reply


class _Ask(enum.Enum):
    """What the outstanding request is for."""

    OUTPUTS = "outputs"
    INPUTS = "inputs"
    UNLOCK = "unlock"
    RELOCK = "relock"
    SETTLE = "settle"  # every output of the board at once


@dataclass(slots=True)
class _Job:
    """The one order in progress."""

    order: Unlock
    sends: int = 0
    sent_at: float = -math.inf
    echoed: bool = False
    verify: bool = False  # the next thing to do is to read the output
    unread: int = 0  # read-backs that nobody answered


class ModbusRelay:
    """`Driver` for one board.

    `timed=False`: the board has no flash command, so the pulse is ended by us. `fail_safe=True`:
    the coil is energised while the door is locked. `baud` only sets the patience.
    """

    def __init__(
        self,
        address: int,
        outputs: int,
        inputs: int = 0,
        *,
        timed: bool = True,
        fail_safe: bool = False,
        baud: int = 9600,
        poll_s: float = POLL_S,
    ) -> None:
        if not 1 <= address <= 255:
            raise ValueError(f"a relay board has an address of 1 to 255, not {address}")
        if not 1 <= outputs <= 256 or not 0 <= inputs <= 64:
            raise ValueError("a relay board has 1 to 256 outputs and 0 to 64 inputs")
        self.capabilities = Capabilities(
            outputs, inputs, timed_unlock=timed, confirms=True, secure=False
        )
        self._address = address
        self._fail_safe = fail_safe
        self._char_s = CHAR_BITS / baud
        self._poll_s = poll_s
        self._events: list[Event] = []
        self._orders: deque[Unlock] = deque()
        self._job: _Job | None = None
        self._ends: dict[int, float] = {}  # output -> when we must lock it
        self._settle = False
        self._unlocked: list[bool | None] = [None] * outputs
        self._active: list[bool | None] = [None] * inputs
        self._asked: tuple[_Ask, Request] | None = None
        self._deadline = -math.inf
        self._heard = bytearray()
        self._online: bool | None = None
        self._missed = 0
        self._fresh = False  # the outputs were read since the line came (back)
        self._next_poll = -math.inf
        self._inputs_next = False

    # --- what the bus calls ---

    def unlock(self, order: Unlock) -> None:
        if not 0 <= order.output < self.capabilities.outputs:
            outputs = self.capabilities.outputs
            self._fail(order, BadOrder(f"no output {order.output} on a board of {outputs}"))
        elif not PULSE_MIN_S <= order.seconds <= PULSE_MAX_S:
            limits = f"{PULSE_MIN_S:g} to {PULSE_MAX_S:g} s"
            self._fail(order, BadOrder(f"a pulse lasts {limits}, not {order.seconds!r}"))
        else:
            self._orders.append(order)

    def relock(self, output: int) -> None:
        self._ends[output] = -math.inf

    def state(self, output: int) -> bool | None:
        return self._unlocked[output]

    @property
    def busy(self) -> bool:
        return self._asked is not None

    @property
    def urgent(self) -> bool:
        return bool(self._orders) or self._job is not None

    def next_deadline(self) -> float:
        if self._asked is not None:
            return self._deadline
        if not self._fresh:
            return self._next_poll
        return -math.inf if self._settle else min([self._next_poll, *self._ends.values()])

    def events(self) -> Sequence[Event]:
        happened, self._events = self._events, []
        return happened

    def tick(self, now: float) -> bytes:
        self._end_wait(now)
        if self._asked is not None:
            return b""
        self._drop_expired(now)
        self._asked = self._next_request(now)
        if self._asked is None:
            return b""
        request = self._asked[1]
        frame = request.encode()
        self._heard.clear()
        self._deadline = now + REPLY_S + (len(frame) + request.reply_bytes) * self._char_s
        return frame

    def feed(self, data: bytes, now: float) -> None:
        if self._asked is None:
            return  # nobody was asked: whatever this is, it is not an answer
        self._heard += data
        del self._heard[:-HEARD_MAX_BYTES]
        ask, request = self._asked
        reply = request.match(bytes(self._heard))
        if reply is None:
            self._end_wait(now)
            return
        self._asked = None
        self._missed = 0
        if not self._online:
            self._online = True
            self._events.append(Online())
        if reply.exception is None:
            self._answered(ask, request, reply, now)
        else:
            self._refused(ask, request, reply.exception, now)

    def gap(self, now: float) -> None:
        self._heard.clear()
        self._end_wait(now)

    def lost(self, why: str) -> None:
        self._asked = None
        if (job := self._job) is not None:
            self._job = None
            if job.echoed:
                self._events.append(OrderDone(job.order.order_id, Outcome.ACCEPTED))
            else:
                error = LockTimeout if job.sends else LinkDown
                self._fail(job.order, error(f"the port went away: {why}"))
        while self._orders:
            self._fail(self._orders.popleft(), LinkDown(f"the port went away: {why}"))
        self._go_offline(why)
        self._missed = 0
        self._next_poll = -math.inf

    # --- what to ask next ---

    def _next_request(self, now: float) -> tuple[_Ask, Request] | None:
        poll = now >= self._next_poll
        if not self._fresh:
            return self._read(READ_COILS) if poll or self.urgent else None
        if self._settle:
            return self._settle_request()
        for output, end in self._ends.items():
            if now >= end:
                return _Ask.RELOCK, self._coil(output, unlocked=False)
        if self._job is None and self._orders:
            self._job = _Job(self._orders.popleft())
        if (job := self._job) is not None:
            return self._read(READ_COILS) if job.verify else self._send(job, now)
        if poll:
            return self._read(READ_INPUTS if self._inputs_next else READ_COILS)
        return None

    def _read(self, function: int) -> tuple[_Ask, Request]:
        if function == READ_INPUTS:
            count = self.capabilities.inputs
            return _Ask.INPUTS, Request(self._address, function, 0, count)
        return _Ask.OUTPUTS, Request(self._address, function, 0, self.capabilities.outputs)

    def _coil(self, output: int, *, unlocked: bool) -> Request:
        value = COIL_ON if unlocked != self._fail_safe else COIL_OFF
        return Request(self._address, WRITE_COIL, output, value)

    def _settle_request(self) -> tuple[_Ask, Request]:
        """All outputs in one frame: unlocked stays only what reads so and has a pulse of ours."""
        keep = (bool(u) and self._ours(n) for n, u in enumerate(self._unlocked))
        bits = tuple(unlocked != self._fail_safe for unlocked in keep)
        return _Ask.SETTLE, Request(self._address, WRITE_COILS, 0, len(bits), bits)

    def _send(self, job: _Job, now: float) -> tuple[_Ask, Request]:
        order = job.order
        job.sends, job.sent_at, job.verify = job.sends + 1, now, True
        if job.sends == 1:
            self._events.append(OrderSent(order.order_id, now))
        if self.capabilities.timed_unlock:
            request = flash(self._address, order.output, order.seconds, release=self._fail_safe)
            return _Ask.UNLOCK, request
        end = now + order.seconds
        self._ends[order.output] = max(end, self._ends.get(order.output, end))
        return _Ask.UNLOCK, self._coil(order.output, unlocked=True)

    def _drop_expired(self, now: float) -> None:
        for order in [o for o in self._orders if now > o.valid_until]:
            self._orders.remove(order)
            late = now - order.valid_until
            self._fail(order, OrderExpired(f"{late:.3f} s too late: nothing was sent"))
        job = self._job
        if job is not None and not job.verify and now > job.order.valid_until:
            self._end_job(LockTimeout("no reply, and no time left to repeat the order"))

    # --- what came back ---

    def _answered(self, ask: _Ask, request: Request, reply: Reply, now: float) -> None:
        match ask:
            case _Ask.OUTPUTS:
                self._outputs_read(reply.bits, now)
            case _Ask.INPUTS:
                self._inputs_read(reply.bits, now)
            case _Ask.UNLOCK if self._job is not None:
                self._job.echoed = True
            case _Ask.RELOCK:
                self._ends.pop(request.start, None)
                self._next_poll, self._inputs_next = now, False  # see that it did
            case _Ask.SETTLE:
                self._settle = False
                self._next_poll, self._inputs_next = now, False
            case _:
                pass

    def _refused(self, ask: _Ask, request: Request, code: int, now: float) -> None:
        refusal = PeerFault(f"device {self._address} refused with exception {code}")
        match ask:
            case _Ask.UNLOCK if self._job is not None:
                self._ends.pop(self._job.order.output, None)
                self._end_job(refusal)
            case _Ask.OUTPUTS:  # it cannot be read back: never a guess
                self._fresh = True
                self._unlocked = [None] * self.capabilities.outputs
                self._next_poll = now + self._poll_s
                if self._job is not None and self._job.verify:
                    self._end_job(Outcome.ACCEPTED if self._job.echoed else refusal)
            case _Ask.INPUTS:
                self._next_poll, self._inputs_next = now + self._poll_s, False
            case _Ask.RELOCK:
                self._ends[request.start] = now + self._poll_s
            case _:  # no such function on this board: one output at a time
                self._settle = False
                for output in self._strays():
                    self._ends[output] = -math.inf

    def _outputs_read(self, bits: tuple[bool, ...], now: float) -> None:
        first, self._fresh = not self._fresh, True
        self._unlocked = [coil != self._fail_safe for coil in bits]
        self._inputs_next = self.capabilities.inputs > 0
        self._next_poll = now if self._inputs_next else now + self._poll_s
        if not self.capabilities.timed_unlock or (self._fail_safe and first):
            self._settle = bool(self._strays())
        if (job := self._job) is not None and job.verify:
            self._judge(job, bits[job.order.output] != self._fail_safe, now)

    def _inputs_read(self, bits: tuple[bool, ...], now: float) -> None:
        self._next_poll, self._inputs_next = now + self._poll_s, False
        for n, (before, after) in enumerate(zip(self._active, bits, strict=True)):
            if before is not after:
                self._events.append(InputChanged(n, after))
        self._active = list(bits)

    def _strays(self) -> list[int]:
        """Outputs that are unlocked although no pulse of ours runs on them."""
        return [n for n, unlocked in enumerate(self._unlocked) if unlocked and not self._ours(n)]

    def _ours(self, output: int) -> bool:
        ordered = self._job is not None and self._job.order.output == output
        return ordered or output in self._ends

    def _judge(self, job: _Job, unlocked: bool, now: float) -> None:
        """The output was read after the order had been sent. Unlocked by an earlier pulse is
        unlocked too: the person can pass, and nothing is sent twice."""
        if unlocked:
            self._end_job(Outcome.CONFIRMED)
        elif now > job.sent_at + PULSE_SURE * job.order.seconds:  # the pulse may be over already
            late = LockTimeout("no reply, and the pulse would be over by now")
            self._end_job(Outcome.ACCEPTED if job.echoed else late)
        elif job.echoed:
            self._end_job(PeerFault(f"device {self._address} took the order but reads locked"))
        elif job.sends < SENDS_MAX:
            job.verify = False  # it never heard the order
        else:
            self._end_job(LockTimeout(f"no reply to {job.sends} sendings; the output reads locked"))

    # --- nothing came back ---

    def _end_wait(self, now: float) -> None:
        if self._asked is None or now < self._deadline:
            return
        ask, self._asked = self._asked[0], None
        self._missed += 1
        pause = PROBE_FIRST_S * 2 ** min(self._missed - 1, 10)
        self._next_poll = now + min(pause, PROBE_MAX_S)
        job = self._job
        if ask is _Ask.OUTPUTS and job is not None and job.verify:
            job.unread += 1
            if job.unread >= READ_BACKS_MAX:
                lost = LockTimeout("no reply to the order nor to the read-back")
                self._end_job(Outcome.ACCEPTED if job.echoed else lost)
        if self._missed >= MISSES_TO_OFFLINE:
            self._go_offline(f"no reply to {self._missed} requests")

    def _go_offline(self, why: str) -> None:
        self._fresh = self._settle = self._inputs_next = False
        self._unlocked = [None] * self.capabilities.outputs
        for n, active in enumerate(self._active):
            if active is not None:
                self._events.append(InputChanged(n, None))
        self._active = [None] * self.capabilities.inputs
        if self._online is not False:
            self._online = False
            self._events.append(Offline(why))

    def _end_job(self, end: Outcome | LockError) -> None:
        job, self._job = self._job, None
        assert job is not None
        if isinstance(end, Outcome):
            self._events.append(OrderDone(job.order.order_id, end))
        else:
            self._fail(job.order, end)

    def _fail(self, order: Unlock, error: LockError) -> None:
        self._events.append(OrderFailed(order.order_id, error))
