//! The relay's program from the sources that this kdev was built from, for whoever has built kdev
//! without it: `cargo build --release` links for the machine that it runs on, and the relay has to
//! run in any image.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Where kdev was built, and for what.
const SOURCES: &str = env!("CARGO_MANIFEST_DIR");
const TARGET: &str = env!("KDEV_TARGET");
/// What links the relay so that it needs nothing of the image.
const RUSTFLAGS: &str = "-C target-feature=+crt-static";
/// What builds it. A target is named so that cargo's own helpers are linked as ever.
const ARGUMENTS: [&str; 7] = [
    "build",
    "--profile",
    "relay",
    "--no-default-features",
    "--bin=kdev-relay",
    "--target",
    TARGET,
];
/// The same for a shell.
pub(super) const COMMAND: &str = concat!(
    "RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile relay --no-default-features \
     --bin kdev-relay --target ",
    env!("KDEV_TARGET")
);
/// How many lines of cargo's are kept, to find the first error among them.
const KEPT_LINES: usize = 100;

/// Sources, and a cargo to build them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sources {
    folder: PathBuf,
    cargo: PathBuf,
}

/// Finds the sources that kdev was built from.
///
/// # Errors
/// Why the relay cannot be built here, as a part of a sentence.
pub(super) fn sources() -> Result<Sources, String> {
    if !TARGET.contains("-linux-") {
        return Err("a relay, which is for Linux, cannot be built on this machine".to_owned());
    }
    let user = nix::unistd::getuid().as_raw();
    let path = std::env::var_os("PATH").unwrap_or_default();
    sources_in(Path::new(SOURCES), user, &path)
}

fn sources_in(folder: &Path, user: u32, path: &OsString) -> Result<Sources, String> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml"));
    let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    let has = |line: &str| {
        let manifest = manifest.as_deref().unwrap_or_default();
        manifest.lines().any(|own| own == line)
    };
    if !has("name = \"kdev\"") || !has(version) {
        return Err("the sources that it was built from are not here any more".to_owned());
    }
    // What is built runs here, so nobody else may have put it where kdev was once built.
    let foreign = |path: &Path| {
        std::fs::metadata(path).map_or(true, |about| {
            ![user, 0].contains(&about.uid()) || about.mode() & 0o002 != 0
        })
    };
    if foreign(folder) || foreign(&folder.join("Cargo.toml")) {
        let shown = folder.display();
        return Err(format!(
            "its sources, {shown}, belong to somebody else or can be changed by everybody"
        ));
    }
    // Not what happens to lie in the working directory.
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    let cargo = folders
        .map(|folder| folder.join("cargo"))
        .find(|cargo| cargo.is_file());
    Ok(Sources {
        folder: folder.to_owned(),
        cargo: cargo.ok_or("there is no cargo in PATH to build one")?,
    })
}

/// Builds the relay, or finds that it is built; `say` gets what cargo does. Gives where it is.
///
/// # Errors
/// What cargo says first.
pub(super) async fn relay(
    sources: &Sources,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<PathBuf> {
    let Sources { folder, cargo } = sources;
    let shown = folder.display();
    say(&format!("Building the relay from {shown}"));
    let mut child = Command::new(cargo)
        .args(ARGUMENTS)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(folder)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", RUSTFLAGS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", cargo.display()))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = out.zip(err).context("cargo has no output")?;
    let made = async {
        let (mut lines, mut made) = (BufReader::new(out).lines(), None);
        while let Some(line) = lines.next_line().await? {
            made = program(&line).or(made);
        }
        std::io::Result::Ok(made)
    };
    let told = async {
        let (mut lines, mut told) = (BufReader::new(err).lines(), VecDeque::new());
        while let Some(line) = lines.next_line().await? {
            let line = line.trim().to_owned();
            if line.starts_with("Compiling ") || line.starts_with("Blocking ") {
                say(&format!("Building the relay from {shown}: {line}"));
            }
            told.push_back(line);
            if told.len() > KEPT_LINES {
                told.pop_front();
            }
        }
        std::io::Result::Ok(told)
    };
    let (made, told) = tokio::try_join!(made, told)?;
    let status = child.wait().await?;
    match made {
        Some(made) if status.success() => Ok(made),
        _ => {
            let error = told.iter().find(|line| line.starts_with("error"));
            let error = error.or_else(|| told.back()).map_or("", String::as_str);
            bail!(
                "cargo cannot build the relay in {shown}: {error}; `{COMMAND}` there says all of it"
            )
        }
    }
}

