//! The containers of a project, each service by a companion of its own.

use std::ffi::OsString;
use std::pin::pin;
use std::time::Duration;

use tracing::info;

use super::attend::{Proxy, attend};
use super::containers::session_id;
use super::joined::{self, PREPARING, Serving};
use super::unused::Unused;
use super::{CONNECTING, Observer, elapsed, give_back, intercepting, not_started};
use crate::app::intercept::Planned;
use crate::app::{Session, signals};
use crate::config::{Capture, Config};
use crate::run::child::{Child, Command};
use crate::run::container::ComposeRun;
use crate::run::container::compose::{Companions, Project, Read, Served};
use crate::task::Tasks;

/// What having Compose read the project is called.
const READING: &str = "Reading the project";

/// Runs a command of Compose as it is, and gives its exit code.
pub(super) async fn plain(argv: &[OsString], observer: &impl Observer) -> anyhow::Result<u8> {
    match Command::new(argv, Vec::new()) {
        Some(command) => alone(command, observer).await,
        None => Ok(0),
    }
}

async fn alone(command: Command, observer: &impl Observer) -> anyhow::Result<u8> {
    match Child::spawn(command) {
        Ok(mut child) => Ok(child.wait().await?),
        Err(error) => Ok(not_started(&error, observer)),
    }
}

/// Runs the project, or prints it, and gives Compose's exit code.
///
/// # Errors
/// When the cluster cannot be reached, or no service can be brought into it.
pub(super) async fn run(
    config: &Config,
    run: &ComposeRun,
    plan: Option<&Planned>,
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    if config.capture == Capture::Off {
        anyhow::bail!(
            "the containers of a project see the cluster by capture alone; leave out --capture off"
        );
    }
    let project = match observer.during(READING, run.read()).await? {
        Read::Project(project) => project,
        // Compose has said it.
        Read::Wrong(code) => return Ok(code),
    };
    if run.prints() {
        let written = project.printed(|service, why| outside(service, why, observer));
        let written = written.map_err(|why| failed(&why))?;
        return alone(written.printing(), observer).await;
    }
    let making = observer.during(PREPARING, make(*project, observer));
    let opening = observer.during(CONNECTING, Session::open(config));
    let both = async { tokio::join!(making, opening) };
    let (made, session) = match signals::unless_told(Box::pin(both)).await? {
        Ok(both) => both,
        // Whatever was made goes, since nobody has it any more.
        Err(number) => return Ok(128 + number),
    };
    let (session, companions, served) = match (session, made) {
        (Ok(session), Ok((companions, served))) => (session, companions, served),
        (Ok(session), Err(why)) => {
            session.close(Duration::ZERO).await;
            return Err(failed(&why));
        }
        (Err(error), made) => {
            if let Ok((companions, _)) = made {
                companions.end().await;
            }
            return Err(error);
        }
    };
    let result = within(config, session, &companions, served, plan, observer).await;
    if result.is_err() {
        companions.end().await;
    }
    result
}

fn failed(why: &str) -> anyhow::Error {
    anyhow::anyhow!("the project cannot be brought into the cluster: {why}")
}

fn outside(service: &str, why: &str, observer: &impl Observer) {
    observer.remark(&format!(
        "service {service} stays outside the cluster: {why}"
    ));
}

async fn make(
    project: Project,
    observer: &impl Observer,
) -> Result<(Companions, Vec<Served>), String> {
    let tell = |service: &str, why: &str| outside(service, why, observer);
    project.make(&session_id(), joined::program, tell).await
}

/// Serves the companions while the user's command runs, and as long as its containers do.
async fn within(
    config: &Config,
    session: Session,
    companions: &Companions,
    served: Vec<Served>,
    plan: Option<&Planned>,
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    let ways = session.tasks.child();
    if let Err(error) = serve(config, &session, served, &ways, observer).await {
        session.close(Duration::ZERO).await;
        return Err(error);
    }
    info!(
        project = companions.name(),
        "the project's connections come to kdev"
    );
    let registration = session.register("run", Vec::new(), None);
    let (session, intercepts) = intercepting(session, config, plan, observer).await?;
    session.client.release_terminal();
    let code = stay(companions, plan, &session, observer).await;
    drop(registration);
    give_back(intercepts, observer).await?;
    ways.kill();
    match code {
        Ok((_, true)) => companions.leave(),
        _ => match signals::unless_told(companions.stop()).await {
            Ok(Err(_)) => companions.abandon(),
            _ => companions.end().await,
        },
    }
    session.leave().await;
    code.map(|(code, _)| code)
}

async fn serve(
    config: &Config,
    session: &Session,
    served: Vec<Served>,
    ways: &Tasks,
    observer: &impl Observer,
) -> anyhow::Result<()> {
    // Most services ask the same nameservers.
    let mut alike: Vec<(Vec<String>, Serving)> = Vec::new();
    for one in served {
        let known = alike
            .iter()
            .find(|(resolvers, _)| *resolvers == one.resolvers);
        let serving = match known {
            Some((_, serving)) => serving.clone(),
            None => {
                let new = joined::serve(config, session, &one.resolvers, observer.teller()).await?;
                alike.push((one.resolvers, new.clone()));
                new
            }
        };
        let following = joined::follow(
            one.holder,
            one.way,
            serving,
            observer.teller(),
            ways.clone(),
        );
        ways.spawn(following);
    }
    Ok(())
}

/// Runs the user's command, and stays as long as its containers run. Gives its exit code, and whether
/// they go on.
async fn stay(
    companions: &Companions,
    plan: Option<&Planned>,
    session: &Session,
    observer: &impl Observer,
) -> anyhow::Result<(u8, bool)> {
    let mut over = pin!(elapsed(plan));
    let code = match Child::spawn(companions.command()) {
        Ok(child) => {
            let proxy = Proxy::Own(&session.stats);
            let mut unused = Unused::new(&[companions.program()], None);
            attend(child, None, &mut over, proxy, &mut unused, observer).await?
        }
        Err(error) => not_started(&error, observer),
    };
    let may_stay = code == 0 || companions.detached();
    if !may_stay || !companions.goes_on().await {
        return Ok((code, false));
    }
    if code != 0 {
        // What it waited for has not come. The rest goes on, as it does without kdev.
        observer.note(&companions.farewell());
        return Ok((code, true));
    }
    observer.note(&companions.stays());
    let following = signals::unless_told(companions.follow());
    tokio::select! {
        ended = following => match ended? {
            Ok(()) => Ok((code, false)),
            Err(number) => {
                observer.note(&companions.farewell());
                Ok((128 + number, true))
            }
        },
        () = &mut over => {
            observer.note(&companions.farewell());
            Ok((0, true))
        }
    }
}
