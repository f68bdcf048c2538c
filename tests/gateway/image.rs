//! The image that the Dockerfile makes: built with buildah, which needs no engine, and run in namespaces of
//! its own as `docker` would (`tests/clients/scripts/docker.py`).
//!
//! Its base, `rust:…-bookworm`, is made here: Debian 12 by debootstrap, a C compiler, and this machine's
//! toolchain and registry mounted while building.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::common::Machine;
use serde_json::{Value, json};
use tempfile::TempDir;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
const IMAGE: &str = "quota-proxy";

/// A store of images. It is emptied at the end, unless `IMAGE_STORE` names a directory that is kept: then
/// the next run finds the base and the dependencies there.
struct Store {
    dir: PathBuf,
    temporary: Option<TempDir>,
}

impl Store {
    fn new() -> Self {
        match std::env::var_os("IMAGE_STORE") {
            Some(dir) => Self { dir: dir.into(), temporary: None },
            None => {
                let temporary = TempDir::new().unwrap();
                Self { dir: temporary.path().to_owned(), temporary: Some(temporary) }
            }
        }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = |name| self.dir.join(name).display().to_string();
        command.args(["--root", &path("images"), "--runroot", &path("run")]);
        command.args(["--storage-driver", "overlay"]).args(arguments);
        command.current_dir(REPOSITORY);
        command
    }

