//! What takes longer than a second is said each second, so that nobody wonders.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::intercept::redirect::Say;

/// After how long it is said what is waited for, and how often from then on.
const EACH: Duration = Duration::from_secs(1);

/// Waits for `doing`, and says each second that it waits for `what`.
pub(super) async fn slow<T>(say: &Say, what: &str, doing: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut ticks = interval_at(began + EACH, EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut doing = std::pin::pin!(doing);
    loop {
        tokio::select! {
            biased;
            done = &mut doing => return done,
            _ = ticks.tick() => {
                say(format!("waiting for {what}: {} s", began.elapsed().as_secs()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_said_each_second_and_no_other() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let all = said.clone();
        let say: Say = Arc::new(move |text| all.lock().unwrap().push(text));
        slow(&say, "a blink", sleep(Duration::from_millis(900))).await;
        assert!(said.lock().unwrap().is_empty());
        slow(&say, "a name", sleep(Duration::from_millis(2500))).await;
        let expected = ["waiting for a name: 1 s", "waiting for a name: 2 s"];
        assert_eq!(*said.lock().unwrap(), expected);
    }
}
