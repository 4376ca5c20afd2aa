//! Who may have what beside whom.

use super::app::App;
use super::assert_as_before;
use super::session::{Intercept, Refused, command};
use crate::team::Team;

/// One more who wants something, in a session of their own.
fn another(team: &Team, owner: &str, args: &[&str]) -> Result<Intercept, Refused> {
    let args = [args, &["--to", "9"]].concat();
    Intercept::attempt(&mut command(team, owner, &args))
}

/// It fails, and says who is in the way and with what.
fn assert_refused(team: &Team, args: &[&str], why: &[&str]) {
    match another(team, "carol", args) {
        Ok(live) => panic!("{args:?}: {}", live.told()),
        Err((code, said)) => {
            println!("{args:?}: {said}");
            assert_eq!(code, Some(1), "{args:?}: {said}");
            assert!(why.iter().all(|why| said.contains(why)), "{args:?}: {said}");
        }
    }
}

/// Each is let in; gives them all, live at the same time.
fn admit(team: &Team, all: &[&[&str]]) -> Vec<Intercept> {
    let start = |args: &[&str]| {
        another(team, "bob", args).unwrap_or_else(|refused| panic!("{args:?}: {refused:?}"))
    };
    std::thread::scope(|scope| {
        let start = &start;
        let starting: Vec<_> = all
            .iter()
            .map(|args| scope.spawn(move || start(args)))
            .collect();
        starting
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect()
    })
}

fn end(all: Vec<Intercept>) {
    std::thread::scope(|scope| {
        for one in all {
            scope.spawn(|| one.end());
        }
    });
}

#[test]
#[ignore = "needs the lab"]
fn who_would_take_what_somebody_has_is_refused_by_name() {
    let team = Team::set_up("conflicts", true);
    let ann = App::of("ann");
    let anns = Intercept::live(&team, &ann, &["orders", "--header", "x-user: ann"]);
    let why = ["ann", "x-user"];
    // Equal, a part of it, and all that it is a part of.
    assert_refused(&team, &["orders", "--header", "x-user: ann"], &why);
    assert_refused(
        &team,
        &["orders", "--header", "X-User: ann", "--path-prefix", "/a"],
        &why,
    );
    assert_refused(&team, &["orders", "--header", "x-user~=a.*"], &why);
    assert_refused(&team, &["orders"], &why);
    // Nothing in common; may have something in common; only copies; another port.
    let others = admit(
        &team,
        &[
            &["orders", "--header", "x-user: bob"],
            &["orders", "--header", "x-team: a"],
            &["orders", "--path-prefix", "/a"],
            &["orders", "--mirror"],
            &["orders", "--mirror", "--header", "x-user: ann"],
            &["orders:admin"],
        ],
    );
    let with_ann = |live: &Intercept| {
        let overlaps = live.live["overlaps"].as_array().unwrap();
        overlaps.iter().any(|other| other["owner"] == "ann")
    };
    let told: Vec<bool> = others.iter().map(with_ann).collect();
    assert_eq!(told, [false, true, true, false, false, false]);
    end(others);

    anns.end();
    let all = Intercept::live(&team, &ann, &["orders"]);
    assert_refused(&team, &["orders", "--header", "x-user: bob"], &["ann"]);
    assert_refused(&team, &["orders"], &["ann"]);
    let copies = admit(&team, &[&["orders", "--mirror"]]);
    end(copies);
    all.end();
}

/// At the same time, as twelve processes.
#[test]
#[ignore = "needs the lab"]
fn one_of_twelve_wins() {
    let team = Team::set_up("twelve", true);
    let before = team.objects();
    let (won, lost) = std::thread::scope(|scope| {
        let team = &team;
        let start = |n: usize| move || another(team, &format!("person-{n}"), &["orders"]);
        let starting: Vec<_> = (0..12).map(|n| scope.spawn(start(n))).collect();
        let all = starting.into_iter().map(|one| one.join().unwrap());
        let (won, lost): (Vec<_>, Vec<_>) = all.partition(Result::is_ok);
        let won: Vec<_> = won.into_iter().filter_map(Result::ok).collect();
        let lost: Vec<_> = lost.into_iter().filter_map(Result::err).collect();
        (won, lost)
    });
    assert_eq!(won.len(), 1, "{lost:?}");
    let owner = won[0].live["owner"].as_str().unwrap();
    for (code, said) in &lost {
        assert_eq!(*code, Some(1), "{said}");
        assert!(said.contains(owner), "not because of {owner}: {said}");
    }
    won.into_iter().for_each(Intercept::end);
    assert_as_before(&team, &before);
}
