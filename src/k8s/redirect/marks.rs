//! What kdev writes onto objects for an intercept. All of it stands here.
//!
//! | object | mark | says |
//! |---|---|---|
//! | the intercepted Service | label [`INTERCEPTED`] | which Service leads to its original pods |
//! | Service `kdev-PORT` (the *origin*) | label [`ORIGIN_OF`] | the intercepted Service's name |
//! | | annotation [`CLAIMS`] | the claims on it, as JSON |
//! | | annotation [`FIELDS`] | who had set which of its fields, as JSON |
//! | | annotation [`GIVEN_BACK`] | when the last claim went, in seconds since 1970 |
//! | | annotation [`ENDED`] | who took whose claim off, as JSON |
//! | ConfigMap `kdev-relay-ports` | key `PORT` | whose the eight ports from there are, or until when they were |

use crate::k8s::install::{MANAGER, MANAGER_LABEL, NAME};

/// On the intercepted Service: the origin's name, and after a dot something that differs each time
/// it is written, so that whoever gives the Service back notices who takes it at that moment.
pub const INTERCEPTED: &str = "kdev.dev/intercepted";
/// On the origin: whose pods it leads to.
pub const ORIGIN_OF: &str = "kdev.dev/origin-of";
/// On the origin: a JSON list of claims.
pub const CLAIMS: &str = "kdev.dev/claims";
/// On the origin: `metadata.managedFields` of the Service from before the intercept.
pub const FIELDS: &str = "kdev.dev/managed-fields";
/// On the origin, while no claim is left.
pub const GIVEN_BACK: &str = "kdev.dev/given-back";
/// On the origin: a JSON object from claims that somebody else took off to who did.
pub const ENDED: &str = "kdev.dev/ended";

/// Who changes Services to the API server: in audit logs and `metadata.managedFields`.
pub(super) const FIELD_MANAGER: &str = MANAGER;

/// What the relay's pods carry for a key of a selector.
pub(super) fn relay_value(key: &str) -> &'static str {
    match key {
        // They have this label anyway, with this value.
        MANAGER_LABEL => MANAGER,
        _ => NAME,
    }
}
