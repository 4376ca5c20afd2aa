//! Which requests an intercept takes, as flags.

use std::time::Duration;

use clap::Args;

use crate::app::intercept::{Terms, mine};
use crate::rule::{AppProtocol, Condition, Conditions, Invalid};

const WHICH: &str = "Which requests";
const HOW: &str = "How to intercept";
/// What is of use beside an intercept alone.
pub(in crate::cli) const HEADINGS: [&str; 2] = [WHICH, HOW];

/// Which requests, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = WHICH)]
pub(in crate::cli) struct TermFlags {
    /// Requests with this header: 'NAME: VALUE', or 'NAME~=REGEX' for the whole value; repeatable
    #[arg(long, value_name = "HEADER", value_parser = read(Condition::header))]
    header: Vec<Condition>,
    /// Requests with this path
    #[arg(long, value_name = "PATH", value_parser = read(Condition::path))]
    path: Vec<Condition>,
    /// Requests whose path begins with these segments
    #[arg(long, value_name = "PATH", value_parser = read(Condition::path_prefix))]
    path_prefix: Vec<Condition>,
    /// Requests whose whole path matches
    #[arg(long, value_name = "REGEX", value_parser = read(Condition::path_regex))]
    path_regex: Vec<Condition>,
    /// Requests with this method
    #[arg(long, value_name = "METHOD", value_parser = read(Condition::method))]
    method: Vec<Condition>,
    /// Requests with this member of the W3C header `baggage`
    #[arg(long, value_name = "NAME=VALUE", value_parser = read(Condition::baggage))]
    baggage: Vec<Condition>,
    /// Your own requests: header `x-kdev: YOU` or baggage `kdev=YOU` (see --owner), which the proxy
    /// of `kdev connect` adds to those of a browser
    #[arg(long)]
    mine: bool,
    /// Send copies: callers get the original pods' answers, the app's are dropped
    #[arg(long, conflicts_with = "fallback", help_heading = HOW)]
    mirror: bool,
    /// Let the original pods answer while the app is down; while kdev is silent they always do
    #[arg(long, help_heading = HOW)]
    fallback: bool,
    /// Never let the original pods answer: 503 while kdev is silent, 502 while the app is down
    #[arg(long, conflicts_with_all = ["fallback", "mirror"], help_heading = HOW)]
    strict: bool,
    /// End after this time (30s, 10m, 2h)
    #[arg(long = "for", value_name = "TIME", value_parser = time, help_heading = HOW)]
    lasts: Option<Duration>,
    /// Protocol of the callers where the Service does not say it: auto, http, h1, h2c, grpc, tcp
    #[arg(long, value_name = "PROTOCOL", help_heading = HOW)]
    protocol: Option<AppProtocol>,
    /// End intercepts of others that are in the way; their owners are told
    #[arg(long, help_heading = HOW)]
    take_over: bool,
    /// Go on despite session affinity, network and traffic policies, GitOps or a mesh; callers
    /// may get no answer
    #[arg(long, help_heading = HOW)]
    force: bool,
    /// Replace the Service's pods one by one, so that older connections come along
    #[arg(long, help_heading = HOW)]
    drain: bool,
}

type Reader = fn(&str) -> Result<Condition, Invalid>;

/// Clap takes functions of a text alone.
fn read(reader: Reader) -> impl Fn(&str) -> Result<Condition, Invalid> + Clone + Send + Sync {
    move |text| reader(text)
}

/// Longest time, so that a slip of the finger is noticed: a month.
const LONGEST: u64 = 31 * 24 * 3600;

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write 30s, 10m or 2h, up to 31 days");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = number
        .checked_mul(unit)
        .filter(|s| (1..=LONGEST).contains(s));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

impl TermFlags {
    /// Whether any is given.
    pub(in crate::cli) fn is_any(&self) -> bool {
        let Self {
            header,
            path,
            path_prefix,
            path_regex,
            method,
            baggage,
            mine,
            mirror,
            fallback,
            strict,
            lasts,
            protocol,
            take_over,
            force,
            drain,
        } = self;
        let lists = [header, path, path_prefix, path_regex, method, baggage];
        let switches = [mine, mirror, fallback, strict, take_over, force, drain];
        lists.iter().any(|list| !list.is_empty())
            || switches.iter().any(|switch| **switch)
            || lasts.is_some()
            || protocol.is_some()
    }

    /// What they say; `owner` is whose requests --mine means.
    ///
    /// # Errors
    /// When the conditions make no sense together.
    pub(in crate::cli) fn terms(&self, owner: &str) -> anyhow::Result<Terms> {
        let lists = [
            &self.header,
            &self.path,
            &self.path_prefix,
            &self.path_regex,
            &self.method,
            &self.baggage,
        ];
        let mut all: Vec<Condition> = lists.into_iter().flatten().cloned().collect();
        if self.mine {
            all.push(Condition::mine(mine(owner))?);
        }
        Ok(Terms {
            conditions: Conditions::new(all)?,
            mirror: self.mirror,
            fallback: self.fallback,
            strict: self.strict,
            protocol: self.protocol,
            take_over: self.take_over,
            force: self.force,
            drain: self.drain,
            log: true,
            patient: false,
            lasts: self.lasts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        for wrong in [
            "",
            "2",
            "h",
            "0s",
            "1w",
            "99d",
            "-1s",
            "1.5h",
            "9999999999999999999h",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
