//! `vestibule run`: start, and do what signals say.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::app;
use crate::app::Remote;
use crate::cli::INVALID;
use crate::cli::not_started;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::telemetry;
use crate::telemetry::Audit;

pub(super) fn run(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            eprintln!("Nothing was started.");
            return ExitCode::from(INVALID);
        }
    };
    let _guard = telemetry::init(&config.log);
    let running = match app::start(&config, Arc::new(SystemClock::start())) {
        Ok(running) => running,
        Err(error) => return not_started(&error),
    };
    for site in &config.sites {
        tracing::info!(
            event = "started",
            site = site.origin.to_text(),
            https = ?running.https,
            http = ?running.http,
            config = %path.display()
        );
    }
    for warning in config.warnings() {
        tracing::warn!(event = "config.warning", help = warning);
    }
    tell(&[NotifyState::Ready]);
    let remote = running.remote();
    let path = path.to_owned();
    let signals = std::thread::spawn(move || obey(&remote, &path));
    running.wait();
    // The thread is waiting for a second signal that will not come.
    drop(signals);
    tracing::info!(event = "stopped");
    ExitCode::SUCCESS
}

/// SIGHUP reloads; the first SIGTERM or SIGINT drains, the second ends at once.
fn obey(remote: &Remote, path: &Path) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::hangup()), signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!(event = "signals.failed");
            return;
        };
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    // Without the time systemd would not know which reload has ended (sd_notify(3)).
                    let since = NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Status("reloading"));
                    tell(&[NotifyState::Reloading, since]);
                    reload(remote, path);
                    tell(&[NotifyState::Ready]);
                }
                _ = terminate.recv() => stop(remote, &mut stopping),
                _ = interrupt.recv() => stop(remote, &mut stopping),
            }
        }
    });
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
pub(crate) fn reload(remote: &Remote, path: &Path) {
    let context = telemetry::Context::default();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return telemetry::audit(&context, &Audit::ConfigRefused { path, error: &error }),
    };
    match remote.reload(&config) {
        Ok(()) => telemetry::audit(&context, &Audit::ConfigReloaded { path }),
        Err(error) => telemetry::audit(&context, &Audit::ConfigRefused { path, error: &error }),
    }
}
