//! From one version to another.

use super::place::Place;
use super::works;
use crate::installed::{BASE, RELAY};
use crate::site::SECRETS;

/// The relay under another number of the same length; a program has no sum over itself.
fn as_version(version: &str) -> tempfile::NamedTempFile {
    let mut program = std::fs::read(&*RELAY).unwrap();
    let own = concat!("kdev-relay ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();
    let other = format!("kdev-relay {version}\n");
    assert_eq!(own.len(), other.len());
    let places: Vec<usize> = program
        .windows(own.len())
        .enumerate()
        .filter_map(|(at, bytes)| (bytes == own).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        program[at..at + own.len()].copy_from_slice(other.as_bytes());
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), program).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn an_upgrade_keeps_what_was_chosen_and_goes_back_only_by_force() {
    let place = Place::new("upgrade");
    let none = place.kdev(&["upgrade", "--relay-binary", &RELAY]);
    assert!(none.err.contains("no relay is installed"), "{none:?}");

    let old = as_version("0.0.9");
    let old = old.path().to_str().unwrap();
    let first = [
        "install",
        "--base-image",
        BASE,
        "--relay-binary",
        old,
        "--deny",
        "10.9.9.9",
    ];
    place.kdev(&first).ok();
    let keys = SECRETS.map(|name| place.site.key(name));
    let parts = |place: &Place| -> Vec<String> {
        let all = place.everything().into_keys();
        all.filter(|name| name.contains("kdev-relay-amd64"))
            .collect()
    };
    let before = parts(&place);
    let version = |place: &Place| {
        let path = r".metadata.annotations.kdev\.dev/version";
        place.site.field("deployment/kdev-relay", path)
    };
    assert_eq!(version(&place), "0.0.9");

    let said = place.kdev(&["upgrade", "--relay-binary", &RELAY]).ok();
    assert!(said.contains("Upgraded from 0.0.9"), "{said}");
    works(&place, 2).await;
    assert_eq!(version(&place), env!("CARGO_PKG_VERSION"));
    assert_eq!(SECRETS.map(|name| place.site.key(name)), keys);
    let container = ".spec.template.spec.containers[0].env[0].value";
    assert_eq!(
        place.site.field("deployment/kdev-relay", container),
        "10.9.9.9"
    );
    let after = parts(&place);
    assert!(
        after.iter().all(|part| !before.contains(part)),
        "{before:?} {after:?}"
    );

    let back = place.kdev(&["upgrade", "--relay-binary", old]);
    let back = back.failed();
    assert!(back.contains("the older 0.0.9"), "{back}");
    place
        .kdev(&["upgrade", "--relay-binary", old, "--force"])
        .ok();
    assert_eq!(
        (version(&place), parts(&place)),
        ("0.0.9".to_owned(), before)
    );
}
