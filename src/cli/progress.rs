//! What is shown on standard error while something takes long: on a terminal a spinner with what goes on,
//! elsewhere a line every few seconds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::output;
use super::terminal::{self, word};

/// How long something may take before it shows that it goes on.
const PATIENCE: Duration = Duration::from_millis(800);
/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// How often a line says what goes on, where nothing can spin: a log stays short, and nobody wonders.
const EACH: Duration = Duration::from_secs(5);

/// What is shown now. There is one terminal, so there is one of it.
static CURRENT: Mutex<Option<Arc<Shown>>> = Mutex::new(None);

/// Shows that `what` goes on, once it takes longer than a moment.
pub(super) async fn progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    Spinner::new(what).during(work).await
}

/// Says what is done or waited for from now on, by whatever is shown.
pub(super) fn step(what: &str) {
    if let Some(shown) = current() {
        shown.say(what);
    }
}

/// Prints above what spins, if anything does. Not from within itself.
pub(super) fn above(print: impl FnOnce()) {
    let shown = current();
    let spins = |shown: &&Arc<Shown>| shown.spinning.load(Ordering::Relaxed);
    match shown
        .as_ref()
        .filter(spins)
        .and_then(|shown| shown.bar.as_ref())
    {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// A spinner on a terminal, and lines elsewhere.
pub(super) struct Spinner(Arc<Shown>);

struct Shown {
    bar: Option<ProgressBar>,
    /// Before it spins there is nothing to draw around.
    spinning: AtomicBool,
    step: Mutex<Step>,
}

/// What is done or waited for, and since when.
struct Step {
    what: String,
    since: Instant,
}

impl Spinner {
    /// One that shows nothing yet.
    pub(super) fn new(what: &str) -> Self {
        let bar = terminal::shows_errors().then(|| spinner(what));
        Self(Arc::new(Shown::new(what, bar)))
    }

    /// Shows something else from now on.
    pub(super) fn say(&self, what: &str) {
        self.0.say(what);
    }

    /// Waits for `work`, and shows that it goes on once it takes longer than a moment.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let _current = Current::new(&self.0);
        self.0.during(work, output::note).await
    }
}

impl Shown {
    fn new(what: &str, bar: Option<ProgressBar>) -> Self {
        Self {
            bar,
            spinning: AtomicBool::new(false),
            step: Mutex::new(Step {
                what: what.to_owned(),
                since: Instant::now(),
            }),
        }
    }

    fn say(&self, what: &str) {
        let mut step = lock(&self.step);
        if step.what != what {
            let (what, since) = (what.to_owned(), Instant::now());
            *step = Step { what, since };
        }
        drop(step);
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} …", word(what)));
        }
    }

    async fn during<T>(&self, work: impl Future<Output = T>, line: impl Fn(&str)) -> T {
        let began = Instant::now();
        lock(&self.step).since = began;
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
            return done;
        }
        if let Some(bar) = &self.bar {
            self.spinning.store(true, Ordering::Relaxed);
            bar.enable_steady_tick(TICK);
            return work.await;
        }
        let mut ticks = interval_at(began + EACH, EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = ticks.tick() => {
                    let step = lock(&self.step);
                    let text = format!("{}: {} s", step.what, step.since.elapsed().as_secs());
                    drop(step);
                    line(&text);
                }
            }
        }
    }
}

/// What is shown, until this is dropped; then again what was before.
struct Current {
    shown: Arc<Shown>,
    before: Option<Arc<Shown>>,
}

impl Current {
    fn new(shown: &Arc<Shown>) -> Self {
        Self {
            shown: shown.clone(),
            before: lock(&CURRENT).replace(shown.clone()),
        }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        *lock(&CURRENT) = self.before.take();
        if let Some(bar) = &self.shown.bar {
            bar.finish_and_clear();
        }
    }
}

fn current() -> Option<Arc<Shown>> {
    lock(&CURRENT).clone()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(format!("{} …", word(what)));
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_terminal_a_line_says_every_few_seconds_what_goes_on() {
        let lines = Mutex::new(Vec::new());
        let shown = Shown::new("Intercepting", None);
        let line = |text: &str| lock(&lines).push(text.to_owned());
        let moment = tokio::time::sleep(Duration::from_millis(4900));
        shown.during(moment, line).await;
        assert!(lock(&lines).is_empty());
        let work = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            shown.say("waiting for a name");
            tokio::time::sleep(Duration::from_secs(8)).await;
            shown.say("waiting for a name");
        };
        shown.during(work, line).await;
        let expected = [
            "Intercepting: 5 s",
            "waiting for a name: 2 s",
            "waiting for a name: 7 s",
        ];
        assert_eq!(*lock(&lines), expected);
    }
}
