//! What the user can do: the answers that the checks add up to.

use super::check::{Answer, Check, Status};
use super::permissions::PREFIX;
use super::rights::{self, Allowed, INSTALL, INTERCEPT, Rights, lacking};
use super::{containers, forms, rehearsal, relay};
use crate::k8s::access::Permission;

/// What is known of a cluster that was reached, besides its checks.
pub(super) struct Facts {
    pub(super) namespace: String,
    /// Rights that everything takes and the user lacks.
    pub(super) missing: Vec<Permission>,
    pub(super) rights: Rights,
    pub(super) relay: relay::State,
    /// The Role to ask for.
    pub(super) role: Option<String>,
}

/// An answer that is not of any command yet.
#[derive(Clone)]
struct Verdict {
    can: Option<bool>,
    reason: Option<String>,
    fix: Option<String>,
    checks: Vec<String>,
}

impl Verdict {
    fn yes(remark: Option<String>) -> Self {
        Self {
            can: Some(true),
            reason: remark,
            fix: None,
            checks: Vec::new(),
        }
    }

    fn unknown(why: &str) -> Self {
        Self {
            can: None,
            reason: Some(why.to_owned()),
            fix: None,
            checks: Vec::new(),
        }
    }

    fn no(reason: String, fix: Option<String>, checks: Vec<String>) -> Self {
        Self {
            can: Some(false),
            reason: Some(reason),
            fix,
            checks,
        }
    }

    /// No, as this check has it.
    fn by(check: &Check) -> Self {
        Self::no(
            check.detail.clone(),
            check.fix.clone(),
            vec![check.id.clone()],
        )
    }

    fn of(self, command: &str) -> Answer {
        Answer {
            command: command.to_owned(),
            can: self.can,
            reason: self.reason,
            fix: self.fix,
            checks: self.checks,
        }
    }
}

/// The answers, in the order in which a user comes to need the commands. Without `facts` the cluster was
/// not reached.
pub(super) fn of(checks: &[Check], facts: Option<&Facts>) -> Vec<Answer> {
    let using = using(checks, facts);
    let mut run = using.clone();
    if run.can == Some(true)
        && let Some(containers) = find(checks, containers::REACH.0)
        && containers.status == Status::Warn
    {
        run.reason = Some("commands; containers do not reach it, see below".to_owned());
    }
    vec![
        run.of("run"),
        using.clone().of("forward"),
        using.clone().of("connect"),
        intercept(checks, facts, using).of("intercept"),
        install(checks, facts).of("install"),
    ]
}

fn find<'a>(checks: &'a [Check], id: &str) -> Option<&'a Check> {
    checks.iter().find(|check| check.id == id)
}

/// Whether names lead to pods.
fn using(checks: &[Check], facts: Option<&Facts>) -> Verdict {
    let Some(first) = checks.iter().find(|check| check.is_fatal()) else {
        let untried = find(checks, forms::ID).filter(|check| check.status == Status::Skipped);
        return Verdict::yes(untried.map(|check| format!("not tried: {}", check.detail)));
    };
    let Some(facts) = facts.filter(|_| first.id.starts_with(PREFIX)) else {
        return Verdict::by(first);
    };
    let namespace = &facts.namespace;
    let rests_on = |check: &&Check| check.is_fatal() && check.id.starts_with(PREFIX);
    let rests_on = checks.iter().filter(rests_on).map(|check| check.id.clone());
    Verdict::no(
        lacking(&facts.missing, namespace),
        Some(format!(
            "ask whoever runs the cluster for the role `kdev-use` of kdev's cluster/rbac in namespace \
             {namespace}, for the built-in `edit`, or for the Role below"
        )),
        rests_on.collect(),
    )
}

/// Whether an intercept would get as far as looking at its Service, be it a global or a personal one: both
/// take the same.
fn intercept(checks: &[Check], facts: Option<&Facts>, using: Verdict) -> Verdict {
    let Some(facts) = facts.filter(|_| using.can == Some(true)) else {
        return using;
    };
    let by = |id: &str| find(checks, id).map_or_else(|| Verdict::unknown(id), Verdict::by);
    if let Allowed::Lacking(_) = facts.rights.intercept {
        return by(INTERCEPT.0);
    }
    let namespace = &facts.namespace;
    match (&facts.relay, &facts.rights.intercept) {
        (relay::State::Absent, _) => {
            let fix = match facts.rights.install {
                Allowed::Lacking(_) => rights::role_to_install(namespace),
                Allowed::Yes | Allowed::Unknown(_) => {
                    format!("`kdev install -n {namespace}` puts one there")
                }
            };
            let reason = format!("no relay is installed in namespace {namespace}");
            Verdict::no(reason, Some(fix), vec![relay::RELAY.0.to_owned()])
        }
        (relay::State::Unusable(id), _) => by(id),
        (relay::State::Unknown(why), _) | (_, Allowed::Unknown(why)) => Verdict::unknown(why),
        (relay::State::Usable, _) => Verdict::yes(None),
    }
}

/// Whether the relay can be put into the namespace, which takes no port-forward.
fn install(checks: &[Check], facts: Option<&Facts>) -> Verdict {
    let Some(facts) = facts else {
        return using(checks, None);
    };
    let by = |id: &str| find(checks, id).map_or_else(|| Verdict::unknown(id), Verdict::by);
    match &facts.rights.install {
        Allowed::Lacking(_) => return by(INSTALL.0),
        Allowed::Unknown(why) => return Verdict::unknown(why),
        Allowed::Yes => {}
    }
    match find(checks, rehearsal::ID) {
        Some(check) if check.status == Status::Warn => Verdict::by(check),
        Some(check) if check.status == Status::Skipped => {
            Verdict::yes(Some(format!("no dry run: {}", check.detail)))
        }
        Some(_) | None => Verdict::yes(None),
    }
}
