//! A stream to a pod on a connection that nothing else uses: what a tunnel goes over.

use std::sync::Arc;

use super::form::Form;
use super::open::{OpenError, Opened, open};
use super::pool::PortForward;
use super::stream::PodStream;
use crate::addr::Namespaced;
use crate::dial::{DialError, PodPort};
use crate::tunnel::pool::Trouble;

impl PortForward {
    /// Opens a stream to one port of one pod on a connection of its own, by the best of `forms`,
    /// and says which that was. Dropping the stream closes the connection. It is in no count of
    /// [`PortForward::status`]. Bounded in time; dropping the future closes what it opened.
    pub async fn dedicated(
        &self,
        pod: &Namespaced,
        port: u16,
        forms: &[Form],
    ) -> Result<(PodStream, Form), Trouble> {
        let (client, known, tasks) = (&self.inner.client, &self.inner.form, &self.inner.tasks);
        let at = PodPort {
            pod: pod.clone(),
            uid: String::new(),
            port,
        };
        let (target, counters) = (format!("port {port} of pod {}", pod.name), Arc::default());
        let opened = open(client, known, forms, &at, &target, &counters, tasks).await;
        let failed = |OpenError { error, passing, .. }| Trouble { error, passing };
        match opened.map_err(failed)? {
            (Opened::Stream(stream), form) => Ok((stream, form)),
            (Opened::Connection(connection), form) => match connection.open(port, &target) {
                Some(stream) => Ok((stream.alone(), form)),
                None => Err(Trouble::passing(DialError::Cluster {
                    reason: "a new connection was closed at once".to_owned(),
                    fix: String::new(),
                })),
            },
        }
    }
}
