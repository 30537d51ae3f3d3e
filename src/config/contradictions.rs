//! Values that are good each, but not together: a rule that can never match, a login that is closed.

use http::Method;

use crate::config::section::Section;
use crate::policy::access::Access;
use crate::policy::login::Criteria;
use crate::policy::login::LoginRule;
use crate::policy::login::UserSource;
use crate::policy::logout::LogoutRule;
use crate::policy::path::Target;
use crate::policy::path::parameters;
use crate::policy::route::OWN_PREFIX;
use crate::policy::site::Site;

/// A rule and the table it was read from; `None` when that has problems of its own.
pub(super) type Read<'a, T> = (Section<'a>, Option<T>);

/// Looks at the rules of a site together.
pub(super) fn report(site: &Site, logins: &[Read<'_, LoginRule>], logouts: &[Read<'_, LogoutRule>]) {
    for (place, (table, rule)) in logins.iter().enumerate() {
        let Some(rule) = rule else { continue };
        about_login(table, rule);
        about_closed_login(site, table, rule);
        let earlier = logins[..place].iter().filter_map(|(_, rule)| rule.as_ref());
        if earlier.into_iter().any(|earlier| is_same_attempt(earlier, rule)) {
            let help = "the first rule that matches decides: remove one, or tell them apart by form or parameters";
            table.problem("path", "an earlier site.login already takes all these requests", help);
        }
    }
    for (place, (table, rule)) in logouts.iter().enumerate() {
        let Some(rule) = rule else { continue };
        about_logout(site, table, rule);
        let earlier = logouts[..place].iter().filter_map(|(_, rule)| rule.as_ref());
        if earlier.into_iter().any(|earlier| covers(earlier, rule)) {
            let help = "the first rule that matches decides: remove one, or write the one with form first";
            table.problem("path", "an earlier site.logout already takes all these requests", help);
        }
    }
}

fn about_login(table: &Section<'_>, rule: &LoginRule) {
    let has_no_body =
        !rule.methods.is_empty() && rule.methods.iter().all(|method| matches!(*method, Method::GET | Method::HEAD));
    let reads_body = |source: &UserSource| matches!(source, UserSource::Form(_) | UserSource::Json(_));
    if has_no_body && rule.user.iter().any(reads_body) {
        let help = "what a GET sends stands in its query: write \"query:FIELD\"";
        table.problem("user", "site.login.user looks into a body, but method has only requests without one", help);
    }
    if has_no_body && rule.form.is_some() {
        let help = "what a GET sends stands in its query: write path = \"/login?name=value\"";
        table.problem("form", "site.login.form looks into a body, but method has only requests without one", help);
    }
    let page_query = rule.page.query().unwrap_or("");
    if let Some(name) = &rule.return_param
        && parameters(page_query).any(|(known, _)| known == name.as_str())
    {
        let help = "it is added when a browser is sent there: remove it from page";
        table.problem("return_param", format!("site.login.page already has the parameter {name:?}"), help);
    }
    if let (Some(success), Some(failure)) = (&rule.success, &rule.failure)
        && let Some(key) = fails_always(success, failure)
    {
        let help = "any match of failure is a failure: nothing would be left to be a success";
        table.problem("failure", format!("site.login.failure.{key} has all that success.{key} asks for"), help);
    }
    let verify = rule.verify.as_ref().map(|verify| &verify.criteria);
    for (key, criteria) in [("success", rule.success.as_ref()), ("verify", verify)] {
        if let Some((asks, excludes)) = criteria.and_then(excludes_itself) {
            let message = format!("site.login.{key}.{excludes} excludes all that {asks} asks for");
            table.problem(key, message, "both must match, and never will: remove one");
        }
    }
}

