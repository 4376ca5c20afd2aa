use crate::support::{Home, text};

#[test]
fn a_missing_argument_is_a_usage_error_that_shows_how() {
    let home = Home::new();
    for (line, example) in [
        (&["forward"][..], "kdev forward pg.shop:5432"),
        (&["intercept", "orders"], "kdev intercept orders --to 8080"),
        (
            &["run", "-n", "shop"],
            "kdev run -- curl http://orders.shop/",
        ),
        (&["leave"], "kdev leave orders"),
        (
            &["resolve", "--json"],
            "kdev resolve pg-0.pg.shop.svc:5432 --json",
        ),
        (&["completions"], "kdev completions bash"),
        (
            &["config", "check", "--user"],
            "kdev config check --user FILE",
        ),
        (
            &["install", "--show-keys"],
            "kdev install -n dev --dry-run --show-keys > relay.yaml",
        ),
    ] {
        let output = home.output(line);
        let code = if line[0] == "run" { 125 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{line:?}");
        assert!(output.stdout.is_empty(), "{line:?}");
        let said = text(&output.stderr);
        assert!(said.starts_with("error: the following required"), "{said}");
        assert!(said.contains("\n\nUsage: kdev "), "{said}");
        assert!(
            said.contains(&format!("\n\nExample: {example}\n\n")),
            "{said}"
        );
    }
    // What is wrong otherwise needs none.
    let output = home.output(&["forward", "--fly"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!text(&output.stderr).contains("Example"));
}

#[test]
fn options_of_every_command_stand_on_a_page_of_their_own() {
    let home = Home::new();
    let page = text(&home.output(&["options"]).stdout);
    for option in [
        "--kubeconfig",
        "--login-timeout",
        "--log-format",
        "--verbose",
    ] {
        assert!(page.contains(option), "{page}");
    }
    for words in [["help", "options"], ["options", "--help"]] {
        let output = home.output(&words);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout), page, "{words:?}");
    }
    // A command shows those that mean something to it, and takes the others all the same.
    let help = text(&home.output(&["config", "schema", "--help"]).stdout);
    assert!(!help.contains("--kubeconfig"), "{help}");
    assert!(help.contains("kdev help options"), "{help}");
    let taken = home.output(&["config", "schema", "--kubeconfig", "file", "--as", "ada"]);
    assert_eq!(taken.status.code(), Some(0), "{}", text(&taken.stderr));
}
