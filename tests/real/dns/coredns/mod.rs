//! All answers of kdev beside those of the cluster's own CoreDNS, over one of each kind of object.

mod asking;
mod differing;
mod objects;
mod questions;

use std::process::Command;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::Value;

use self::asking::{Question, Said, Server, laptops_resolver};
use super::stage::{own_server, with_resolv_conf};
use crate::lab;
use crate::program::{Running, kdev};
use crate::site::Site;

/// How long the two may differ after a change: the one hears of it before the other.
const SETTLE: Duration = Duration::from_secs(30);
/// Answers with records that there are at least among those that are compared.
const LEAST: usize = 1000;
/// CoreDNS needs EndpointSlices of version 1.
const OLDEST: u32 = 21;

/// The objects in a namespace of their own, and what the two say about them.
struct Stage {
    site: Site,
    coredns: Server,
    kdev: Server,
    _running: Running,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// `kdev connect` on `ip`, as `account` makes its kubeconfig in the namespace; the laptop's
    /// resolver is on `resolver`.
    fn set_up(ip: &str, resolver: &str, account: impl FnOnce(&Site) -> String) -> Self {
        let site = Site::create("coredns");
        // A pod of the node's network is nothing for the other levels.
        let level = "pod-security.kubernetes.io/enforce=privileged";
        lab::kubectl(&["label", "namespace", &site.0, level]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), objects::list(&site.0).to_string()).unwrap();
        site.kubectl(&["apply", "-f", file.path().to_str().unwrap()])
            .unwrap();
        site.wait("its pods", |site| {
            let pods = site.object("pods")["items"].clone();
            let is = |name: &str, good: fn(&Value) -> bool| {
                let mut pods = pods.as_array().into_iter().flatten();
                pods.any(|pod| pod["metadata"]["name"] == name && good(&pod["status"]))
            };
            let ready = |status: &Value| {
                let mut conditions = status["conditions"].as_array().into_iter().flatten();
                conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
            };
            let runs = |status: &Value| status["podIPs"].is_array();
            objects::READY.iter().all(|name| is(name, ready))
                && objects::UNREADY.iter().all(|name| is(name, runs))
                && is(objects::OVER, |status| status["phase"] == "Succeeded")
        });
        site.kubectl(&["delete", "pod", objects::ENDING, "--wait=false"])
            .unwrap();
        let account = account(&site);
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("resolv.conf");
        std::fs::write(&conf, format!("nameserver {resolver}\n")).unwrap();
        laptops_resolver(resolver);
        let mut command: Command = kdev(&account);
        command.args(["-n", &site.0, "connect", "--json"]);
        command.args(["--dns-listen", &format!("{ip}:53")]);
        let running = Running::start(&mut with_resolv_conf(&conf, &command));
        Self {
            coredns: Server::connect(&own_server()),
            kdev: Server::connect(ip),
            site,
            _running: running,
            _folder: folder,
        }
    }

    /// What the two say.
    fn both(&mut self, question: &Question) -> [Said; 2] {
        // At a time: one thinks while the other does.
        self.kdev.send(question);
        self.coredns.send(question);
        [self.kdev.receive(question), self.coredns.receive(question)]
    }

    /// Asks both, and again where they differ, until they do no more.
    fn compare(&mut self, questions: &[Question]) {
        let begun = Instant::now();
        let mut open: Vec<&Question> = questions.iter().collect();
        let mut answered = 0;
        loop {
            let mut differing = Vec::new();
            for question in open {
                let [own, other] = self.both(question);
                answered += usize::from(other.has_answers());
                if own != other && !own.is_nobodys(question, &other) {
                    differing.push((question, own, other));
                }
            }
            if differing.is_empty() {
                break;
            }
            if begun.elapsed() > SETTLE {
                for ((name, kind), own, other) in differing.iter().take(50) {
                    println!("{name} {kind}\n  kdev     {own}\n  CoreDNS  {other}");
                }
                panic!("{} of {} answers differ", differing.len(), questions.len());
            }
            open = differing
                .into_iter()
                .map(|(question, ..)| question)
                .collect();
            std::thread::sleep(Duration::from_millis(200));
        }
        let took = begun.elapsed();
        println!(
            "{} answers are equal, {answered} of them with records ({took:.1?})",
            questions.len()
        );
        assert!(answered >= LEAST, "hardly anything is there: {answered}");
    }
}

fn is_old() -> bool {
    lab::older_than(OLDEST, "this server has no EndpointSlices for it")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn every_answer_is_that_of_coredns() {
    if is_old() {
        return;
    }
    let mut stage = Stage::set_up("127.0.0.79", "127.0.0.80", |_| "admin".to_owned());
    let mut questions = questions::all(&stage.site);
    let differing = differing::all(&stage.site.0);
    questions.retain(|question| {
        differing
            .iter()
            .all(|differs| differs.question != *question)
    });
    assert!(questions.len() > 10_000, "{}", questions.len());
    stage.compare(&questions);
    for differs in differing {
        differs.check(&mut stage);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn who_sees_one_namespace_alone_gets_the_same_about_it() {
    if is_old() {
        return;
    }
    let mut account = None;
    let mut stage = Stage::set_up("127.0.0.81", "127.0.0.82", |site| {
        let viewer = site.account("viewer");
        let flag = format!("--serviceaccount={}:{}", site.0, viewer.0);
        let bind = ["create", "rolebinding", "view", "--clusterrole=view", &flag];
        site.kubectl(&bind).unwrap();
        account.insert(viewer).0.clone()
    });
    let mut questions = questions::all(&stage.site);
    let kinds = [
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::PTR,
    ];
    // Whether there is another namespace is not for this user to know.
    let hidden = format!("nowhere-{}", stage.site.0);
    questions.retain(|(name, kind)| kinds.contains(kind) && !name.contains(&hidden));
    stage.compare(&questions);
    for (name, said) in [
        // Refused rather than "not there": a program must not remember what is wrong.
        (
            "kubernetes.default.svc.cluster.local".to_owned(),
            "ServFail",
        ),
        (format!("{hidden}.svc.cluster.local"), "NoError aa"),
        (format!("own4.{hidden}.svc.cluster.local"), "ServFail"),
    ] {
        let question = (name, RecordType::A);
        let own = stage.kdev.ask(&question).to_string();
        assert!(own.starts_with(said), "{question:?}: {own}");
    }
}
