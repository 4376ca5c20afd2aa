//! Asks the API server whose an address is, and what names it has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::feed::escaped;
use super::learn::{Learned, SERVICE, SLICES, pods_of};
use super::object::{Meta, Page, RawEndpoints, RawPod, RawService};
use super::shared::{Kind, Shared};
use super::store::Owner;
use crate::dial::DialError;
use crate::dns;

/// An address can be asked for only where the user may list: in one namespace.
pub(super) async fn address(
    shared: &Arc<Shared>,
    namespace: &str,
    ip: IpAddr,
    learned: &mut Learned,
) -> Result<bool, DialError> {
    // Both kinds, whichever the snapshot has: what it lacks is why it was asked at all, and a
    // Service's address needs its pods too.
    let path = format!("/api/v1/namespaces/{namespace}/services?limit=500");
    if let Some(page) = listed::<RawService>(shared, &path).await {
        for raw in &page.items {
            learned.store.apply_service(raw);
            if let Some(Owner::Service(..)) = learned.store.owner(ip) {
                pods_of(shared, raw, learned).await?;
                return Ok(true);
            }
        }
    }
    let selector = escaped(&format!("status.podIP={ip}"));
    let path = format!("/api/v1/namespaces/{namespace}/pods?fieldSelector={selector}");
    if let Some(page) = listed::<RawPod>(shared, &path).await {
        for raw in &page.items {
            learned.store.apply_pod(raw);
        }
    }
    Ok(learned.store.owner(ip).is_some())
}

/// The names of an address that is not in the snapshot.
pub(super) async fn reverse(
    shared: &Arc<Shared>,
    ip: IpAddr,
    learned: &mut Learned,
) -> Result<bool, DialError> {
    let home = shared.client.namespace();
    let is_seen =
        shared.read_with(|_, is_live| is_live(Kind::Services, home) && is_live(Kind::Pods, home));
    if !is_seen && address(shared, home, ip, learned).await? {
        return Ok(true);
    }
    // Whoever has the address in a namespace that is watched would be known by now, unless
    // somebody wrote it down as an endpoint.
    learned.names = shared.written.names(shared, ip).await;
    Ok(!learned.names.is_empty())
}

/// Selects the EndpointSlices that do not follow from a selector.
const WRITTEN: &str = "endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io";
/// How long a list of them is good: a burst of questions about addresses costs one list.
const WRITTEN_TTL: Duration = Duration::from_secs(3);

/// The addresses that somebody wrote into EndpointSlices, with their names below the domain.
#[derive(Default)]
pub(super) struct Written(Mutex<Option<(Instant, Names)>>);

/// The names of each address.
type Names = HashMap<IpAddr, Vec<String>>;

impl Written {
    /// The names of an address.
    async fn names(&self, shared: &Shared, ip: IpAddr) -> Vec<String> {
        // Those who ask meanwhile wait for the same list.
        let mut known = self.0.lock().await;
        if known
            .as_ref()
            .is_none_or(|(at, _)| at.elapsed() >= WRITTEN_TTL)
        {
            *known = Some((Instant::now(), Self::list(shared).await));
        }
        let names = known.as_ref().and_then(|(_, names)| names.get(&ip));
        names.cloned().unwrap_or_default()
    }

    /// Lists them in the whole cluster, or in the context's namespace.
    async fn list(shared: &Shared) -> Names {
        let selector = escaped(WRITTEN);
        let home = shared.client.namespace();
        let all = format!("{SLICES}/endpointslices?labelSelector={selector}");
        let own = format!("{SLICES}/namespaces/{home}/endpointslices?labelSelector={selector}");
        for path in [all, own] {
            if let Some(page) = listed::<RawEndpoints>(shared, &path).await {
                return names_of(&page.items);
            }
        }
        HashMap::new()
    }
}

/// The names below the domain that `slices` give to addresses.
fn names_of(slices: &[RawEndpoints]) -> Names {
    let mut names: Names = HashMap::new();
    for slice in slices {
        let Meta {
            namespace, labels, ..
        } = &slice.metadata;
        let Some(service) = labels.get(SERVICE) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().filter(|e| e.is_ready()) {
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse().ok()) {
                let host = match endpoint.hostname.as_str() {
                    "" => dns::dashed(ip),
                    host => host.to_owned(),
                };
                let name = format!("{host}.{service}.{namespace}.svc");
                let all = names.entry(ip).or_default();
                if !all.contains(&name) {
                    all.push(name);
                }
            }
        }
    }
    names
}

/// Attempts at a list before an address counts as nobody's.
const LIST_ATTEMPTS: u32 = 3;
/// Pause between them.
const LIST_PAUSE: Duration = Duration::from_millis(100);

/// A list, or `None` where it cannot be had. What passes, such as a connection that the API server
/// closed while it was being used again, is tried again: an address that is taken for nobody's is
/// dialled from the laptop, which is the wrong network.
async fn listed<T: DeserializeOwned>(shared: &Shared, path: &str) -> Option<Page<T>> {
    for attempt in 1..=LIST_ATTEMPTS {
        match shared.asking.get::<Page<T>>(path).await {
            Ok(page) => return Some(page),
            Err(error) => {
                tracing::debug!(path, attempt, %error, "list failed");
                if !error.is_passing() {
                    return None;
                }
                tokio::time::sleep(LIST_PAUSE).await;
            }
        }
    }
    None
}
