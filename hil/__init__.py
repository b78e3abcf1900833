"""The hardware-in-loop rig: simulated people, locks, readers and faults around the real daemon."""
