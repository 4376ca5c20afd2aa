use super::super::groups::{GROUPS, group};
use super::*;
use crate::config::{SETTINGS, on};

/// The command line, built for a terminal of a width.
fn built(width: usize) -> Command {
    let mut root = command().term_width(width);
    root.build();
    root
}

/// Every command with its words, `kdev` itself too, and hidden ones.
fn all(root: &Command) -> Vec<(Vec<String>, Command)> {
    fn walk(command: &Command, before: &[String], out: &mut Vec<(Vec<String>, Command)>) {
        let words = [before, &[command.get_name().to_owned()]].concat();
        // Clap's own has a copy of each.
        for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
            walk(inner, &words, out);
        }
        out.push((words, command.clone()));
    }
    let mut out = Vec::new();
    walk(root, &[], &mut out);
    out
}

/// Both forms of a command's help, each with what stands behind its options.
fn helps(command: &Command) -> [(String, String); 2] {
    let mut command = command.clone();
    let text = |text: Option<&StyledStr>| text.map(ToString::to_string).unwrap_or_default();
    let short = text(command.get_after_help());
    let long = text(
        command
            .get_after_long_help()
            .or_else(|| command.get_after_help()),
    );
    [
        (command.render_help().to_string(), short),
        (command.render_long_help().to_string(), long),
    ]
}

/// The words of kdev's own command in an example, as a shell divides them.
fn words(example: &str) -> Option<Vec<String>> {
    let line = &example[example.find("kdev ")?..];
    let ends = [" | ", " > ", ")"];
    let end = ends.iter().filter_map(|end| line.find(end)).min();
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line[..end.unwrap_or(line.len())].chars() {
        match (c, quoted) {
            ('\'', _) => quoted = !quoted,
            (' ', false) => words.push(String::new()),
            _ => words.last_mut()?.push(c),
        }
    }
    Some(words)
}

fn refused(line: &[String]) -> Option<clap::Error> {
    command().try_get_matches_from(line).err()
}

#[test]
fn every_option_has_its_group_and_every_command_its_place() {
    let root = built(WIDTH);
    let settings = SETTINGS.iter().map(|setting| setting.key);
    let global = root.get_arguments().filter(|arg| arg.is_global_set());
    let options: Vec<&str> = settings
        .chain(global.map(|arg| arg.get_id().as_str()))
        .collect();
    for option in &options {
        let in_it = GROUPS.iter().filter(|group| group.options.contains(option));
        let groups: Vec<_> = in_it.map(|group| group.heading).collect();
        assert!(
            groups.len() == 1,
            "--{option} belongs into one group of src/cli/groups.rs, is in {groups:?}"
        );
    }
    for option in GROUPS.iter().flat_map(|group| group.options) {
        assert!(options.contains(option), "there is no --{option}");
    }
    let listed: Vec<&str> = COMMANDS
        .iter()
        .flat_map(|(_, commands)| commands.iter().map(|shows| shows.command))
        .collect();
    let visible = root.get_subcommands().filter(|c| !c.is_hide_set());
    let mut visible: Vec<&str> = visible.map(Command::get_name).collect();
    let mut sorted = listed.clone();
    visible.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(sorted, visible, "each command stands in one group");
}

