"""Stands in for `docker` where there is no engine: the containers of compose.yaml as processes.

Each container has its own network, mount and process namespaces; networks are bridges; the image of
`build: .` is made as the Dockerfile's last stage says; images of others are this machine's programs of the
same name (Grafana is not to be had: its container only waits). What this does not know is an error, so
that a document's commands cannot pass by being ignored. State is in $DOCKER_STATE, the gateway's program
in $DOCKER_GATEWAY; or else $DOCKER_IMAGE names the root of an image that was really built, with its
configuration as Docker writes it in $DOCKER_IMAGE.json. Needs root, iproute2, util-linux and ruamel.yaml.
"""

import hashlib
import ipaddress
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

STATE = Path(os.environ["DOCKER_STATE"])
# As the image's entrypoint does.
POSTGRES = r"""
PATH=$(echo /usr/lib/postgresql/*/bin | tr ' ' :):$PATH
: "${POSTGRES_PASSWORD:?superuser password is not specified}"
cd /var/lib/postgresql/data
if ! [ -e PG_VERSION ]; then
    printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --no-sync --username="$POSTGRES_USER" --auth-local=trust --auth-host=scram-sha-256 \
        --pwfile=/tmp/password --encoding=UTF8 --locale=C.UTF-8 -D .
    echo "host all all all scram-sha-256" >> pg_hba.conf
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D . postgres
fi
exec postgres -D . -k /tmp -c listen_addresses='*' -c fsync=off
"""
# Stands for the process of a container that is about to start.
STARTING = -1
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def owner(name):
    """A user of this machine, if there is one."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return "65534:65534"
    return f"{entry.pw_uid}:{entry.pw_gid}"


# What the images of others say of themselves.
FOREIGN = {
    "caddy": {
        "entrypoint": [],
        "command": ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"],
        "environment": {"XDG_CONFIG_HOME": "/config", "XDG_DATA_HOME": "/data"},
        "user": "0:0",
        "workdir": "/",
    },
    "prom/prometheus": {"entrypoint": ["prometheus"], "command": [], "environment": {}, "user": "65534:65534", "workdir": "/"},
    "grafana/grafana": {"entrypoint": ["sh", "-c", "trap exit TERM; while :; do sleep 1 & wait; done"], "command": [], "environment": {}, "user": "0:0", "workdir": "/"},
    "haproxy": {"entrypoint": [], "command": ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"], "environment": {}, "user": "65534:65534", "workdir": "/"},
    "postgres": {"entrypoint": ["sh", "-ec", POSTGRES], "command": [], "environment": {"PGHOST": "/tmp"}, "user": owner("postgres"), "workdir": "/"},
    "debian": {"entrypoint": [], "command": ["bash"], "environment": {}, "user": "0:0", "workdir": "/"},
    "curlimages/curl": {"entrypoint": ["curl"], "command": [], "environment": {}, "user": "65534:65534", "workdir": "/"},
}


def fail(message):
    sys.exit(f"docker stand-in: {message}")


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, **options)


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def load(path, default=None):
    return json.loads(path.read_text()) if path.exists() else default


# Compose files


def interpolate(text, environment):
    """Fills in $NAME, ${NAME}, ${NAME:-word}, ${NAME-word}, ${NAME:+word}, ${NAME+word}, ${NAME:?word}."""
    done, at = "", 0
    while (dollar := text.find("$", at)) >= 0:
        done += text[at:dollar]
        rest = text[dollar + 1 :]
        if rest.startswith("$"):
            done, at = done + "$", dollar + 2
        elif name := re.match(r"[A-Za-z_]\w*", rest):
            done, at = done + (environment.get(name[0]) or ""), dollar + 1 + name.end()
        elif rest.startswith("{"):
            depth, end = 0, 0
            for end, letter in enumerate(rest):
                depth += {"{": 1, "}": -1}.get(letter, 0)
                if depth == 0:
                    break
            name, operator, word = re.fullmatch(r"([A-Za-z_]\w*)(:?[-+?])?(.*)", rest[1:end], re.DOTALL).groups()
            value = environment.get(name)
            given = bool(value) if (operator or "").startswith(":") else value is not None
            match (operator or " ")[-1]:
                case "-":
                    done += value if given else interpolate(word, environment)
                case "+":
                    done += interpolate(word, environment) if given else ""
                case "?" if not given:
                    fail(f"required variable {name} is missing a value: {word}")
                case _:
                    done += value or ""
            at = dollar + 1 + end + 1
        else:
            fail(f"invalid interpolation: {text}")
    return done + text[at:]


def interpolate_all(value, environment):
    match value:
        case str():
            return interpolate(value, environment)
        case list():
            return [interpolate_all(item, environment) for item in value]
        case dict():
            return {key: interpolate_all(item, environment) for key, item in value.items()}
        case _:
            return value


def env_file(path):
    """The lines of .env, as Compose reads them."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, value = line.removeprefix("export ").split("=", 1)
        value = value.strip()
        if value.startswith("'"):
            value = value[1 : value.index("'", 1)]
        elif value.startswith('"'):
            value = interpolate(value[1 : value.index('"', 1)], found | os.environ)
        else:
            value = interpolate(value.split(" #")[0].rstrip(), found | os.environ)
        found[name.strip()] = value
    return found


