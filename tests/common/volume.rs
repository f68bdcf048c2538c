use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::Command,
};

use tempfile::TempDir;

/// A small file system of its own. It is unmounted on drop.
pub(crate) struct Volume {
    dir: TempDir,
}

impl Volume {
    /// One in memory.
    pub(crate) fn tmpfs(mebibytes: u32) -> Self {
        Self::mount(
            tempfile::tempdir().unwrap(),
            &["-t", "tmpfs", "-o", &format!("size={mebibytes}m")],
            "tmpfs",
        )
    }

    /// An ext4 in a file, by a loop device.
    pub(crate) fn ext4(mebibytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let source = image.to_str().unwrap().to_owned();
        Self::mount(dir, &["-o", "loop"], &source)
    }

    fn mount(dir: TempDir, options: &[&str], source: &str) -> Self {
        let volume = Self { dir };
        fs::create_dir(volume.root()).unwrap();
        run(Command::new("mount").args(options).arg(source).arg(volume.root()));
        volume
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// A file on it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Takes all the room that is left. May be repeated.
    pub(crate) fn fill(&self) {
        let options = File::options().create(true).append(true).open(self.path("filler"));
        let mut filler = options.unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while filler.write_all(&vec![7; size]).is_ok() {}
        }
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.root()));
    }
}

/// Makes files reject every change, also by who has them open; or permits it again.
pub(crate) fn set_immutable(files: &[PathBuf], immutable: bool) {
    let sign = if immutable { "+i" } else { "-i" };
    run(Command::new("chattr").arg(sign).args(files));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
