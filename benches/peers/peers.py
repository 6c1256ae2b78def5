"""Peers' configurations, each doing the same work: port 80 answers one challenge and redirects the rest;
port 443 terminates TLS and forwards to one HTTP/1.1 upstream over a keep-alive pool. No access logs."""
import os

import project
from lib import CLIENT_CPU, P256, WORK, Server, certs
from project import HTTP, HTTPS

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
KEYAUTH = TOKEN + ".nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ"
UP = 18090


def folder(kind):
    return WORK / f"certs-{kind[0]}"


def write(name, text):
    p = WORK / name
    p.parent.mkdir(parents=True, exist_ok=True)
    p.write_text(text)
    return str(p)


def origin():
    """The upstream, on the client's core: nginx with a 1 kB answer, and a 16 MiB file for bulk transfers."""
    root = WORK / "origin"
    root.mkdir(parents=True, exist_ok=True)
    (root / "small").write_bytes(b"x" * 1024)
    (root / "big").write_bytes(b"x" * (16 << 20))
    c = write("origin.conf", f"""daemon off; pid {WORK}/origin.pid; error_log {WORK}/origin.err; worker_processes 1;
events {{ worker_connections 20000; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000; client_body_temp_path {WORK}/o1; proxy_temp_path {WORK}/o2; fastcgi_temp_path {WORK}/o3; uwsgi_temp_path {WORK}/o4; scgi_temp_path {WORK}/o5;
server {{ listen 127.0.0.1:{UP} backlog=4096; root {root}; default_type text/plain; client_max_body_size 0; 
location /upload {{ client_body_buffer_size 17m; proxy_pass http://127.0.0.1:{UP}/taken; proxy_pass_request_body off; proxy_set_header Content-Length ""; }}
location /taken {{ return 200; }} }} }}""")
    return Server("origin", ["nginx", "-c", c], [UP], cpu_list=CLIENT_CPU)


def nginx(kind=P256):
    d = certs(folder(kind), kind)
    root = WORK / "acme/.well-known/acme-challenge"
    root.mkdir(parents=True, exist_ok=True)
    (root / TOKEN).write_text(KEYAUTH)
    c = write("nginx.conf", f"""daemon off; pid {WORK}/nginx.pid; error_log {WORK}/nginx.err; worker_processes 1; worker_rlimit_nofile 20000;
events {{ worker_connections 18000; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000; client_body_temp_path {WORK}/n1; proxy_temp_path {WORK}/n2; fastcgi_temp_path {WORK}/n3; uwsgi_temp_path {WORK}/n4; scgi_temp_path {WORK}/n5;
upstream up {{ server 127.0.0.1:{UP}; keepalive 256; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{HTTP} backlog=4096; location /.well-known/acme-challenge/ {{ root {WORK}/acme; default_type application/octet-stream; }} location / {{ return 301 https://$host$request_uri; }} }}
server {{ listen 127.0.0.1:{HTTPS} ssl http2 backlog=4096; server_name bench.test; ssl_certificate {d}/full.pem; ssl_certificate_key {d}/leaf.key; ssl_session_tickets on; ssl_protocols TLSv1.2 TLSv1.3;
client_max_body_size 0; location / {{ proxy_pass http://up; proxy_request_buffering off; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto https; }} }} }}""")
    return Server("nginx", ["nginx", "-c", c], [HTTP, HTTPS])


def haproxy(kind=P256):
    d = certs(folder(kind), kind)
    c = write("haproxy.cfg", f"""global
  maxconn 9000
  nbthread 1
  tune.ssl.cachesize 20000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 60s
frontend plain
  bind 127.0.0.1:{HTTP}
  http-request return status 200 content-type application/octet-stream string "{KEYAUTH}" if {{ path /.well-known/acme-challenge/{TOKEN} }}
  http-request redirect scheme https code 301
frontend tls
  bind 127.0.0.1:{HTTPS} ssl crt {d}/combined.pem alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto https
  option forwardfor
  default_backend up
backend up
  http-reuse always
  server s 127.0.0.1:{UP} pool-max-conn 256
""")
    return Server("haproxy", ["haproxy", "-db", "-f", c], [HTTP, HTTPS])