#[test]
fn options_are_shown_where_they_mean_something_and_taken_everywhere() {
    for (path, command) in all(&built(WIDTH)) {
        let name = path.get(1).map_or("", String::as_str);
        let [_, (help, _)] = helps(&command);
        let hidden = SETTINGS
            .iter()
            .filter(|s| s.on & on::ALL != 0)
            .filter(|setting| {
                let shown = is_shown(name, setting.key);
                let flag = format!("      --{} <", setting.key);
                let flag = match setting.short {
                    Some(short) => format!("  -{short}, --{} <", setting.key),
                    None => flag,
                };
                assert_eq!(
                    help.contains(&flag),
                    shown,
                    "{path:?} --{}:\n{help}",
                    setting.key
                );
                !shown
            });
        if hidden.count() > 0 && !name.is_empty() {
            assert!(help.trim_end().ends_with(ELSEWHERE), "{path:?}:\n{help}");
        }
    }
    // No group is named in vain.
    for shows in COMMANDS.iter().flat_map(|(_, commands)| *commands) {
        let found = built(WIDTH);
        let Some(found) = found.find_subcommand(shows.command) else {
            continue;
        };
        let [_, (help, _)] = helps(found);
        for group in shows.groups.iter().filter(|_| shows.command != "options") {
            assert!(
                help.contains(&format!("\n{}:\n", group.heading)),
                "{}",
                shows.command
            );
        }
    }
    let options = Cli::command();
    let global: Vec<&Arg> = options
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .collect();
    let page = built(WIDTH).find_subcommand("options").map(helps);
    for arg in global {
        let id = arg.get_id().as_str();
        let page = page.as_ref().map(|[_, (page, _)]| page.as_str());
        assert!(
            page.is_some_and(|page| page.contains(&format!("--{id}"))),
            "{id}"
        );
        assert!(group(id).is_some(), "{id}");
    }
}

#[test]
fn what_every_command_takes_stands_anywhere() {
    for (path, command) in all(&Cli::command()) {
        let example = examples_of(&command)
            .into_iter()
            .find_map(|line| words(&line));
        let example = example.unwrap_or_else(|| panic!("{path:?} has no example"));
        let given = [
            "--namespace=a",
            "--context=b",
            "--kubeconfig=c",
            "--as=d",
            "--as-group=e",
            "--cluster-domain=f.g",
            "--proxy-auth-helper=h",
            "--login-timeout=9",
            "--log-format=json",
            "-vv",
        ];
        let given = given.map(str::to_owned);
        // Behind the command's own words, before those of a child.
        let before = [&example[..1], &given, &example[1..]].concat();
        let end = path.len();
        let after = match example.get(1).is_some_and(|word| *word == "-n") {
            true => before.clone(),
            false => [&example[..end], &given, &example[end..]].concat(),
        };
        for line in [before, after] {
            // The example may have -n too, which clap takes once.
            let line: Vec<String> = match example.contains(&"-n".to_owned()) {
                true => line
                    .into_iter()
                    .filter(|word| word != "--namespace=a")
                    .collect(),
                false => line,
            };
            let matches = self::command().try_get_matches_from(&line);
            let matches = matches.unwrap_or_else(|error| panic!("{line:?}: {error}"));
            let cli = <Cli as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
            assert_eq!(cli.global.verbose, 2, "{line:?}");
            let keys = cli
                .given()
                .into_iter()
                .filter(|(s, _)| s.on & on::ALL != 0)
                .count();
            assert_eq!(keys, 9, "{line:?}");
        }
    }
}

#[test]
fn every_command_has_examples_that_are_understood() {
    for (path, command) in all(&Cli::command()) {
        let examples = examples_of(&command);
        assert!(!examples.is_empty(), "{path:?}");
        let of_kdev: Vec<Vec<String>> = examples.iter().filter_map(|line| words(line)).collect();
        // Those of `kdev` and of `options` show others.
        let own = of_kdev.iter().any(|line| line.starts_with(&path));
        assert!(
            own || matches!(path.join(" ").as_str(), "kdev" | "kdev options"),
            "{path:?}"
        );
        for line in of_kdev {
            if let Some(error) = refused(&line) {
                panic!("{line:?}: {error}");
            }
        }
    }
}

