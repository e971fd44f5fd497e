"""``python -m account.producer COUNT SEED RATE TOXIC``: send that many messages, and note which were accepted."""

from __future__ import annotations

import sys
import threading
import time

from account.fates import planned
from account.ledger import note, token
from account.project import app
from account.projects import here
from account.sending import Sending


def main(count: int, seed: int, rate: float, toxic: bool) -> None:
    if here().ours:
        import django

        django.setup()
    timers: list[threading.Timer] = []

    def later(seconds: float, action) -> None:
        timers.append(threading.Timer(seconds, action))
        timers[-1].start()

    started = time.monotonic()
    for number, fate in enumerate(planned(count, seed, toxic)):
        time.sleep(max(0, started + number / rate - time.monotonic()))
        items = [token(number, part) for part in fate.parts]
        note("sending", items[0], fate=fate.name, items=items)
        try:
            fate.send(Sending(app, number, later))
        except Exception as exc:
            note("refused", items[0], error=f"{type(exc).__name__}: {exc}"[:300])
        else:
            note("accepted", items[0])
    for timer in timers:
        timer.join()


if __name__ == "__main__":
    count, seed, rate, toxic = sys.argv[1:]
    main(int(count), int(seed), float(rate), toxic == "toxic")
