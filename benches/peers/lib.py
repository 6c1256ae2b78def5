"""Shared parts of the benchmarks: start a server pinned to one core, load it from another, and charge it
by its own CPU time (user and system, children included), which holds on a noisy machine."""
import contextlib
import os
import pathlib
import re
import resource
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

SERVER_CPU = os.environ.get("SERVER_CPU", "0")
CLIENT_CPU = os.environ.get("CLIENT_CPU", "1")
HOST_NAMES = "bench.test slow.test"
WORK = pathlib.Path(os.environ.get("BENCH_DIR") or pathlib.Path(tempfile.gettempdir()) / "wicketgate-bench")


def in_a_network_of_its_own():
    """Starts the script anew where ports are free, the benchmark's names lead to loopback (clients send
    them as SNI), and nothing on this machine is changed."""
    WORK.mkdir(parents=True, exist_ok=True)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.environ.get("BENCH_INSIDE"):
        return
    hosts = WORK / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {HOST_NAMES}\n")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = f"ip link set lo up && mount --bind {hosts} /etc/hosts && exec \"$@\""
    os.environ["BENCH_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", *user, "--net", "--mount", "sh", "-c", script, "-", sys.executable, *sys.argv])


def tree(pid):
    """A process and everything below it."""
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                todo += map(int, pathlib.Path(f"/proc/{p}/task/{t}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def cpu(pids):
    """Seconds of CPU time; schedstat counts nanoseconds, finer than the clock tick."""
    total = 0
    for p in pids:
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                total += int(pathlib.Path(f"/proc/{p}/task/{t}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total / 1e9


def pss_kb(pids):
    """Proportional set size: shared pages are divided among the processes that map them."""
    total = 0
    for p in pids:
        try:
            for line in open(f"/proc/{p}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return total


def wait_port(port, host="127.0.0.1", timeout=20):
    end = time.time() + timeout
    while time.time() < end:
        try:
            socket.create_connection((host, port), 0.3).close()
            return True
        except OSError:
            time.sleep(0.001)
    return False


class Server:
    """A server pinned to a core; ready when all its ports accept."""

    def __init__(self, name, argv, ports, cpu_list=SERVER_CPU, env=None):
        self.name, self.ports = name, ports
        self.log = open(WORK / f"{name}.log", "w")
        began = time.time()
        self.p = subprocess.Popen(["taskset", "-c", cpu_list, *argv], stdout=self.log, stderr=self.log,
                                  env=dict(os.environ, **(env or {})), start_new_session=True)
        for port in ports:
            if not wait_port(port):
                self.stop()
                raise RuntimeError(f"{name}: port {port} never opened; see {self.log.name}")
        self.ready_s = time.time() - began

    def pids(self):
        return tree(self.p.pid)

    def cpu(self):
        return cpu(self.pids())

    def pss_kb(self):
        return pss_kb(self.pids())

    def stop(self):
        pids = self.pids()
        self.p.terminate()
        try:
            self.p.wait(5)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        for p in pids[1:]:
            try:
                os.kill(p, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.log.close()


def wrk(url, conns=64, secs=4, headers=()):
    cmd = ["taskset", "-c", CLIENT_CPU, "wrk", "-t1", f"-c{conns}", f"-d{secs}s", "--latency"]
    for header in headers:
        cmd += ["-H", header]
    return read_wrk(subprocess.run(cmd + [url], capture_output=True, text=True).stdout)


def read_wrk(out):
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    return {"n": int(re.search(r"(\d+) requests in", out).group(1)),
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "failed": (int(bad.group(1)) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0),
            "p99_ms": in_ms(re.search(r"99%\s+(\S+)", out).group(1))}


def in_ms(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def h2load(url, n, conns, streams=1, h1=False, extra=()):
    cmd = ["taskset", "-c", CLIENT_CPU, "h2load", "-n", str(n), "-c", str(conns), "-m", str(streams), "-t1"]
    if h1:
        cmd.append("--h1")
    out = subprocess.run([*cmd, *extra, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx", out)
    if not statuses:
        raise RuntimeError(f"h2load told no figures: {out}")
    ok = sum(map(int, statuses.groups()))
    return {"n": ok, "rps": float(re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", out).group(1)),
            "failed": n - ok}


def summary(values):
    """Median, least and most."""
    return f"median {statistics.median(values):.1f}, min {min(values):.1f}, max {max(values):.1f}"


def lenient():
    """A client's TLS that verifies nothing."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def one_request(context, port, name, session=None):
    """A connection of its own, a request and its answer; gives the session that may be resumed."""
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=name, session=session) as tls:
        tls.sendall(f"GET /small HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := tls.recv(4096):
            answer += data
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{name}: {answer[:80]}")
        return tls.session, tls.session_reused


@contextlib.contextmanager
def on_the_clients_core():
    """This process itself is a client meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(CLIENT_CPU)})
    yield
    os.sched_setaffinity(0, before)


def resumed(port, count=2000):
    """Handshakes that resume a session, one after the other, each with a request."""
    context, failed = lenient(), 0
    session, _ = one_request(context, port, "bench.test")
    began = time.time()
    with on_the_clients_core():
        for _ in range(count):
            session, is_resumed = one_request(context, port, "bench.test", session)
            failed += not is_resumed
    return {"n": count, "rps": count / (time.time() - began), "failed": failed}


P256 = ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA2048 = ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")


def certs(folder, kind=P256):
    """A CA and a leaf for bench.test with keys of that kind; leaf and CA are the full chain."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "combined.pem").exists():
        return folder

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    def key(path):
        openssl("genpkey", "-algorithm", *kind, "-out", path)

    key("ca.key")
    openssl("req", "-x509", "-new", "-key", "ca.key", "-days", "30", "-subj", "/CN=bench CA", "-out", "ca.pem")
    key("leaf.key")
    openssl("req", "-new", "-key", "leaf.key", "-subj", "/CN=bench.test", "-out", "leaf.csr")
    (folder / "ext").write_text("subjectAltName=DNS:bench.test,DNS:localhost\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "30", "-extfile", "ext", "-out", "leaf.pem")
    (folder / "full.pem").write_text((folder / "leaf.pem").read_text() + (folder / "ca.pem").read_text())
    (folder / "combined.pem").write_text((folder / "leaf.key").read_text() + (folder / "full.pem").read_text())
    os.chmod(folder / "combined.pem", 0o600)
    return folder
