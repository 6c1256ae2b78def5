#!/usr/bin/env python3
"""How long a certificate takes: one, again and again, and 100 in one run.

    issuance.py [--runs N] [--many N]

Nothing is pinned to a core. Pebble doesn't sleep here and reuses no authorization, so every run is a whole one: order, http-01 by a
request to our gate, finalize, download, checks, storing. Pebble's own floor, with a client that does nothing
else and polls every 10 ms, was 23 ms."""
import argparse
import os
import shutil
import sys
import time

from lib import WORK, in_a_network_of_its_own, summary
from project import Pebble, command, config, start, wait_for_certificate

FLOOR_MS = 23
ANY_CPU = ",".join(map(str, sorted(os.sched_getaffinity(0))))


def timed(fn):
    began = time.monotonic()
    fn()
    return 1000 * (time.monotonic() - began)


def through_a_daemon(pebble, runs):
    c = config("one", [["bench.test"]], "demo", pebble.issuer)
    daemon = start(c, cpu_list=ANY_CPU)
    try:
        wait_for_certificate(c, "bench.test")
        return [timed(lambda: command(c, "renew", "--force", cpu_list=ANY_CPU)) for _ in range(runs)]
    finally:
        daemon.stop()


def by_itself(pebble, runs):
    c = config("alone", [["bench.test"]], None, pebble.issuer)
    command(c, "renew", cpu_list=ANY_CPU)
    return [timed(lambda: command(c, "renew", "--force", cpu_list=ANY_CPU)) for _ in range(runs)]


def many(pebble, count):
    c = config("many", [[f"n{i}.bench.test"] for i in range(count)], None, pebble.issuer)
    took = timed(lambda: command(c, "renew", cpu_list=ANY_CPU))
    stored = len(list((c.parent / "state/live").iterdir()))
    assert stored == count, f"{stored} of {count} certificates are there"
    return took / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--many", type=int, default=100)
    arguments = parser.parse_args()
    in_a_network_of_its_own()
    for name in ("one", "alone", "many"):
        shutil.rmtree(WORK / name, ignore_errors=True)
    pebble = Pebble(ANY_CPU)
    try:
        runs = arguments.runs
        print(f"one certificate, {runs} runs, in ms, the command's own start included (the CA's floor: {FLOOR_MS}):")
        print(f"  through a running daemon: {summary(through_a_daemon(pebble, runs))}")
        print(f"  by `renew` alone:         {summary(by_itself(pebble, runs))}")
        print(f"{arguments.many} certificates in one `renew`: {many(pebble, arguments.many):.2f} s")
    finally:
        pebble.stop()


if __name__ == "__main__":
    sys.exit(main())
