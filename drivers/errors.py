"""Whose fault it is, in the name of the error. Each is also the stdlib class that fits it."""

from __future__ import annotations


class LockError(Exception):
    """Any fault between an order and the lock."""


class LinkDown(LockError, ConnectionError):
    """The port or cable is gone; nothing was or can be sent."""


class LockTimeout(LockError, TimeoutError):
    """The device did not answer in time. The state of the lock is *unknown*, never *closed*."""


class PeerFault(LockError, ValueError):
    """The device answered, and the answer is a refusal or against the protocol."""


class OrderExpired(LockError, TimeoutError):
    """The order's time was up before it could be sent. Nothing was sent: never unlock late."""


class BadOrder(LockError, ValueError):
    """The order itself makes no sense (no such output, no such pulse). Nothing was sent."""