class Project:
    def __init__(self, profiles):
        from ruamel.yaml import YAML

        path = Path("compose.yaml")
        if not path.exists():
            fail("no configuration file provided: not found")
        self.environment = env_file(Path(".env")) | os.environ
        named = self.environment.get("COMPOSE_PROFILES", "")
        self.profiles = set(profiles) | set(filter(None, named.split(",")))
        self.file = interpolate_all(YAML(typ="safe").load(path), self.environment)
        override = Path("compose.override.yaml")
        if override.exists():
            self.merge(interpolate_all(YAML(typ="safe").load(override), self.environment))
        self.name = self.file.get("name") or Path.cwd().name

    def merge(self, override):
        for name, service in override.get("services", {}).items():
            mine = self.file["services"][name]
            for key, value in service.items():
                if isinstance(value, list) and key in mine:
                    mine[key] = mine[key] + value
                elif isinstance(value, dict) and key in mine:
                    mine[key] = mine[key] | value
                else:
                    mine[key] = value
        for key in set(override) - {"services"}:
            self.file[key] = self.file.get(key, {}) | override[key]

    def service(self, name):
        if name not in self.file["services"]:
            fail(f"no such service: {name}")
        return self.file["services"][name]

    def enabled(self):
        services = self.file["services"].items()
        return [name for name, service in services if not service.get("profiles") or self.profiles & set(service["profiles"])]

    def network(self, name):
        declared = self.file.get("networks", {}).get(name) or {}
        subnets = declared.get("ipam", {}).get("config", [])
        return declared.get("name") or f"{self.name}_{name}", subnets[0]["subnet"] if subnets else None

    def container(self, name, is_run=False):
        """What is to run for a service."""
        service = self.service(name)
        known = {
            "container_name", "build", "image", "profiles", "ports", "environment", "volumes", "healthcheck", "restart",
            "stop_grace_period", "read_only", "cap_drop", "cap_add", "security_opt", "networks", "logging", "depends_on",
            "entrypoint", "command", "tmpfs", "user", "mem_limit",
        }  # fmt: skip
        if unknown := set(service) - known:
            fail(f"services.{name} has what the stand-in does not know: {unknown}")
        image = local_image(Path(service["build"])) if "build" in service else foreign_image(service["image"])
        environment = dict(image["environment"])
        for variable, value in service.get("environment", {}).items():
            if value is None:
                value = self.environment.get(variable)
            if value is not None:
                environment[variable] = str(value)
        volumes = []
        for volume in service.get("volumes", []):
            source, target, *options = volume.split(":")
            if source.startswith((".", "/", "~")):
                source = str(Path(source).expanduser().absolute())
                if not Path(source).exists():
                    fail(f"bind source path does not exist: {source}")
            else:
                if source not in self.file["volumes"]:
                    fail(f"service {name} refers to undefined volume {source}")
                source = named_volume(f"{self.name}_{source}", image, target)
            volumes.append([source, target, "ro" in options])
        networks = service.get("networks") or ["default"]
        attached = {}
        for network in networks:
            full, subnet = self.network(network)
            settings = (networks[network] or {}) if isinstance(networks, dict) else {}
            attached[full] = {"subnet": subnet, "address": settings.get("ipv4_address"), "aliases": [name]}
        command = service.get("command", image["command"] if "entrypoint" not in service else [])
        seconds = re.fullmatch(r"(\d+)s", service.get("stop_grace_period", "10s"))
        return {
            "name": service.get("container_name") or f"{self.name}-{name}-1",
            "service": name,
            "project": self.name,
            "image": image,
            "argv": service.get("entrypoint", image["entrypoint"]) + command,
            "environment": environment,
            "volumes": volumes,
            "tmpfs": [mount.split(":")[0] for mount in service.get("tmpfs", [])],
            "networks": attached,
            "ports": [] if is_run else [port.removesuffix("/udp") for port in service.get("ports", []) if not port.endswith("/udp")],
            "read_only": service.get("read_only", False),
            "capabilities": service.get("cap_add", []) if "ALL" in service.get("cap_drop", []) else None,
            "user": str(service.get("user", image["user"])),
            "workdir": image["workdir"],
            "healthcheck": service.get("healthcheck", {}).get("test") or image.get("healthcheck"),
            "grace": int(seconds[1]),
        }


