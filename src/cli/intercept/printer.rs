//! What intercepts print while they go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::super::terminal::word;
use super::super::{output, progress};
use crate::app::intercept::{Begun, Event, Teller, mine};
use crate::intercept::reverse::Served;
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
            Event::Note(text) => output::note(text),
            Event::Step(_) => {}
            // It ends the command, whose last words say it.
            Event::Ended { .. } if self.out == Out::Lines => {}
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
        text += &format!("  app   does not answer yet ({down}): start it, or mend --to\n");
    }
    for other in overlaps {
        text += &format!(
            "  also  a request may be one of {}'s as well ({}, claim {}): more conditions go \
             first, then the older\n",
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

/// The status, or why there is none.
fn outcome(copy: bool, served: &Served) -> String {
    match (served.status, copy) {
        (0, true) => "no answer".to_owned(),
        (0, false) => "caller left".to_owned(),
        (status, _) => status.to_string(),
    }
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
            "ms": served.took.as_secs_f64() * 1e3,
        }),
        Event::Note(text) => json!({"event": "note", "text": text}),
        Event::Step(what) => json!({"event": "step", "text": what}),
        Event::Ended {
            id,
            service,
            reason,
        } => json!({"event": "ended", "id": id, "service": service, "reason": reason}),
    }
}
