//! Whole connections: what reaches the application is exactly what was judged, and no answer is taken for
//! another, whatever the client or the application says.

use super::stage;
use super::stage::Scene;
use super::strict;
use super::strict::Head;
use super::strict::Message;

/// The bytes of a client (S79 to S97, VR-58, VR-59).
pub fn check_requests(data: &[u8]) {
    let Scene { seen, received } = stage::play(data, None);
    for request in &received {
        check_cleaned(&request.head);
    }
    let answers = answers(&seen, &received);
    let passed: Vec<_> = answers.iter().filter_map(|answer| Some((number(&answer.head)?, answer))).collect();
    // Answered in the order in which they were asked, each once; but for the last, which may have been given up, and
    // what we gave up ourselves.
    assert!(passed.is_sorted_by(|one, next| one.0 < next.0), "answers out of order: {answers:?}");
    let given_up = answers.iter().filter(|answer| (502..505).contains(&answer.head.status())).count();
    assert!(received.len() <= passed.len() + given_up + 1, "{} requests, {answers:?}", received.len());
    for (number, answer) in &passed {
        let request = &received[*number];
        let body = if request.head.start.starts_with("HEAD ") { Vec::new() } else { stage::echo(*number, request) };
        assert_eq!(answer.body, body, "an answer to something else");
    }
    // Where a strict reader has no doubt about what was asked, that and nothing else was.
    for (answer, asked) in answers.iter().zip(understood(data)) {
        if let Some(number) = number(&answer.head) {
            let request = &received[number];
            assert_eq!(request.head.start, asked.head.start, "another request was passed on");
            assert_eq!(request.body, asked.body, "another body was passed on");
        }
    }
}

/// The bytes of an application, after one that says what the first request is and how they end (S98 to S101, VR-59).
pub fn check_answers(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let method = ["GET", "HEAD", "POST"][usize::from(how % 3)];
    let first = match method {
        "POST" => "POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        method => format!("{method} /a HTTP/1.1\r\nHost: app.test\r\n\r\n"),
    };
    let client = format!("{first}GET /b HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let Scene { seen, received } = stage::play(client.as_bytes(), Some((bytes, how & 0x80 != 0)));
    let targets: Vec<_> = received.iter().map(|request| request.head.target()).collect();
    // A page may be asked for once more on another connection (S101), a form never.
    let is_once = targets.iter().filter(|target| **target == "/a").count() == 1;
    assert!(is_once || (method != "POST" && targets.starts_with(&["/a", "/a"])), "{targets:?}");
    assert!(targets.iter().filter(|target| **target == "/b").count() <= 1, "{targets:?}");
    // The first answer is of the application's making; then comes ours, or that to the second request.
    let Some((_, used)) = strict::response(&seen, method, true).unwrap_or_else(|error| panic!("{error}")) else {
        return;
    };
    let rest = &seen[used..];
    let Some((answer, used)) = strict::response(rest, "GET", true).unwrap_or_else(|error| panic!("{error}")) else {
        return;
    };
    let asked = received.iter().position(|request| request.head.target() == "/b");
    let is_its_own = asked.is_some_and(|number| answer.body == stage::echo(number, &received[number]));
    let is_ours = (502..505).contains(&answer.head.status()) && answer.body.starts_with(b"The ");
    assert!(is_its_own || is_ours, "the second request got {answer:?}");
    assert_eq!(used, rest.len(), "more answers than requests");
}

/// The number that the application gave the request that this answers; our own answers have none.
fn number(answer: &Head) -> Option<usize> {
    answer.all("x-number").next()?.parse().ok()
}

/// The final answers that a client gets.
fn answers(mut seen: &[u8], received: &[Message]) -> Vec<Message> {
    let mut answers = Vec::new();
    while let Some((head, used)) = strict::response_head(seen).unwrap_or_else(|error| panic!("{error}")) {
        let is_to_head = match number(&head) {
            Some(number) => received[number].head.start.starts_with("HEAD "),
            // None of our own texts begins like an answer.
            None => seen.len() == used || seen[used..].starts_with(b"HTTP/1."),
        };
        let method = if is_to_head { "HEAD" } else { "GET" };
        let Some((answer, used)) = strict::response(seen, method, true).unwrap_or_else(|error| panic!("{error}"))
        else {
            break;
        };
        seen = &seen[used..];
        if answer.head.status() >= 200 {
            answers.push(answer);
        }
    }
    answers
}

/// The requests at the beginning of these bytes that no two readers understand differently.
fn understood(mut data: &[u8]) -> Vec<Message> {
    let mut requests = Vec::new();
    while let Ok(Some((request, used))) = strict::request(data) {
        // Another form of the target is passed on in the usual one, a servlet's session is taken out.
        if !request.head.target().starts_with('/') || request.head.target().contains(';') {
            break;
        }
        // After these nothing more is read, or the body only when it was asked for.
        let ends = ["connection", "expect", "upgrade"].iter().any(|name| request.head.all(name).next().is_some());
        requests.push(request);
        data = &data[used..];
        if ends {
            break;
        }
    }
    requests
}

/// No field that is not a client's to say (S64 to S70, S86, VR-53).
fn check_cleaned(head: &Head) {
    let ours = [
        ("host", "app.test"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.test"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=127.0.0.1;host=app.test;proto=https"),
    ];
    for (name, value) in ours {
        assert_eq!(head.one(name), Ok(Some(value)), "{head:?}");
    }
    let is_handshake = head.all("upgrade").eq(["websocket"]) && head.all("connection").eq(["Upgrade"]);
    for (name, value) in &head.fields {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        assert!(is_plain, "{name} is several names to some");
        let is_hop =
            matches!(name.as_str(), "keep-alive" | "proxy-connection" | "te" | "trailer" | "proxy-authorization");
        assert!(!is_hop && (is_handshake || !matches!(name.as_str(), "connection" | "upgrade")), "{name} is ours");
        let is_forwarding = name.starts_with("x-forwarded-") && !ours.iter().any(|(ours, _)| name == ours);
        let is_trust = matches!(name.as_str(), "remote-user" | "proxy" | "client-cert" | "x-http-method-override");
        let is_path = name.starts_with("x-original-") || name.starts_with("x-rewrite-") || name.starts_with("x-ssl-");
        assert!(!is_forwarding && !is_trust && !is_path, "{name}: {value}");
        let is_ours = |cookie: &str| cookie.trim().starts_with("__Host-session=");
        assert!(name != "cookie" || !value.split(';').any(is_ours), "our cookie went on: {value}");
    }
}
