use std::{
    fs,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A program that runs in a directory of its own, until it is dropped.
pub(crate) struct Program {
    child: Child,
    _dir: TempDir,
}

impl Program {
    /// Starts it with `configuration` in a file behind these arguments. `DIR` stands for its directory.
    pub(crate) fn start(command: &[&str], configuration: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("configuration");
        fs::write(&file, configuration.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
        Self { child, _dir: dir }
    }

    /// Starts nginx with these parts of its `http` block.
    pub(crate) fn nginx(http: &str) -> Self {
        let configuration = format!(
            "daemon off; master_process off; error_log DIR/error.log; pid DIR/pid; events {{}}
            http {{
                access_log off;
                client_body_temp_path DIR/body; proxy_temp_path DIR/proxy;
                fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
                {http}
            }}"
        );
        Self::start(&["nginx", "-c"], &configuration)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
