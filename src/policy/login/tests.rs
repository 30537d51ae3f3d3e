//! Login styles of real applications, each as a rule and what it makes of the application's answers.

use http::HeaderValue;
use http::StatusCode;

use super::*;
use crate::clock::Timestamp;
use crate::policy::path::PathCase;
use crate::policy::site::Origin;

fn rule(user: &[UserSource]) -> LoginRule {
    LoginRule {
        path: PathRule::parse("/login"),
        methods: vec![Method::POST],
        form: None,
        page: Target::parse("/login", PathCase::Exact),
        return_param: None,
        user: user.to_vec(),
        user_match: None,
        failure: None,
        success: None,
        verify: None,
        throttle: ThrottleRules::default(),
    }
}

fn form(field: &str) -> UserSource {
    UserSource::Form(field.into())
}

fn statuses(codes: &[u16]) -> Vec<StatusCode> {
    codes.iter().map(|code| StatusCode::from_u16(*code).unwrap()).collect()
}

fn locations(globs: &[&str]) -> Vec<LocationRule> {
    globs.iter().map(|glob| LocationRule { glob: Glob::new(*glob) }).collect()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

struct Sent {
    method: Method,
    target: Target,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn sent(method: Method, raw: &str, content_type: &str, body: &str) -> Sent {
    let target = Target::parse(raw, PathCase::Exact);
    let lines = [("content-type", content_type)];
    let headers = if content_type.is_empty() { HeaderMap::new() } else { headers(&lines) };
    Sent { method, target, headers, body: body.as_bytes().to_vec() }
}

fn posted(body: &str) -> Sent {
    sent(Method::POST, "/login", "application/x-www-form-urlencoded", body)
}

fn tried<'a>(rules: &'a [LoginRule], sent: &Sent) -> Result<Option<Attempt<'a>>, Unreadable> {
    let Sent { method, target, headers, body } = sent;
    attempt(rules, LoginRequest { method, target, headers, body: Some(body) })
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    complete: bool,
}

