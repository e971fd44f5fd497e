"""``manage.py taskkit doctor``: does what is running fit together, and will it lose nothing?

Checks look at settings; probes look at what is there: broker, workers, beat, relay, database, result backend. Each is
a function that yields findings, and none can break another (see `running`).
"""
