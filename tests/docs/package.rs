//! The published package.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{
    common::set_for_tests,
    document::{Document, ROOT},
};

fn cargo(arguments: &[&str], directory: &Path) -> Output {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).current_dir(directory);
    for (name, _) in env::vars().filter(|(name, _)| set_for_tests(name)) {
        cargo.env_remove(name);
    }
    cargo.output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Directory of the package's sources, as a user of the registry has them.
fn unpacked() -> PathBuf {
    let target = Path::new(ROOT).join("target/package");
    let arguments = ["package", "--no-verify", "--allow-dirty", "--quiet"];
    succeeds(&cargo(&arguments, Path::new(ROOT)));
    let name = concat!("tower-quota-", env!("CARGO_PKG_VERSION"));
    let directory = target.join(name);
    let _ = fs::remove_dir_all(&directory);
    let archive = target.join(format!("{name}.crate"));
    // With the time of now, as cargo takes files of an earlier run for unchanged otherwise.
    let tar = Command::new("tar").arg("-xzmf").arg(&archive).arg("-C").arg(&target).status();
    assert!(tar.unwrap().success());
    directory
}

#[test]
fn each_target_but_the_library_requires_all_features() {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"], Path::new(ROOT));
    succeeds(&output);
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap();
    let mut kinds = BTreeSet::new();
    for target in targets {
        let kind = target["kind"][0].as_str().unwrap();
        if kind != "lib" {
            assert_eq!(
                target["required-features"],
                serde_json::json!(["full"]),
                "{}",
                target["name"]
            );
            kinds.insert(kind);
        }
    }
    assert_eq!(kinds, BTreeSet::from(["bench", "example", "test"]));
}

#[test]
#[ignore = "needs tar and minutes"]
fn each_example_builds_from_the_package_with_all_features_and_says_so_without() {
    let package = unpacked();
    let built = Path::new(ROOT).join("target/published");
    let built = built.to_str().unwrap();
    let examples: Vec<String> = fs::read_dir(Path::new(ROOT).join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(examples.iter().any(|example| example == "gateway"), "{examples:?}");
    for example in &examples {
        let arguments = ["build", "--locked", "--target-dir", built, "--example", example];
        let output = cargo(&arguments, &package);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{example} needs no feature");
        assert!(printed.contains("requires the features: `full`"), "{example}: {printed}");
        succeeds(&cargo(&[&arguments[..], &["--features", "full"]].concat(), &package));
    }
    // And the library with the default features.
    succeeds(&cargo(&["check", "--locked", "--target-dir", built], &package));
}

#[test]
fn the_package_holds_what_the_readme_shows_and_no_other_picture() {
    let listed = Command::new(env!("CARGO"))
        .args(["package", "--list", "--no-verify", "--allow-dirty", "--offline"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut pictures = 0;
    for readme in ["README.md", "README.zh.md"] {
        for link in Document::read(readme).links {
            let path = link.target.split('#').next().unwrap();
            if path.contains(':') || path.is_empty() {
                continue;
            }
            assert!(listed.contains(path), "{readme}:{}: {path} is not packaged", link.line);
            pictures += usize::from(path.ends_with(".png"));
        }
    }
    assert_eq!(listed.lines().filter(|path| path.ends_with(".png")).count(), pictures);
}
