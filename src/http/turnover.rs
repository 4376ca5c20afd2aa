//! How soon connections are replaced, where requests shall spread.

use std::time::Duration;

use tokio::time::Instant;

/// When a connection has carried enough.
///
/// What is behind an address, pods behind that of a Service, is chosen anew with each connection
/// and unseen from here. So the shares of requests are those of connections, and come as close to
/// even as there are many of them: of 20 a second, each of 4 pods gets 25 ± 1.25 % over a minute
/// (the standard deviation), and a new pod its share as soon as the old connections are gone.
#[derive(Clone, Copy, Debug)]
pub struct Turnover {
    /// Requests that a connection carries.
    pub requests: u32,
    /// New connections in a second from which on each may carry more, so that a busy destination
    /// costs no more of them.
    pub connections: u32,
    /// How long a connection takes requests.
    pub age: Duration,
    /// Connections of HTTP/2 at a time that requests take turns on.
    pub width: usize,
}

/// How many requests there are.
#[derive(Debug, Default)]
pub(super) struct Rate {
    second: Option<Instant>,
    now: u32,
    last: u32,
}

impl Rate {
    /// One more.
    pub(super) fn count(&mut self, now: Instant) {
        let second = Duration::from_secs(1);
        match self.second {
            Some(began) if now.duration_since(began) < second => self.now += 1,
            began => {
                let next = began.is_some_and(|began| now.duration_since(began) < 2 * second);
                self.last = if next { self.now } else { 0 };
                (self.second, self.now) = (Some(now), 1);
            }
        }
    }
}

impl Turnover {
    /// Whether a connection has carried enough.
    pub(super) fn is_over(&self, served: u32, born: Instant, rate: &Rate) -> bool {
        let most = self
            .requests
            .max(rate.last.max(rate.now) / self.connections.max(1));
        served >= most || born.elapsed() >= self.age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_busy_destination_costs_no_more_connections() {
        let turnover = Turnover {
            requests: 10,
            connections: 20,
            age: Duration::from_secs(4),
            width: 4,
        };
        let (mut rate, born) = (Rate::default(), Instant::now());
        assert!(!turnover.is_over(9, born, &rate));
        assert!(turnover.is_over(10, born, &rate));
        for _ in 0..1000 {
            rate.count(Instant::now());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!turnover.is_over(49, born, &rate));
        assert!(turnover.is_over(50, born, &rate));
        // When it gets quiet it is as before.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        rate.count(Instant::now());
        assert!(turnover.is_over(10, Instant::now(), &rate));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(turnover.is_over(0, born, &rate));
    }
}
