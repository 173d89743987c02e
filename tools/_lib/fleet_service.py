"""One service of tools/fleet: logs until it is killed or told to end, and notes each call whose record is journaled.

fleet_service.py JOURNAL NOTES NAME RUN TARGET PAUSE     TARGET "-": it only commits, and a courier delivers
"""

import logging
import os
import random
import signal
import sys
import time

from lastwords import DurableHandler
from lastwords.targets import resolve


def dies_in_doubt(target, dice):
    """Each run ends at the worst moment: accepted by the stream, not yet marked in the journal."""
    deliver, left = target.deliver, [dice.randint(1, 5)]

    def deadly(entries):
        deliver(entries)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    target.deliver = deadly
    return target


def main():
    journal, notes, name, run, target, pause = sys.argv[1:]
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    place = None if target == "-" else dies_in_doubt(resolve(target), random.Random(name + run))
    handler = DurableHandler(place, journal, retry_min=0.2, retry_max=2.0)
    log = logging.getLogger(name)
    log.propagate = False
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    noted = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    number = 0
    while not ended:
        text = "%s %s %d" % (name, run, number)
        began = time.monotonic()
        log.info("%s", text, extra={"padding": "x" * 100})
        if (
            time.monotonic() - began > 0.3
        ):  # who holds the lock may be asleep: then it waits in memory, and dies with us
            while handler.stats().buffered:
                time.sleep(0.1)
        os.write(noted, (text + "\n").encode())  # whoever reads this knows: the call has returned
        number += 1
        time.sleep(float(pause) if float(pause) or number % 400 else 0.4)  # 0: in bursts, which make full batches
    handler.close()


if __name__ == "__main__":
    main()
