//! The published package.

use std::process::Command;

use super::document::{Document, ROOT};

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