/// The relay, where this message of cargo's is that it was made.
fn program(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_relay = message["target"]["name"] == "kdev-relay";
    let made = message["executable"].as_str().filter(|_| is_relay)?;
    Some(PathBuf::from(made))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with sources and one with a cargo that runs `script`.
    fn stage(script: &str) -> (tempfile::TempDir, tempfile::TempDir) {
        let (folder, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = concat!(
            "[package]\nname = \"kdev\"\nversion = \"",
            env!("CARGO_PKG_VERSION"),
            "\"\n"
        );
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        let cargo = bin.path().join("cargo");
        let text = bin.path().join("text");
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // What this process itself holds open for writing, as a child of another test may, is busy.
        let copy = [text.as_os_str(), cargo.as_os_str()];
        let copied = std::process::Command::new("install")
            .args(["-m", "755"])
            .args(copy)
            .status();
        assert!(copied.unwrap().success());
        (folder, bin)
    }

    fn found(folder: &Path, bin: &Path) -> Result<Sources, String> {
        let user = nix::unistd::getuid().as_raw();
        sources_in(folder, user, &bin.as_os_str().to_owned())
    }

    #[test]
    fn only_sources_of_this_user_and_version_are_built() {
        let (folder, bin) = stage("");
        assert!(found(folder.path(), bin.path()).is_ok());
        let why = found(folder.path(), folder.path()).unwrap_err();
        assert!(why.contains("no cargo"), "{why}");
        let why = found(bin.path(), bin.path()).unwrap_err();
        assert!(why.contains("not here any more"), "{why}");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let why = found(folder.path(), bin.path()).unwrap_err();
        assert!(why.contains("by everybody"), "{why}");
        let manifest = folder.path().join("Cargo.toml");
        std::fs::write(manifest, "name = \"kdev\"\nversion = \"0.0.1\"\n").unwrap();
        let why = found(folder.path(), bin.path()).unwrap_err();
        assert!(why.contains("not here any more"), "{why}");
    }

    #[tokio::test]
    async fn cargo_is_asked_for_a_static_relay_and_says_where_it_is() {
        let (folder, bin) = stage(
            "printf '%s\\n' \"$RUSTFLAGS $*\" >asked\n\
             echo '   Compiling h2 v0.4' >&2\n\
             echo '{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"kdev\"},\"executable\":null}'\n\
             echo '{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"kdev-relay\"},\"executable\":\"/t/kdev-relay\"}'\n\
             echo '{\"reason\":\"build-finished\",\"success\":true}'",
        );
        let said = std::sync::Mutex::new(Vec::new());
        let say = |text: &str| said.lock().unwrap().push(text.to_owned());
        let sources = found(folder.path(), bin.path()).unwrap();
        let made = relay(&sources, &say).await.unwrap();
        assert_eq!(made, Path::new("/t/kdev-relay"));
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert!(
            asked.starts_with("-C target-feature=+crt-static build --profile relay"),
            "{asked}"
        );
        assert!(said.lock().unwrap()[1].ends_with(": Compiling h2 v0.4"));
    }

    #[tokio::test]
    async fn what_cargo_cannot_do_is_said_in_its_words() {
        let (folder, bin) =
            stage("echo 'error: linking with `cc` failed' >&2; echo more >&2; exit 101");
        let sources = found(folder.path(), bin.path()).unwrap();
        let error = relay(&sources, &|_| ()).await.unwrap_err().to_string();
        assert!(
            error.contains("linking with `cc` failed; `RUSTFLAGS="),
            "{error}"
        );
    }
}
