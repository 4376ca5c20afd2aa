//! Renewed tokens back into the kubeconfig, for kubectl and for the next session.
//!
//! kubectl writes the whole file anew, without its comments. Here the text of two values changes
//! and nothing else, and only if the result reads as exactly that.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::Kubeconfig;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::session::Tokens;
use super::{ID_TOKEN, Origin, REFRESH_TOKEN};

/// How often and how long apart the lock is tried, 1 s in all: kubectl holds it for milliseconds.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Writes `new` where `old` stands in the file. Blocks.
pub(super) fn write(origin: &Origin, old: &Tokens, new: &Tokens) -> Result<(), String> {
    // A link stays a link.
    let file = fs::canonicalize(&origin.file).map_err(|e| e.to_string())?;
    let locked = Lock::take(&file)?;
    let text = fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let changed = change(&text, &origin.user, old, new)?;
    replace(&file, &changed).map_err(|e| e.to_string())?;
    drop(locked);
    Ok(())
}

/// kubectl's lock: a file beside the kubeconfig.
struct Lock(PathBuf);

impl Lock {
    fn take(file: &Path) -> Result<Self, String> {
        let mut path = file.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..LOCK_TRIES {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return Ok(Self(path)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(e) => return Err(e.to_string()),
            }
        }
        Err(format!("another program holds {}", path.display()))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing can be done about a lock that stays.
        let _ = fs::remove_file(&self.0);
    }
}

/// Replaces a file in one step; its mode stays.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mode = fs::metadata(file)?.permissions();
    if mode.readonly() {
        return Err(io::Error::other("it is read-only"));
    }
    // A file that may not be written is not replaced either, though its folder would allow it.
    OpenOptions::new().write(true).open(file)?;
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".kdev-{:016x}", rand::random::<u64>()));
    let beside = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&beside).and_then(|mut new| {
        new.write_all(text.as_bytes())?;
        new.set_permissions(mode)?;
        new.sync_all()?;
        fs::rename(&beside, file)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// `text` with the tokens of `user` changed.
fn change(text: &str, user: &str, old: &Tokens, new: &Tokens) -> Result<String, String> {
    let mut text = text.to_owned();
    let pairs = [
        (REFRESH_TOKEN, &old.refresh, &new.refresh),
        (ID_TOKEN, &old.id, &new.id),
    ];
    for (key, old, new) in pairs {
        let (old, new) = (expose(old.as_ref()), expose(new.as_ref()));
        if let Some(new) = new.filter(|_| old != new) {
            text = change_one(&text, user, key, old, new)
                .ok_or("it is written in a way that kdev does not change")?;
        }
    }
    Ok(text)
}

fn expose(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret)
}

/// Tries each place where the value may stand, until one reads as the change that is meant.
fn change_one(text: &str, user: &str, key: &str, old: Option<&str>, new: &str) -> Option<String> {
    let mut meant = read(text)?;
    // As the parser read it, not as it was known: the file may have changed.
    let config = login(&mut meant, user)?;
    let before = config.insert(key.to_owned(), new.into());
    if before.as_ref().and_then(Value::as_str) != old {
        return None;
    }
    let candidates: Box<dyn Iterator<Item = String>> = match old {
        Some(old) => {
            Box::new(places(text, key).filter_map(move |at| with_value(text, at, key, old, new)))
        }
        // A token that the file did not have goes before the one that it has.
        None => Box::new(places(text, REFRESH_TOKEN).map(move |at| with_key(text, at, key, new))),
    };
    let mut fitting = candidates.filter(|text| read(text).as_ref() == Some(&meant));
    fitting.next()
}

/// Where `key` stands as a word.
fn places<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(key).map(|(at, _)| at)
}

/// `text` with `new` in place of `old` behind the key at `at`.
fn with_value(text: &str, at: usize, key: &str, old: &str, new: &str) -> Option<String> {
    let rest = &text[at + key.len()..];
    let value = rest.trim_start_matches(['"', '\'', ' ']);
    let value = value
        .strip_prefix(':')?
        .trim_start_matches([' ', '\n', '\r']);
    let plain = value.trim_start_matches(['"', '\'']);
    let quote = &value[..value.len() - plain.len()];
    let end = plain.strip_prefix(old)?.strip_prefix(quote)?;
    let start = &text[..text.len() - value.len()];
    Some(format!("{start}{}{end}", quoted(new)))
}

