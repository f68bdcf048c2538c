//! A stand-in for systemd as PID 1: it knows the units in a directory, holds sockets, and runs what the
//! service files say. `systemctl`, `journalctl` and `sudo` are scripts that ask it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::symlink, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
};
use tempfile::TempDir;

use crate::common::{DEADLINE, StandIns};

/// The settings of a unit, in the order in which they stand there.
pub(crate) struct Unit(Vec<(String, String, String)>);

impl Unit {
    /// Reads a unit file's text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut section = String::new();
        let mut settings = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                Some(name) => section = name.to_owned(),
                None => {
                    let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
                    settings.push((section.clone(), name.to_owned(), value.to_owned()));
                }
            }
        }
        Self(settings)
    }

    /// The values of a setting. An empty one takes those before it back.
    pub(crate) fn all(&self, section: &str, name: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (in_section, named, value) in &self.0 {
            match (in_section == section && named == name, &**value) {
                (true, "") => values.clear(),
                (true, value) => values.push(value),
                (false, _) => {}
            }
        }
        values
    }

    /// The value of a setting that stands there once.
    pub(crate) fn one(&self, section: &str, name: &str) -> &str {
        let all = self.all(section, name);
        assert_eq!(all.len(), 1, "{name}: {all:?}");
        all[0]
    }
}

/// A machine: its files lie below a directory.
pub(crate) struct Machine {
    root: TempDir,
    scripts: Vec<(String, String)>,
    /// The socket that is handed over, on a port that nobody else takes meanwhile.
    listener: TcpListener,
    sockets: BTreeSet<String>,
    services: BTreeMap<String, Child>,
}

