//! gRPC, by the library that everybody uses: all four kinds of calls, errors in trailers, deadlines.

use std::path::Path;
use std::process::Command;

use crate::apps::recipe;
use crate::support::Process;
use crate::support::Vestibule;
use crate::support::apps;
use crate::support::certificates;
use crate::support::run;

fn python(arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/apps/grpc_echo.py");
    let mut command = Command::new(apps().join("grpc/venv/bin/python"));
    command.arg(script).args(arguments);
    command
}

#[tokio::test]
async fn every_kind_of_grpc_call_passes() {
    // S85
    let server = Process::serve(|port| python(&["serve", &port.to_string()]));
    let (proxy, _) = Vestibule::at(&format!("http://127.0.0.1:{}", server.port), &recipe("gRPC")).await;
    let (address, ca) = (proxy.https.to_string(), certificates().ca.display().to_string());

    let said = tokio::task::spawn_blocking(move || run(&mut python(&["call", &address, &ca]))).await.unwrap();

    let expected = "\
        unary b'hello for nobody' StatusCode.OK True False
down b'999'
up b'a,b,c'
both [b'echo one', b'echo two', b'echo three']
fail StatusCode.FAILED_PRECONDITION not like this
fail-late StatusCode.DATA_LOSS the rest is lost
unknown StatusCode.UNIMPLEMENTED Method not found!
deadline StatusCode.DEADLINE_EXCEEDED Deadline Exceeded
cancelled b'yes'
large 3000011
";
    assert_eq!(said, expected);
}
