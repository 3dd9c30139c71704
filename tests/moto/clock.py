"""AWS's time, made to run faster than ours, and what happens in it: processes that wait for moments or conditions."""

import heapq
import itertools
import os
import time

# How long a second of AWS's lasts here. An instance that takes a minute to boot is there after 1.2 s.
SECOND = float(os.environ.get("SIPEDGE_MOTO_SECOND", "0.02"))


class Clock:
    """Runs processes: generators that yield seconds to wait for, or a condition to wait for (a callable).

    Nothing runs by itself: every request brings the processes up to the present, in the order in which things were due, so that a
    request sees what it would have seen had they run all the time.
    """

    def __init__(self):
        self._began = time.monotonic()
        self._leaped = 0.0
        self._at = 0.0
        self._order = itertools.count()
        self._timed = []
        self._waiting = []

    @property
    def now(self):
        """Seconds of AWS's since the start, as far as the processes have come."""
        return self._at

    def leap(self, seconds):
        """Lets time pass at once."""
        self._leaped += seconds

    def start(self, process):
        """Runs a process until it first waits."""
        self._step(process)

    def forget(self):
        """Ends all processes."""
        self._timed.clear()
        self._waiting.clear()

    def catch_up(self):
        """Brings all processes up to the present."""
        present = self._leaped + (time.monotonic() - self._began) / SECOND
        self._settle()
        while self._timed and self._timed[0][0] <= present:
            due, _, process = heapq.heappop(self._timed)
            self._at = max(self._at, due)
            self._step(process)
            self._settle()
        self._at = max(self._at, present)
        self._settle()

    def _settle(self):
        """Goes on with the processes whose condition holds, until none does."""
        moved = True
        while moved:
            moved = False
            for waiting in list(self._waiting):
                condition, process = waiting
                if condition():
                    self._waiting.remove(waiting)
                    self._step(process)
                    moved = True

    def _step(self, process):
        try:
            wanted = next(process)
        except StopIteration:
            return
        if callable(wanted):
            self._waiting.append((wanted, process))
        else:
            heapq.heappush(self._timed, (self._at + wanted, next(self._order), process))


CLOCK = Clock()
