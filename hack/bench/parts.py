"""What the benches of this folder share: nginx by itself, coxswain with manifests of its own, waiting, memory.

Whoever starts something ends it; everything lies below a folder that the caller made.
"""

import atexit
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import layouts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.environ.get("TOOLS") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "coxswain-tools"
)
NGINX = f"{TOOLS}/bin/nginx"
COXSWAIN = os.environ.get("COXSWAIN") or f"{ROOT}/target/release/coxswain"
PATIENCE = 300


STARTED = []


def spawn(command, **options):
    """Starts a process that ends with us, whatever ends us."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    STARTED.append(process)
    return process


@atexit.register
def end_all():
    for process in STARTED:
        if process.poll() is None:
            process.terminate()
    for process in STARTED:
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


# A signal is an end like any other.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def free_ports(count, address="0.0.0.0", kind=socket.SOCK_STREAM):
    sockets = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
    for sock in sockets:
        sock.bind((address, 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def stamp(path):
    """What the worker that answers serves; None while nobody does."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            # The path may be longer than a socket's name can be.
            folder = os.open(os.path.dirname(path), os.O_PATH)
            try:
                sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
            finally:
                os.close(folder)
            sock.sendall(b"GET /stamp HTTP/1.0\r\n\r\n")
            answer = b""
            while chunk := sock.recv(4096):
                answer += chunk
        return answer.split(b"\r\n\r\n", 1)[1].decode().strip()
    except (OSError, IndexError):
        return None


def until_new(path, former, since):
    """Seconds from `since` to the first answer with another stamp."""
    while time.monotonic() - since < PATIENCE:
        now = stamp(path)
        if now is not None and now != former:
            return time.monotonic() - since
        time.sleep(0.002)
    sys.exit(f"nothing new at {path} within {PATIENCE} s")


def until_settled(path):
    """Old workers answer for a moment besides the new ones."""
    seen, since = stamp(path), time.monotonic()
    while time.monotonic() - since < 0.5:
        now = stamp(path)
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.01)


