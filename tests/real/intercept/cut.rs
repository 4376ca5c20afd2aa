//! A laptop whose network is cut.

use std::path::Path;
use std::process::Command;

use super::app::{App, SCRIPT};
use super::faults::{ANNS, pause};
use super::noticed::{Fault, POOLED, Stage, assert_others_served};
use super::session::Intercept;
use crate::lab;
use crate::outages::line::{self, Line};
use crate::outages::mobile::{self, Mobile};
use crate::program::kdev_with;
use crate::team::Team;

/// How long the network is away.
const CUT: u64 = 15;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_laptop_whose_network_is_cut_disturbs_nobody_else() {
    if lab::leaves_out_long() {
        return;
    }
    // The line goes on from here to the API server, which learns nothing of the cut.
    let (folder, mobile) = (tempfile::tempdir().unwrap(), Mobile::set_up());
    let (team, kubeconfig) = tokio::task::block_in_place(|| {
        let team = Team::set_up("cut", true);
        let kubeconfig = team.place.account.kubeconfig();
        (team, kubeconfig)
    });
    let line = Line::new(mobile::here(), line::server(&kubeconfig)).await;
    let over = line::over(&kubeconfig, line.address, folder.path());
    tokio::task::block_in_place(|| cut(team, &mobile, &over));
}

fn cut(team: Team, mobile: &Mobile, kubeconfig: &Path) {
    let mut app = Command::new("python3");
    let ann = App::start("ann", mobile.command(app.args([SCRIPT, "laptop-of-ann"])));
    let mut kdev = kdev_with(kubeconfig);
    let to = ann.port.to_string();
    kdev.args([
        "intercept",
        "--json",
        "orders",
        "--to",
        &to,
        "--header",
        ANNS,
    ]);
    kdev.env("KDEV_OWNER", "ann");
    let live = Intercept::attempt(&mut mobile.command(&kdev));
    let live = live.unwrap_or_else(|why| panic!("{why:?}"));
    let stage = Stage::watch(team, ann, live, POOLED);
    let mut fault = Fault::now("cut", 0.0);
    let away = mobile.cut();
    pause(CUT);
    drop(away);
    fault.over = stage.comes("the network is back");
    pause(3);
    let past = stage.end();
    fault.noticed(&past.calls);
    assert_others_served(&past.calls, &[]);
    past.assert_matched(&[fault]);
    let slowest = past.owners().map(|call| call.took).reduce(f64::max);
    println!("the slowest of the owner's took {slowest:?} s");
}
