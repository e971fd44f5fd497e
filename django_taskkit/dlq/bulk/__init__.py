"""Many dead letters at a time: rows taken and changed in one transaction, messages sent in one round trip."""
