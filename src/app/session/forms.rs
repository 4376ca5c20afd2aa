//! Which wire form worked with which cluster, kept between runs so that the next one starts with
//! it. Losing the file costs a few round trips.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use crate::k8s::portforward::Form;

/// How long a form is taken without trying a better one: clusters get upgraded.
const TRUST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Clusters that are remembered, the newest.
const MAX_CLUSTERS: usize = 100;

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    clusters: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    form: String,
    found: u64,
}

/// The form that worked not long ago with `cluster`: an API server and a user, since it may be a
/// permission that keeps a better form away.
pub(super) fn recall(cluster: &str) -> Option<Form> {
    let entry = read()?.clusters.remove(cluster)?;
    let age = now().checked_sub(entry.found)?;
    (age < TRUST.as_secs())
        .then(|| Form::from_id(&entry.form))
        .flatten()
}

/// Keeps `form` for the next run, unless it is known already.
pub(super) fn remember(cluster: &str, form: Form) {
    if recall(cluster) == Some(form) {
        return;
    }
    let mut file = read().unwrap_or_default();
    file.clusters.insert(
        cluster.to_owned(),
        Entry {
            form: form.id().to_owned(),
            found: now(),
        },
    );
    while file.clusters.len() > MAX_CLUSTERS {
        let oldest = file
            .clusters
            .iter()
            .min_by_key(|(_, e)| e.found)
            .map(|(s, _)| s.clone());
        file.clusters.remove(&oldest.unwrap_or_default());
    }
    if let Err(error) = write(&file) {
        tracing::debug!(%error, "the port-forward form is not remembered");
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn path() -> io::Result<PathBuf> {
    let dirs = etcetera::choose_base_strategy().map_err(io::Error::other)?;
    Ok(dirs.cache_dir().join("kdev").join("portforward-forms.json"))
}

fn read() -> Option<File> {
    serde_json::from_slice(&std::fs::read(path().ok()?).ok()?).ok()
}

/// Replaces the file as a whole, so that a reader never sees half of it.
fn write(file: &File) -> io::Result<()> {
    let path = path()?;
    let folder = path.parent().unwrap_or(&path);
    std::fs::create_dir_all(folder)?;
    let draft = folder.join(format!("portforward-forms.{}.tmp", std::process::id()));
    std::fs::write(&draft, serde_json::to_vec_pretty(file)?)?;
    std::fs::rename(&draft, &path).inspect_err(|_| {
        let _ = std::fs::remove_file(&draft);
    })
}