fn answered(status: u16, lines: &[(&'static str, &str)], body: &str) -> Answered {
    Answered { status, headers: headers(lines), body: Some(body.as_bytes().to_vec()), complete: true }
}

fn with<T>(answered: &Answered, look: impl FnOnce(Answer<'_>) -> T) -> T {
    look(Answer {
        status: StatusCode::from_u16(answered.status).unwrap(),
        headers: &answered.headers,
        body: answered.body.as_deref(),
        body_complete: answered.complete,
        target: &Target::parse("/login?next=/x", PathCase::Exact),
        origin: &Origin { host: "app.test".into(), port: 443 },
        now: Timestamp::from_millis(1_000_000),
    })
}

fn outcome(rule: &LoginRule, status: u16, lines: &[(&'static str, &str)], body: &str) -> Outcome {
    with(&answered(status, lines, body), |answer| judge(rule, answer).outcome)
}

#[test]
fn a_redirect_is_success_and_the_form_again_is_failure() {
    // S28: Django: 302, or 200 with the form.
    let mut rule = rule(&[form("username")]);
    rule.success =
        Some(Criteria { status: statuses(&[302, 303]), location_not: locations(&["/login*"]), ..Criteria::default() });
    assert_eq!(outcome(&rule, 302, &[("location", "/admin/")], ""), Outcome::Success);
    assert_eq!(outcome(&rule, 302, &[("location", "http://app.test/")], ""), Outcome::Success, "rewritten on the way");
    assert_eq!(outcome(&rule, 303, &[("location", "https://app.test/a")], ""), Outcome::Success);
    assert_eq!(outcome(&rule, 302, &[("location", "/login?error")], ""), Outcome::Failure);
    assert_eq!(outcome(&rule, 302, &[("location", "?error")], ""), Outcome::Failure, "relative to the request");
    assert_eq!(outcome(&rule, 302, &[("location", "https://idp.test/")], ""), Outcome::Failure);
    assert_eq!(outcome(&rule, 302, &[], ""), Outcome::Failure, "no location");
    assert_eq!(outcome(&rule, 200, &[], "form"), Outcome::Failure);
    assert_eq!(outcome(&rule, 403, &[], "form"), Outcome::Failure);
    assert_eq!(outcome(&rule, 500, &[], ""), Outcome::Undetermined);
}

#[test]
fn only_the_location_tells() {
    let mut rule = rule(&[form("user")]);
    rule.success = Some(Criteria { location: locations(&["/home*", "https://portal.test/*"]), ..Criteria::default() });
    assert_eq!(outcome(&rule, 302, &[("location", "home?x=1")], ""), Outcome::Success);
    assert_eq!(outcome(&rule, 302, &[("location", "https://portal.test/x")], ""), Outcome::Success);
    assert_eq!(outcome(&rule, 302, &[("location", "https://evil.test/home")], ""), Outcome::Failure);
    assert_eq!(outcome(&rule, 302, &[("location", "/login")], ""), Outcome::Failure);
    rule.success = Some(Criteria { location: locations(&["/index.php?page=home*"]), ..Criteria::default() });
    assert_eq!(outcome(&rule, 302, &[("location", "/index.php?page=home&x")], ""), Outcome::Success);
    assert_eq!(outcome(&rule, 302, &[("location", "/index.php?page=login")], ""), Outcome::Failure);
}

#[test]
fn only_a_cookie_tells() {
    let mut rule = rule(&[form("user")]);
    rule.success = Some(Criteria { set_cookie: vec![Glob::new("sess_*")], ..Criteria::default() });
    assert_eq!(outcome(&rule, 302, &[("location", "/"), ("set-cookie", "sess_1=x; HttpOnly")], ""), Outcome::Success);
    assert_eq!(outcome(&rule, 302, &[("location", "/"), ("set-cookie", "sess_1=; Max-Age=0")], ""), Outcome::Failure);
    assert_eq!(outcome(&rule, 302, &[("location", "/"), ("set-cookie", "sess_1=")], ""), Outcome::Failure);
    assert_eq!(outcome(&rule, 302, &[("location", "/"), ("set-cookie", "theme=x")], ""), Outcome::Failure);
}

#[test]
fn only_the_next_page_tells() {
    let mut rule = rule(&[form("user")]);
    rule.verify = Some(VerifyRule { path: None, criteria: Criteria::default() });
    assert_eq!(outcome(&rule, 302, &[("location", "/home?a=b#c")], ""), Outcome::Ask);
    let target =
        |location: &str| with(&answered(302, &[("location", location)], ""), |answer| verify_target(&rule, answer));
    assert_eq!(target("/home?a=b#c").as_deref(), Some("/home?a=b"));
    assert_eq!(target("https://evil.test/"), None);
    let verdict = |status, lines: &[(&'static str, &str)]| {
        with(&answered(status, lines, ""), |answer| judge_verify(&rule, answer, false).outcome)
    };
    assert_eq!(verdict(200, &[]), Outcome::Success);
    assert_eq!(verdict(302, &[("location", "/login")]), Outcome::Failure);
    assert_eq!(verdict(503, &[]), Outcome::Undetermined);
    let for_everyone = |status| with(&answered(status, &[], ""), |answer| judge_verify(&rule, answer, true).outcome);
    assert_eq!([for_everyone(200), for_everyone(401)], [Outcome::Undetermined, Outcome::Failure]);
}

#[test]
fn the_body_tells() {
    // S150: qBittorrent answers 200 with "Ok." or "Fails."
    let mut rule = rule(&[form("username")]);
    rule.success = Some(Criteria { body_contains: vec!["Ok.".into()], ..Criteria::default() });
    assert!(rule.needs_response_body());
    assert_eq!(outcome(&rule, 200, &[], "Ok."), Outcome::Success);
    assert_eq!(outcome(&rule, 200, &[], "Fails."), Outcome::Failure);
    assert_eq!(outcome(&rule, 200, &[], ""), Outcome::Failure);
    assert_eq!(outcome(&rule, 200, &[("content-encoding", "gzip")], "Ok."), Outcome::Failure);
    assert_eq!(outcome(&rule, 403, &[], "Ok."), Outcome::Failure, "without status only 2xx and 3xx");
    rule.success = Some(Criteria { body_omits: vec!["Wrong".into()], ..Criteria::default() });
    assert_eq!(outcome(&rule, 200, &[], "Welcome"), Outcome::Success);
    assert_eq!(outcome(&rule, 200, &[], "Wrong"), Outcome::Failure);
    assert_eq!(outcome(&rule, 200, &[], ""), Outcome::Failure);
    let mut long = answered(200, &[], "Welcome");
    long.complete = false;
    assert_eq!(with(&long, |answer| judge(&rule, answer).outcome), Outcome::Failure);
}

#[test]
fn what_cannot_be_searched_for_failure_is_no_success() {
    // S29: a client could push the message out of sight, by what the page repeats or by asking for a part.
    let mut rule = rule(&[form("username")]);
    rule.failure = Some(Criteria { body_contains: vec!["Wrong".into()], ..Criteria::default() });
    rule.success = Some(Criteria { status: statuses(&[200, 206, 302]), ..Criteria::default() });
    assert_eq!(outcome(&rule, 200, &[], "Welcome"), Outcome::Success);
    assert_eq!(outcome(&rule, 302, &[], ""), Outcome::Success);
    assert_eq!(outcome(&rule, 200, &[("content-encoding", "br")], "x"), Outcome::Undetermined);
    assert_eq!(outcome(&rule, 206, &[], "Welcome"), Outcome::Undetermined);
    let mut long = answered(200, &[], "Welcome");
    long.complete = false;
    assert_eq!(with(&long, |answer| judge(&rule, answer).outcome), Outcome::Undetermined);
    rule.failure = None;
    rule.success = Some(Criteria { body_omits: vec!["Wrong".into()], ..Criteria::default() });
    assert_eq!(outcome(&rule, 206, &[], "Welcome"), Outcome::Failure);
}

#[test]
fn json_tells() {
    let mut rule = rule(&[UserSource::Json("/user".into())]);
    rule.success = Some(Criteria { json: vec![("/ok".into(), Some(true.into()))], ..Criteria::default() });
    assert_eq!(outcome(&rule, 200, &[], "{\"ok\":true}"), Outcome::Success);
    assert_eq!(outcome(&rule, 200, &[], "{\"ok\":false}"), Outcome::Failure);
    rule.success = Some(Criteria { json: vec![("/token".into(), None)], ..Criteria::default() });
    assert_eq!(outcome(&rule, 200, &[], "{\"token\":\"x\"}"), Outcome::Success);
    assert_eq!(outcome(&rule, 200, &[], "{\"token\":null}"), Outcome::Failure);
}

#[test]
fn failure_is_asked_first_and_any_key_will_do() {
    let mut rule = rule(&[form("user")]);
    rule.failure =
        Some(Criteria { status: statuses(&[401]), body_contains: vec!["denied".into()], ..Criteria::default() });
    rule.success = Some(Criteria { status: statuses(&[200, 401]), ..Criteria::default() });
    assert_eq!(outcome(&rule, 401, &[], "x"), Outcome::Failure);
    assert_eq!(outcome(&rule, 200, &[], "access denied"), Outcome::Failure);
    assert_eq!(outcome(&rule, 200, &[], "x"), Outcome::Success);
}

#[test]
fn every_criterion_is_noted_without_secrets() {
    // S161
    let mut rule = rule(&[form("user")]);
    rule.success = Some(Criteria {
        status: statuses(&[302]),
        location_not: locations(&["/login*"]),
        set_cookie: vec![Glob::new("sid")],
        ..Criteria::default()
    });
    let lines = [("location", "/home?ticket=s3cret"), ("set-cookie", "sid=s3cret")];
    let trial = with(&answered(302, &lines, ""), |answer| judge(&rule, answer));
    let noted: Vec<_> =
        trial.criteria.iter().map(|noted| (noted.name.as_str(), noted.matched, noted.found.as_str())).collect();
    assert_eq!(
        noted,
        [("success.status", true, "302"), ("success.location_not", true, "/home"), ("success.set_cookie", true, "sid")]
    );
}

#[test]
fn an_attempt_needs_its_user_field() {
    let rules = [rule(&[form("user")])];
    assert!(tried(&rules, &posted("user=alice&password=x")).unwrap().is_some());
    assert!(tried(&rules, &posted("search=x")).unwrap().is_none());
    assert!(tried(&rules, &posted("")).unwrap().is_none());
    assert!(tried(&rules, &sent(Method::GET, "/login", "", "")).unwrap().is_none());
    let session_in_path = sent(Method::POST, "/login;jsessionid=1F", "application/x-www-form-urlencoded", "user=a");
    assert!(tried(&rules, &session_in_path).unwrap().is_some());
}

#[test]
fn a_user_field_is_never_chosen_among_several() {
    // product 3.5
    let duplicate = Some(Unreadable::DuplicateField);
    let rules = [rule(&[form("user")])];
    assert_eq!(tried(&rules, &posted("user=a&user=b")).err(), duplicate);
    let in_both = sent(Method::POST, "/login?user=b", "application/x-www-form-urlencoded", "user=a");
    assert_eq!(tried(&rules, &in_both).err(), duplicate);
    assert_eq!(tried(&rules, &posted("user=%ff&p=x")).err(), Some(Unreadable::Encoding));
    assert_eq!(tried(&rules, &posted("user=a&p=%ff")).err(), None, "a password in the application's charset");
    assert_eq!(tried(&rules, &sent(Method::POST, "/login", "text/plain", "user=a")).err(), Some(Unreadable::Type));
    for body in
        ["user=a&User=b", "user=a&user[]=b", "user=a&%20user=b", "user=a&user%00=b", "user=a&x=1;user=b", "user=a;x=1"]
    {
        assert_eq!(tried(&rules, &posted(body)).err(), duplicate, "{body}");
    }
    for other in ["user_name=a&user.name=b", "user_name=a&user+name=b", "user_name=a&user[name=b"] {
        assert_eq!(tried(&[rule(&[form("user_name")])], &posted(other)).err(), duplicate, "{other}");
    }
    let json = [rule(&[UserSource::Json("/user".into())])];
    let twice = sent(Method::POST, "/login", "application/json", "{\"user\":\"a\",\"User\":\"b\"}");
    assert_eq!(tried(&json, &twice).err(), duplicate);
    let nested = [rule(&[UserSource::Json("/user/name".into())])];
    for (rules, raw, body) in
        [(&json, "/login?USER=b", "{\"user\":\"a\"}"), (&nested, "/login?user[name]=b", "{\"user\":{\"name\":\"a\"}}")]
    {
        let in_both = sent(Method::POST, raw, "application/json", body);
        assert_eq!(tried(rules, &in_both).err(), duplicate, "{raw}");
    }
}

#[test]
fn a_user_field_that_is_not_where_the_rule_looks_is_no_way_around_it() {
    // product 3.5: to an application that merges query, form and JSON it is a login.
    let elsewhere = Some(Unreadable::Elsewhere);
    let (kind, json) = ("application/x-www-form-urlencoded", "application/json");
    let by_form = [rule(&[form("user")])];
    let by_json = [rule(&[UserSource::Json("/user".into())])];
    let by_query = [rule(&[UserSource::Query("user".into())])];
    let by_both = [rule(&[form("user"), UserSource::ResponseHeader(HeaderName::from_static("x-user"))])];
    for (rules, raw, content_type, body) in [
        (&by_form, "/login?user=b&p=x", "", ""),
        (&by_form, "/login?user=b", kind, "p=x"),
        (&by_form, "/login?USER[]=b", "", ""),
        (&by_form, "/login", json, "{\"user\":\"b\"}"),
        (&by_form, "/login", kind, "User=b"),
        (&by_form, "/login", kind, "user[]=b"),
        (&by_form, "/login", kind, "x=1;user=b"),
        (&by_json, "/login?user=b", "", ""),
        (&by_json, "/login", kind, "user=b"),
        (&by_json, "/login", json, "{\"User\":\"b\"}"),
        (&by_json, "/login", json, "{\"user\":[\"b\"]}"),
        (&by_query, "/login", kind, "user=b"),
        (&by_query, "/login", json, "{\"user\":\"b\"}"),
        (&by_query, "/login?User=b", "", ""),
        (&by_both, "/login?user=b", "", ""),
    ] {
        let sent = sent(Method::POST, raw, content_type, body);
        assert_eq!(tried(rules, &sent).err(), elsewhere, "{raw} {content_type} {body}");
    }
    assert!(Unreadable::Elsewhere.is_no_form(), "ordinary traffic of a session");
    for rules in [&by_form, &by_json, &by_query] {
        for (content_type, body) in [("", ""), (kind, "code=1"), (json, "{\"code\":1}")] {
            let sent = sent(Method::POST, "/login?next=/", content_type, body);
            assert!(tried(rules, &sent).unwrap().is_none(), "{content_type} {body}");
        }
    }
}

#[test]
fn a_name_from_a_later_source_is_not_taken_where_the_application_may_see_an_earlier_one() {
    // product 3.5
    let rules = [rule(&[form("user_name"), form("mail")])];
    assert!(tried(&rules, &posted("mail=a")).unwrap().is_some());
    assert_eq!(tried(&rules, &posted("user.name=b&mail=a")).err(), Some(Unreadable::DuplicateField));
}

#[test]
fn what_makes_it_a_login_is_never_chosen_among_several() {
    // Otherwise the application does something else, and its answer passes for a login.
    let duplicate = Some(Unreadable::DuplicateField);
    let mut by_field = rule(&[form("user")]);
    by_field.form = Some(FieldCondition { name: "do".into(), value: Some("login".into()) });
    let rules = [by_field];
    assert!(tried(&rules, &posted("user=a&do=login&do=login")).unwrap().is_some());
    assert_eq!(tried(&rules, &posted("user=a&do=login&do=x")).err(), duplicate);
    let in_query = sent(Method::POST, "/login?do=x", "application/x-www-form-urlencoded", "user=a&do=login");
    assert_eq!(tried(&rules, &in_query).err(), duplicate);

    let mut by_query = rule(&[UserSource::ResponseHeader(HeaderName::from_static("x-user"))]);
    by_query.path = PathRule::parse("/login?do=login");
    let rules = [by_query];
    let with =
        |raw: &str, kind: &str, body: &str| tried(&rules, &sent(Method::POST, raw, kind, body)).map(|it| it.is_some());
    let urlencoded = "application/x-www-form-urlencoded";
    assert_eq!(with("/login?do=login", urlencoded, "do=login"), Ok(true));
    assert_eq!(with("/login?do=login", "text/xml", "<x/>"), Ok(true));
    assert_eq!(with("/login?do=login&do=x", urlencoded, "").err(), duplicate);
    assert_eq!(with("/login?do=login", urlencoded, "do=x").err(), duplicate);
}

#[test]
fn what_makes_it_a_login_is_found_where_an_application_may_find_it() {
    // product 3.5, VR-31: DokuWiki looks for `do` in query and form, whatever its letter case, and takes a key for it.
    let kind = "application/x-www-form-urlencoded";
    let condition = FieldCondition { name: "do".into(), value: Some("login".into()) };
    let by_form = [LoginRule { form: Some(condition.clone()), ..rule(&[form("u")]) }];
    let by_query = [LoginRule { path: PathRule::parse("/login?do=login"), ..rule(&[form("u")]) }];
    let any = FieldCondition { value: None, ..condition };
    let nameless = [LoginRule { form: Some(any), ..rule(&[UserSource::Fixed("operator".into())]) }];
    for (rules, raw, body) in [
        (&by_form, "/login?do=login", "u=b&p=x"),
        (&by_form, "/login?do=login", "do=x&u=b"),
        (&by_form, "/login?do=login&u=b", ""),
        (&by_form, "/login", "do=LOGIN&u=b"),
        (&by_form, "/login", "do[login]=1&u=b"),
        (&by_form, "/login", "Do=login&u=b"),
        (&by_form, "/login", "x=1;do=login&u=b"),
        (&by_query, "/login", "do=login&u=b"),
        (&by_query, "/login?do=x", "do=login&u=b"),
        (&by_query, "/login?DO=login", "u=b"),
        (&by_query, "/login?do=Login", "u=b&u=c"),
        (&by_query, "/login?u=b", "do=login"),
        (&nameless, "/login?do", "p=x"),
    ] {
        assert_eq!(
            tried(rules, &sent(Method::POST, raw, kind, body)).err(),
            Some(Unreadable::Elsewhere),
            "{raw} {body}"
        );
    }
    for (rules, raw, body) in [
        (&by_form, "/login?do=login", "id=x"),
        (&by_form, "/login?do=x", "do=save&u=b"),
        (&by_form, "/login", "redo=login&u=b"),
        (&by_query, "/login?do=x", "u=b"),
        (&by_query, "/login", "do=login&id=x"),
        (&by_query, "/other", "do=login&u=b"),
        (&nameless, "/login", "p=x"),
    ] {
        assert!(tried(rules, &sent(Method::POST, raw, kind, body)).unwrap().is_none(), "{raw} {body}");
    }
    let both = [by_query[0].clone(), by_form[0].clone()];
    assert_eq!(tried(&both, &posted("do=login&u=b")).unwrap().unwrap().number, 2, "where one looks there it is one");
    let upload = sent(Method::POST, "/login", "image/png", "do=login&u=b");
    assert!(tried(&by_query, &upload).unwrap().is_none());
}

#[test]
fn a_login_path_that_can_be_read_as_another_is_no_login_and_opens_nothing() {
    // VR-13: the application may see another path, whose answer must not be taken for that to a login.
    let rules = [rule(&[form("user")])];
    for raw in ["/admin/../login", "/admin/%2e%2e/login", "//login", "/login;x", "/login%3bjsessionid=1"] {
        let sent = sent(Method::POST, raw, "application/x-www-form-urlencoded", "user=a");
        assert_eq!(tried(&rules, &sent).err(), Some(Unreadable::Path), "{raw}");
        assert_eq!(rules[0].opens(&Method::POST, &sent.target), Opening::None, "{raw}");
    }
}

#[test]
fn a_login_can_be_a_get_a_basic_or_have_no_name() {
    let mut by_get = rule(&[UserSource::Query("u".into())]);
    by_get.methods = vec![Method::GET];
    let rules = [by_get];
    assert!(tried(&rules, &sent(Method::GET, "/login?u=alice&p=x", "", "")).unwrap().is_some());
    assert!(tried(&rules, &sent(Method::GET, "/login", "", "")).unwrap().is_none());
    assert!(tried(&rules, &sent(Method::GET, "/login?u=a&u=b", "", "")).is_err());

    let rules = [rule(&[UserSource::Basic])];
    let mut basic = posted("");
    basic.headers.insert("authorization", HeaderValue::from_static("Basic YWxpY2U6eDp5"));
    let attempt = tried(&rules, &basic).unwrap().unwrap();
    assert_eq!(with(&answered(200, &[], ""), |answer| user(&attempt, answer, None)).unwrap().as_str(), "alice");

    let mut fixed = rule(&[UserSource::Fixed("operator".into())]);
    fixed.form = Some(FieldCondition { name: "password".into(), value: None });
    let rules = [fixed];
    assert!(tried(&rules, &posted("x=y")).unwrap().is_none());
    let attempt = tried(&rules, &posted("password=x")).unwrap().unwrap();
    assert_eq!(with(&answered(200, &[], ""), |answer| user(&attempt, answer, None)).unwrap().as_str(), "operator");
}

#[test]
fn a_field_tells_login_and_logout_on_one_path_apart() {
    let mut login = rule(&[form("user")]);
    login.form = Some(FieldCondition { name: "action".into(), value: Some("login".into()) });
    let rules = [login];
    assert!(tried(&rules, &posted("action=login&user=a")).unwrap().is_some());
    assert!(tried(&rules, &posted("action=logout&user=a")).unwrap().is_none());
}

#[test]
fn the_first_source_that_yields_a_name_wins() {
    let rules = [rule(&[
        UserSource::ResponseHeader(HeaderName::from_static("x-user")),
        UserSource::ResponseJson("/name".into()),
        UserSource::SetCookie(Glob::new("who*")),
        form("user"),
    ])];
    let attempt = tried(&rules, &posted("user=typed")).unwrap().unwrap();
    let name = |lines: &[(&'static str, &str)], body: &str| {
        with(&answered(200, lines, body), |answer| user(&attempt, answer, None)).map(|user| user.as_str().to_owned())
    };
    assert_eq!(name(&[("x-user", "header")], "{\"name\":\"json\"}").unwrap(), "header");
    assert_eq!(name(&[("x-user", "")], "{\"name\":\"json\"}").unwrap(), "json");
    assert_eq!(name(&[("set-cookie", "whoami=al%20ice+b; Path=/")], "").unwrap(), "al ice+b");
    assert_eq!(name(&[], "").unwrap(), "typed");
    assert_eq!(rules[0].marker_headers().count(), 1);
}

#[test]
fn verified_names_and_cut_names() {
    let mut rule = rule(&[UserSource::VerifyJson("/me/mail".into())]);
    rule.user_match = Some(regex::Regex::new("^([^@]+)@").unwrap());
    let rules = [rule];
    let attempt = tried(&rules, &posted("x=y")).unwrap().unwrap();
    let name = |body: &str| {
        with(&answered(302, &[], ""), |answer| {
            with(&answered(200, &[], body), |verified| user(&attempt, answer, Some(verified)))
        })
    };
    assert_eq!(name("{\"me\":{\"mail\":\"alice@x\"}}").unwrap().as_str(), "alice");
    assert_eq!(name("{\"me\":{\"mail\":\"alice\"}}"), Err(NoUser::NoMatch));
    assert_eq!(name("{}"), Err(NoUser::Missing));
}

#[test]
fn an_unwatched_login_is_noticed_by_its_cookie() {
    let mut rule = rule(&[form("user")]);
    rule.success = Some(Criteria { set_cookie: vec![Glob::new("PHPSESSID*")], ..Criteria::default() });
    assert!(awaits_cookie(&[rule.clone()], "PHPSESSID"));
    assert!(!awaits_cookie(&[rule], "theme"));
}
