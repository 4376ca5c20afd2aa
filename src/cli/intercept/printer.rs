//! What intercepts print while they go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::terminal::word;
use super::super::{output, progress};
use crate::app::intercept::{Begun, Event, Teller, mine};
use crate::app::kilobytes;
use crate::intercept::reverse::{BrokeOff, Served};
use crate::rule::is_mine;

/// Where to, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// Sentences, on standard output.
    Lines,
    /// Sentences, on standard error: standard output is a command's.
    Beside,
    /// JSON, an event per line, on standard output.
    Json,
}

/// Prints events.
#[derive(Clone)]
pub(super) struct Printer {
    out: Out,
    /// Whether a spinner may stand on the terminal.
    starting: Arc<AtomicBool>,
}

impl Printer {
    pub(super) fn new(out: Out) -> Self {
        Self {
            out,
            starting: Arc::new(AtomicBool::new(true)),
        }
    }

    /// As intercepts take it.
    pub(super) fn teller(&self) -> Teller {
        let this = self.clone();
        Arc::new(move |event| this.print(&event))
    }

    /// All have begun.
    pub(super) fn live(&self) {
        if self.starting.swap(false, Ordering::Relaxed) && self.out == Out::Lines {
            self.line("Ctrl-C gives it back.");
        }
    }

    fn print(&self, event: &Event) {
        if let Event::Step(what) = event {
            return progress::step(what);
        }
        if self.out == Out::Json {
            // That nobody reads it is no reason to end an intercept.
            return drop(output::json(&document(event), false));
        }
        match event {
            Event::Live(begun) => self.line(describe(begun).trim_end()),
            Event::Request {
                service,
                copy,
                served,
            } => self.line(&request(service, *copy, served)),
            Event::BrokeOff {
                service,
                copy,
                answer,
            } => self.line(&broken_off(service, *copy, answer)),
            Event::Note(text) => output::note(text),
            Event::Step(_) => {}
            // Where it ends the command, the last words of that say it.
            Event::Ended { wanted, .. } if *wanted || self.out == Out::Lines => {}
            Event::Ended {
                service, reason, ..
            } => output::note(&format!("the intercept of {service} is over: {reason}")),
        }
    }

    fn line(&self, text: &str) {
        match self.out {
            Out::Lines | Out::Json => drop(output::line(text)),
            Out::Beside => text.lines().for_each(output::note),
        }
    }
}

fn describe(begun: &Begun) -> String {
    let Begun {
        service,
        namespace,
        port,
        claim,
        app,
        overlaps,
        down,
    } = begun;
    let what = match (claim.mirror, claim.conditions.is_everything()) {
        (true, true) => "copies of all requests go".to_owned(),
        (true, false) => format!("copies of requests with {} go", claim.conditions),
        (false, true) => "all requests come".to_owned(),
        (false, false) => format!("requests with {} come", claim.conditions),
    };
    let (curl, open) = claim
        .conditions
        .as_curl(&format!("http://{service}:{port}"));
    let off = match is_taken_by_mine(begun) {
        true => "--mine-header off ",
        false => "",
    };
    let mut text = format!(
        "{service}.{namespace} port {port}: {what} to {app} (claim {}, {})\n\
         \x20 try   kdev run {off}-n {namespace} -- curl {curl}\n",
        claim.id, claim.owner
    );
    for more in open {
        text += &format!("        with {more}\n");
    }
    if let Some(down) = down {
        text += &format!("  app   does not answer yet ({down}): start it, or correct --to\n");
    }
    for other in overlaps {
        text += &format!(
            "  also  {}'s intercept matches some of these requests too ({}, claim {}): the one with \
             more conditions wins, then the older\n",
            word(&other.owner),
            word(&other.conditions.to_string()),
            word(&other.id)
        );
    }
    if !claim.mirror {
        text += "  old   connections from before stay with their pods until they close; --drain \
                 replaces the pods one by one\n";
    }
    text
}

/// Whether an intercept with `--mine` of the same user would get the request to try, because their own
/// proxy says whose it is.
fn is_taken_by_mine(begun: &Begun) -> bool {
    let own = mine(&begun.claim.owner);
    let mut others = begun.overlaps.iter();
    others.any(|other| is_mine(&other.conditions, own) && other.goes_before(&begun.claim))
}

fn request(service: &str, copy: bool, served: &Served) -> String {
    let millis = served.took.as_secs_f64() * 1e3;
    if served.method.is_empty() {
        return format!("{service}  connection closed after {millis:.0} ms");
    }
    let Served { method, path, .. } = served;
    let copy_of = if copy { "copy of " } else { "" };
    let outcome = outcome(copy, served);
    // Whoever calls the Service chose the path.
    let path = word(path);
    format!("{service}  {copy_of}{method} {path}  {outcome}  {millis:.1} ms")
}

