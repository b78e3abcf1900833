"""menjin (门禁), the gate box. The product in four files:

1. `terms`    the words: Door, Grant, Record, Sighting, Decision, Reason
2. `policy`   `decide(sighting, roster, policy, now=...)`: every rule of entry, in reading order
3. `passage`  THE STRAIGHT LINE: frame -> faces -> match -> sighting -> decide -> record -> unlock
4. `daemon`   who owns what: the threads, made and tied together in one place

From there: `roster` and `replica` (what the office says), `envelope` and `seal` (why it is
believed), `store` and `journal` (what stays on the disk), `locks` and `drivers.rs485` (the door).
"""