fn about_closed_login(site: &Site, table: &Section<'_>, rule: &LoginRule) {
    for (key, text, methods) in [
        ("path", table.text("path").map_or("", |found| found.text), rule.methods.as_slice()),
        ("page", rule.page.raw(), &[Method::GET]),
    ] {
        // A default page is the path: one message is enough.
        if key == "page" && !table.has("page") {
            continue;
        }
        if is_own(text) {
            report_own(table, key);
        } else if is_closed(site, text, methods) {
            let help = "deny wins over everything, so nobody could log in: narrow the pattern";
            table.problem(key, format!("site.login.{key} is closed by site.access.deny"), help);
        }
        if key == "path" && is_logout(site, text, methods) {
            let help = "a request that matches both is a logout: tell them apart by form or methods of the logout";
            table.problem(key, "every request of this site.login is a site.logout, too", help);
        }
    }
}

fn about_logout(site: &Site, table: &Section<'_>, rule: &LogoutRule) {
    let text = table.text("path").map_or("", |found| found.text);
    let any = [Method::GET, Method::POST];
    let methods = if rule.methods.is_empty() { any.as_slice() } else { rule.methods.as_slice() };
    if is_own(text) {
        report_own(table, "path");
    } else if is_closed(site, text, methods) {
        let help = "deny wins over everything, so nobody could log out: narrow the pattern";
        table.problem("path", "site.logout.path is closed by site.access.deny", help);
    }
}

fn report_own(table: &Section<'_>, key: &str) {
    let help = "everything there is answered by Vestibule itself: write a path of the application";
    table.problem(key, format!("{} is below {OWN_PREFIX}", table.full(key)), help);
}

fn is_own(path: &str) -> bool {
    path.starts_with(OWN_PREFIX)
}

/// Whether deny closes a path for all these methods. A glob may be closed in part: that is left alone.
fn is_closed(site: &Site, text: &str, methods: &[Method]) -> bool {
    let target = Target::parse(text, site.paths);
    !text.contains('*') && methods.iter().all(|method| site.access.judge(method, &target) == Access::Denied)
}

/// Whether a logout rule without a condition on the form takes every request for this path.
fn is_logout(site: &Site, text: &str, methods: &[Method]) -> bool {
    let target = Target::parse(text, site.paths);
    let takes = |method: &Method| {
        site.logout.iter().any(|rule| {
            rule.form.is_none()
                && (rule.methods.is_empty() || rule.methods.contains(method))
                && rule.path.matches(&target)
        })
    };
    !text.contains('*') && methods.iter().all(takes)
}

/// Whether the later rule can never be the first that matches.
fn is_same_attempt(earlier: &LoginRule, later: &LoginRule) -> bool {
    earlier.path == later.path
        && later.methods.iter().all(|method| earlier.methods.contains(method))
        && earlier.form == later.form
        && earlier.user == later.user
}

fn covers(earlier: &LogoutRule, later: &LogoutRule) -> bool {
    let all_methods = earlier.methods.is_empty()
        || (!later.methods.is_empty() && later.methods.iter().all(|method| earlier.methods.contains(method)));
    earlier.path == later.path && all_methods && (earlier.form.is_none() || earlier.form == later.form)
}

/// The key by which everything that could be a success is a failure.
fn fails_always(success: &Criteria, failure: &Criteria) -> Option<&'static str> {
    [
        ("status", is_within(&success.status, &failure.status)),
        ("location", is_within(&success.location, &failure.location)),
        ("location_not", is_within(&failure.location_not, &success.location_not)),
        ("body_contains", is_within(&success.body_contains, &failure.body_contains)),
        ("set_cookie", is_within(&failure.set_cookie, &success.set_cookie)),
    ]
    .into_iter()
    .find_map(|(key, is_within)| is_within.then_some(key))
}

/// Two keys of one table of which the second excludes what the first asks for.
fn excludes_itself(criteria: &Criteria) -> Option<(&'static str, &'static str)> {
    [
        ("location", "location_not", is_within(&criteria.location, &criteria.location_not)),
        ("body_contains", "body_omits", is_within(&criteria.body_contains, &criteria.body_omits)),
    ]
    .into_iter()
    .find_map(|(asks, excludes, is_within)| is_within.then_some((asks, excludes)))
}

fn is_within<T: PartialEq>(some: &[T], all: &[T]) -> bool {
    !some.is_empty() && some.iter().all(|one| all.contains(one))
}
