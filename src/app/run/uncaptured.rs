//! The same where no system has such networks: commands get proxy variables.

use std::convert::Infallible;
use std::ffi::OsString;
use std::sync::Arc;

use super::Observer;
use crate::app::registry::{Lends, Report};
use crate::app::{Note, Session};
use crate::config::{Capture, Config};
use crate::proxy::Stats;
use crate::run::child::Command;
use crate::run::publish::Publish;
use crate::task::Tasks;

pub(super) struct Making(Infallible);

pub(super) struct Idle(Infallible);

pub(super) struct Caught(Infallible);

impl Making {
    pub(super) fn begin(
        config: &Config,
        _: &[OsString],
        _: &impl Observer,
    ) -> anyhow::Result<Option<Self>> {
        match config.capture {
            Capture::On => anyhow::bail!(
                "--capture on needs Linux; here programs get proxy variables, and containers all of it"
            ),
            Capture::Auto | Capture::Off => Ok(None),
        }
    }
}

pub(super) async fn made(
    making: Option<Making>,
    _: &impl Observer,
) -> anyhow::Result<Option<Idle>> {
    match making {
        Some(making) => match making.0 {},
        None => Ok(None),
    }
}

impl Idle {
    pub(super) async fn serve(
        self,
        _: &Session,
        _: &Config,
        _: &[Publish],
        _: Note,
    ) -> anyhow::Result<Caught> {
        match self.0 {}
    }

    pub(super) fn serve_lent(
        self,
        _: &Report,
        _: &Lends,
        _: &[Publish],
        _: Arc<Stats>,
        _: Note,
        _: &Tasks,
    ) -> anyhow::Result<Caught> {
        match self.0 {}
    }
}

pub(super) fn may_borrow(_: &Config) -> bool {
    true
}

pub(super) fn command(
    caught: &Caught,
    _: &[OsString],
    _: Vec<(String, String)>,
) -> anyhow::Result<Command> {
    match caught.0 {}
}