/// `text` with a key and its value before the key at `at`.
fn with_key(text: &str, at: usize, key: &str, new: &str) -> String {
    let (before, rest) = text.split_at(at);
    let bare = before.trim_end_matches(['"', '\'']);
    let quote = &before[bare.len()..];
    let line = &bare[bare.rfind('\n').map_or(0, |end| end + 1)..];
    let entry = format!("{quote}{key}{quote}: {}", quoted(new));
    if line.trim().is_empty() {
        let separator = if quote == "\"" { "," } else { "" };
        format!("{bare}{entry}{separator}\n{line}{quote}{rest}")
    } else {
        format!("{bare}{entry}, {quote}{rest}")
    }
}

/// A value that YAML and JSON read alike.
fn quoted(value: &str) -> String {
    Value::from(value).to_string()
}

fn read(text: &str) -> Option<Value> {
    serde_json::to_value(Kubeconfig::from_yaml(text).ok()?).ok()
}

/// The auth-provider's settings of the first user of that name.
fn login<'a>(config: &'a mut Value, user: &str) -> Option<&'a mut serde_json::Map<String, Value>> {
    let users = config.get_mut("users")?.as_array_mut()?;
    let named = users.iter_mut().find(|u| u["name"] == user)?;
    named
        .pointer_mut("/user/auth-provider/config")?
        .as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(id: Option<&str>, refresh: &str) -> Tokens {
        Tokens {
            id: id.map(Into::into),
            refresh: Some(refresh.into()),
        }
    }

    const BLOCK: &str = "# mine\nusers:\n- name: other\n  user: {auth-provider: {name: oidc, config: {id-token: a.b.c, refresh-token: old}}}\n- name: me\n  user:\n    auth-provider:\n      name: oidc\n      config:\n        refresh-token: old # by login\n        id-token: 'a.b.c'\n";

    #[test]
    fn only_the_tokens_of_the_user_change() {
        let old = tokens(Some("a.b.c"), "old");
        let changed = change(BLOCK, "me", &old, &tokens(Some("d.e.f"), "n\"ew")).unwrap();
        let (other, mine) = BLOCK.split_at(BLOCK.find("- name: me").unwrap());
        let mine = mine.replace("old #", "\"n\\\"ew\" #");
        assert_eq!(
            changed,
            other.to_owned() + &mine.replace("'a.b.c'", "\"d.e.f\"")
        );

        let changed = change(BLOCK, "other", &old, &tokens(Some("a.b.c"), "new")).unwrap();
        assert_eq!(changed, BLOCK.replacen(": old}", ": \"new\"}", 1));
    }

    #[test]
    fn a_token_that_was_not_there_is_added() {
        let yaml = "users:\n- name: me\n  user:\n    auth-provider:\n      name: oidc\n      config:\n        refresh-token: old\n";
        let json = r#"{"users":[{"name":"me","user":{"auth-provider":{"name":"oidc","config":{"refresh-token":"old"}}}}]}"#;
        for text in [yaml, json] {
            let changed = change(text, "me", &tokens(None, "old"), &tokens(Some("x"), "old"));
            let changed = changed.unwrap();
            let mut read = read(&changed).unwrap();
            assert_eq!(
                login(&mut read, "me").unwrap()["id-token"],
                "x",
                "{changed}"
            );
        }
        assert!(
            serde_json::from_str::<Value>(
                &change(json, "me", &tokens(None, "old"), &tokens(Some("x"), "old")).unwrap()
            )
            .is_ok()
        );
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        let folded = BLOCK.replace("refresh-token: old #", "refresh-token: &anchor old #");
        let old = tokens(Some("a.b.c"), "old");
        let new = tokens(Some("a.b.c"), "new");
        assert!(change(&folded, "me", &old, &new).is_err());
        assert!(change(BLOCK, "me", &tokens(Some("a.b.c"), "older"), &new).is_err());
        assert!(change(BLOCK, "nobody", &old, &new).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_keeps_its_mode_and_a_read_only_one_its_text() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let link = folder.path().join("link");
        fs::write(&file, BLOCK).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let origin = Origin {
            file: link.clone(),
            user: "me".to_owned(),
        };
        let old = tokens(Some("a.b.c"), "old");
        let new = tokens(Some("a.b.c"), "new");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        write(&origin, &old, &new).unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = fs::read_to_string(&file).unwrap();

        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(
            write(&origin, &new, &old)
                .unwrap_err()
                .contains("read-only")
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "no lock and no copy stays");
    }
}
