#!/usr/bin/env python3
"""Certificates swapped under load: swaps.py [--swaps N]

64 keep-alive connections ask without pause, new connections are made one after the other, one WebSocket
echoes and one slow upload goes on, while the certificate is renewed and swapped N times. Ends with exit code
1 if a single handshake, request, echo or byte was lost. The 99th percentile (median of 4 s each) is shown
beside that of the same load on the same machine while another daemon renews, so that nothing is swapped."""
import argparse
import hashlib
import http.client
import os
import shutil
import socket
import socketserver
import ssl
import statistics
import sys
import threading
import time

from lib import CLIENT_CPU, WORK, in_a_network_of_its_own, wrk
from peers import UP, origin
from project import HTTP, HTTPS, Pebble, command, config, start, wait_for_certificate

SLOW = 18091


class Slow(socketserver.StreamRequestHandler):
    """An upstream for what lasts: `/ws` switches to an echo, `/upload` answers with the body's digest."""

    def handle(self):
        request = self.rfile.readline()
        headers = http.client.parse_headers(self.rfile)
        if b" /ws " in request:
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := self.request.recv(4096):
                self.request.sendall(data)
            return
        left, digest = int(headers["Content-Length"]), hashlib.sha256()
        while left and (data := self.request.recv(min(left, 4096))):
            digest.update(data)
            left -= len(data)
        body = digest.hexdigest().encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


class SlowServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def connect(name):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", HTTPS), 10), server_hostname=name)


class Load:
    """Clients in threads until told to end; each counts what it did and what went wrong."""

    def __init__(self):
        self.over = threading.Event()
        self.count = {"handshakes": 0, "echoes": 0, "uploaded": 0}
        self.serials = set()
        self.failures = []
        self.threads = [threading.Thread(target=self.guarded, args=(f,), name=f.__name__)
                        for f in (self.handshakes, self.websocket, self.upload)]
        for thread in self.threads:
            thread.start()

    def guarded(self, client):
        try:
            client()
        except Exception as error:
            self.failures.append(f"{client.__name__}: {error!r}")

    def handshakes(self):
        while not self.over.is_set():
            try:
                with connect("bench.test") as tls:
                    self.serials.add(hashlib.sha256(tls.getpeercert(True)).digest())
                    tls.sendall(b"GET /small HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n")
                    answer = b""
                    while data := tls.recv(4096):
                        answer += data
                if not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"x" * 1024)):
                    raise RuntimeError(f"answered {answer[:80]!r}, {len(answer)} bytes")
                self.count["handshakes"] += 1
            except Exception as error:
                self.failures.append(f"new connection: {error!r}")

    def websocket(self):
        with connect("slow.test") as tls:
            tls.sendall(b"GET /ws HTTP/1.1\r\nHost: slow.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            head = b""
            while b"\r\n\r\n" not in head:
                data = tls.recv(4096)
                if not data:
                    raise RuntimeError(f"no upgrade: {head!r}")
                head += data
            if not head.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(f"no upgrade: {head!r}")
            while not self.over.is_set():
                sent = b"%016d" % self.count["echoes"]
                tls.sendall(sent)
                back = b""
                while len(back) < len(sent):
                    data = tls.recv(len(sent) - len(back))
                    if not data:
                        raise RuntimeError("closed")
                    back += data
                if back != sent:
                    raise RuntimeError(f"sent {sent!r}, came back {back!r}")
                self.count["echoes"] += 1
                time.sleep(0.05)

    def upload(self):
        total, digest = 64 << 20, hashlib.sha256()
        with connect("slow.test") as tls:
            tls.sendall(b"POST /upload HTTP/1.1\r\nHost: slow.test\r\nContent-Length: %d\r\n\r\n" % total)
            while self.count["uploaded"] < total:
                # Slowly while it lasts, then the rest at once.
                size = total - self.count["uploaded"]
                data = os.urandom(min(size, 4096 if not self.over.is_set() else 1 << 20))
                digest.update(data)
                tls.sendall(data)
                self.count["uploaded"] += len(data)
                if not self.over.is_set():
                    time.sleep(0.05)
            answer = b""
            while digest.hexdigest().encode() not in answer:
                data = tls.recv(4096)
                if not data:
                    raise RuntimeError(f"answered {answer!r}")
                answer += data

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(60)
            if thread.is_alive():
                self.failures.append(f"{thread.name}: does not end")


def keep_alive_load(c, swaps, failures):
    """Renews again and again while 64 connections ask without pause; what wrk counted in each 4 s."""
    results, over = [], threading.Event()

    def ask():
        while not over.is_set():
            results.append(wrk(f"https://bench.test:{HTTPS}/small", headers=["Host: bench.test"]))

    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(swaps):
        ran = command(c, "renew", "--force", check=False)
        if ran.returncode != 0:
            failures.append(f"renewal {number}: {ran.stdout}{ran.stderr}")
    over.set()
    asking.join()
    return results


def p99(results):
    return statistics.median(r["p99_ms"] for r in results)


def run(swaps, pebble):
    """The load beside renewals of another daemon, which swap nothing here; then beside our own."""
    site = f'[[front.site]]\nhostnames = ["slow.test"]\nupstream = "http://127.0.0.1:{SLOW}"\n'
    ours = ("swaps", [["bench.test", "slow.test"]], f"http://127.0.0.1:{UP}", pebble.issuer, site)
    swapping, still = config(*ours), config(*ours, gate=HTTP + 1)
    other = config("other", [["bench.test", "slow.test"]], None, pebble.issuer)
    first = start(swapping)
    try:
        wait_for_certificate(swapping, "bench.test")
    finally:
        first.stop()
    servers = [start(still, (HTTP + 1, HTTPS)), start(other, (HTTP,), cpu_list=CLIENT_CPU)]
    try:
        wait_for_certificate(other, "bench.test")
        load = Load()
        calm = keep_alive_load(other, max(swaps // 4, 1), load.failures)
        load.end()
    finally:
        for server in servers:
            server.stop()
    server = start(swapping)
    try:
        began = time.monotonic()
        swapped_load = Load()
        swapped = keep_alive_load(swapping, swaps, swapped_load.failures)
        took = time.monotonic() - began
        swapped_load.end()
    finally:
        server.stop()
    return took, calm, swapped, load, swapped_load


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=200)
    arguments = parser.parse_args()
    in_a_network_of_its_own()
    for name in ("swaps", "other"):
        shutil.rmtree(WORK / name, ignore_errors=True)
    pebble, upstream = Pebble(), origin()
    slow = SlowServer(("127.0.0.1", SLOW), Slow)
    threading.Thread(target=slow.serve_forever, daemon=True).start()
    try:
        took, calm, swapped, before, load = run(arguments.swaps, pebble)
    finally:
        slow.shutdown()
        upstream.stop()
        pebble.stop()
    failed = sum(r["failed"] for r in calm + swapped)
    failures = before.failures + load.failures
    print(f"{arguments.swaps} swaps in {took:.1f} s, {len(load.serials)} certificates seen by new connections")
    print(f"keep-alive: {sum(r['n'] for r in swapped)} requests over 64 connections, {failed} failed")
    print(f"new connections: {load.count['handshakes']}; WebSocket echoes: {load.count['echoes']}; "
          f"one upload of {load.count['uploaded'] >> 20} MiB")
    print(f"p99: {p99(swapped):.2f} ms with swaps, {p99(calm):.2f} ms without")
    for failure in failures[:20]:
        print(f"FAILED {failure}")
    if failed or failures or len(load.serials) < arguments.swaps / 4:
        return 1
    print("nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
