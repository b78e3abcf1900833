"""The broker's settings: the one source of `mosquitto.conf` and its access list. `roster init`
renders them for an office; the copies in config/ are these for 127.0.0.1, and a test holds them
equal."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from edge.provision import BrokerAddress
from enroll.home import AUTHORITY_ID

CONF = """\
# The broker of an office (mosquitto 2). Made by `enroll roster init`.
# It carries what it cannot read, forge or keep back unnoticed: nothing of value lives here.
# It runs as whoever made the office. For another machine, or another user (started as root,
# mosquitto becomes the user `mosquitto`), copy this folder to where that user can read it, give it
# to them with mode 0700, and correct the four paths.

# Listener-wide settings belong to the listener below, not to one that somebody adds later.
per_listener_settings true

{listener}

# Both ends show a certificate of the office's own CA; the broker's name for a client is the
# CN of its certificate, and nobody can take another's place by choosing a client id.
cafile {folder}/ca.crt
certfile {folder}/server.crt
keyfile {folder}/server.key
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl

# With Nagle's algorithm a revocation's round trip took 87 ms, without it 5 ms.
set_tcp_nodelay true

# MQTT is the doorbell, the roster log is the truth: no queue or disk of the broker is relied on.
persistence false

# The largest message is a page of 256 KiB.
max_packet_size 1048576
# Nothing relies on this queue: what a slow gate misses it pulls. One that acknowledged nothing of
# 3,000 pages pushed the broker from 9 to 160 MB without the bound.
max_queued_messages 200

log_dest stderr
log_type error
log_type warning
log_type notice
"""

ACL = """\
# Who may read and write what, by the CN of the certificate (%u). Made by `enroll roster init`.
# `pattern` lines hold for every client; for a gate's topics only the gate of that name fits.

# gate
pattern write mj/1/g/%u/up
pattern write mj/1/g/%u/events
pattern write mj/1/g/%u/status
pattern read mj/1/g/%u/down
pattern read mj/1/g/%u/cmd

# desk
pattern write mj/1/d/%u/up
pattern read mj/1/d/%u/down

# What every member reads. Nobody but the authority writes z/. (mosquitto warns at the start that
# these three name no %u: that is meant.)
pattern read mj/1/z/+/beacon
pattern read mj/1/z/+/log
pattern read mj/1/g/+/status

user {authority}
topic readwrite mj/1/#
"""


def mosquitto_conf(broker: BrokerAddress, folder: Path | str) -> str:
    """`folder`: where server.key, server.crt, ca.crt and acl lie, on the broker's machine."""
    return CONF.format(listener=_listener(broker), folder=folder)


def mosquitto_acl() -> str:
    return ACL.format(authority=AUTHORITY_ID)


def _listener(broker: BrokerAddress) -> str:
    """An address is bound as given; a name may belong to a router in front of us, so all
    addresses of the machine listen, and the certificate decides who gets in."""
    host = "127.0.0.1" if broker.host == "localhost" else broker.host
    try:
        return f"listener {broker.port} {ipaddress.ip_address(host)}"
    except ValueError:
        return f"listener {broker.port}"
