//! The layers of the crate: a module may use only what stands to its right in the crate's
//! documentation, and only `k8s` may import the `kube` crate.
//!
//! The check is textual: every `crate::` path of a file counts, in code and in doc links.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From left to right; modules of one layer never import each other, but for the last layer,
/// which is the foundation of all.
const LAYERS: [&[&str]; 11] = [
    &["main", "cli"],
    &["app"],
    &["config"],
    &["k8s", "run"],
    &["proxy", "dns", "intercept", "relay", "companion"],
    &["http", "upstream", "rule"],
    &["tunnel"],
    &["dial"],
    &["capture"],
    &["addr", "io", "task"],
    &[],
];

/// Libraries that belong to one module alone, or to a few.
const OWNED: [(&str, &str); 5] = [
    ("kube::", "k8s"),
    ("clap::", "cli"),
    ("fast_socks5::", "proxy upstream"),
    ("hickory_proto::", "dns"),
    ("kdev_sim::", "app"),
];

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("module {module} has no place in LAYERS"))
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The modules that a source text names by `crate::`, grouped imports included.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or("").split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let name: String = name
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if name.starts_with(char::is_lowercase) {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn modules_use_only_what_stands_to_their_right() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    assert!(all.len() > 20, "the sources are not where this test looks");
    let mut wrong = Vec::new();
    for file in all {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for used in uses(&text) {
            if used != module
                && layer(&used) <= layer(module)
                && !(layer(&used) == layer("io") && layer(module) == layer("io"))
            {
                wrong.push(format!("{}: {module} uses {used}", relative.display()));
            }
        }
        for (library, owner) in OWNED {
            let import = text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//") && line.contains(library) && !line.contains("::kube::")
            });
            if import && !owner.split(' ').any(|o| o == module) {
                wrong.push(format!(
                    "{}: only {owner} may use {library}",
                    relative.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What prints, and the file that may do it.
const PRINTS: [(&str, &str); 8] = [
    ("print!(", "-"),
    ("println!(", "-"),
    ("dbg!(", "-"),
    ("io::stdout()", "cli/terminal.rs"),
    ("io::stderr()", "cli/terminal.rs"),
    ("io::stderr)", "cli/terminal.rs"),
    ("/dev/tty", "run/child/signals.rs"),
    ("ProgressBar::", "cli/progress.rs"),
];

#[test]
fn one_module_writes_to_the_terminal() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let mut wrong = Vec::new();
    for file in all {
        let relative = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests stand last in a file, and may say that they were skipped.
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (prints, owner) in PRINTS {
            let used = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(prints));
            if used && owner != relative {
                wrong.push(format!(
                    "{relative}: {prints} passes by cli/terminal.rs, which makes what others wrote harmless"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_every_way_to_import() {
    let text = "use crate::dial::Dial;\nuse crate::{addr, io::Io};\n//! [x](crate::proxy)\n";
    let found: Vec<_> = uses(text).into_iter().collect();
    assert_eq!(found, ["addr", "dial", "io", "proxy"]);
}
