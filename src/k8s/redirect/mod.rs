//! Bringing a Service's traffic to the relay and back, with nothing but the right to change
//! Services.
//!
//! * [`marks`]: all labels and annotations that this writes
//! * [`swap`], [`fields`]: what is changed of the Service, and how that is undone
//! * [`origin`], [`block`]: the Service that leads from the relay to the original pods, and its ports
//! * [`preflight`], [`rights`], [`policies`], [`keys`]: what is looked at before anything is changed
//! * [`reach`], [`behind`], [`ways`]: what is tried from inside of the cluster before a Service is
//! * [`cut`], [`doubt`]: callers who are cut off in the middle
//! * [`missing`]: why a Service is not there
//! * [`engage`], [`guard`], [`leave`], [`watch`]: how an intercept begins, goes on and ends
//! * [`drain`](mod@drain), [`evict`]: old connections come along
//! * [`list`](mod@list), [`sweep`]: those that are there, and putting back what was left behind

mod behind;
mod block;
mod cut;
mod doubt;
mod drain;
mod engage;
mod events;
mod evict;
mod fields;
mod guard;
mod keys;
mod leave;
pub mod list;
pub mod marks;
mod missing;
mod object;
mod origin;
mod policies;
mod preflight;
mod reach;
mod rights;
mod site;
mod swap;
pub mod sweep;
mod watch;
mod ways;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use self::behind::served;
pub use self::drain::drain;
pub use self::guard::Guard;
pub use self::rights::permissions;
use self::site::Site;
use self::watch::Following;
pub use self::ways::{Doing, Replica, Ways, through_tunnels};
use super::Client;
use super::install::shape;
use crate::intercept::redirect::{Redirect, RedirectError, Wanted};
use crate::task::Tasks;

/// Redirects Services of one namespace. Cloning is shallow.
#[derive(Clone)]
pub struct Redirector {
    inner: Arc<Inner>,
}

struct Inner {
    site: Site,
    ways: Arc<dyn Ways>,
    /// What is asked of the Services that this makes.
    asked: shape::Asked,
    tasks: Tasks,
    /// What is watched, by Service: many claims of one session share it.
    followed: Mutex<HashMap<String, Weak<Following>>>,
}

impl std::fmt::Debug for Redirector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Redirector").field(&self.inner.site).finish()
    }
}

impl Redirector {
    /// Redirects Services of `namespace`, where `ways` are what can be tried. `tasks` owns what watches them.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, ways: Arc<dyn Ways>, tasks: &Tasks) -> Self {
        Self::marking(client, namespace, ways, &shape::Asked::default(), tasks)
    }

    /// The same, where the Services that this makes have these labels and annotations.
    #[must_use]
    pub fn marking(
        client: &Client,
        namespace: &str,
        ways: Arc<dyn Ways>,
        asked: &shape::Asked,
        tasks: &Tasks,
    ) -> Self {
        let site = Site {
            client: client.clone(),
            namespace: namespace.to_owned(),
        };
        Self {
            inner: Arc::new(Inner {
                site,
                ways,
                asked: asked.clone(),
                tasks: tasks.clone(),
                followed: Mutex::default(),
            }),
        }
    }

    fn site(&self) -> &Site {
        &self.inner.site
    }

    /// What happens to a Service from now on, and to what this put beside it.
    fn follow(&self, service: &str, origin: &str) -> Arc<Following> {
        let followed = self.inner.followed.lock();
        let mut followed = followed.unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, following| following.strong_count() > 0);
        let key = format!("{service} {origin}");
        if let Some(following) = followed.get(&key).and_then(Weak::upgrade) {
            return following;
        }
        let following = Arc::new(watch::follow(
            self.site(),
            service,
            origin,
            &self.inner.tasks,
        ));
        followed.insert(key, Arc::downgrade(&following));
        following
    }
}

impl Redirect for Redirector {
    type Redirected = Guard;

    async fn redirect(&self, wanted: Wanted) -> Result<Guard, RedirectError> {
        engage::engage(self, wanted).await
    }
}
