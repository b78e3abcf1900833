"""Bytes, frames, relays and readers. Nothing here has heard of a person, and nothing of ours is
imported: start with `base` (the interface), then `modbus` (one protocol, sans-I/O), then `rs485`
(the thread that owns a port)."""
