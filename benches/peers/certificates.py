#!/usr/bin/env python3
"""Many certificates, told apart by the name that a client asks for: certificates.py [--counts N,…] [PEER…]

For each number of certificates: seconds until the last of them is served, memory (PSS), and CPU time of a full
handshake with one request, names drawn at random. Ends with a plot of all three, certificates.svg in BENCH_DIR.

Takes Debian's python3-cryptography."""
import argparse
import datetime
import json
import math
import os
import random
import shutil
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import peers
from lib import WORK, Server, in_a_network_of_its_own, lenient, on_the_clients_core, one_request
from project import HTTP, HTTPS, PROGRAM

FOLDER = WORK / "many"
HANDSHAKES = 500


def name(n):
    return f"host-{n}.bench.test"


def make(count):
    """So many certificates, each in files of its own, with keys of their own for the first hundred."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    issuer = ec.generate_private_key(ec.SECP256R1())
    issuer_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
    now, keys = datetime.datetime.utcnow(), []
    for n in range(count):
        if n < 100:
            keys.append(ec.generate_private_key(ec.SECP256R1()))
        key = keys[n % len(keys)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name(n))])
        leaf = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer_name).public_key(key.public_key())
                .serial_number(n + 1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=30))
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(name(n))]), critical=False)
                .sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                    serialization.NoEncryption())
        for kind, content in [("pem", leaf), ("key", private), ("both", private + leaf)]:
            path = FOLDER / kind / f"{n}.pem"
            path.parent.mkdir(exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(content)


def nginx(count):
    servers = "".join(f"server {{ listen 127.0.0.1:{HTTPS} ssl; server_name {name(n)}; ssl_certificate {FOLDER}/pem/{n}.pem;"
                      f" ssl_certificate_key {FOLDER}/key/{n}.pem; location / {{ proxy_pass http://127.0.0.1:{peers.UP}; }} }}\n"
                      for n in range(count))
    c = peers.write("many-nginx.conf", f"""daemon off; pid {WORK}/nginx.pid; error_log {WORK}/nginx.err; worker_processes 1;
events {{ worker_connections 1000; }}
http {{ access_log off; server_names_hash_max_size 200000; server_names_hash_bucket_size 128;
client_body_temp_path {WORK}/n1; proxy_temp_path {WORK}/n2; fastcgi_temp_path {WORK}/n3; uwsgi_temp_path {WORK}/n4; scgi_temp_path {WORK}/n5;
{servers} }}""")
    return Server("many-nginx", ["nginx", "-c", c], [])


def haproxy(count):
    listed = peers.write("many-haproxy.list", "".join(f"{FOLDER}/both/{n}.pem\n" for n in range(count)))
    c = peers.write("many-haproxy.cfg", f"""global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend tls
  bind 127.0.0.1:{HTTPS} ssl crt-list {listed}
  default_backend up
backend up
  server s 127.0.0.1:{peers.UP}
""")
    return Server("many-haproxy", ["haproxy", "-db", "-f", c], [])


def wicketgate(count):
    folder = WORK / "many-wicketgate"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tables = [f'[[certificate]]\nname = "host-{n}"\nfiles = {{ fullchain = "{FOLDER}/pem/{n}.pem", key = "{FOLDER}/key/{n}.pem" }}\n'
              for n in range(count)]
    for first in range(0, count, 1000):
        peers.write(f"many-wicketgate/conf.d/{first}.toml", "".join(tables[first:first + 1000]))
    c = peers.write("many-wicketgate/wicketgate.toml", f"""include = "conf.d/*.toml"
