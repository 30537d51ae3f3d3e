//! Loads that run by turns, so short that whatever else the machine does meets all of them.

use std::time::Duration;

use crate::load::Load;
use crate::process::Server;
use crate::rounds;
use crate::rounds::Ratio;

/// How long one server is asked before it is the next one's turn. What neighbours of the machine do lasts longer, and
/// so meets all alike.
const TURN: Duration = Duration::from_millis(100);

/// What a request costs the first server, and the ratios of the others to it; `start` tells how many requests a load
/// has. In each round the loads of all servers have their turns until they are over, one at a time.
pub fn compare(servers: &[Server], rounds: usize, start: impl Fn(&Server) -> (Load, u32)) -> (f64, Vec<Ratio>) {
    by_turns(servers, &start);
    let results: Vec<_> = (0..rounds).map(|_| by_turns(servers, &start)).collect();
    rounds::ratios(&results)
}

fn by_turns(servers: &[Server], start: &impl Fn(&Server) -> (Load, u32)) -> Vec<f64> {
    let before: Vec<Duration> = servers.iter().map(Server::cpu).collect();
    let begin = |server| {
        let (load, count) = start(server);
        load.pause();
        (load, count)
    };
    let mut loads: Vec<(Load, u32)> = servers.iter().map(begin).collect();
    let mut is_over = false;
    while !is_over {
        is_over = true;
        for (load, _) in &mut loads {
            if !load.is_over() {
                load.go_on();
                std::thread::sleep(TURN);
                is_over = false;
            }
            if !load.is_over() {
                load.pause();
            }
        }
    }
    let cost = |((server, before), (load, count)): ((&Server, Duration), (Load, u32))| {
        load.end();
        (server.cpu() - before).as_secs_f64() * 1e6 / f64::from(count)
    };
    servers.iter().zip(before).zip(loads).map(cost).collect()
}
