//! What grows with what: memory with idle connections, with open WebSockets and with slow readers of a big
//! file, beside nginx; throughput with workers; and how evenly connections that stay are spread among workers.
//!
//! Memory is what is resident and the server's own, on one worker. Vestibule asks for a session, nginx asks
//! nobody. The application is this program once more.
//!
//! `make bench`, or `cargo bench --bench growth -- [PART] [MOST]`: one of `idle`, `websockets`, `slow`,
//! `workers` and `spread`; and of connections at most so many.

#![allow(unreachable_pub)] // A benchmark has no public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

mod application;
mod clients;
#[path = "../peers/load.rs"]
#[allow(dead_code)] // What the other benchmarks need.
mod load;
mod memory;
#[path = "../peers/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../peers/rounds.rs"]
#[allow(dead_code)]
mod rounds;
#[path = "../peers/servers.rs"]
#[allow(dead_code)]
mod servers;
mod workers;

use load::Client;
use servers::Setup;
use vestibule::cert;

/// What is wanted of them: a WebSocket has two in Vestibule and in nginx.
const DESCRIPTORS: u64 = 40_000;
/// Those that are not a client's or its application's.
const OTHERS: u64 = 500;

/// What nginx needs to be told for WebSockets. A slow reader's file must not go to the disk.
const NGINX: &str =
    "proxy_max_temp_file_size 0; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
                     proxy_set_header Connection $http_connection; proxy_read_timeout 1h;";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = arguments.first().map_or("", String::as_str);
    if wanted == application::NAME {
        return application::serve(arguments[1].parse().unwrap());
    }
    let most: usize = arguments.get(1).map_or(10_000, |most| most.parse().expect("the number of connections"));
    let descriptors = match rlimit::setrlimit(rlimit::Resource::NOFILE, DESCRIPTORS, DESCRIPTORS) {
        Ok(()) => DESCRIPTORS,
        Err(_) => rlimit::increase_nofile_limit(DESCRIPTORS).unwrap(),
    };
    let pairs = ((descriptors - OTHERS) / 2) as usize;
    let directory = tempfile::tempdir().unwrap();
    let certificate = cert::make(directory.path(), &["bench.test".to_owned()]).unwrap();
    let setup = Setup::new(directory.path(), &certificate);
    let client = Client::new(&certificate, directory.path());
    println!("{}; {}\n", servers::version("nginx", "-v"), servers::version("uname", "-sr"));
    let is_wanted = |part: &str| wanted.is_empty() || wanted == part;
    let servers = || [setup.nginx("nginx", NGINX), setup.vestibule("vestibule", "memory:", "")];
    if ["idle", "websockets", "slow"].into_iter().any(is_wanted) {
        let _application = application::start(setup.application);
        if is_wanted("idle") {
            memory::idle(&client, &servers(), most);
        }
        if is_wanted("websockets") {
            memory::websockets(&client, &servers(), most.min(pairs));
        }
        if is_wanted("slow") {
            memory::slow(&client, &servers());
        }
    }
    if is_wanted("workers") {
        workers::throughput(&client, setup);
    }
    if is_wanted("spread") {
        workers::spread(&client, Setup::new(directory.path(), &certificate));
    }
}