def caddy(kind=P256):
    d = certs(folder(kind), kind)
    c = write("Caddyfile", f"""{{
  auto_https off
  admin off
  log {{
    level ERROR
  }}
}}
http://:{HTTP} {{
  bind 127.0.0.1
  respond /.well-known/acme-challenge/{TOKEN} "{KEYAUTH}" 200
  redir https://{{host}}{{uri}} 301
}}
https://bench.test:{HTTPS} {{
  bind 127.0.0.1
  tls {d}/full.pem {d}/leaf.key
  reverse_proxy 127.0.0.1:{UP}
}}
""")
    return Server("caddy", ["caddy", "run", "--config", c, "--adapter", "caddyfile"], [HTTP, HTTPS], env={"GOMAXPROCS": "1", "HOME": str(WORK)})


def in_user_namespace():
    """Whether root here is an ordinary user outside, who cannot become another."""
    return open("/proc/self/uid_map").read().split()[1] != "0"


def hitch(kind=P256):
    d = certs(folder(kind), kind)
    c = write("hitch.conf", f"""frontend = {{ host = "127.0.0.1" port = "{HTTPS}" }}
backend = "[127.0.0.1]:{UP}"
pem-file = "{d}/combined.pem"
workers = 1
daemon = off
quiet = on
alpn-protos = "http/1.1"
tls-protos = TLSv1.2 TLSv1.3
""")
    user = ["--user", "nobody"] if os.geteuid() == 0 and not in_user_namespace() else []
    return Server("hitch", ["hitch", "--config", c, *user], [HTTPS])


def acmetool():
    st = WORK / "acmetool"
    (st / "webroot").mkdir(parents=True, exist_ok=True)
    (st / "webroot" / TOKEN).write_text(KEYAUTH)
    return Server("acmetool", ["acmetool", "redirector", "--bind", f"127.0.0.1:{HTTP}", "--path", str(st / "webroot"),
                  "--status-code", "301", "--service.uid", "65534", "--service.gid", "65534"], [HTTP], env={"GOMAXPROCS": "1", "ACME_STATE_DIR": str(st)})


def haproxy_raw():
    d = certs(folder(P256))
    c = write("haproxy-raw.cfg", f"""global
  maxconn 9000
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend tls
  bind 127.0.0.1:{HTTPS} ssl crt {d}/combined.pem alpn http/1.1
  default_backend up
backend up
  server s 127.0.0.1:{UP}
""")
    return Server("haproxy-raw", ["haproxy", "-db", "-f", c], [HTTPS])


def wicketgate(kind=P256, upstream=f"http://127.0.0.1:{UP}"):
    """A first start obtains the certificate; the measured one reads it from disk, as the peers read theirs."""
    key = 'key-type = "rsa-2048"\n' if kind != P256 else ""
    c = project.config("peer" + kind[0], [["bench.test"]], upstream, key=key)
    first = project.start(c)
    try:
        project.wait_for_certificate(c, "bench.test")
    finally:
        first.stop()
    server = project.start(c)
    put = project.command(c, "challenge", "put", "bench.test", TOKEN, KEYAUTH, "--ttl", "1h", check=False)
    server.has_challenge = put.returncode == 0
    return server


# Bytes out of TLS to a TCP upstream; hitch does nothing else.
RAW = {"hitch": hitch, "haproxy": haproxy_raw, "wicketgate": lambda: wicketgate(upstream=f"tcp://127.0.0.1:{UP}")}

ALL = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy, "hitch": hitch, "acmetool": acmetool,
       "wicketgate": wicketgate}
