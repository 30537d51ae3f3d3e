//! What a request to the admin surface asks for: method, path and query, read without doing anything.

use http::Method;

use crate::policy::path::parameters;
use crate::policy::session::UserName;

/// Sessions on a page of the list, unless the request says otherwise.
const PAGE: usize = 100;
/// And at most.
const LONGEST_PAGE: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Health,
    Readiness,
    Metrics,
    Description,
    Learned,
    List { user: Option<UserName>, from: Option<String>, limit: usize },
    Show(String),
    Revoke(Whose),
}

/// Whose sessions are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The one with this public handle.
    One(String),
    User(UserName),
    Everybody,
}

/// Why nothing is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misread {
    NoEndpoint,
    /// The endpoint has these methods.
    Method(&'static str),
    /// What is wrong with the query.
    Query(&'static str),
}

/// Whether a path is open without a token: those who watch over the service need not know one (S192).
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Reads a request.
pub(super) fn read(method: &Method, path: &str, query: &str) -> Result<Asked, Misread> {
    let bare = |asked: Asked| if query.is_empty() { Ok(asked) } else { Err(Misread::Query("it has no parameters")) };
    let get = |asked: Asked| match *method {
        Method::GET | Method::HEAD => bare(asked),
        _ => Err(Misread::Method("GET, HEAD")),
    };
    match path {
        "/healthz" => get(Asked::Health),
        "/readyz" => get(Asked::Readiness),
        "/metrics" => get(Asked::Metrics),
        "/openapi.json" => get(Asked::Description),
        "/learned" => get(Asked::Learned),
        "/sessions" => match *method {
            Method::GET | Method::HEAD => read_list(query),
            Method::DELETE => read_revocation(query).map(Asked::Revoke),
            _ => Err(Misread::Method("GET, HEAD, DELETE")),
        },
        _ => {
            let name = path.strip_prefix("/sessions/").filter(|name| !name.is_empty() && !name.contains('/'));
            let name = name.ok_or(Misread::NoEndpoint)?.to_owned();
            match *method {
                Method::GET | Method::HEAD => bare(Asked::Show(name)),
                Method::DELETE => bare(Asked::Revoke(Whose::One(name))),
                _ => Err(Misread::Method("GET, HEAD, DELETE")),
            }
        }
    }
}

fn read_list(query: &str) -> Result<Asked, Misread> {
    let (mut user, mut from, mut limit) = (None, None, None);
    for (name, value) in parameters(query) {
        let is_first = match &*name {
            "user" => user.replace(read_user(&value)?).is_none(),
            "cursor" => from.replace(value.into_owned()).is_none(),
            "limit" => {
                let number = value.parse().ok().filter(|number| (1..=LONGEST_PAGE).contains(number));
                limit.replace(number.ok_or(Misread::Query("limit is a number from 1 to 1000"))?).is_none()
            }
            _ => return Err(Misread::Query("the parameters are user, cursor and limit")),
        };
        if !is_first {
            return Err(Misread::Query("a parameter occurs twice"));
        }
    }
    Ok(Asked::List { user, from, limit: limit.unwrap_or(PAGE) })
}

/// Nothing is ever ended because a parameter was forgotten, mistyped or misunderstood.
fn read_revocation(query: &str) -> Result<Whose, Misread> {
    let help = Misread::Query("write user=NAME or all=true");
    let mut parameters = parameters(query);
    let (Some((name, value)), None) = (parameters.next(), parameters.next()) else { return Err(help) };
    match (&*name, &*value) {
        ("user", user) => Ok(Whose::User(read_user(user)?)),
        ("all", "true") => Ok(Whose::Everybody),
        _ => Err(help),
    }
}

fn read_user(text: &str) -> Result<UserName, Misread> {
    UserName::parse(text).map_err(|_| Misread::Query("nobody can have this user name"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DESCRIPTION: &str = include_str!("openapi.json");

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn ask(method: &str, target: &str) -> Result<Asked, Misread> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        read(&method.parse().unwrap(), path, query)
    }

    #[test]
    fn requests_are_read_as_the_contract_says() {
        let list = |user, from: Option<&str>, limit| Ok(Asked::List { user, from: from.map(str::to_owned), limit });
        for (method, target, asked) in [
            ("GET", "/healthz", Ok(Asked::Health)),
            ("HEAD", "/readyz", Ok(Asked::Readiness)),
            ("GET", "/metrics", Ok(Asked::Metrics)),
            ("GET", "/openapi.json", Ok(Asked::Description)),
            ("GET", "/learned", Ok(Asked::Learned)),
            ("GET", "/sessions", list(None, None, 100)),
            ("GET", "/sessions?user=alice+b%C3%A9&limit=7&cursor=x-1", list(Some(user("alice bé")), Some("x-1"), 7)),
            ("GET", "/sessions/abc", Ok(Asked::Show("abc".to_owned()))),
            ("DELETE", "/sessions/abc", Ok(Asked::Revoke(Whose::One("abc".to_owned())))),
            ("DELETE", "/sessions?user=a%26b", Ok(Asked::Revoke(Whose::User(user("a&b"))))),
            ("DELETE", "/sessions?all=true", Ok(Asked::Revoke(Whose::Everybody))),
        ] {
            assert_eq!(ask(method, target), asked, "{method} {target}");
        }
    }

    #[test]
    fn what_is_not_quite_right_ends_nothing() {
        // S191
        for target in [
            "/sessions",
            "/sessions?",
            "/sessions?user=",
            "/sessions?all=",
            "/sessions?all=false",
            "/sessions?all=true&user=alice",
            "/sessions?user=alice&user=bob",
            "/sessions?users=alice",
            "/sessions/abc?all=true",
        ] {
            assert!(matches!(ask("DELETE", target), Err(Misread::Query(_))), "{target}");
        }
        for target in ["/sessions/", "/sessions/a/b", "/", "", "/session", "//sessions", "/Sessions"] {
            assert_eq!(ask("DELETE", target), Err(Misread::NoEndpoint), "{target}");
        }
        for (method, target) in
            [("GET", "/sessions?all=true"), ("GET", "/sessions?limit=0"), ("GET", "/openapi.json?x")]
        {
            assert!(matches!(ask(method, target), Err(Misread::Query(_))), "{target}");
        }
        for method in ["POST", "PUT", "PATCH", "OPTIONS"] {
            assert_eq!(ask(method, "/sessions"), Err(Misread::Method("GET, HEAD, DELETE")));
            assert_eq!(ask(method, "/sessions/abc"), Err(Misread::Method("GET, HEAD, DELETE")));
            assert_eq!(ask(method, "/openapi.json"), Err(Misread::Method("GET, HEAD")));
        }
        assert_eq!(ask("DELETE", "/openapi.json"), Err(Misread::Method("GET, HEAD")));
    }

    #[test]
    fn the_description_has_every_endpoint_and_method() {
        let description: serde_json::Value = serde_json::from_str(DESCRIPTION).unwrap();
        let mut described = Vec::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            let target = path.replace("{ref}", "abc");
            for method in ["get", "head", "put", "post", "delete", "patch", "options", "trace"] {
                // HEAD goes without saying.
                let is_described = methods.get(method).is_some() || (method == "head" && methods.get("get").is_some());
                let needs_query = target == "/sessions" && method == "delete";
                let target = if needs_query { "/sessions?all=true" } else { &target };
                let asked = ask(&method.to_ascii_uppercase(), target);
                assert_eq!(asked.is_ok(), is_described, "{method} {path}");
            }
            for operation in methods.as_object().unwrap().values().filter(|operation| operation.is_object()) {
                let is_open_there =
                    operation.get("security").is_some_and(|security| security[0] == serde_json::json!({}));
                assert_eq!(is_open_there, is_open(path), "{path}");
            }
            described.push(path.as_str());
        }
        described.sort_unstable();
        let all = ["/healthz", "/learned", "/metrics", "/openapi.json", "/readyz", "/sessions", "/sessions/{ref}"];
        assert_eq!(described, all);
    }

    proptest! {
        #[test]
        fn reading_never_panics(method in "[A-Z]{1,8}", path in "\\PC{0,40}", query in "\\PC{0,40}") {
            let _any = read(&method.parse().unwrap(), &path, &query);
        }

        #[test]
        fn only_delete_ends_sessions(method in "[A-Z]{1,8}", query in "\\PC{0,20}") {
            for path in ["/sessions", "/sessions/abc"] {
                let asked = read(&method.parse().unwrap(), path, &query);
                prop_assert!(method == "DELETE" || !matches!(asked, Ok(Asked::Revoke(_))));
            }
        }
    }
}
