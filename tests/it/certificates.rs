//! Certificate files that are exchanged while the program runs, and what is wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vestibule::app;
use vestibule::clock::Timestamp;

use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::program::BINARY;
use crate::support::program::Program;
use crate::support::run;
use crate::support::tls::BOTH;
use crate::support::tls::Pair;
use crate::support::tls::client;
use crate::support::tls::get;
use crate::support::tls::handshake;
use crate::support::tls::two_sites;
use crate::support::tls::two_sites_file;

/// What a new handshake for this name is shown.
async fn shown(proxy: &Vestibule, name: &str) -> Option<CertificateDer<'static>> {
    let stream = handshake(proxy.https, &Arc::new(client(BOTH, &[])), name).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?[0].clone().into_owned())
}

/// A change is taken up when it has come to rest: at the second look.
fn look_twice(proxy: &Vestibule) {
    proxy.remote.look_at_certificates();
    proxy.remote.look_at_certificates();
}

#[tokio::test]
async fn a_new_certificate_serves_new_handshakes_and_open_connections_go_on() {
    // S132, VR-04
    let app = Upstream::legacy().await;
    let (pair, renewed) = (Pair::issue(&["app.test"]), Pair::issue(&["app.test"]));
    let old = pair.leaf();
    let (proxy, _) = Vestibule::of(two_sites(&app, &[&pair], "")).await;
    let mut open = handshake(proxy.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    assert_eq!(get(&mut open, "app.test").await, 200);

    pair.overwrite_with(&renewed);
    proxy.remote.look_at_certificates();
    assert_eq!(shown(&proxy, "app.test").await, Some(old), "not before it has come to rest");
    proxy.remote.look_at_certificates();

    assert_eq!(shown(&proxy, "app.test").await, Some(renewed.leaf()));
    assert_eq!(get(&mut open, "app.test").await, 200);
}

#[tokio::test]
async fn a_broken_pair_is_refused_and_a_good_one_is_taken_later() {
    // S132, VR-04
    let app = Upstream::legacy().await;
    let (pair, renewed) = (Pair::issue(&["app.test"]), Pair::issue(&["app.test"]));
    let old = pair.leaf();
    let (proxy, _) = Vestibule::of(two_sites(&app, &[&pair], "")).await;

    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    for content in [fs::read(&renewed.certificate).unwrap(), garbage, b"no PEM".to_vec(), Vec::new()] {
        fs::write(&pair.certificate, content).unwrap();
        look_twice(&proxy);
        assert_eq!(shown(&proxy, "app.test").await.as_ref(), Some(&old));
    }
    fs::remove_file(&pair.key).unwrap();
    look_twice(&proxy);
    assert_eq!(shown(&proxy, "app.test").await.as_ref(), Some(&old));
    pair.overwrite_with(&renewed);
    look_twice(&proxy);

    assert_eq!(shown(&proxy, "app.test").await, Some(renewed.leaf()));
}

#[tokio::test]
async fn a_broken_pair_does_not_keep_others_from_being_renewed() {
    // VR-04
    let app = Upstream::legacy().await;
    let (first, second) = (Pair::issue(&["app.test"]), Pair::issue(&["other.test"]));
    let (old, renewed) = (first.leaf(), Pair::issue(&["other.test"]));
    let (proxy, _) = Vestibule::of(two_sites(&app, &[&first, &second], "")).await;

    fs::write(&first.certificate, "broken").unwrap();
    second.overwrite_with(&renewed);
    look_twice(&proxy);

    assert_eq!(shown(&proxy, "other.test").await, Some(renewed.leaf()));
    assert_eq!(shown(&proxy, "app.test").await, Some(old));
}

#[tokio::test]
async fn certificates_that_are_renamed_or_linked_into_place_are_noticed() {
    // VR-04: certbot moves a link for each file, Kubernetes one for the directory.
    let app = Upstream::legacy().await;
    let pairs: [Pair; 3] = std::array::from_fn(|_| Pair::issue(&["app.test"]));
    let live = TempDir::new().unwrap();
    let link = |to: &Path, name: &str| {
        symlink(to, live.path().join("new")).unwrap();
        fs::rename(live.path().join("new"), live.path().join(name)).unwrap();
    };
    link(pairs[0].directory(), "data");
    for file in ["server.pem", "server.key"] {
        link(&Path::new("data").join(file), file);
    }
    let mut config = two_sites(&app, &[&pairs[0]], "");
    config.tls.pairs[0].certificate = live.path().join("server.pem");
    config.tls.pairs[0].key = live.path().join("server.key");
    let (proxy, _) = Vestibule::of(config).await;

    link(pairs[1].directory(), "data");
    look_twice(&proxy);
    assert_eq!(shown(&proxy, "app.test").await, Some(pairs[1].leaf()), "a link to the directory");
    link(&pairs[2].certificate, "server.pem");
    link(&pairs[2].key, "server.key");
    look_twice(&proxy);
    assert_eq!(shown(&proxy, "app.test").await, Some(pairs[2].leaf()), "a link for each file");
    pairs[2].overwrite_with(&pairs[0]);
    look_twice(&proxy);
    assert_eq!(shown(&proxy, "app.test").await, Some(pairs[0].leaf()), "the file behind the link");
    for (file, pair) in [("server.pem", &pairs[1].certificate), ("server.key", &pairs[1].key)] {
        fs::rename(pair, live.path().join(file)).unwrap();
    }
    look_twice(&proxy);
    assert_ne!(shown(&proxy, "app.test").await, Some(pairs[0].leaf()), "a file in place of the link");
}

#[tokio::test]
async fn a_pair_that_is_copied_with_its_old_times_is_noticed() {
    // VR-04
    let app = Upstream::legacy().await;
    let (pair, renewed) = (Pair::issue(&["app.test"]), Pair::issue(&["app.test"]));
    let pad = |path: &Path| fs::write(path, format!("{:4096}", fs::read_to_string(path).unwrap())).unwrap();
    [&pair.certificate, &pair.key, &renewed.certificate, &renewed.key].into_iter().for_each(|path| pad(path));
    let (proxy, _) = Vestibule::of(two_sites(&app, &[&pair], "")).await;
    let times = [&pair.certificate, &pair.key].map(|path| fs::metadata(path).unwrap().modified().unwrap());

    pair.overwrite_with(&renewed);
    for (path, time) in [&pair.certificate, &pair.key].into_iter().zip(times) {
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    look_twice(&proxy);

    assert_eq!(shown(&proxy, "app.test").await, Some(renewed.leaf()));
}

#[tokio::test]
async fn the_program_follows_its_certificate_files_and_says_what_it_did() {
    // S132, VR-04
    let app = Upstream::legacy().await;
    let (pair, renewed) = (Pair::issue(&["app.test", "other.test"]), Pair::issue(&["app.test"]));
    let program = Program::start(&two_sites_file(&app, &[&pair], "")).await;

    fs::write(&pair.certificate, fs::read(&renewed.certificate).unwrap()).unwrap();
    let refused = program.event("tls.refused").await;
    fs::write(&pair.key, fs::read(&renewed.key).unwrap()).unwrap();
    fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o644)).unwrap();
    let taken = program.event("tls.reloaded").await;

    assert_eq!(refused["level"], "error");
    assert_eq!(refused["file"], pair.certificate.to_str().unwrap());
    assert!(refused["error"].as_str().unwrap().contains("does not fit the certificate"), "{refused}");
    assert_eq!(taken["file"], pair.certificate.to_str().unwrap());
    let helps = || {
        program.lines().into_iter().filter(|line| line["event"] == "tls.warning").map(|line| line["help"].to_string())
    };
    eventually("warnings", || helps().count() == 2).await;
    assert!(helps().any(|help| help.contains("chmod 600")), "S132");
    assert!(helps().any(|help| help.contains("no certificate has the name other.test")));
    let stream = handshake(program.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], renewed.leaf());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_a_remedy_at_the_start() {
    // S132
    let app = Upstream::legacy().await;
    let (pair, other) = (Pair::issue(&["app.test"]), Pair::issue(&["app.test"]));
    let at = |certificate: &Path, key: &Path| {
        let toml = pair.toml();
        let text = two_sites_file(&app, &[&pair], "");
        text.replace(&toml, &format!("certificate = {certificate:?}\nkey = {key:?}\n"))
    };
    let encrypted = pair.directory().join("encrypted.key");
    fs::write(&encrypted, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
        .unwrap();
    let directory = pair.directory().to_owned();

    for (certificate, key, expected) in [
        (&other.certificate, &pair.key, "use the two that were made together"),
        (&pair.key, &pair.certificate, "server.key has no usable certificate: it must be PEM"),
        (
            &pair.certificate,
            &other.certificate,
            "server.pem has no usable private key: it must be PEM, without a passphrase",
        ),
        (
            &pair.certificate,
            &encrypted,
            "encrypted.key has no usable private key: it must be PEM, without a passphrase",
        ),
        (&pair.certificate, &directory, "there is no file"),
        (&pair.certificate, &directory.join("missing.key"), "there is no file"),
    ] {
        let (code, said) = Program::fail(&at(certificate, key)).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn a_certificate_is_warned_of_before_it_expires_and_after() {
    // S132
    let app = Upstream::legacy().await;
    let pair = Pair::issue(&["app.test", "other.test"]);
    let config = two_sites(&app, &[&pair], "");
    let text = |option| {
        let mut openssl = Command::new("openssl");
        let said = run(openssl.args(["x509", "-noout", option, "-dateopt", "iso_8601", "-in"]).arg(&pair.certificate));
        said.trim().split_once('=').unwrap().1.replace(' ', "T")
    };
    let at = |text: &str| {
        let time = OffsetDateTime::parse(text, &Rfc3339).unwrap();
        Timestamp::from_millis(u64::try_from(time.unix_timestamp()).unwrap() * 1000)
    };
    let (begin, end) = (text("-startdate"), text("-enddate"));
    let file = pair.certificate.display();
    let date = |text: &str| text[..10].to_owned();
    let fortnight = Duration::from_secs(14 * 24 * 60 * 60);
    let before = |time: Timestamp, by: Duration| Timestamp::from_millis(time.as_millis() - by.as_millis() as u64);
    let second = Duration::from_secs(1);

    for (now, expected) in [
        (before(at(&begin), second), Some(format!("{file} is not valid before {}: ", date(&begin)))),
        (at(&begin), None),
        (before(at(&end), fortnight), None),
        (before(at(&end), fortnight - second), Some(format!("{file} expires on {}: renew it", date(&end)))),
        (at(&end), Some(format!("{file} expires on {}: renew it", date(&end)))),
        (at(&end).plus(second), Some(format!("{file} expired on {}: browsers refuse it; renew it", date(&end)))),
    ] {
        let warnings = app::check(&config, now).unwrap();
        match expected {
            Some(expected) => assert!(warnings[0].contains(&expected), "{warnings:?} has no {expected}"),
            None => assert_eq!(warnings, Vec::<String>::new(), "{}", now.as_secs()),
        }
    }
}

#[tokio::test]
async fn an_expired_certificate_is_served_and_never_silently() {
    // S132: at the start, when it takes the place of another, at a reload, and by `check`.
    let app = Upstream::legacy().await;
    let (pair, expired) = (Pair::issue(&["app.test", "other.test"]), Pair::expired(&["app.test", "other.test"]));
    let program = Program::start(&two_sites_file(&app, &[&pair], "")).await;
    let warnings = || program.events("tls.warning");

    pair.overwrite_with(&expired);
    assert!(program.event("tls.warning").await["help"].as_str().unwrap().contains("browsers refuse it; renew it"));
    program.signal("HUP");
    eventually("a reload says it again", || warnings().len() == 2).await;
    let again = Program::start(&two_sites_file(&app, &[&pair], "")).await;
    assert!(again.event("tls.warning").await["help"].as_str().unwrap().contains("expired on 2021-"));
    let check = Command::new(BINARY).arg("check").arg("--config").arg(again.file()).output().unwrap();

    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8(check.stdout).unwrap().contains("browsers refuse it; renew it"));
}
