"""The roster authority: who may enter, as a signed log per zone. Start at `authority`."""
