use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::common::eventually;

/// A kind of system call, and what is done to it, in the words of `strace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) calls: &'static str,
    pub(crate) effect: &'static str,
}

pub(crate) const WRITES: Fault =
    Fault { calls: "pwrite64,pwritev,pwritev2", effect: "error=ENOSPC" };
pub(crate) const SYNCS: Fault = Fault { calls: "fsync,fdatasync", effect: "error=EIO" };
pub(crate) const SIZES: Fault = Fault { calls: "ftruncate,fallocate", effect: "error=ENOSPC" };
pub(crate) const ALL_CHANGES: Fault = Fault {
    calls: "pwrite64,pwritev,pwritev2,fsync,fdatasync,ftruncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir",
    effect: "error=EROFS",
};

/// The disk takes its time.
pub(crate) const SLOW_SYNCS: Fault = Fault { calls: "fsync,fdatasync", effect: "delay_enter=60s" };

impl Fault {
    /// The arguments of `strace` under which the n-th such call of each thread is so treated.
    pub(crate) fn arguments(self, when: &str) -> Vec<String> {
        let inject = format!("inject={}:{}:when={when}", self.calls, self.effect);
        ["-f", "-qq", "-e", &format!("trace={}", self.calls), "-e", &inject].map(Into::into).into()
    }
}

/// `strace` on a running process. It is taken away on drop.
pub(crate) struct Tracer {
    strace: Child,
    log: PathBuf,
    _dir: TempDir,
}

impl Tracer {
    /// Attaches to all threads of a process. Calls are counted from here.
    pub(crate) async fn attach(process: u32, fault: Fault, when: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("strace");
        let strace = Command::new("strace")
            .args(fault.arguments(when))
            .args(["-p", &process.to_string(), "-o"])
            .arg(&log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let tracer = format!("TracerPid:\t{}\n", strace.id());
        eventually("strace on every thread", || async {
            let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
            let statuses = threads.map(|thread| fs::read_to_string(thread.path().join("status")));
            statuses.flatten().all(|status| status.contains(&tracer))
        })
        .await;
        Self { strace, log, _dir: dir }
    }

    /// Whether a call was made to fail.
    pub(crate) fn has_struck(&self) -> bool {
        fs::read_to_string(&self.log).unwrap().contains("(INJECTED)")
    }
}

impl Drop for Tracer {
    /// The kernel then lets the process go on alone.
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
