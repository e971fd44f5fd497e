"""The account: messages of every fate are sent while things break, and each has to be somewhere at the end.

sent = succeeded + dead-lettered + still waiting (+ a failed state to look at, all that plain Celery offers) + missing

``fates`` says what is sent and ``tasks`` what runs; ``ledger`` is what the tasks write down themselves; ``stage`` is
the broker, the results and the database, all private; ``programs`` keeps producer, workers and relays going and
``faults`` breaks them; ``balance`` looks where everything is at the end. ``run`` puts them together, ``page`` publishes
the figures. Nothing here asks django_taskkit how it thinks it did.
"""
