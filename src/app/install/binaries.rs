//! Where the relay's program comes from: files that the user names, what was built into kdev, what
//! lies beside it, or the sources that kdev was built from.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::build;
use crate::k8s::install::binary::{ARCHES, Arch, Binary, Program};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// The program for each machine that there is one for, all of one version.
pub(super) struct Provided {
    pub(super) version: String,
    pub(super) binaries: Vec<Binary>,
}

/// Finds the program, or builds it; `say` gets what takes long.
///
/// # Errors
/// When there is none, or a file is none.
pub(super) async fn find(
    named: &[PathBuf],
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Provided> {
    if !named.is_empty() {
        let binaries: anyhow::Result<_> = named.iter().map(|path| read(path)).collect();
        return provided(binaries?);
    }
    if !EMBEDDED.is_empty() {
        let binaries = EMBEDDED.iter().map(|bytes| Binary::read(bytes));
        let binaries: Result<_, _> = binaries.collect();
        return provided(binaries.map_err(|wrong| anyhow::anyhow!("the built-in relay {wrong}"))?);
    }
    let (found, unfit) = beside(&folder());
    if !found.is_empty() {
        return provided(found);
    }
    let sources = build::sources().map_err(|why| absent(unfit.as_ref(), &why))?;
    let built = build::relay(&sources, say).await?;
    provided(vec![read(&built)?])
}

/// The program for a machine, as `uname -m` or Kubernetes call it; built where that takes it.
///
/// # Errors
/// When there is none for it.
pub(in crate::app) async fn for_machine(
    machine: &str,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Vec<u8>> {
    let is_its = |arch: Arch| arch.name == machine || arch.machine == machine;
    let arch = ARCHES.into_iter().find(|arch| is_its(*arch));
    let arch = arch.with_context(|| format!("there is no program for {machine}"))?;
    let fitting = |bytes: &[u8]| match Program::read(bytes) {
        Ok(program) if program.arch == arch => Some(program.bytes.into_owned()),
        _ => None,
    };
    if let Some(program) = EMBEDDED.iter().find_map(|bytes| fitting(bytes)) {
        return Ok(program);
    }
    let files = names().map(|name| folder().join(name));
    let mut files = files.filter_map(|path| std::fs::read(path).ok());
    if let Some(program) = files.find_map(|bytes| fitting(&bytes)) {
        return Ok(program);
    }
    let sources = build::sources().map_err(|why| {
        anyhow::anyhow!(
            "this kdev was built without the program for {}, and {why}",
            arch.name
        )
    })?;
    let built = std::fs::read(build::relay(&sources, say).await?)?;
    fitting(&built).with_context(|| format!("what was built is not for {}", arch.name))
}

/// Makes sure that there is one for each machine, all of one version.
fn provided(mut binaries: Vec<Binary>) -> anyhow::Result<Provided> {
    // The same program under two names is one.
    binaries.sort_by_key(|binary| binary.arch);
    binaries.dedup();
    let version = binaries.first().map(|first| first.version.clone());
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
    Ok(Provided {
        version: version.unwrap_or_default(),
        binaries,
    })
}

/// What is said where there is no program and none can be built, with what lay there and is unfit.
fn absent(unfit: Option<&anyhow::Error>, why: &str) -> anyhow::Error {
    let beside = match unfit {
        Some(unfit) => unfit.to_string(),
        None => "none lies beside it".to_owned(),
    };
    anyhow::anyhow!(
        "this kdev was built without the relay's program, {beside}, and {why}; run `{}` in kdev's sources \
         and name what that makes by --relay-binary, or pass an --image that has it",
        build::COMMAND
    )
}

fn folder() -> PathBuf {
    let kdev = std::env::current_exe().unwrap_or_default();
    // A package manager may have put a link where kdev is looked for.
    let kdev = kdev.canonicalize().unwrap_or(kdev);
    kdev.parent().unwrap_or_else(|| Path::new(".")).to_owned()
}

/// What files of the program are called.
fn names() -> impl Iterator<Item = String> {
    let names = ARCHES.map(|arch| format!("kdev-relay-{}", arch.name));
    names.into_iter().chain(["kdev-relay".to_owned()])
}

/// The programs in a folder, and why one there is none. `kdev-relay-ARCH` goes before `kdev-relay`,
/// which an ordinary build leaves there too, linked dynamically.
fn beside(folder: &Path) -> (Vec<Binary>, Option<anyhow::Error>) {
    let (mut found, mut unfit) = (Vec::<Binary>::new(), None);
    for path in names().map(|name| folder.join(name)) {
        if !path.is_file() {
            continue;
        }
        match read(&path) {
            Ok(binary) if found.iter().any(|other| other.arch == binary.arch) => {}
            Ok(binary) => found.push(binary),
            Err(why) => unfit = Some(why),
        }
    }
    (found, unfit)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::install::binary::sample;

    fn in_folder(files: &[(&str, Vec<u8>)]) -> (Vec<Binary>, Option<anyhow::Error>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        beside(folder.path())
    }

    #[test]
    fn the_static_one_is_taken_whatever_lies_beside_it() {
        let (fit, unfit) = (sample("amd64", false), sample("amd64", true));
        let expected = Binary::read(&fit).unwrap();
        for files in [
            vec![
                ("kdev-relay-amd64", fit.clone()),
                ("kdev-relay", unfit.clone()),
            ],
            vec![("kdev-relay", fit.clone())],
            vec![
                ("kdev-relay", fit.clone()),
                ("kdev-relay-amd64", unfit.clone()),
            ],
        ] {
            let (found, _) = in_folder(&files);
            assert_eq!(found, std::slice::from_ref(&expected));
        }
        // One that is named for a machine goes before one that may be any.
        let mut other = fit.clone();
        other.push(0);
        let files = [("kdev-relay-amd64", fit.clone()), ("kdev-relay", other)];
        let (found, unfit_one) = in_folder(&files);
        assert_eq!((found, unfit_one.is_none()), (vec![expected], true));
    }

    #[test]
    fn each_machine_has_its_own() {
        let files = [
            ("kdev-relay-amd64", sample("amd64", false)),
            ("kdev-relay-arm64", sample("arm64", false)),
            ("kdev-relay", sample("amd64", true)),
        ];
        let (found, _) = in_folder(&files);
        let arches: Vec<&str> = found.iter().map(|binary| binary.arch.name).collect();
        assert_eq!(arches, ["amd64", "arm64"]);
        assert_eq!(provided(found).unwrap().binaries.len(), 2);
    }

    #[test]
    fn where_there_is_none_one_command_makes_it() {
        let (found, unfit) = in_folder(&[("kdev-relay", sample("amd64", true))]);
        assert!(found.is_empty());
        let text = absent(unfit.as_ref(), "its sources are not here").to_string();
        assert!(!text.contains('\n'), "{text}");
        for part in [
            "kdev-relay needs a dynamic linker",
            "crt-static",
            "--relay-binary",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let (_, none) = in_folder(&[]);
        assert!(
            absent(none.as_ref(), "x")
                .to_string()
                .contains("none lies beside it")
        );
    }
}