state-dir = "{folder}/state"
[gate]
listen = ["127.0.0.1:{HTTP}"]
[front]
listen = ["127.0.0.1:{HTTPS}"]
upstream = "http://127.0.0.1:{peers.UP}"
threads = 1
[admin]
socket = "{folder}/admin.sock"
""")
    return Server("many-wicketgate", [PROGRAM, "--config", c, "run"], [])


ALL = {"nginx": nginx, "haproxy": haproxy, "wicketgate": wicketgate}


def measure(start, count):
    began, context = time.time(), lenient()
    server = start(count)
    try:
        while True:
            try:
                one_request(context, HTTPS, name(count - 1))
                break
            except (OSError, RuntimeError):
                if server.p.poll() is not None or time.time() > began + 300:
                    raise RuntimeError(f"it never served the last one; see {server.log.name}") from None
                time.sleep(0.005)
        ready, memory = time.time() - began, server.pss_kb()
        before = server.cpu()
        with on_the_clients_core():
            for _ in range(HANDSHAKES):
                one_request(context, HTTPS, name(random.randrange(count)))
        return {"start_s": ready, "pss_kb": memory, "handshake_us": 1e6 * (server.cpu() - before) / HANDSHAKES}
    finally:
        server.stop()


TITLES = {"start_s": "seconds until the last is served", "pss_kb": "memory, kB", "handshake_us": "CPU us a handshake"}
COLOURS = {"wicketgate": "#0b7", "nginx": "#06c", "haproxy": "#c50"}


def plot(rows, path):
    """Three small plots beside each other, both axes logarithmic."""
    width, height, edge, parts = 300, 220, 48, []
    for place, (figure, title) in enumerate(TITLES.items()):
        left = place * (width + edge) + edge
        counts, values = zip(*[(count, result[figure]) for (_, count), result in rows.items()])
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
        first, last = math.log10(min(counts)), math.log10(max(counts))

        def at(count, value):
            x = left + (width - 20) * (math.log10(count) - first) / max(last - first, 1e-9)
            return f"{x:.1f},{edge + height * (high - math.log10(value)) / max(high - low, 1):.1f}"

        parts.append(f'<text x="{left}" y="24">{title}</text>')
        for power in range(low, high + 1):
            y = at(min(counts), 10**power).split(",")[1]
            parts.append(f'<path d="M{left} {y}h{width - 20}" stroke="#ddd"/><text x="{left - 6}" y="{y}" text-anchor="end">{10**power:g}</text>')
        for count in sorted(set(counts)):
            x = at(count, 10**low).split(",")[0]
            parts.append(f'<text x="{x}" y="{edge + height + 18}" text-anchor="middle">{count}</text>')
        for n, (peer, colour) in enumerate(COLOURS.items()):
            points = " ".join(at(count, result[figure]) for (who, count), result in rows.items() if who == peer)
            if points:
                parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
                parts.append(f'<text x="{left + 8 + 90 * n}" y="{edge + height + 36}" fill="{colour}">{peer}</text>')
    size = f'width="{3 * (width + edge) + edge}" height="{height + 2 * edge}"'
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
                    f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", default=list(ALL))
    parser.add_argument("--counts", default="100,1000,10000")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.counts.split(",")]
    in_a_network_of_its_own()
    shutil.rmtree(FOLDER, ignore_errors=True)
    make(max(counts))
    origin, rows, troubles = peers.origin(), {}, 0
    try:
        for count in counts:
            for peer in arguments.peers:
                try:
                    rows[peer, count] = measure(ALL[peer], count)
                except (RuntimeError, OSError) as error:
                    troubles += 1
                    print(f"{peer}, {count}: {error}", file=sys.stderr)
                    continue
                cells = "  ".join(f"{key}={value:.2f}" for key, value in rows[peer, count].items())
                print(f"{count:7} {peer:11} {cells}", flush=True)
    finally:
        origin.stop()
        shutil.rmtree(FOLDER, ignore_errors=True)
    if rows:
        plot(rows, WORK / "certificates.svg")
        (WORK / "certificates.json").write_text(json.dumps([[*who, row] for who, row in rows.items()]))
        print(WORK / "certificates.svg")
    return 1 if troubles else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
