//! `vestibule run`: start, and do what signals say.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::app;
use crate::app::Remote;
use crate::cli::INVALID;
use crate::cli::complain;
use crate::cli::failed;
use crate::cli::not_started;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::config::ListenAddress;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Levels;

pub(super) fn run(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            complain(&format!("{problems}\nNothing was started."));
            return ExitCode::from(INVALID);
        }
    };
    let logs = match telemetry::init(&config.log) {
        Ok(logs) => logs,
        Err(error) => return failed(&error),
    };
    // Before anything else: a signal that comes early must find us listening.
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let running = match app::start(&config, Arc::new(SystemClock::start())) {
        Ok(running) => running,
        Err(error) => return not_started(&error),
    };
    for site in &config.sites {
        // Exceptions are never silent (S140).
        let exempt: Vec<_> = site.csrf.exempt.iter().map(ToString::to_string).collect();
        tracing::info!(
            event = "started",
            site = site.origin.to_text(),
            https = ?running.https,
            http = ?running.http,
            admin = (!running.admin.is_empty()).then(|| list(&running.admin)),
            csrf_exempt = (!exempt.is_empty()).then(|| exempt.join(", ")),
            config = %path.display()
        );
    }
    for warning in config.warnings() {
        tracing::warn!(event = "config.warning", help = warning);
    }
    tell(&[NotifyState::Ready]);
    let (remote, path, levels) = (running.remote(), path.to_owned(), logs.levels());
    // It goes on waiting for a signal when everything has ended.
    let _left_behind = std::thread::spawn(move || signals.obey(&remote, &path, &levels));
    running.wait();
    tracing::info!(event = "stopped");
    ExitCode::SUCCESS
}

fn list(places: &[ListenAddress]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The signals that mean something.
struct Signals {
    runtime: Runtime,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let (hangup, terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
        let interrupt = signal(SignalKind::interrupt())?;
        drop(entered);
        Ok(Self { runtime, hangup, terminate, interrupt })
    }

    /// SIGHUP reloads; the first SIGTERM or SIGINT drains, the second ends at once.
    fn obey(mut self, remote: &Remote, path: &Path, logs: &Levels) {
        self.runtime.block_on(async {
            let mut stopping = false;
            loop {
                tokio::select! {
                    _ = self.hangup.recv() => {
                        // Without the time systemd would not know which reload has ended (sd_notify(3)).
                        let since = NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Status("reloading"));
                        tell(&[NotifyState::Reloading, since]);
                        reload(remote, path, logs);
                        tell(&[NotifyState::Ready]);
                    }
                    _ = self.terminate.recv() => stop(remote, &mut stopping),
                    _ = self.interrupt.recv() => stop(remote, &mut stopping),
                }
            }
        });
    }
}

/// Tells systemd, if it started us. That it cannot hear is no reason to stop.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(event = "systemd.unheard", error = %error);
    }
}

fn stop(remote: &Remote, stopping: &mut bool) {
    if std::mem::replace(stopping, true) {
        remote.cut();
    } else {
        tell(&[NotifyState::Stopping]);
        tracing::info!(event = "draining");
        remote.stop();
    }
}

/// All or nothing: a broken file changes nothing (S193).
fn reload(remote: &Remote, path: &Path, logs: &Levels) {
    let context = telemetry::Context::default();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return telemetry::audit(&context, &Audit::ConfigRefused { path, error: &error }),
    };
    match remote.reload(&config) {
        Ok(()) => {
            logs.set(&config.log);
            telemetry::audit(&context, &Audit::ConfigReloaded { path });
        }
        Err(error) => telemetry::audit(&context, &Audit::ConfigRefused { path, error: &error }),
    }
}