#[test]
fn a_missing_argument_comes_with_an_example_that_has_it() {
    let mut seen = Vec::new();
    let extra = [
        "config check --user",
        "install --show-keys",
        "upgrade -o json",
        "run --",
        "run -q",
    ];
    let extra = extra.map(|line| {
        format!("kdev {line}")
            .split(' ')
            .map(str::to_owned)
            .collect()
    });
    let lines = all(&Cli::command()).into_iter().map(|(path, _)| path);
    for line in lines.chain(extra) {
        let Some(error) = refused(&line) else {
            continue;
        };
        if error.kind() != ErrorKind::MissingRequiredArgument {
            // Its help has all examples.
            assert_eq!(
                error.kind(),
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            continue;
        }
        let text = refusal(&error, &line);
        let example = text.lines().find_map(|line| line.strip_prefix("Example: "));
        let example = example.unwrap_or_else(|| panic!("{text}"));
        assert!(text.contains("\n\nUsage: kdev "), "{text}");
        let example = words(example).unwrap();
        let path = line.iter().take_while(|word| !word.starts_with('-'));
        assert!(path.zip(&example).all(|(a, b)| a == b), "{text}");
        for flag in line
            .iter()
            .filter(|word| word.starts_with("--") && *word != "--")
        {
            assert!(example.contains(flag), "{text}");
        }
        assert!(refused(&example).is_none(), "{text}");
        seen.push(line.join(" "));
    }
    seen.sort_unstable();
    let wanted = [
        "kdev completions",
        "kdev config check --user",
        "kdev forward",
        "kdev install --show-keys",
        "kdev intercept",
        "kdev leave",
        "kdev resolve",
        "kdev run",
        "kdev run --",
        "kdev run -q",
        "kdev upgrade -o json",
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn help_is_wrapped_once_and_no_table_breaks_on_a_narrow_terminal() {
    for (path, command) in all(&built(WIDTH)) {
        for (help, after) in helps(&command) {
            let lines: Vec<&str> = help.lines().collect();
            for line in &lines {
                assert!(line.chars().count() <= WIDTH, "{path:?}: {line}");
            }
            for row in after.lines().filter(|line| line.starts_with(' ')) {
                assert!(
                    lines.contains(&row),
                    "{path:?}: {row:?} was broken:\n{help}"
                );
            }
            for two in lines.windows(2) {
                let indent = |line: &str| line.len() - line.trim_start().len();
                let (line, next) = (two[0].trim_end(), two[1].trim_start());
                // Prose has no indentation, or that of an option's text.
                let prose = matches!(indent(line), 0 | 10..) && indent(two[1]) == indent(line);
                let row = after.lines().any(|row| row.starts_with(' ') && row == line);
                if line.is_empty() || next.is_empty() || !prose || row || next.starts_with('-') {
                    continue;
                }
                let word = next.split(' ').next().unwrap_or_default();
                assert!(
                    line.chars().count() + 1 + word.chars().count() > WIDTH,
                    "{path:?}: {word:?} had room at the end of {line:?}"
                );
            }
        }
    }
}

#[test]
fn the_overview_fits_on_a_screen() {
    const SCREEN: usize = 50;
    for (help, _) in helps(&built(WIDTH)) {
        let rows = help.lines().count();
        assert!(rows <= SCREEN, "{rows} lines:\n{help}");
        assert!(
            help.contains("\nIntercept requests:\n  intercept    "),
            "{help}"
        );
        assert!(help.contains("kdev help options"), "{help}");
    }
}

#[test]
fn paragraphs_are_joined_and_tables_are_not() {
    let text = "Examples:\n  kdev a   one\n  kdev bb  two\n\nA line\ngoes on:\n  table  x\n    y\nand on\nhere.";
    assert_eq!(
        laid_out(&text.into()),
        [
            "Examples:\n  kdev a   one\n  kdev bb  two",
            "A line goes on:\n  table  x\n    y\nand on here.",
        ]
    );
    let wide = format!("Examples:\n  kdev a   {}\n  kdev b", "x".repeat(WIDTH));
    let above = format!("Examples:\n  # {}\n  kdev a\n  kdev b", "x".repeat(WIDTH));
    assert_eq!(laid_out(&wide.into()), [above]);
}
