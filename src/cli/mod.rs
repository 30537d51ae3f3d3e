//! The command line.

mod run;

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
            Ok(made) => {
                println!("{made}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        },
        Command::Schema => {
            println!("{:#}", config::schema());
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "vestibule", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn check(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}\n\n{} is invalid: {}.", path.display(), plural(problems.count(), "problem"));
            return ExitCode::from(INVALID);
        }
    };
    let mut warnings = config.warnings();
    match app::check(&config) {
        Ok(about_files) => warnings.extend(about_files),
        Err(error) => return not_started(&error),
    }
    print!("{}", config.explain());
    if warnings.is_empty() {
        println!("\n{} is valid.", path.display());
        return ExitCode::SUCCESS;
    }
    println!("\nWarnings:");
    for warning in &warnings {
        println!("  - {warning}");
    }
    println!("\n{} is valid, with {}.", path.display(), plural(warnings.len(), "warning"));
    ExitCode::from(FAILED)
}

fn plural(count: usize, word: &str) -> String {
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
    eprintln!("vestibule: {}", ErrorChain(error));
    ExitCode::from(FAILED)
}