/// The status, or that there is none, and why it is not the app's own.
fn outcome(copy: bool, served: &Served) -> String {
    let outcome = match (served.status, copy) {
        (0, true) => "no answer".to_owned(),
        (0, false) => "caller left".to_owned(),
        (status, _) => status.to_string(),
    };
    match &served.why {
        Some(why) => format!("{outcome}  {}", word(why)),
        None => outcome,
    }
}

fn broken_off(service: &str, copy: bool, answer: &BrokeOff) -> String {
    let copy_of = if copy { "copy of " } else { "" };
    format!(
        "{service}  {copy_of}{} {}  {}, broken off after {}: {}  {:.1} ms",
        word(&answer.method),
        word(&answer.path),
        answer.status,
        kilobytes(answer.sent),
        word(&answer.why),
        answer.took.as_secs_f64() * 1e3
    )
}

/// Milliseconds, to the microsecond.
fn millis(took: Duration) -> f64 {
    took.as_micros() as f64 / 1e3
}

fn document(event: &Event) -> Value {
    match event {
        Event::Live(begun) => {
            let conditions = begun.claim.conditions.iter();
            let conditions: Vec<String> = conditions.map(ToString::to_string).collect();
            let overlaps = begun.overlaps.iter().map(|other| {
                json!({"id": other.id, "owner": other.owner,
                       "conditions": other.conditions.to_string()})
            });
            json!({
                "event": "live",
                "id": begun.claim.id,
                "service": begun.service,
                "namespace": begun.namespace,
                "port": begun.port,
                "target": begun.app.to_string(),
                "owner": begun.claim.owner,
                "conditions": conditions,
                "mirror": begun.claim.mirror,
                "overlaps": overlaps.collect::<Vec<_>>(),
                "app_error": begun.down,
            })
        }
        Event::Request {
            service,
            copy,
            served,
        } => json!({
            "event": "request",
            "id": served.id,
            "service": service,
            "method": served.method,
            "path": served.path,
            "status": (served.status > 0 || served.method.is_empty()).then_some(served.status),
            "copy": copy,
            "ms": millis(served.took),
            "reason": served.why,
        }),
        Event::BrokeOff {
            service,
            copy,
            answer,
        } => json!({
            "event": "broken-off",
            "id": answer.id,
            "service": service,
            "method": answer.method,
            "path": answer.path,
            "status": answer.status,
            "bytes": answer.sent,
            "copy": copy,
            "ms": millis(answer.took),
            "reason": answer.why,
        }),
        Event::Note(text) => json!({"event": "note", "text": text}),
        Event::Step(what) => json!({"event": "step", "text": what}),
        Event::Ended {
            id,
            service,
            reason,
            wanted,
        } => json!({
            "event": "ended",
            "id": id,
            "service": service,
            "reason": reason,
            "wanted": wanted,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn served(status: u16, why: Option<&str>) -> Served {
        Served {
            id: "a".to_owned(),
            method: "GET".to_owned(),
            path: "/x".to_owned(),
            status,
            took: Duration::from_micros(3_100),
            why: why.map(str::to_owned),
        }
    }

    #[test]
    fn the_line_of_a_request_says_why_the_app_did_not_answer() {
        for (status, copy, why, shown) in [
            (200, false, None, "orders  GET /x  200  3.1 ms"),
            (0, false, None, "orders  GET /x  caller left  3.1 ms"),
            (
                502,
                false,
                Some("the app closed the connection before it answered"),
                "orders  GET /x  502  the app closed the connection before it answered  3.1 ms",
            ),
            (
                0,
                true,
                Some("the app\u{1b}[2J"),
                "orders  copy of GET /x  no answer  the app\\u{1b}[2J  3.1 ms",
            ),
        ] {
            assert_eq!(request("orders", copy, &served(status, why)), shown);
        }
    }

    #[test]
    fn an_answer_that_broke_off_has_a_line_and_a_document() {
        let answer = BrokeOff {
            id: "a".to_owned(),
            method: "GET".to_owned(),
            path: "/x".to_owned(),
            status: 200,
            sent: 3_100,
            why: "the app closed the connection".to_owned(),
            took: Duration::from_millis(35),
        };
        assert_eq!(
            broken_off("orders", false, &answer),
            "orders  GET /x  200, broken off after 3.1 kB: the app closed the connection  35.0 ms"
        );
        let event = Event::BrokeOff {
            service: "orders".to_owned(),
            copy: false,
            answer,
        };
        let document = document(&event);
        assert_eq!(document["event"], "broken-off");
        assert_eq!(document["bytes"], 3_100);
        assert_eq!(document["reason"], "the app closed the connection");
        let event = Event::Request {
            service: "orders".to_owned(),
            copy: false,
            served: served(502, Some("why")),
        };
        assert_eq!(super::document(&event)["reason"], "why");
    }
}
