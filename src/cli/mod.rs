//! The command line.

mod run;
mod sessions;

use std::io::ErrorKind;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;

use crate::app;
use crate::app::StartError;
use crate::cert;
use crate::clock::Clock;
use crate::clock::SystemClock;
use crate::config;
use crate::config::Config;
use crate::demo;
use crate::telemetry::ErrorChain;

/// The configuration is invalid.
const INVALID: u8 = 2;
/// Something else went wrong; for `check`, the configuration is valid with warnings.
const FAILED: u8 = 1;

const START: &str = "Start here:
  vestibule demo     see it work: a small old-fashioned application and the proxy in front of it
  vestibule cert     make a certificate for development, then
  vestibule check    read what proxy.toml means, and
  vestibule run      put it in front of your application";

/// A TLS-terminating, authenticating reverse proxy that gives a legacy web application modern sessions.
#[derive(Parser)]
#[command(
    name = "vestibule",
    version,
    after_help = START
)]
struct Arguments {
    #[command(flatten)]
    file: File,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct File {
    /// The configuration file [default: proxy.toml].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl File {
    /// `vestibule --config FILE run` means the same as `vestibule run --config FILE`.
    fn or(self, outer: Self) -> PathBuf {
        self.config.or(outer.config).unwrap_or_else(|| PathBuf::from("proxy.toml"))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy (the default).
    Run {
        #[command(flatten)]
        file: File,
    },
    /// Validate the configuration and explain it in words: exit 0 clean, 1 with warnings, 2 invalid.
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Run a small old-fashioned application with the proxy in front of it.
    Demo {
        /// Where to listen on localhost; 8443, or any free port if that is taken.
        #[arg(short, long)]
        port: Option<u16>,
    },
    /// Make a local authority and certificate for development.
    Cert {
        /// Where to put them.
        #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
        out: PathBuf,
        /// Host names and addresses [default: localhost 127.0.0.1 ::1].
        names: Vec<String>,
    },
    /// List, show and end the sessions of the running proxy.
    Sessions {
        #[command(flatten)]
        file: File,
        #[command(subcommand)]
        action: sessions::Sessions,
    },
    /// Print the JSON Schema of proxy.toml.
    Schema,
    /// Print shell completions.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the program as the arguments say.
pub fn main() -> ExitCode {
    let Arguments { file: outer, command } = Arguments::parse();
    match command.unwrap_or(Command::Run { file: File { config: None } }) {
        Command::Run { file } => run::run(&file.or(outer)),
        Command::Check { file } => check(&file.or(outer)),
        Command::Demo { port } => report(demo::run(port)),
        Command::Cert { out, names } => match cert::make(&out, &names) {
            Ok(made) => say(&format!("{made}\n"), ExitCode::SUCCESS),
            Err(error) => failed(&error),
        },
        Command::Sessions { file, action } => sessions::run(action, File { config: file.config.or(outer.config) }),
        Command::Schema => say(&format!("{:#}\n", config::schema()), ExitCode::SUCCESS),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "vestibule", &mut script);
            say(&String::from_utf8_lossy(&script), ExitCode::SUCCESS)
        }
    }
}

fn check(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            let count = plural(problems.count(), "problem");
            complain(&format!("{problems}\n\n{} is invalid: {count}.", path.display()));
            return ExitCode::from(INVALID);
        }
    };
    let mut warnings = config.warnings();
    match app::check(&config, SystemClock::start().now()) {
        Ok(about_files) => warnings.extend(about_files),
        Err(error) => return not_started(&error),
    }
    let mut text = config.explain();
    text.push_str(&learned(&config));
    if warnings.is_empty() {
        return say(&format!("{text}\n{} is valid.\n", path.display()), ExitCode::SUCCESS);
    }
    text.push_str("\nWarnings:\n");
    warnings.iter().for_each(|warning| text.push_str(&format!("  - {warning}\n")));
    let count = plural(warnings.len(), "warning");
    say(&format!("{text}\n{} is valid, with {count}.\n", path.display()), ExitCode::from(FAILED))
}

/// The cookies that the running server keeps because of what it has seen, as lines of the file.
fn learned(config: &Config) -> String {
    let mut text = String::new();
    for (name, cookies) in sessions::learned(config) {
        let Some(site) = config.sites.iter().find(|site| site.origin.to_text() == name) else { continue };
        let written = &site.cookies.vault;
        let mut all: Vec<String> = written.iter().map(|glob| glob.as_str().to_owned()).collect();
        all.extend(cookies.into_iter().filter(|cookie| !written.iter().any(|glob| glob.matches(cookie))));
        if all.len() > written.len() {
            let known =
                format!("Seen at {name}, and kept here since; to have it in the file, write below [site.cookies]:");
            text.push_str(&format!("\n{known}\n  vault = {all:?}\n"));
        }
    }
    text
}

pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

fn report(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

/// Something that the configuration names cannot be used.
fn not_started(error: &StartError) -> ExitCode {
    let code = failed(error);
    if error.is_configuration() { ExitCode::from(INVALID) } else { code }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    complain(&format!("vestibule: {}", ErrorChain(error)));
    ExitCode::from(FAILED)
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
fn say(text: &str, code: ExitCode) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Err(error) => failed(&error),
    }
}

/// Writes a line to standard error, if that can be written.
fn complain(text: &str) {
    let _nowhere_else = writeln!(std::io::stderr(), "{text}");
}