impl Machine {
    /// One with no unit yet.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        fcntl_setfd(listener.as_fd(), FdFlags::empty()).unwrap();
        let root = TempDir::new().unwrap();
        for dir in ["journal", "run", "etc/systemd/system", "usr/local/bin", "var/lib"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        Self {
            root,
            scripts: Vec::new(),
            listener,
            sockets: BTreeSet::new(),
            services: BTreeMap::new(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Puts a script on the `PATH`.
    pub(crate) fn script(&mut self, name: &str, text: &str) {
        self.scripts.push((name.to_owned(), text.to_owned()));
    }

    /// The address in the place of `127.0.0.1:8787`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// A script with the machine's own paths and address in the place of the system's.
    ///
    /// # Panics
    ///
    /// If it names others, as it is about to be run.
    pub(crate) fn rewrite(&self, text: &str) -> String {
        let root = self.root().to_str().unwrap();
        let mut text = text.replace("127.0.0.1:8787", &self.address().to_string());
        for path in ["/etc/quota-proxy", "/etc/systemd/", "/usr/local/bin", "/var/lib/"] {
            for before in [" ", "\"", ":", "=", "\n", "'"] {
                text = text.replace(&format!("{before}{path}"), &format!("{before}{root}{path}"));
            }
        }
        let known = [root, "//", "/dev/stdin", "/bin/sh", "/bin/kill", "/usr/bin/find"];
        for word in
            text.split([' ', '"', '\'', '\n', ':', '=']).filter(|word| word.starts_with('/'))
        {
            assert!(known.iter().any(|known| word.starts_with(known)), "{word} in {text}");
        }
        text
    }

    /// Runs a script while the machine serves its `systemctl`, and returns what it has printed.
    pub(crate) fn run(&mut self, script: &str, cwd: &Path) -> String {
        let stand_ins = StandIns::new();
        for (name, script) in &self.scripts {
            stand_ins.add(name, script);
        }
        stand_ins.add("sudo", "exec \"$@\"");
        let journal = self.root().join("journal");
        let read = "[ \"$1\" = -u ]; cat \"$JOURNAL/$2.service\"";
        stand_ins.add("journalctl", &read.replace("$JOURNAL", journal.to_str().unwrap()));
        let script = self.rewrite(script);
        stand_ins.run(&script, cwd, "systemctl", "", |line| self.systemctl(line))
    }

    /// What `systemctl` does.
    fn systemctl(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split(' ').collect();
        let (options, words): (Vec<&str>, Vec<&str>) =
            words.into_iter().partition(|word| word.starts_with("--"));
        let (verb, units) = words.split_first().ok_or("no verb")?;
        let known = ["--now", "--no-pager"];
        assert!(options.iter().all(|option| known.contains(option)), "{line}");
        if *verb == "daemon-reload" && units.is_empty() {
            return Ok(String::new());
        }
        assert!(!units.is_empty(), "{line}");
        let mut said = String::new();
        for unit in units {
            let file = self.unit(unit)?;
            match *verb {
                "enable" => {
                    file.one("Install", "WantedBy");
                    self.start(unit)?;
                }
                "start" => self.start(unit)?,
                "disable" | "stop" => self.stop(unit),
                "restart" => {
                    self.stop(unit);
                    self.start(unit)?;
                }
                "status" => {
                    let runs = self.services.contains_key(*unit);
                    said += if runs { "Active: active (running)\n" } else { "Active: inactive\n" };
                }
                _ => return Err(format!("unknown verb {verb}")),
            }
        }
        Ok(said)
    }

    /// A unit with its drop-ins.
    fn unit(&self, name: &str) -> Result<Unit, String> {
        let file = self.root().join("etc/systemd/system").join(name);
        let mut text = fs::read_to_string(&file).map_err(|_| format!("Unit {name} not found."))?;
        let drop_ins = fs::read_dir(format!("{}.d", file.display())).into_iter().flatten();
        for drop_in in drop_ins {
            text += &fs::read_to_string(drop_in.unwrap().path()).unwrap();
        }
        Ok(Unit::parse(&text))
    }

    fn start(&mut self, name: &str) -> Result<(), String> {
        let unit = self.unit(name)?;
        if name.ends_with(".timer") {
            return self.unit(&name.replace(".timer", ".service")).map(drop);
        }
        if name.ends_with(".socket") {
            let service = name.replace(".socket", ".service");
            if self.services.contains_key(&service) {
                return Err(format!("Socket service {service} already active, refusing."));
            }
            let address = unit.one("Socket", "ListenStream");
            assert_eq!(address.parse::<SocketAddr>().unwrap().port(), 8787);
            self.sockets.insert(name.to_owned());
            return Ok(());
        }
        if self.services.contains_key(name) {
            return Ok(());
        }
        let mut service = Service::new(self.root(), name, &unit);
        // Commands that call the gateway read its port from here.
        service.command.env("PORT", self.address().port().to_string());
        for socket in unit.all("Unit", "Requires") {
            self.start(socket)?;
            service.command.env("LISTEN_FDS", "1");
            service.command.env("LISTEN_FDS_FIRST_FD", self.listener.as_raw_fd().to_string());
        }
        if let Some(child) = service.run(&unit)? {
            self.services.insert(name.to_owned(), child);
        }
        Ok(())
    }

    fn stop(&mut self, name: &str) {
        self.sockets.remove(name);
        if let Some(mut child) = self.services.remove(name) {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            assert!(child.wait().unwrap().success());
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in self.services.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A service as its file describes it.
pub(crate) struct Service {
    pub(crate) command: Command,
    specifiers: [(&'static str, String); 3],
    journal: PathBuf,
    notify: (UnixDatagram, PathBuf),
}

impl Service {
    /// Makes its directories, its credentials and its environment.
    pub(crate) fn new(root: &Path, name: &str, unit: &Unit) -> Self {
        let get = |setting: &str| unit.all("Service", setting);
        let lib = root.join("var/lib");
        let credentials = root.join("run/credentials").join(name);
        let specifiers = [
            ("%S", lib.display().to_string()),
            ("%d", credentials.display().to_string()),
            ("%%", "%".to_owned()),
        ];
        for dir in get("StateDirectory").iter().flat_map(|dirs| dirs.split(' ')) {
            fs::create_dir_all(lib.join("private").join(dir)).unwrap();
            let link = lib.join(dir);
            if !link.exists() {
                symlink(lib.join("private").join(dir), link).unwrap();
            }
        }
        let _ = fs::remove_dir_all(&credentials);
        fs::create_dir_all(&credentials).unwrap();
        for credential in get("LoadCredential") {
            let (id, path) = credential.split_once(':').unwrap();
            let source = root.join(path.trim_start_matches('/'));
            fs::copy(&source, credentials.join(id))
                .unwrap_or_else(|error| panic!("{source:?}: {error}"));
        }
        let expand = |text: &str| {
            specifiers.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let mut command = Command::new("bash");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        for variable in get("Environment") {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, expand(value));
        }
        for file in get("EnvironmentFile") {
            let text = fs::read_to_string(root.join(file.trim_start_matches(['-', '/'])));
            for line in text.unwrap_or_default().lines().filter(|line| !line.is_empty()) {
                let (name, value) = line.split_once('=').unwrap();
                command.env(name, value);
            }
        }
        command.current_dir(expand(unit.one("Service", "WorkingDirectory")));
        let path = root.join("run/notify");
        let _ = fs::remove_file(&path);
        let notify = (UnixDatagram::bind(&path).unwrap(), path);
        let journal = root.join("journal").join(name);
        Self { command, specifiers, journal, notify }
    }

    /// Runs it until it is ready; what then still runs.
    fn run(mut self, unit: &Unit) -> Result<Option<Child>, String> {
        let root = self.notify.1.parent().unwrap().parent().unwrap().to_owned();
        let line = |line: &str| {
            let expanded = self.specifiers.iter();
            let line =
                expanded.fold(line.to_owned(), |line, (name, value)| line.replace(name, value));
            line.replace(" /usr/local/", &format!(" {}/usr/local/", root.display()))
        };
        let start = line(&format!("exec {}", unit.one("Service", "ExecStart")));
        let posts = unit.all("Service", "ExecStartPost").into_iter().map(line);
        let journal = fs::File::options().create(true).append(true).open(&self.journal).unwrap();
        self.command.env("NOTIFY_SOCKET", &self.notify.1).stdin(Stdio::null());
        self.command.stdout(journal.try_clone().unwrap()).stderr(journal);
        let posts: Vec<String> = posts.collect();
        let mut child = self.command.arg("-c").arg(&start).spawn().unwrap();
        if unit.one("Service", "Type") == "notify" {
            self.notify.0.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut message = [0; 4096];
            loop {
                let length = self.notify.0.recv(&mut message).expect("ready in time");
                if message[..length].starts_with(b"READY=1") {
                    return Ok(Some(child));
                }
            }
        }
        if !child.wait().unwrap().success() {
            return Err(format!("{start} failed"));
        }
        for post in posts {
            assert!(
                Command::new("bash").arg("-c").arg(&post).status().unwrap().success(),
                "{post}"
            );
        }
        Ok(None)
    }
}