# Images and volumes


def local_image(context):
    """The last stage of the Dockerfile, with the program under test as what it builds."""
    text = (context / "Dockerfile").read_text().replace("\\\n", " ")
    if built := os.environ.get("DOCKER_IMAGE"):
        return built_image(Path(built))
    image = {"environment": {}, "user": "0:0", "workdir": "/", "entrypoint": [], "command": []}
    stage = text[text.rindex("\nFROM ") :]
    for line in stage.splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "ENV":
                image["environment"] |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "USER":
                image["user"] = rest
            case "WORKDIR":
                image["workdir"] = rest
            case "ENTRYPOINT":
                image["entrypoint"] = json.loads(rest)
            case "HEALTHCHECK":
                image["healthcheck"] = ["CMD"] + json.loads(rest[rest.index("[") :])
    root = STATE / "images" / "local"
    program = Path(os.environ["DOCKER_GATEWAY"])
    image |= {"root": str(root), "id": str(program.stat().st_mtime_ns) + hashlib.sha256(text.encode()).hexdigest()}
    if load(root.parent / "local.json") != image:
        shutil.rmtree(root, ignore_errors=True)
        for directory in ["usr/local/bin", "etc", "data", "proc", "dev", "sys"]:
            (root / directory).mkdir(parents=True)
        os.chown(root / "data", 65532, 65532)
        shutil.copy(program, root / "usr/local/bin/gateway")
        libraries = re.findall(r"/\S+", run("ldd", str(program), capture_output=True).stdout)
        run("cp", "--dereference", "--parents", "--target-directory", str(root), *libraries)
        shutil.copytree("/usr/share/zoneinfo", root / "usr/share/zoneinfo", symlinks=True)
        (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
        (root / "etc/hosts").write_text("")
        (root / "etc/resolv.conf").write_text("")
        save(root.parent / "local.json", image)
    return image


def built_image(root):
    """An image that was built, at its root."""
    config = load(root.with_name(root.name + ".json"))
    # Docker makes the mount points, too.
    for directory in ["proc", "dev", "sys"]:
        (root / directory).mkdir(exist_ok=True)
    for file in ["hosts", "resolv.conf"]:
        (root / "etc" / file).touch()
    return {
        "environment": dict(pair.split("=", 1) for pair in config["Env"]),
        "user": config["User"],
        "workdir": config["WorkingDir"],
        "entrypoint": config["Entrypoint"],
        "command": config.get("Cmd") or [],
        "healthcheck": config["Healthcheck"]["Test"],
        "root": str(root),
        "id": str(root),
    }


def foreign_image(reference):
    name = reference.split(":")[0]
    if name not in FOREIGN:
        fail(f"no such image: {reference}")
    return FOREIGN[name] | {"id": reference, "root": None}


def image_named(reference):
    if reference.split(":")[0] in load(STATE / "tags.json", []):
        return local_image(Path(load(STATE / "context.json")))
    return foreign_image(reference)


def named_volume(name, image, target):
    """A new volume is given the owner of the directory that it is put over."""
    path = STATE / "volumes" / name
    if not path.exists():
        path.mkdir(parents=True)
        if image["root"] and (under := Path(image["root"] + target)).exists():
            os.chown(path, under.stat().st_uid, under.stat().st_gid)
        elif target in ["/prometheus", "/var/lib/postgresql/data"]:
            os.chown(path, *map(int, image["user"].split(":")))
    return str(path)


# Networks


def bridge(network):
    return "br-" + hashlib.sha256(network.encode()).hexdigest()[:8]


def containers():
    return [load(path) for path in sorted((STATE / "containers").glob("*.json"))]


def hardware_address(ip):
    """The same for every container with this address: others keep it in their caches when one is replaced."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.ip_address(ip).packed)


def attach(container, network, endpoint):
    """Puts a container on a network, at its address or the next that is free."""
    networks = load(STATE / "networks.json", {})
    if network not in networks:
        networks[network] = endpoint["subnet"] or f"172.{18 + len(networks)}.0.0/16"
        save(STATE / "networks.json", networks)
        subnet = ipaddress.ip_network(networks[network])
        run("ip", "link", "add", bridge(network), "address", hardware_address(subnet[1]), "type", "bridge")
        run("ip", "address", "add", f"{subnet[1]}/{subnet.prefixlen}", "dev", bridge(network))
        run("ip", "link", "set", bridge(network), "up")
    subnet = ipaddress.ip_network(networks[network])
    taken = {other["networks"][network]["ip"] for other in containers() if network in other["networks"] and is_alive(other)}
    address = endpoint["address"] or next(str(ip) for ip in list(subnet.hosts())[1:] if str(ip) not in taken)
    if address in taken:
        fail(f"{container['name']}: address already in use: {address}")
    endpoint["ip"] = address
    number = load(STATE / "links.json", 0) + 1
    save(STATE / "links.json", number)
    inside, outside = f"e{number}", f"veth{number}"
    endpoint["link"] = outside
    peer = ["peer", "name", inside, "address", hardware_address(address), "netns", container["netns"]]
    run("ip", "link", "add", outside, "type", "veth", *peer)
    run("ip", "link", "set", outside, "master", bridge(network), "up")
    in_netns = ["ip", "-n", container["netns"]]
    run(*in_netns, "address", "add", f"{address}/{subnet.prefixlen}", "dev", inside)
    run(*in_netns, "link", "set", inside, "up")


def write_hosts():
    """The names that Docker's name server would resolve: each container knows those on its networks."""
    running = [container for container in containers() if is_alive(container)]
    for container in running:
        lines = ["127.0.0.1 localhost"]
        for network in container["networks"]:
            for other in running:
                if there := other["networks"].get(network):
                    lines.append(" ".join([there["ip"], other["name"], *there["aliases"]]))
        # In its place, as it is mounted.
        with open(container["hosts"], "w") as file:
            file.write("\n".join(lines) + "\n")


def forward(listen, target):
    """Carries the connections of a published port."""

    def carry(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    host, port = listen.rsplit(":", 1)
    server = socket.create_server((host, int(port)))
    if os.fork():
        os._exit(0)
    while True:
        client, _ = server.accept()
        try:
            there = socket.create_connection((target.rsplit(":", 1)[0], int(target.rsplit(":", 1)[1])))
        except OSError:
            client.close()
            continue
        for ends in [(client, there), (there, client)]:
            threading.Thread(target=carry, args=ends, daemon=True).start()


# Containers


def is_alive(container):
    if container["pid"] == STARTING:
        return True
    try:
        return Path(f"/proc/{container['pid']}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def find(name, project=None):
    for container in containers():
        if name in (container["name"], container["service"] if project else None):
            return container
    fail(f"no such container: {name}")


def start(container, foreground=False):
    """Starts it, in the background unless it is attached; then returns its exit code."""
    name = container["name"]
    directory = STATE / "run" / name
    container |= {"netns": name, "hosts": str(directory / "hosts"), "log": str(directory / "log"), "pid": STARTING}
    (directory / "root").mkdir(parents=True, exist_ok=True)
    (directory / "hosts").write_text("")
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    for network, endpoint in container["networks"].items():
        attach(container, network, endpoint)
    save(STATE / "containers" / f"{name}.json", container)
    write_hosts()

    root = str(directory / "root")
    quoted = shlex.quote
    script = ["set -e", f"ROOT={quoted(root)}"]
    if container["image"]["root"]:
        script.append(f"mount --bind {quoted(container['image']['root'])} $ROOT")
    else:
        for part in ["upper", "work"]:
            (directory / part).mkdir(exist_ok=True)
        layers = f"lowerdir=/,upperdir={directory}/upper,workdir={directory}/work"
        script.append(f"mount -t overlay overlay -o {quoted(layers)} $ROOT")
    script += ["mount --rbind /dev $ROOT/dev", "mount -t proc proc $ROOT/proc"]
    # The machine's own resolver: Docker forwards to its name servers, too.
    first = ipaddress.ip_network(load(STATE / "networks.json")[next(iter(container["networks"]))])
    (directory / "resolv.conf").write_text(f"nameserver {first[1]}\n")
    for file in ["hosts", "resolv.conf"]:
        script.append(f"mount --bind {quoted(str(directory / file))} $ROOT/etc/{file}")
    for source, target, is_read_only in container["volumes"]:
        make = f"mkdir -p $ROOT{target}" if Path(source).is_dir() else f"mkdir -p $ROOT{os.path.dirname(target)}; touch $ROOT{target}"
        script.append(f"[ -e $ROOT{target} ] || {{ {make}; }}")
        script.append(f"mount --bind {quoted(source)} $ROOT{target}")
        if is_read_only:
            script.append(f"mount -o remount,bind,ro $ROOT{target}")
    script += [f"mount -t tmpfs tmpfs $ROOT{target}" for target in container["tmpfs"]]
    if container["read_only"]:
        script.append("mount -o remount,bind,ro $ROOT")
    argv = " ".join(map(quoted, container["argv"]))
    user, group = container["user"].split(":")
    if user != "0":
        script.append(f"exec unshare --root=$ROOT --wd={container['workdir']} --setgid {group} --setuid {user} -- {argv}")
    elif container["capabilities"] is not None:
        kept = ",".join(["-all", *(f"+{name.lower()}" for name in container["capabilities"])])
        script.append(f"exec chroot $ROOT setpriv --bounding-set {kept} --inh-caps=-all {argv}")
    else:
        script.append(f"exec chroot $ROOT {argv}")
    namespaces = ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    streams = {}
    if not foreground:
        streams = {"stdin": subprocess.DEVNULL, "stdout": open(container["log"], "a"), "stderr": subprocess.STDOUT}
    clean = {"PATH": DEFAULT_PATH} | container["environment"]
    process = subprocess.Popen([*namespaces, "sh", "-c", "\n".join(script)], env=clean, start_new_session=not foreground, **streams)
    until = time.monotonic() + 30
    while process.poll() is None:
        if time.monotonic() > until:
            fail(f"{name}: its mounts were not ready within 30 s")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and is_set_up(children[0]):
            container["pid"] = int(children[0])
            break
        time.sleep(0.005)
    else:
        container["pid"] = 0
    save(STATE / "containers" / f"{name}.json", container)
    for port in container["ports"]:
        published, inside = port.rsplit(":", 1)
        listen = published if ":" in published else f"0.0.0.0:{published}"
        address = next(iter(container["networks"].values()))["ip"]
        if not socket_is_free(listen):
            fail(f"Bind for {listen} failed: port is already allocated")
        subprocess.Popen([sys.executable, __file__, "--forward", name, listen, f"{address}:{inside}"], start_new_session=True).wait()
    if foreground:
        code = process.wait()
        return code
    return 0


def is_set_up(pid):
    """Whether the container's program has taken the place of what prepares it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return True
    return words[0] not in ["unshare", "chroot", "setpriv"] and not any(word.startswith("set -e\n") for word in words)


def socket_is_free(listen):
    host, port = listen.rsplit(":", 1)
    try:
        socket.create_server((host, int(port))).close()
        return True
    except OSError:
        return False


def stop(container, is_removed=False):
    if is_alive(container):
        os.kill(container["pid"], signal.SIGTERM)
        until = time.monotonic() + container["grace"]
        while is_alive(container):
            if time.monotonic() > until:
                os.kill(container["pid"], signal.SIGKILL)
                fail(f"{container['name']} was killed: it did not end within {container['grace']} s of SIGTERM")
            time.sleep(0.01)
    # At once: its namespace may end later than its successor begins.
    for endpoint in container["networks"].values():
        subprocess.run(["ip", "link", "del", endpoint["link"]], capture_output=True)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if words[2:4] == ["--forward", container["name"]]:
            os.kill(int(path.parent.name), signal.SIGKILL)
    if is_removed:
        (STATE / "containers" / f"{container['name']}.json").unlink(missing_ok=True)
        shutil.rmtree(STATE / "run" / container["name"], ignore_errors=True)
        subprocess.run(["ip", "netns", "del", container["name"]], capture_output=True)


def execute(container, argv, **options):
    """A command within a running container."""
    user, group = container["user"].split(":")
    enter = ["nsenter", "--target", str(container["pid"]), "--mount", "--net", "--pid", "--root", f"--wd=/proc/{container['pid']}/cwd"]
    return subprocess.run([*enter, "--setgid", group, "--setuid", user, *argv], env={"PATH": DEFAULT_PATH} | container["environment"], **options)


def is_healthy(container):
    test = container["healthcheck"]
    if not test:
        return is_alive(container)
    if test[0] != "CMD":
        fail(f"health checks of the form {test[0]} are unknown")
    return is_alive(container) and execute(container, test[1:], capture_output=True).returncode == 0


def wait_healthy(container):
    until = time.monotonic() + 30
    while not is_healthy(container):
        if time.monotonic() > until or not is_alive(container):
            fail(f"dependency failed to start: container {container['name']} is unhealthy")
        time.sleep(0.05)


# Commands


def options(words, flags=(), valued=()):
    """Options before the first plain word: as a dict, and the rest."""
    given, rest = {}, list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in flags:
            given[name] = True
        elif name in valued:
            given.setdefault(name, []).append(value if equals else rest.pop(0))
        else:
            fail(f"unknown flag: {word}")
    return given, rest


def up(project, words):
    given, names = options(words, flags=["-d", "--wait", "--build"])
    if "-d" not in given and "--wait" not in given:
        fail("up without -d would not come back")
    names = names or project.enabled()
    started = set()

    def bring(name):
        if name in started:
            return
        started.add(name)
        for other, settings in project.service(name).get("depends_on", {}).items():
            bring(other)
            if settings["condition"] == "service_healthy":
                wait_healthy(find(other, project))
        container = project.container(name)
        container["config"] = hashlib.sha256(json.dumps(container, sort_keys=True).encode()).hexdigest()
        there = next((old for old in containers() if old["name"] == container["name"]), None)
        if there and there["config"] == container["config"] and is_alive(there):
            print(f" Container {container['name']}  Running", file=sys.stderr)
            return
        if there:
            stop(there, is_removed=True)
        start(container)
        print(f" Container {container['name']}  {'Recreated' if there else 'Started'}", file=sys.stderr)

    for name in names:
        bring(name)
    if "--wait" in given:
        for name in names:
            wait_healthy(find(name, project))


def compose(words):
    given, words = options(words, valued=["--profile"])
    project = Project(given.get("--profile", []))
    command, *words = words
    match command:
        case "config":
            json.dump(project.file, sys.stdout, indent=1)
        case "build":
            options(words, flags=["--pull", "--no-cache"], valued=["--build-arg"])
            for name in project.enabled():
                if "build" in project.service(name):
                    local_image(Path(project.service(name)["build"]))
        case "pull":
            pass
        case "up":
            up(project, words)
        case "ps":
            for container in containers():
                state = ("Up (healthy)" if is_healthy(container) else "Up (unhealthy)") if is_alive(container) else "Exited"
                print(f"{container['name']:<28}{container['service']:<16}{state:<18}{', '.join(container['ports'])}")
        case "logs":
            given, names = options(words, flags=["--no-log-prefix"], valued=["--tail"])
            for container in [find(name, project) for name in names] or containers():
                prefix = "" if "--no-log-prefix" in given else f"{container['name']}  | "
                lines = Path(container["log"]).read_text().splitlines()
                for line in lines[-int(given.get("--tail", ["0"])[0]) :]:
                    print(prefix + line)
        case "exec":
            _, (name, *argv) = options(words, flags=["-T"])
            sys.exit(execute(find(name, project), argv).returncode)
        case "run":
            given, (name, *argv) = options(words, flags=["--rm", "--no-deps", "-T"], valued=["-v", "-e"])
            container = project.container(name, is_run=True)
            for volume in given.get("-v", []):
                source, target, *mode = volume.split(":")
                container["volumes"].append([str(Path(source).absolute()), target, "ro" in mode])
            container |= {"name": f"{project.name}-{name}-run-{os.getpid()}", "argv": container["image"]["entrypoint"] + argv}
            code = start(container, foreground=True)
            stop(container, is_removed=True)
            sys.exit(code)
        case "stop":
            for name in words or project.enabled():
                stop(find(name, project))
        case "start":
            for name in words:
                start(find(name, project))
        case "restart":
            for name in words or project.enabled():
                container = find(name, project)
                stop(container)
                start(container)
        case "kill":
            given, names = options(words, valued=["-s", "--signal"])
            for name in names:
                os.kill(find(name, project)["pid"], getattr(signal, "SIG" + [*given.values()][0][0].removeprefix("SIG")))
        case "down":
            given, _ = options(words, flags=["-v", "--volumes"])
            for container in containers():
                stop(container, is_removed=True)
            if given:
                shutil.rmtree(STATE / "volumes", ignore_errors=True)
        case "cp":
            source, target = words
            name, _, path = source.partition(":")
            container = find(name, project)
            for mounted, at, _ in container["volumes"]:
                if path.startswith(at + "/"):
                    target = Path(target) / Path(path).name if Path(target).is_dir() else Path(target)
                    return shutil.copy(mounted + path[len(at) :], target)
            fail(f"Could not find the file {path} in container {name}")
        case _:
            fail(f"unknown docker command: compose {command}")


def main(words):
    command, *words = words
    match command:
        case "--forward":
            forward(words[1], words[2])
        case "compose":
            compose(words)
        case "build":
            given, (context,) = options(words, valued=["-t", "--build-arg"])
            save(STATE / "tags.json", load(STATE / "tags.json", []) + given["-t"])
            save(STATE / "context.json", str(Path(context).absolute()))
        case "run":
            given, (reference, *argv) = options(
                words,
                flags=["--rm", "-d", "-i", "-it", "--init", "--read-only"],
                valued=["--name", "-p", "-v", "-e", "--env-file", "--network", "--entrypoint", "--stop-timeout", "--restart",
                        "--cap-drop", "--user", "--security-opt", "--log-opt", "--log-driver"],
            )  # fmt: skip
            image = image_named(reference)
            environment = dict(image["environment"])
            for path in given.get("--env-file", []):
                lines = [line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]
                environment |= dict(line.split("=", 1) for line in lines)
            for pair in given.get("-e", []):
                name, equals, value = pair.partition("=")
                if equals or name in os.environ:
                    environment[name] = value if equals else os.environ[name]
            volumes = []
            for volume in given.get("-v", []):
                source, target, *mode = volume.split(":")
                source = str(Path(source).absolute()) if source.startswith((".", "/")) else named_volume(source, image, target)
                volumes.append([source, target, "ro" in mode])
            container = {
                "name": (given.get("--name") or [f"run-{os.getpid()}"])[0],
                "service": None, "project": None, "image": image,
                "argv": given.get("--entrypoint", image["entrypoint"]) + (argv or image["command"]),
                "environment": environment, "volumes": volumes, "tmpfs": [],
                "networks": {(given.get("--network") or ["bridge"])[0]: {"subnet": None, "address": None, "aliases": []}},
                "ports": given.get("-p", []), "read_only": "--read-only" in given,
                "capabilities": [] if "--cap-drop" in given else None,
                "user": (given.get("--user") or [image["user"]])[0], "workdir": image["workdir"],
                "healthcheck": image.get("healthcheck"), "grace": int((given.get("--stop-timeout") or ["10"])[0]), "config": "",
            }  # fmt: skip
            code = start(container, foreground="-d" not in given)
            if "--rm" in given and "-d" not in given:
                stop(container, is_removed=True)
            sys.exit(code)
        case "exec":
            _, (name, *argv) = options(words, flags=["-i", "-it"])
            sys.exit(execute(find(name), argv).returncode)
        case "stop":
            given, names = options(words, valued=["-t", "--time"])
            for name in names:
                stop(find(name))
        case "rm":
            _, names = options(words, flags=["-f"])
            for name in names:
                stop(find(name), is_removed=True)
        case "logs":
            print(Path(find(words[0])["log"]).read_text(), end="")
        case "ps":
            for container in containers():
                print(container["name"])
        case "volume" if words[0] == "inspect":
            given, (name,) = options(words[1:], valued=["-f", "--format"])
            print(STATE / "volumes" / name)
        case _:
            fail(f"unknown command: {command}")


main(sys.argv[1:])
