//! Puts the relay's programs into kdev: those in the folder that `KDEV_EMBED_RELAY` names, as
//! `kdev-relay-ARCH` or `kdev-relay-ARCH.gz`. Without it kdev has none and takes what lies beside
//! it, or builds it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=KDEV_EMBED_RELAY");
    // `kdev install` may have to build the relay for the machine that it was built for itself.
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=KDEV_TARGET={target}");
    // The relay does not carry itself.
    let folder = env::var_os("CARGO_FEATURE_CLIENT")
        .and_then(|_| env::var_os("KDEV_EMBED_RELAY"))
        .filter(|folder| !folder.is_empty());
    let mut files: Vec<PathBuf> = Vec::new();
    if let Some(folder) = folder.map(PathBuf::from) {
        println!("cargo::rerun-if-changed={}", folder.display());
        let entries = fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("KDEV_EMBED_RELAY={}: {e}", folder.display()));
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.extend(paths.filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy());
            name.is_some_and(|name| name.starts_with("kdev-relay-"))
        }));
        files.sort();
        assert!(
            !files.is_empty(),
            "KDEV_EMBED_RELAY={} has no kdev-relay-ARCH",
            folder.display()
        );
    }
    let mut list = String::from("static EMBEDDED: &[&[u8]] = &[\n");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let file = file.canonicalize().unwrap_or(file);
        // Writing to a string cannot fail.
        let _ = writeln!(list, "    include_bytes!({file:?}),");
    }
    list.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("embedded.rs");
    fs::write(&out, list).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
}
