//! Where the relay's program comes from: files that the user names, what was built into kdev, or
//! what lies beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::k8s::install::binary::{ARCHES, Binary};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// The program for each machine that there is one for, all of one version.
pub(super) struct Provided {
    pub(super) version: String,
    pub(super) binaries: Vec<Binary>,
}

/// Finds the program.
///
/// # Errors
/// When there is none, or a file is none.
pub(super) fn find(named: &[PathBuf]) -> anyhow::Result<Provided> {
    let mut binaries = Vec::new();
    if !named.is_empty() {
        for path in named {
            binaries.push(read(path)?);
        }
    } else if !EMBEDDED.is_empty() {
        for bytes in EMBEDDED {
            let binary = Binary::read(bytes);
            binaries.push(binary.map_err(|wrong| anyhow::anyhow!("the built-in relay {wrong}"))?);
        }
    } else {
        for path in beside() {
            if path.is_file() {
                binaries.push(read(&path)?);
            }
        }
    }
    // The same program under two names is one.
    binaries.sort_by_key(|binary| binary.arch);
    binaries.dedup();
    let Some(first) = binaries.first() else {
        bail!(
            "this kdev was built without the relay's program and none lies beside it; put \
             kdev-relay (or kdev-relay-amd64, kdev-relay-arm64 …) of the same release beside \
             kdev, name it by --relay-binary, or pass an --image that has it"
        );
    };
    let version = first.version.clone();
    for pair in binaries.windows(2) {
        if pair[0].arch == pair[1].arch {
            bail!(
                "there are two different relays for {}; name the right one by --relay-binary",
                pair[0].arch.name
            );
        }
        if pair[0].version != pair[1].version {
            bail!(
                "the relay for {} is version {} and that for {} is {}; take both from one release",
                pair[0].arch.name,
                pair[0].version,
                pair[1].arch.name,
                pair[1].version
            );
        }
    }
    Ok(Provided { version, binaries })
}

fn beside() -> Vec<PathBuf> {
    let Ok(kdev) = std::env::current_exe() else {
        return Vec::new();
    };
    // A package manager may have put a link where kdev is looked for.
    let kdev = kdev.canonicalize().unwrap_or(kdev);
    let folder = kdev.parent().unwrap_or_else(|| Path::new("."));
    let names = ARCHES.map(|arch| format!("kdev-relay-{}", arch.name));
    let names = names.into_iter().chain(["kdev-relay".to_owned()]);
    names.map(|name| folder.join(name)).collect()
}

fn read(path: &Path) -> anyhow::Result<Binary> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
    if size.len() > MAX_FILE {
        bail!(
            "{shown} is larger than {} MiB, so it is no relay",
            MAX_FILE >> 20
        );
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    Binary::read(&bytes).map_err(|wrong| anyhow::anyhow!("{shown} {wrong}"))
}
