"""wicketgate itself, in the release build, and the CA that it asks."""
import json
import os
import pathlib
import subprocess
import time

from lib import CLIENT_CPU, SERVER_CPU, WORK, Server, wait_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("WICKETGATE") or str(ROOT / "target/release/wicketgate")
HTTP, HTTPS = 18080, 18443


def config(name, certificates, upstream, issuer='issuer = "embedded"', more="", gate=HTTP, key=""):
    """Writes a configuration with a state directory of its own."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{gate}.toml"
    front = f"""[front]
listen = ["127.0.0.1:{HTTPS}"]
upstream = "{upstream}"
threads = 1
max-connections = 9000
max-connections-per-network = 9000
max-handshakes = 9000
""" if upstream else ""
    path.write_text(f"""state-dir = "{folder}/state"
[acme]
{issuer}
terms-agreed = true
[gate]
listen = ["127.0.0.1:{gate}"]
max-connections = 9000
max-connections-per-network = 9000
redirect = {{ port = {HTTPS} }}
{front}{more}[admin]
socket = "{folder}/admin.sock"
""" + "".join(f"[[certificate]]\nhostnames = {json.dumps(names)}\n{key}" for names in certificates))
    return path


def command(config, *arguments, check=True, cpu_list=CLIENT_CPU):
    """Runs one of its commands to the end, by default on the clients' core."""
    ran = subprocess.run(["taskset", "-c", cpu_list, PROGRAM, "--config", config, *arguments],
                         capture_output=True, text=True)
    if check and ran.returncode != 0:
        raise RuntimeError(f"wicketgate {' '.join(arguments)}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran


def start(config, ports=(HTTP, HTTPS), cpu_list=SERVER_CPU):
    """Starts `run`."""
    name = f"wicketgate-{config.parent.name}"
    return Server(name, [PROGRAM, "--config", str(config), "run"], list(ports), cpu_list=cpu_list)


def wait_for_certificate(config, name, timeout=20):
    """Until the lineage's files are there."""
    live = pathlib.Path(config).parent / "state/live" / name / "fullchain.pem"
    end = time.time() + timeout
    while not live.exists():
        if time.time() > end:
            raise RuntimeError(f"no certificate for {name} within {timeout} s; see {WORK}/wicketgate-*.log")
        time.sleep(0.01)


class Pebble:
    """Let's Encrypt's test CA without its random sleeps; it validates every name anew, on our gate."""

    def __init__(self, cpu_list=CLIENT_CPU):
        folder = WORK / "pebble"
        folder.mkdir(parents=True, exist_ok=True)

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", "/CN=pebble API CA", "-keyout", "ca.key", "-out", "ca.pem")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
                "-keyout", "key.pem", "-out", "leaf.csr")
        (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n")
        openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "30", "-extfile", "ext", "-out", "cert.pem")
        (folder / "pebble.json").write_text(json.dumps({"pebble": {
            "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
            "certificate": str(folder / "cert.pem"), "privateKey": str(folder / "key.pem"),
            "httpPort": HTTP, "tlsPort": 5001, "externalAccountBindingRequired": False,
            "retryAfter": {"authz": 1, "order": 1}, "certificateValidityPeriod": 157766400}}))
        self.dns = Server("challtestsrv", ["pebble-challtestsrv", "-http01", "", "-https01", "", "-tlsalpn01", "",
                                           "-defaultIPv6", "", "-dns01", "127.0.0.1:8053",
                                           "-management", "127.0.0.1:8055"], [8055], cpu_list=cpu_list)
        self.server = Server("pebble", ["pebble", "-config", str(folder / "pebble.json"),
                                        "-dnsserver", "127.0.0.1:8053"], [14000, 15000], cpu_list=cpu_list,
                             env={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"})
        assert wait_port(8053)
        self.issuer = f'issuer = "https://localhost:14000/dir"\nroots = "{folder}/ca.pem"'

    def stop(self):
        self.server.stop()
        self.dns.stop()