    /// What buildah prints.
    fn buildah(&self, arguments: &[&str]) -> String {
        let output = self.command("buildah", arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "buildah {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Debian 12 with a C compiler under the name that the Dockerfile begins with.
    fn make_base(&self) {
        let dockerfile = fs::read_to_string(Path::new(REPOSITORY).join("Dockerfile")).unwrap();
        let name = dockerfile.split_once("ARG RUST_IMAGE=").unwrap().1.lines().next().unwrap();
        let name = format!("docker.io/library/{name}");
        if self.buildah(&["images", "--format", "{{.Name}}:{{.Tag}}"]).contains(&name) {
            return;
        }
        let root = self.dir.join("base");
        let packages = "--include=ca-certificates,gcc,libc6-dev";
        let output = Command::new("debootstrap")
            .args(["--variant=minbase", packages, "bookworm"])
            .arg(&root)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let mut archive = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["--exclude=./var/cache", "--exclude=./var/lib/apt/lists", "-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let path = "ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let imported = self
            .command("podman", &["import", "-c", path, "-c", "ENV CARGO_HOME=/usr/local/cargo"])
            .args(["-c", "ENV CARGO_NET_OFFLINE=true", "-", &name])
            .stdin(archive.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(archive.wait().unwrap().success() && imported.status.success(), "{imported:?}");
        fs::remove_dir_all(root).unwrap();
    }

    /// Builds the image of the repository, layers kept, and returns what that prints.
    fn build(&self, context: &Path) -> String {
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
        let sysroot = String::from_utf8(sysroot.stdout).unwrap();
        let home = std::env::var("CARGO_HOME").map(PathBuf::from);
        let home =
            home.unwrap_or_else(|_| Path::new(&std::env::var("HOME").unwrap()).join(".cargo"));
        let toolchain = format!("{}:/usr/local/rust:ro", sysroot.trim());
        let registry = format!("{}:/usr/local/cargo/registry", home.join("registry").display());
        let output = self
            .command("buildah", &["build", "--isolation=chroot", "--format=docker", "--layers"])
            .args(["--pull-never", "--volume", &toolchain, "--volume", &registry, "-t", IMAGE])
            .arg(context)
            .output()
            .unwrap();
        let printed =
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{printed}");
        printed
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.command("buildah", &["rm", "--all"]).output();
        if self.temporary.is_none() {
            return;
        }
        let _ = self.command("buildah", &["rmi", "--all", "--force"]).output();
        // What is mounted there while it is used.
        let mounted = self.dir.join("images/overlay");
        let _ = Command::new("umount").arg(mounted).output();
    }
}

/// Every file below `root`, with its size.
fn files(root: &Path) -> Vec<(String, u64)> {
    let output = Command::new("find")
        .arg(root)
        .args(["-not", "-type", "d", "-printf", "/%P %s\n"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<(String, u64)> = text
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(path, size)| (path.to_owned(), size.parse().unwrap()))
        .collect();
    files.sort();
    files
}

/// From the sources to a chat through the gateway in the image.
const SCRIPT: &str = r#"
export ADMIN_TOKEN=image-test-token-0123456789 QUOTA_TIMEZONE=Asia/Shanghai UPSTREAM_BASE_URL=http://upstream.example:9000/v1
gateway() { curl -H "Authorization: Bearer $ADMIN_TOKEN" -H 'Content-Type: application/json' "$@"; }
run() {
    docker run -d --name quota-proxy --stop-timeout 40 --read-only --cap-drop ALL \
        -p 8787:8787 -v quota-proxy_data:/data -e ADMIN_TOKEN -e UPSTREAM_BASE_URL quota-proxy
    until docker exec quota-proxy gateway healthcheck; do sleep 0.1; done
}
docker build -t quota-proxy .
run
process=$(jq .pid "$DOCKER_STATE/containers/quota-proxy.json")
grep -E '^(Uid|CapEff|NSpid)' /proc/$process/status
KEY=$(gateway -d '{"daily_limit": 5}' http://localhost:8787/admin/keys | jq -r .key)
chat() { curl -H "Authorization: Bearer $KEY" -d '{"model": "m", "messages": []}' http://localhost:8787/v1/chat/completions; echo; }
chat
docker exec quota-proxy gateway backup backup.db
docker stop quota-proxy
docker exec quota-proxy gateway healthcheck 2>/dev/null && echo 'healthy though stopped'
docker rm quota-proxy
# Another container, the same volume.
run
chat
curl -H "Authorization: Bearer $KEY" http://localhost:8787/usage | jq -r '"used \(.used) of \(.daily_limit)"'
docker stop quota-proxy
docker rm quota-proxy
stat -c '%n %u:%g %a' "$DOCKER_STATE"/volumes/quota-proxy_data/quota.db | sed 's|.*/||'
docker compose up -d --wait
docker compose ps
docker compose exec quota-proxy gateway check || true
curl http://localhost:8787/healthz; echo
docker compose down
docker run --rm quota-proxy --version
"#;

#[test]
#[ignore = "nightly: needs root, buildah, podman, debootstrap, ip, jq and minutes"]
fn nightly_the_image_is_built_and_serves() {
    let store = Store::new();
    store.make_base();
    store.build(Path::new(REPOSITORY));

    let inspected = store.buildah(&["inspect", "--type", "image", IMAGE]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let config = &inspected["Docker"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["WorkingDir"], "/data");
    assert_eq!(config["Volumes"], json!({"/data": {}}));
    assert_eq!(config["ExposedPorts"], json!({"8787/tcp": {}}));
    assert_eq!(config["Entrypoint"], json!(["gateway"]));
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "gateway", "healthcheck"]));
    assert_eq!(config["StopSignal"], "SIGTERM");

    let container = store.buildah(&["from", IMAGE]);
    let mounted = PathBuf::from(store.buildah(&["mount", &container]));
    let is_zone = |file: &(String, u64)| file.0.starts_with("/usr/share/zoneinfo/");
    let (zones, files): (Vec<_>, Vec<_>) = files(&mounted).into_iter().partition(is_zone);
    let names: Vec<&str> = files.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
    for name in ["gateway", "nsswitch.conf"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let is_needed =
        |name: &&str| ["gateway", "nsswitch.conf"].contains(name) || name.contains(".so");
    assert!(names.iter().all(is_needed) && names.len() < 10, "{names:?}");

    let config_file = mounted.with_file_name("merged.json");
    fs::write(&config_file, config.to_string()).unwrap();
    let printed = Machine::with_image(&mounted).run(SCRIPT);
    println!("{printed}");
    for line in [
        "Uid:\t65532\t65532\t65532\t65532",
        "CapEff:\t0000000000000000",
        "used 2 of 5",
        "quota.db 65532:65532 600",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line:?} is missing in\n{printed}"
        );
    }
    // It is its namespace's first process, so it ends at SIGTERM only if it listens to it.
    assert!(
        printed.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")),
        "{printed}"
    );
    assert_eq!(printed.matches("hello from the upstream").count(), 2, "{printed}");
    assert!(!printed.contains("tzdata"), "{printed}");
    assert!(printed.contains("Up (healthy)") && !printed.contains("though stopped"), "{printed}");

    let mut report = "\
# The image, as built and run by its test:
# IMAGE_REPORT=docs/deploy/image.txt cargo test --test gateway image:: -- --ignored --nocapture

"
    .to_owned();
    let size = |files: &[(String, u64)]| files.iter().map(|(_, size)| size).sum::<u64>();
    let total = size(&files) + size(&zones);
    for (path, size) in files.iter().chain([&("/usr/share/zoneinfo".to_owned(), size(&zones))]) {
        writeln!(report, "{:>10.1} MB  {path}", *size as f64 / 1e6).unwrap();
    }
    writeln!(report, "{:>10.1} MB  in all\n", total as f64 / 1e6).unwrap();
    for name in ["User", "WorkingDir", "Env", "Entrypoint", "Volumes", "ExposedPorts", "StopSignal"]
    {
        writeln!(report, "{name:<13} {}", config[name]).unwrap();
    }
    writeln!(report, "{:<13} {}", "Healthcheck", config["Healthcheck"]["Test"]).unwrap();
    println!("{report}");
    if let Some(path) = std::env::var_os("IMAGE_REPORT") {
        fs::write(Path::new(REPOSITORY).join(path), report).unwrap();
    }
    assert!(total < 40_000_000, "{total} bytes");
    store.buildah(&["rm", &container]);

    // A change of the sources builds no dependency.
    let changed = TempDir::new().unwrap();
    let copied = Command::new("cp")
        .args(["-r", "Dockerfile", ".dockerignore", "Cargo.toml", "Cargo.lock", "src", "--parents"])
        .args(["examples/gateway"])
        .arg(changed.path())
        .current_dir(REPOSITORY)
        .status()
        .unwrap();
    assert!(copied.success());
    let main = changed.path().join("examples/gateway/main.rs");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{text}// Changed.\n")).unwrap();
    let printed = store.build(changed.path());
    assert!(printed.contains("Using cache"), "{printed}");
    assert!(printed.contains("Compiling tower-quota"), "{printed}");
    assert!(!printed.contains("Compiling tokio v"), "{printed}");
}
