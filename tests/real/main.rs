//! Scenarios against a real Kubernetes: `cluster/lab/test` brings one up and runs them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod app;
mod balance;
mod callers;
mod capture;
mod catalog;
mod client;
mod composed;
mod container;
mod corporate;
mod dns;
mod doctor;
#[path = "../common/done.rs"]
mod done;
mod engines;
mod families;
mod faults;
mod firewall;
mod forms;
mod garbage;
mod hostile;
mod install;
mod installed;
mod intercept;
mod joined;
mod lab;
mod listed;
mod logins;
mod manifests;
mod names;
mod narrow;
mod outages;
mod peer;
mod portforward;
mod probe;
mod program;
mod recorder;
mod redirect;
mod relay;
mod rights;
mod run;
mod sharing;
mod site;
mod slow;
mod team;
#[path = "../common/thief.rs"]
mod thief;
mod traffic;
mod transcripts;
