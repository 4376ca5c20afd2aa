//! Files that stand over the machine's own, for one mount namespace alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::wire::File;

/// Folders over one of which a file system in memory lies for a moment: one that is empty, so that
/// nobody misses what is in it, or the last one.
const DESKS: [&str; 5] = ["/srv", "/media", "/mnt", "/opt", "/tmp"];
/// Where name service caches have their sockets. They would answer past `/etc/resolv.conf`.
const CACHES: [&str; 2] = ["/run/nscd", "/var/run/nscd"];

/// Puts `files` over those of the same path.
pub(super) fn cover(files: &[File]) -> io::Result<()> {
    put(files.iter())?;
    let mut hidden: Vec<PathBuf> = Vec::new();
    for cache in CACHES {
        if let Ok(path) = fs::canonicalize(cache)
            && !hidden.contains(&path)
        {
            memory(&path)?;
            hidden.push(path);
        }
    }
    Ok(())
}

/// Covers again what is not covered any more.
pub(super) fn keep(files: &[File]) -> io::Result<()> {
    let is_there =
        |file: &&File| fs::read_to_string(&file.path).is_ok_and(|text| text == file.text);
    let mut gone = files.iter().filter(|file| !is_there(file)).peekable();
    match gone.peek() {
        Some(_) => put(gone),
        None => Ok(()),
    }
}

fn put<'a>(files: impl Iterator<Item = &'a File>) -> io::Result<()> {
    let is_empty = |desk: &&&str| fs::read_dir(desk).is_ok_and(|mut all| all.next().is_none());
    let desk = DESKS
        .iter()
        .find(is_empty)
        .unwrap_or(&DESKS[DESKS.len() - 1]);
    memory(Path::new(desk))?;
    let covered = files.enumerate().try_for_each(|(number, file)| {
        let from = Path::new(desk).join(number.to_string());
        fs::write(&from, &file.text)?;
        bind(&from, &file.path)
    });
    // What was bound stays.
    umount2(*desk, MntFlags::MNT_DETACH)?;
    covered
}

fn memory(over: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("size=4m,mode=755");
    mount(Some("kdev"), over, Some("tmpfs"), flags, options).map_err(io::Error::from)
}

fn bind(from: &Path, over: &str) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(from), over, none, MsFlags::MS_BIND, none).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{over}: {error}"))
    })
}
