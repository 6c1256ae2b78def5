#!/usr/bin/env python3
"""wicketgate and its peers on the same work, in turn, on one machine.

    run.py [-r ROUNDS] [-w WORK,…] [--idle N] [--json FILE] [--profile] [PEER…]

One row per work and peer, medians over the rounds, least and most: CPU microseconds an operation, operations a second, the
99th percentile, failures. With --profile, what the server's time goes to instead, by perf."""
import argparse
import contextlib
import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

from lib import RSA2048, WORK, h2load, in_a_network_of_its_own, lenient, resumed, wrk
from peers import ALL, HTTP, HTTPS, RAW, TOKEN, origin

HOST = "Host: bench.test"


def handshakes():
    return h2load(f"https://bench.test:{HTTPS}/small", 3000, 3000, h1=True, extra=["--rate", "1000"])


# Each names what it needs: a plain port, a TLS port, a TLS port with HTTP/2, one with an RSA key, or one that passes bytes.
WORKS = {
    "redirect": ("plain", lambda: wrk(f"http://127.0.0.1:{HTTP}/a/b?c=d", headers=[HOST])),
    "redirect-close": ("plain", lambda: wrk(f"http://127.0.0.1:{HTTP}/a/b?c=d", headers=[HOST, "Connection: close"])),
    "challenge": ("plain", lambda: wrk(f"http://127.0.0.1:{HTTP}/.well-known/acme-challenge/{TOKEN}", headers=[HOST])),
    "handshake": ("tls", handshakes),
    "proxy-h1": ("tls", lambda: wrk(f"https://bench.test:{HTTPS}/small", headers=[HOST])),
    "proxy-h2": ("h2", lambda: h2load(f"https://bench.test:{HTTPS}/small", 60000, 16, streams=16)),
    "bulk": ("tls", lambda: h2load(f"https://bench.test:{HTTPS}/big", 64, 4, h1=True)),
    "upload": ("tls", lambda: h2load(f"https://bench.test:{HTTPS}/upload", 64, 4, h1=True, extra=["-d", WORK / "origin/big"])),
    "resume": ("tls", lambda: resumed(HTTPS)),
    # Servers of their own.
    "handshake-rsa": ("rsa", handshakes),
    "raw": ("raw", lambda: wrk(f"https://bench.test:{HTTPS}/small", headers=[HOST])),
}
CANNOT = {"hitch": {"plain", "h2"}, "acmetool": {"tls", "h2", "rsa"}}


def spread(values):
    """The median, and between which values it lies."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def charged(server, work, profile=None):
    before = server.cpu()
    with recorded(server, profile) if profile else contextlib.nullcontext():
        result = work()
    result["us"] = 1e6 * (server.cpu() - before) / max(result["n"], 1)
    return result


@contextlib.contextmanager
def recorded(server, path):
    """Samples of the server's processes meanwhile; printed by symbol, and kept at the path for `perf report -g`."""
    pids = ",".join(map(str, server.pids()))
    command = ["perf", "record", "-q", "-g", "-F", "4999", "-e", "cpu-clock", "-o", path, "-p", pids]
    perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.2)
    yield
    perf.send_signal(signal.SIGINT)
    perf.wait()
    report = ["perf", "report", "-i", path, "--stdio", "-g", "none", "--no-children", "--percent-limit", "0.7",
              "--sort", "dso,symbol"]
    lines = subprocess.run(report, capture_output=True, text=True).stdout.splitlines()
    print("\n".join(line for line in lines if line.strip() and not line.startswith("#")))


def idle(server, count):
    """Memory for each TLS connection that has made one request and stays open."""
    context = lenient()
    before, connections = server.pss_kb(), []
    for _ in range(count):
        tls = context.wrap_socket(socket.create_connection(("127.0.0.1", HTTPS)), server_hostname="bench.test")
        tls.sendall(b"GET /small HTTP/1.1\r\nHost: bench.test\r\n\r\n")
        answer = b""
        while len(answer) < 1024:
            data = tls.recv(4096)
            if not data:
                raise RuntimeError(f"closed after {len(connections)} connections")
            answer += data
        connections.append(tls)
    time.sleep(1.5)
    after = server.pss_kb()
    for tls in connections:
        tls.close()
    return {"n": count, "kb_each": (after - before) / count}


def one_peer(name, works, idle_count, rows, profile):
    def keep(work, result):
        rows.setdefault((work, name), []).append(result)

    server = ALL[name]()
    try:
        time.sleep(0.3)
        keep("start", {"n": 1, "ms": 1000 * server.ready_s, "pss_kb": server.pss_kb()})
        cannot = CANNOT.get(name, set())
        if "tls" not in cannot and idle_count:
            keep("idle", idle(server, idle_count))
        for work in works:
            kind, fn = WORKS[work]
            if kind in {"rsa", "raw", *cannot} or (work == "challenge" and not getattr(server, "has_challenge", True)):
                continue
            if profile:
                print(f"{work} {name}")
            keep(work, charged(server, fn, WORK / f"{work}-{name}.perf" if profile else None))
        keep("after", {"n": 1, "pss_kb": server.pss_kb()})
    finally:
        server.stop()
    for work in works:
        kind, fn = WORKS[work]
        starts = {"rsa": lambda: ALL[name](kind=RSA2048), "raw": RAW.get(name)}.get(kind)
        if starts and kind not in cannot:
            server = starts()
            try:
                time.sleep(0.3)
                keep(work, charged(server, fn, WORK / f"{work}-{name}.perf" if profile else None))
            finally:
                server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", default=list(ALL))
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("-w", "--works", default=",".join(WORKS))
    parser.add_argument("--idle", type=int, default=2000, help="idle TLS connections to hold; 0: none")
    parser.add_argument("--profile", action="store_true", help="tell where the time goes; figures are worth nothing then")
    parser.add_argument("--json", help="write every single result there")
    arguments = parser.parse_args()
    works = arguments.works.split(",")
    if unknown := [p for p in arguments.peers if p not in ALL] + [w for w in works if w not in WORKS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    in_a_network_of_its_own()
    shutil.rmtree(WORK / "peer", ignore_errors=True)
    upstream, rows, troubles = origin(), {}, 0
    try:
        for _ in range(arguments.rounds):
            for name in arguments.peers:
                try:
                    one_peer(name, works, arguments.idle, rows, arguments.profile)
                except (RuntimeError, OSError, AttributeError) as error:
                    troubles += 1
                    print(f"{name}: {error!r}", file=sys.stderr)
    finally:
        upstream.stop()
    order = ["start", *WORKS, "idle", "after"]
    for (work, name), results in sorted(rows.items(), key=lambda row: (order.index(row[0][0]), row[0][1])):
        cells = [f"{key}={spread([r[key] for r in results])}" for key in results[0] if key != "n"]
        print(f"{work:15} {name:11} {'  '.join(cells)}  ({len(results)} rounds)")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump([{"work": w, "peer": p, "results": r} for (w, p), r in rows.items()], file, indent=1)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
