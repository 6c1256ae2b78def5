#!/usr/bin/env python3
"""What deploying costs: deploys.py [--lineages N] [--reconfigures N]

N lineages of one name each for one nginx with as many server blocks: all are renewed and deployed in one
round, then deployed once more without being renewed. Counted are nginx's own notes of its reloads, and the
peak memory of wicketgate and of its helper. Ends with exit code 1 if a round takes more than one reload or
nginx does not serve every new leaf.

Then Squid's gap: a client connects, or shakes hands, without pause while Squid, told to reconfigure, closes
its listeners and opens them again. Told are, for each time, how many were refused or broken, for how long, and
the longest time from one success to the next."""
import argparse
import os
import pathlib
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time

from lib import WORK, Server, certs, in_a_network_of_its_own, summary, tree
from project import HTTPS, PROGRAM, Pebble, command, config

ANY_CPU = ",".join(map(str, sorted(os.sched_getaffinity(0))))
SQUID = 18444


def names(count):
    return [[f"n{i}.bench.test"] for i in range(count)]


def nginx_config(state, count):
    temporary = "".join(f"{kind}_temp_path {WORK}/deploys-{kind}; "
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    servers = "".join(f"""server {{ listen 127.0.0.1:{HTTPS} ssl; server_name {name};
ssl_certificate {state}/live/{name}/fullchain.pem; ssl_certificate_key {state}/live/{name}/privkey.pem; return 204; }}
""" for [name] in names(count))
    path = WORK / "deploys-nginx.conf"
    path.write_text(f"""daemon off; pid {WORK}/deploys-nginx.pid; error_log {WORK}/deploys-nginx.err notice; worker_processes 1;
events {{ worker_connections 4000; }}
http {{ access_log off; server_names_hash_max_size 4096; {temporary}
{servers}}}""")
    return path


def peak_kb(pid):
    """The most that a process has had resident, so far."""
    try:
        for line in open(f"/proc/{pid}/status"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def is_helper(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2] == [b"helper-of"]
    except (FileNotFoundError, ProcessLookupError):
        return False


def measured(c, *arguments):
    """Runs a command; seconds, CPU seconds, peak memory of it and of its helper in MiB."""
    began, before = time.monotonic(), os.times()
    log = WORK / "deploys.log"
    with open(log, "w") as out:
        running = subprocess.Popen([PROGRAM, "--config", c, *arguments], stdout=out, stderr=out)
        main = helper = 0
        while running.poll() is None:
            main = max(main, peak_kb(running.pid))
            helper = max([helper, *(peak_kb(pid) for pid in tree(running.pid)[1:] if is_helper(pid))])
            time.sleep(0.02)
    if running.returncode != 0:
        raise RuntimeError(f"wicketgate {' '.join(arguments)}: exit code {running.returncode}; see {log}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - began, cpu, main / 1024, helper / 1024


def handshake(port, name, timeout=5):
    """The leaf that is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        with context.wrap_socket(connection, server_hostname=name) as tls:
            return tls.getpeercert(True)


def lineages(pebble, count):
    # This CA takes more orders than a public one, and its tester has no hours to wait.
    c = config("deploys", names(count), None, pebble.issuer, '[acme.limits]\norders = "none"\n')
    command(c, "renew", cpu_list=ANY_CPU)
    state = c.parent / "state"
    nginx_c = nginx_config(state, count)
    error_log = WORK / "deploys-nginx.err"
    error_log.unlink(missing_ok=True)
    nginx = ["nginx", "-c", str(nginx_c), "-e", str(error_log)]
    server = Server("deploys-nginx", nginx, [HTTPS], cpu_list=ANY_CPU)
    try:
        text = c.read_text().replace("hostnames = ", "deploy = [\"nginx\"]\nhostnames = ")
        as_list = "[" + ", ".join(f'"{word}"' for word in nginx) + ", {}]"
        c.write_text(text + f"""[deploy.nginx]
check = {as_list.format('"-t"')}
reload = {as_list.format('"-s", "reload"')}
verify = ["127.0.0.1:{HTTPS}"]
verify-timeout = "60s"
""")
        ok = True
        for what, arguments in (("renewed and deployed", ["renew", "--force"]), ("deployed again", ["deploy"])):
            reloads = error_log.read_text().count("(SIGHUP) received")
            seconds, cpu, main, helper = measured(c, *arguments)
            reloads = error_log.read_text().count("(SIGHUP) received") - reloads
            stale = [name for [name] in names(count) if handshake(HTTPS, name) != ssl.PEM_cert_to_DER_cert(
                (state / "live" / name / "cert.pem").read_text())]
            print(f"{count} lineages {what}: {seconds:.1f} s, {cpu:.1f} s of CPU time, {reloads} reload, "
                  f"peak memory {main:.1f} MiB and {helper:.1f} MiB of the helper, {len(stale)} stale")
            ok = ok and reloads == 1 and not stale
        return ok
    finally:
        server.stop()


def squid_config(folder):
    folder.mkdir(parents=True, exist_ok=True)
    # Started by root, it writes here as somebody else.
    folder.chmod(0o777)
    d = certs(WORK / "certs")
    path = folder / "squid.conf"
    path.write_text(f"""https_port 127.0.0.1:{SQUID} accel tls-cert={d}/full.pem tls-key={d}/leaf.key defaultsite=bench.test
cache_peer 127.0.0.1 parent 9 0 no-query originserver
http_access allow all
pid_filename {folder}/pid
cache_log {folder}/cache.log
access_log none
coredump_dir {folder}
visible_hostname bench.test
pinger_enable off
shutdown_lifetime 0 seconds
dns_nameservers 127.0.0.1
""")
    return path


def accepted(port):
    socket.create_connection(("127.0.0.1", port), 5).close()
    time.sleep(0.0005)


def through_a_reconfigure(squid, log, attempt):
    """What a client sees from before the command until a second after Squid has taken it: failures, ms in
    which they were, the longest and the usual ms from one success to the next."""
    answered, failed = [], []
    taken = log.read_text().count("Reconfiguring Squid Cache")
    asked = end = None
    began = look_at = time.monotonic()
    while end is None or time.monotonic() < end:
        if asked is None and time.monotonic() > began + 0.3:
            asked = subprocess.Popen([*squid, "-k", "reconfigure"], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
        if end is None and asked and asked.poll() is not None and time.monotonic() > look_at:
            look_at = time.monotonic() + 0.1
            if log.read_text().count("Reconfiguring Squid Cache") > taken:
                end = time.monotonic() + 1
        if time.monotonic() > began + 20:
            raise RuntimeError(f"Squid does not reconfigure; see {log}")
        tried = time.monotonic()
        try:
            attempt()
            answered.append(time.monotonic())
        except OSError:
            failed.append(tried)
    lasted = next(at for at in answered if at > failed[-1]) - failed[0] if failed else 0
    between = [b - a for a, b in zip(answered, answered[1:])]
    return len(failed), 1000 * lasted, 1000 * max(between), 1000 * statistics.median(between)


def squid_gap(count):
    folder = WORK / "deploys-squid"
    shutil.rmtree(folder, ignore_errors=True)
    squid = ["squid", "-n", "deploys", "-f", str(squid_config(folder))]
    server = Server("squid", [*squid, "--foreground"], [SQUID], cpu_list=ANY_CPU)
    ways = (("connections", lambda: accepted(SQUID)), ("handshakes", lambda: handshake(SQUID, "bench.test")))
    try:
        for what, attempt in ways:
            seen = [through_a_reconfigure(squid, folder / "cache.log", attempt) for _ in range(count)]
            failed, lasted, longest, usual = zip(*seen)
            print(f"Squid reconfigured {count} times; {what} one after the other, every "
                  f"{statistics.median(usual):.1f} ms:")
            print(f"  refused or broken:    {summary(failed)}")
            print(f"  ms in which they are: {summary(lasted)}")
            print(f"  ms without a success: {summary(longest)}")
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lineages", type=int, default=500)
    parser.add_argument("--reconfigures", type=int, default=10)
    arguments = parser.parse_args()
    in_a_network_of_its_own()
    ok = True
    if arguments.lineages:
        shutil.rmtree(WORK / "deploys", ignore_errors=True)
        pebble = Pebble(ANY_CPU)
        try:
            ok = lineages(pebble, arguments.lineages)
        finally:
            pebble.stop()
    if arguments.reconfigures:
        squid_gap(arguments.reconfigures)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
