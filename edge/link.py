"""The MQTT client of both ends: bytes in and out, nothing else. One class for gate, office, desk.

The laws of paho, learned the hard way: an exception in a callback kills the network thread while
`is_connected()` stays true, so callbacks only enqueue; a message is acknowledged by its receiver,
when its consequences are on the disk; TCP_NODELAY, or a round trip costs 40 ms more; reconnects
need jitter, or three thousand gates return in the same second.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

KEEPALIVE_S = 20
CONNECT_TIMEOUT_S = 5.0
RETRY_FIRST_S, RETRY_MAX_S = 0.5, 60.0  # full jitter below a doubling cap
# A connection that lasted: after a shorter one the cap goes on doubling. Two boxes with one name
# throw each other out; without this they did so 2.2 times a second, for ever.
STEADY_S = 10.0
INBOX_MESSAGES = 2000
QUEUED_MESSAGES = 1000  # unsent, while the broker is slow; beyond it a publish is refused
POLL_S = 0.25

log = logging.getLogger("edge.link")


class _Socket(ssl.SSLSocket):
    """paho leaves a socket open when the other side does not prove who it is."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a client certificate; the key may be an encrypted PEM."""

    ca: Path
    cert: Path
    key: Path
    key_password: str | None = None

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.sslsocket_class = _Socket
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert, self.key, self.key_password)
        return context


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes
    retained: bool
    ack: Callable[[], None]


class Link:
    """A connection that keeps itself up. Nothing of value lives in the broker: clean sessions."""

    def __init__(
        self,
        client_id: str,
        host: str,
        port: int,
        *,
        tls: Tls | None,
        protocol: Literal["5", "3.1.1"] = "5",
        subscriptions: Sequence[str] = (),
        will: tuple[str, bytes, bool] | None = None,
        on_connect: Callable[[], None] | None = None,
        name: str = "link",
    ) -> None:
        """`on_connect` runs on the network thread after SUBACK: it must only set or enqueue."""
        self._id, self._host, self._port, self._tls = client_id, host, port, tls
        self._five, self._topics, self._will = protocol == "5", list(subscriptions), will
        self._greet, self.name = on_connect, name
        self.inbox: queue.Queue[Received | None] = queue.Queue(INBOX_MESSAGES)
        self.dropped = 0  # messages that found the inbox full; the log is pulled again
        self._up, self._stop, self._again = threading.Event(), threading.Event(), threading.Event()
        self._told = threading.Event()  # the broker has answered, or we are to stop
        self._client: mqtt.Client | None = None
        self._thread = threading.Thread(target=self._run, name=f"line-{name}", daemon=True)

    # --- any thread ---

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    def wait_connected(self, timeout: float) -> bool:
        return self._up.wait(timeout)

    def start(self) -> None:
        self._thread.start()

    def receive(self, timeout: float) -> Received | None:
        with contextlib.suppress(queue.Empty):
            return self.inbox.get(timeout=timeout)
        return None

    def wake(self) -> None:
        """Let a waiting `receive` return None now; one that finds the inbox full is awake."""
        with contextlib.suppress(queue.Full):
            self.inbox.put_nowait(None)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """False when it was not even queued: not connected, or too much is unsent."""
        client = self._client
        if client is None or not self._up.is_set():
            return False
        try:
            return client.publish(topic, payload, qos, retain).rc == mqtt.MQTT_ERR_SUCCESS
        except (ValueError, OSError):
            return False

    def rebuild(self) -> None:
        """Drop the connection, however healthy it looks, and make a new one."""
        self._again.set()

    def close(self) -> None:
        self._stop.set()
        self._told.set()
        if self._thread.is_alive():
            self._thread.join(CONNECT_TIMEOUT_S + 2)

    # --- the line's own thread ---

    def _run(self) -> None:
        pause = RETRY_FIRST_S
        while not self._stop.is_set():
            self._again.clear()
            self._told.clear()
            if self._connect() and self._hold():
                pause = RETRY_FIRST_S
            self._drop()
            self._stop.wait(random.uniform(0.1, pause))
            pause = min(2 * pause, RETRY_MAX_S)

    def _connect(self) -> bool:
        """A new client and connection; True when the broker let us in."""
        try:
            self._client = client = self._make()
            extra: dict[str, Any] = {"clean_start": True} if self._five else {}
            if self._five:
                extra["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                extra["properties"].SessionExpiryInterval = 0
            client.connect(self._host, self._port, KEEPALIVE_S, **extra)
            client.loop_start()
        except (OSError, ValueError) as error:
            log.info("broker not reached", extra={"host": self._host, "why": str(error)})
            return False
        if not self._stop.is_set():
            self._told.wait(CONNECT_TIMEOUT_S)
        return self._up.is_set()

    def _make(self) -> mqtt.Client:
        version = MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._id,
            protocol=version,
            manual_ack=True,
            reconnect_on_failure=False,
            clean_session=None if self._five else True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_queued_messages_set(QUEUED_MESSAGES)
        if self._tls:
            client.tls_set_context(self._tls.context())
        if self._will:
            client.will_set(self._will[0], self._will[1], qos=1, retain=self._will[2])
        client.on_socket_open = _no_delay
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _hold(self) -> bool:
        """Until the connection is lost or not wanted; True when it had lasted."""
        polls = 0
        while self._up.is_set() and not self._again.is_set() and not self._stop.wait(POLL_S):
            polls += 1
        return polls * POLL_S >= STEADY_S

    def _drop(self) -> None:
        client, self._client = self._client, None
        self._up.clear()
        if client is not None:
            client.disconnect()
            client.loop_stop()

    # --- paho's network thread: enqueue, never raise ---

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            log.warning("broker refuses us", extra={"host": self._host, "why": str(reason)})
            self._told.set()
        elif self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])
        else:
            self._ready()

    def _on_subscribe(self, *_: Any) -> None:
        self._ready()

    def _on_disconnect(self, *_: Any) -> None:
        self._up.clear()
        self._told.set()

    def _ready(self) -> None:
        self._up.set()
        self._told.set()
        if self._greet:
            self._greet()

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        mid, qos = message.mid, message.qos
        received = Received(
            message.topic,
            bytes(message.payload),
            bool(message.retain),
            lambda: _ack(client, mid, qos),
        )
        try:
            self.inbox.put_nowait(received)
        except queue.Full:
            self.dropped += 1
            received.ack()  # else the broker's window of unacknowledged messages stays shut


def _ack(client: mqtt.Client, mid: int, qos: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        client.ack(mid, qos)


def _no_delay(_: mqtt.Client, __: Any, sock: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
