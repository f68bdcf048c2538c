use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{gateway_binary, installed, wait_past_midnight};

/// A machine with nothing on it but a checkout and a `docker`: its network, processes and mounts are its
/// own, and end with it.
pub(crate) struct Machine {
    dir: TempDir,
    /// The root of an image that was built, in place of one that is made of the program under test.
    image: Option<PathBuf>,
}

/// An upstream and a name server on the machine, which containers reach at the address of their bridge. It
/// leads every name there.
const SERVICES: &str = r#"
import http.server, socketserver, threading
class Upstream(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"choices":[{"message":{"role":"assistant","content":"hello from the upstream"}}]}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Names(socketserver.BaseRequestHandler):
    def handle(self):
        query, socket = self.request
        end = query.index(b"\0", 12) + 5
        is_ipv4 = query[end - 4:end - 2] == b"\0\1"
        bridge = bytes(map(int, self.client_address[0].split(".")[:3])) + b"\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + bridge if is_ipv4 else b""
        head = query[:2] + b"\x81\x80\0\1\0" + bytes([is_ipv4]) + b"\0\0\0\0"
        socket.sendto(head + query[12:end] + record, self.client_address)
names = socketserver.ThreadingUDPServer(("0.0.0.0", 53), Names)
threading.Thread(target=names.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Upstream).serve_forever()
"#;

/// Seconds after which a script is stopped.
const SCRIPT_TIMEOUT: &str = "500";

/// What the machine does before a script. It prints the command at which the script stops.
const PRELUDE: &str = r#"
set -Eeuo pipefail
trap 'echo "status $?: $BASH_COMMAND" >&2' ERR
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
python3 -c "$SERVICES" &
unset SERVICES
cd "$HOME/checkout"
"#;

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let repository = env!("CARGO_MANIFEST_DIR");
        let python = installed("compose/bin/python").unwrap_or_else(|| "python3".into());
        let docker = format!(
            "#!/bin/sh\nexec {} {repository}/tests/clients/scripts/docker.py \"$@\"\n",
            python.display()
        );
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/docker"), docker).unwrap();
        // Where curl finds the authority that Caddy makes for names that end in localhost.
        let authority = "state/volumes/quota-proxy_caddy-data/caddy/pki/authorities/local/root.crt";
        let curlrc = format!(
            "cacert = {}\nsilent\nshow-error\nmax-time = 60\n",
            dir.path().join(authority).display()
        );
        fs::write(dir.path().join(".curlrc"), curlrc).unwrap();
        let machine = Self { dir, image: None };
        let made = Command::new("bash")
            .args(["-euc", CHECKOUT])
            .current_dir(&machine.dir)
            .env("REPOSITORY", repository)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        machine
    }

    /// The same with an image that was built.
    pub(crate) fn with_image(root: &Path) -> Self {
        Self { image: Some(root.to_owned()), ..Self::new() }
    }

    /// What a script prints, both streams in order, and whether it has succeeded.
    pub(crate) fn try_run(&self, script: &str) -> (bool, String) {
        wait_past_midnight(Duration::from_secs(180));
        let home = self.dir.path();
        let path = format!("{}:{}", home.join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("timeout");
        command
            .args([SCRIPT_TIMEOUT, "unshare", "--fork", "--pid", "--mount-proc", "--net"])
            .args(["--mount", "--kill-child", "bash", "-c"])
            .arg(format!("exec 2>&1\n{PRELUDE}\n{script}"))
            .env_clear()
            .env("PATH", path)
            .env("HOME", home)
            .env("SERVICES", SERVICES)
            .env("DOCKER_STATE", home.join("state"))
            .stdin(Stdio::null());
        match &self.image {
            Some(image) => command.env("DOCKER_IMAGE", image),
            None => command.env("DOCKER_GATEWAY", gateway_binary()),
        };
        let output = command.output().unwrap();
        let mut printed = String::from_utf8(output.stdout).unwrap();
        if output.status.code() == Some(124) {
            printed += &format!("\nstopped after {SCRIPT_TIMEOUT} s\n");
        }
        (output.status.success(), printed)
    }

    pub(crate) fn run(&self, script: &str) -> String {
        let (succeeded, printed) = self.try_run(script);
        assert!(succeeded, "{script}\n---- printed\n{printed}");
        printed
    }
}

/// What git tracks of a checkout and containers need, as a clone that can be pulled.
const CHECKOUT: &str = r#"
chmod +x bin/docker
mkdir -p origin/docs/deploy
cp "$REPOSITORY"/{Dockerfile,.dockerignore,compose.yaml,.env.example,.gitignore} origin
cp -r "$REPOSITORY"/docs/deploy/compose origin/docs/deploy
cp -r "$REPOSITORY"/docs/operations origin/docs
git -C origin init -q
git -C origin add -A
git -C origin -c user.name=test -c user.email=test@localhost commit -qm "All"
git clone -q origin checkout
"#;