def megabytes(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += int(re.search(r"^Pss: +(\d+)", file.read(), re.M)[1])
        except (OSError, TypeError):
            pass
    return total // 1024


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def no_old_workers(master):
    """Waits until the workers of former generations are gone, so that each round pays for itself alone."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        titles = []
        for pid in children(master):
            try:
                with open(f"/proc/{pid}/cmdline") as file:
                    titles.append(file.read())
            except OSError:
                pass
        if not any("shutting down" in title for title in titles):
            return
        time.sleep(0.1)


class Alone:
    """An nginx with a configuration of its own and nobody who steers it."""

    def __init__(self, name, folder, write):
        self.name, self.folder, self.write = name, folder, write
        self.generation = 0
        os.makedirs(folder)
        self.next()
        self.process = spawn([NGINX, *self.arguments()], stderr=subprocess.DEVNULL)
        until_new(f"{folder}/status.sock", None, time.monotonic())

    def arguments(self):
        return "-p", self.folder, "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log"

    def next(self):
        self.generation += 1
        self.write(self.folder, str(self.generation))

    def test(self):
        start = time.monotonic()
        subprocess.run([NGINX, "-t", "-q", *self.arguments()], check=True, stderr=subprocess.DEVNULL)
        return time.monotonic() - start

    def reload(self):
        former = stamp(f"{self.folder}/status.sock")
        self.next()
        start = time.monotonic()
        self.process.send_signal(signal.SIGHUP)
        taken = until_new(f"{self.folder}/status.sock", former, start)
        until_settled(f"{self.folder}/status.sock")
        no_old_workers(self.process.pid)
        return taken

    def memory(self):
        return megabytes([self.process.pid, *children(self.process.pid)])

    def end(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Ours:
    """coxswain run -f, with manifests of its own. `more` are files beside them, by name."""

    def __init__(self, folder, hosts, pair, proxy="nginx", more=(), flags=()):
        self.name, self.folder, self.proxy = "ours", folder, proxy
        self.manifests, self.volume = f"{folder}/manifests", f"{folder}/volume"
        os.makedirs(self.manifests)
        os.makedirs(self.volume)
        write_manifests(self.manifests, hosts, pair)
        for name, content in dict(more).items():
            replace(f"{self.manifests}/{name}", content)
        self.round = 0
        if hosts:
            self.change()
        ports = free_ports(4)
        self.ports = ports[:2]
        names = "--http-port", "--https-port", "--ready-port", "--healthz-port"
        command = [COXSWAIN, "run", "-f", self.manifests, "--proxy", proxy, "--proxy-bin", f"{TOOLS}/bin/{proxy}"]
        command += ["--proxy-dir", self.volume, *flags]
        for flag, port in zip(names, ports, strict=True):
            command += [flag, str(port)]
        self.log = open(f"{folder}/log", "w")
        self.process = spawn(command, stdout=self.log, stderr=self.log)
        self.socket = f"{self.volume}/out/status.sock"
        self.until_ready(ports[2])

    def until_ready(self, port):
        """Notes when the first stamp was seen: only nginx has one, and what it serves then need not know its endpoints."""
        start, self.first = time.monotonic(), None
        while time.monotonic() - start < PATIENCE and self.process.poll() is None:
            if self.first is None and stamp(self.socket):
                self.first = time.monotonic() - start
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                    sock.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                    if b" 200 " in sock.recv(4096).split(b"\r\n")[0]:
                        return
            except OSError:
                pass
            time.sleep(0.02)
        sys.exit("coxswain has ended, or is not ready:\n" + open(f"{self.folder}/log").read()[-4000:])

    def change(self):
        """Adds another path to one Ingress."""
        self.round += 1
        rule = ingress(0)
        rule["spec"]["rules"][0]["http"]["paths"].append(path(0, f"/v{self.round}"))
        replace(f"{self.manifests}/changing.json", json.dumps(rule))

    def master(self):
        with open(f"{self.volume}/out/nginx.pid") as file:
            return int(file.read())

    def reload(self):
        former = stamp(self.socket)
        start = time.monotonic()
        self.change()
        taken = until_new(self.socket, former, start)
        until_settled(self.socket)
        no_old_workers(self.master())
        return taken

    def memory(self):
        return megabytes([self.master(), *children(self.master())])

    def controller(self):
        return megabytes([self.process.pid])

    def agent(self):
        """Process 1 and the agent proper."""
        init = [pid for pid in children(self.process.pid) if pid != self.master()]
        return megabytes(init + [child for pid in init for child in children(pid) if child != self.master()])

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def copy(self, folder, resolver):
        """A function that writes what was rendered, to be served without coxswain."""
        release = os.path.join(self.volume, "in", os.readlink(f"{self.volume}/in/desired"))
        ports = free_ports(4)
        with open(f"{release}/nginx.conf") as file:
            main = file.read()
        for ours, theirs in zip(self.ports, ports):
            main = re.sub(rf"(listen [^;]*?\b){ours}\b", rf"\g<1>{theirs}", main)
        main = main.replace("../../../out/", f"{folder}/").replace("../../live/", f"{self.volume}/in/live/")
        # Read now: a few releases later it is gone.
        rest = {}
        for name in os.listdir(release):
            if name not in ("nginx.conf", "changed.conf", "release.json"):
                with open(f"{release}/{name}") as file:
                    rest[name] = file.read()
        includes = {}
        for name in os.listdir(f"{self.volume}/out"):
            if name.startswith("local-"):
                with open(f"{self.volume}/out/{name}") as file:
                    includes[name] = file.read()
        http = includes["local-http.conf"]
        http = re.sub(r"^resolver .*;", f"resolver {resolver} ipv6=off;", http, flags=re.M)
        http = http.replace("unix:status.sock", f"unix:{folder}/status.sock").replace(self.volume, folder)
        http = http.replace("../../../out/", f"{self.volume}/out/")
        for address, port in zip(re.findall(r"listen ([\d.]+:\d+)", http), ports[2:]):
            http = http.replace(address, f"127.0.0.1:{port}")
        stamped = re.compile(r'(location = /stamp .*?return 200 )"[^"]*"')
        includes["local-main.conf"] = re.sub(
            r"error_log .*;",
            f"error_log {folder}/error.log notice;",
            includes["local-main.conf"].replace(f"{self.volume}/out/", f"{folder}/"),
        )
        includes["local-access-log.conf"] = "access_log off;\n"

        def write(folder, new):
            for temporary in "client_body", "proxy", "fastcgi", "uwsgi", "scgi":
                os.makedirs(f"{folder}/tmp/{temporary}", exist_ok=True)
            includes["local-http.conf"] = stamped.sub(rf'\1"{new}\\n"', http)
            for name, text in includes.items():
                replace(f"{folder}/{name}", text)
            for name, content in rest.items():
                replace(f"{folder}/{name}", content)
            replace(f"{folder}/nginx.conf", main)

        return write


def replace(file, text):
    folder, name = os.path.split(file)
    with open(f"{folder}/.{name}", "w") as new:
        new.write(text)
    os.rename(f"{folder}/.{name}", file)


def metadata(n, **others):
    return {"namespace": f"team-{n // 50:03}", "name": f"app-{n:05}", **others}


def path(n, text):
    service = {"name": f"app-{n:05}", "port": {"number": 80}}
    return {"path": text, "pathType": "Prefix", "backend": {"service": service}}


def ingress(n):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(n),
        "spec": {
            "ingressClassName": "coxswain",
            "tls": [{"hosts": [layouts.host(n)], "secretName": f"app-{n:05}"}],
            "rules": [{"host": layouts.host(n), "http": {"paths": [path(n, "/"), path(n, "/api")]}}],
        },
    }


def objects(n, pair):
    addresses = [endpoint.rsplit(":", 1)[0] for endpoint in layouts.endpoints(n)]
    service = {"ports": [{"name": "http", "port": 80, "targetPort": 9000}]}
    labels = {"kubernetes.io/service-name": f"app-{n:05}"}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata(n), "spec": service}
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(n, labels=labels),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 9000}],
        "endpoints": [{"addresses": [f"{a[:-1]}{pod}"]} for pod, a in enumerate(addresses)],
    }
    yield {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(n),
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": pair[0], "tls.key": pair[1]},
    }


def write_manifests(folder, hosts, pair):
    ingress_class = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "coxswain"},
        "spec": {"controller": "coxswain.dev/ingress"},
    }
    replace(f"{folder}/class.json", json.dumps(ingress_class))
    for first in range(0, hosts, 50):
        items = []
        for n in range(first, min(first + 50, hosts)):
            items += objects(n, pair)
            if n > 0:  # the first is the one that changes, in a file of its own
                items.append(ingress(n))
        team = {"apiVersion": "v1", "kind": "List", "items": items}
        replace(f"{folder}/team-{first // 50:03}.json", json.dumps(team))


def make_pair(folder):
    """A certificate for all hosts, and its key."""
    files = f"{folder}/crt", f"{folder}/key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
        + ["-subj", "/CN=bench", "-addext", f"subjectAltName=DNS:*.{layouts.DOMAIN}", "-out", files[0], "-keyout", files[1]],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return tuple(open(file).read() for file in files)


def shown(times):
    if not times:
        return "–"
    ordered = sorted(1000 * t for t in times)
    return f"{ordered[0]:.0f} / {statistics.median(ordered):.0f} / {ordered[-1]:.0f}"


def compare(hosts, rounds, workspace):
    """One Ingress of many is changed, with each way of doing it in turn. Gives for each: seconds of `nginx -t`, seconds to
    the new stamp, megabytes of nginx; and for coxswain itself: megabytes, and seconds of its first start."""
    folder = tempfile.mkdtemp(prefix=f"hosts-{hosts}-", dir=workspace)
    pair = make_pair(folder)
    pairs = f"{folder}/pairs"
    os.makedirs(pairs)
    for n in range(hosts):
        with open(f"{pairs}/{n}.pem", "w") as file:
            file.write("".join(pair))
    dns = free_ports(32, "127.0.0.53", socket.SOCK_DGRAM)
    names = spawn([sys.executable, f"{ROOT}/hack/bench/names.py", "127.0.0.53", *map(str, dns)])
    resolver = " ".join(f"127.0.0.53:{port}" for port in dns)
    running = [names]

    def by_hand(layout):
        arguments = {"hosts": hosts, "ports": free_ports(2), "pairs": pairs, "resolver": resolver}
        return Alone(
            layout, f"{folder}/{layout}", lambda into, new: layouts.write(layout, into, stamp=new, **arguments)
        )

    try:
        say(f"{hosts} hosts: starting")
        ours = Ours(f"{folder}/ours", hosts, pair)
        running.append(ours)
        bare = Alone("ours, bare", f"{folder}/bare", ours.copy(f"{folder}/bare", resolver))
        running.append(bare)
        best = by_hand("best")
        running.append(best)
        naive = by_hand("naive")
        running.append(naive)
        rows = [naive, best, bare, ours]
        tests, times = {row: [] for row in rows}, {row: [] for row in rows}
        for turn in range(rounds):
            # Back and forth, so that a machine that slows down slows everybody down.
            for row in rows if turn % 2 == 0 else reversed(rows):
                say(f"{hosts} hosts, round {turn + 1} of {rounds}: {row.name}")
                if row is not ours:
                    tests[row].append(row.test())
                times[row].append(row.reload())
        return {row.name: (tests[row], times[row], row.memory()) for row in rows}, ours.controller(), ours.first
    finally:
        names.kill()
        names.wait()
        for process in reversed(running[1:]):
            process.end()
        shutil.rmtree(folder, ignore_errors=True)
