"""Configurations written by hand to compare with: they share no code with coxswain's templates.

Each host has two locations, one Service with three endpoints, and a certificate (the files are many, what they hold is
the same: a wildcard for all hosts).

naive   a server, its own `ssl_certificate` and an upstream with static servers for each host; the upstreams' names have
        a common prefix. What a template writes that nobody measured.
best    the fastest layout known: certificates by a variable named once, upstreams resolved from DNS, their names a hash
        first and of many lengths (nginx compares names linearly, by length and then byte by byte), 64 zones.
"""

import hashlib
import os

DOMAIN = "bench.example.com"


def host(n):
    return f"app-{n:05}.{DOMAIN}"


def endpoints(n):
    return [f"127.{100 + n // 60000}.{n // 250 % 240}.{n % 250 + 1}:{9000 + pod}" for pod in range(3)]


HEAD = """
daemon off; pid {folder}/pid; error_log {folder}/error.log notice; lock_file {folder}/lock; user root;
worker_processes {workers}; worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  server_names_hash_max_size 65536; server_names_hash_bucket_size 512;
  map_hash_max_size 65536; map_hash_bucket_size 512; variables_hash_max_size 2048;
  access_log off; keepalive_timeout 75s; keepalive_min_timeout 10s; server_tokens off; http2 on;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
  proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
  server {{ listen unix:{folder}/status.sock; location = /stamp {{ return 200 "{stamp}\\n"; }} }}
"""


def naive(folder, hosts, stamp, ports, pairs, **others):
    yield HEAD.format(folder=folder, stamp=stamp, workers=2)
    for n in range(hosts):
        servers = " ".join(f"server {e};" for e in endpoints(n))
        yield f"  upstream upstream-default-team-app-{n:05}-80 {{ {servers} keepalive 32; }}\n"
    yield f"  server {{ listen {ports[0]} default_server; listen {ports[1]} ssl default_server;\n"
    yield f"    ssl_certificate {pairs}/0.pem; ssl_certificate_key {pairs}/0.pem; return 404; }}\n"
    for n in range(hosts):
        locations = "".join(
            f" location {path} {{ proxy_pass http://upstream-default-team-app-{n:05}-80; }}" for path in ("/", "/api")
        )
        yield (
            f"  server {{ listen {ports[0]}; listen {ports[1]} ssl; server_name {host(n)};\n"
            f"    ssl_certificate {pairs}/{n}.pem; ssl_certificate_key {pairs}/{n}.pem;{locations} }}\n"
        )
    yield "}\n"


def best(folder, hosts, stamp, ports, pairs, resolver):
    yield HEAD.format(folder=folder, stamp=stamp, workers=2)
    yield f"  resolver {resolver} ipv6=off; resolver_timeout 60s;\n"
    yield "  map $ssl_server_name $tls {\n    default 0;\n"
    for n in range(hosts):
        yield f"    {host(n)} {n};\n"
    yield "  }\n"
    yield f"  ssl_certificate_cache max={2 * hosts + 100} inactive=1h valid=1s;\n"
    names = []
    for n in range(hosts):
        digest = hashlib.sha256(str(n).encode()).hexdigest()
        label = digest[: 8 + int(digest[-2:], 16) % 24]
        names.append(f"{label}-team-app-{n:05}-80")
        yield (
            f"  upstream {names[n]} {{ zone u{n % 64:02} 8m;"
            f" server {label}.bench service=_80._tcp resolve; keepalive 32; }}\n"
        )
    yield f"  server {{ listen {ports[0]} default_server; listen {ports[1]} ssl default_server;\n"
    yield f"    ssl_certificate {pairs}/$tls.pem; ssl_certificate_key {pairs}/$tls.pem; return 404; }}\n"
    for n in range(hosts):
        locations = "".join(f" location {path} {{ proxy_pass http://{names[n]}; }}" for path in ("/", "/api"))
        yield f"  server {{ listen {ports[0]}; listen {ports[1]} ssl; server_name {host(n)};{locations} }}\n"
    yield "}\n"


LAYOUTS = {"naive": naive, "best": best}


def write(layout, folder, **arguments):
    """Writes the nginx.conf of a layout, whole or not at all."""
    os.makedirs(f"{folder}/tmp", exist_ok=True)
    with open(f"{folder}/new.conf", "w") as file:
        file.writelines(LAYOUTS[layout](folder=folder, **arguments))
    os.rename(f"{folder}/new.conf", f"{folder}/nginx.conf")
