//! Finding the name of the user in requests and answers.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderName;
use http::header;

use crate::policy::cookie::SetCookie;
use crate::policy::glob::Glob;
use crate::policy::login::Answer;
use crate::policy::login::Attempt;
use crate::policy::login::LoginRequest;
use crate::policy::login::LoginRule;
use crate::policy::login::NoUser;
use crate::policy::login::Unreadable;
use crate::policy::login::UserSource;
use crate::policy::login::body;
use crate::policy::login::body::Body;
use crate::policy::login::fields::Fields;
use crate::policy::login::fields::Place;
use crate::policy::login::fields::Said;
use crate::policy::path::parameters;
use crate::policy::session::UserName;
use crate::policy::throttle;

/// What the request says for each source of the rule, in order.
///
/// # Errors
/// When a source is in doubt, or one yields a name where the application may have found that of another.
pub(super) fn typed(
    rule: &LoginRule,
    request: LoginRequest<'_>,
    body: &Body,
) -> Result<Vec<Option<String>>, Unreadable> {
    let fields = Fields::of(request.target, body);
    let said = |source: &UserSource| match source {
        UserSource::Form(field) => fields.one(Place::Form, field),
        UserSource::Json(pointer) => match (body.json(pointer)?, fields.is_in_parameters(&parameter_of(pointer))) {
            (Said::Value(_), true) => Err(Unreadable::DuplicateField),
            (Said::Nothing, true) => Ok(Said::Alike),
            (said @ (Said::Value(_) | Said::Nothing), false) | (said @ Said::Alike, _) => Ok(said),
        },
        UserSource::Query(field) => fields.one(Place::Query, field),
        UserSource::Basic => Ok(basic(request.headers)?.map_or(Said::Nothing, Said::Value)),
        UserSource::ResponseHeader(_)
        | UserSource::ResponseJson(_)
        | UserSource::SetCookie(_)
        | UserSource::VerifyHeader(_)
        | UserSource::VerifyJson(_)
        | UserSource::Fixed(_) => Ok(Said::Nothing),
    };
    let said: Vec<_> = rule.user.iter().map(said).collect::<Result<_, _>>()?;
    if said.contains(&Said::Alike) {
        let names = said.iter().any(|said| matches!(said, Said::Value(_)));
        return Err(if names { Unreadable::DuplicateField } else { Unreadable::Elsewhere });
    }
    let text = |said| match said {
        Said::Value(text) => Some(text),
        Said::Nothing | Said::Alike => None,
    };
    Ok(said.into_iter().map(text).collect())
}

/// The query parameter that frameworks take for the same: `user[name]` for `/user/name`.
pub(super) fn parameter_of(pointer: &str) -> String {
    let mut tokens = pointer.split('/').skip(1);
    let first = tokens.next().unwrap_or_default().to_owned();
    tokens.fold(first, |name, token| format!("{name}[{token}]"))
}

/// The user of an `Authorization: Basic` (RFC 7617).
fn basic(headers: &HeaderMap) -> Result<Option<String>, Unreadable> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Unreadable::DuplicateField);
    }
    let Some((scheme, token)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let decoded = STANDARD.decode(token.trim()).map_err(|_| Unreadable::Malformed)?;
    let text = String::from_utf8(decoded).map_err(|_| Unreadable::Encoding)?;
    let (user, _password) = text.split_once(':').ok_or(Unreadable::Malformed)?;
    Ok(Some(user.to_owned()))
}

/// Who logged in: the first source that yields a name, cut out by `user_match`.
///
/// # Errors
/// When no source yields one, or what it yields is no usable name.
pub fn user(attempt: &Attempt<'_>, answer: Answer<'_>, verified: Option<Answer<'_>>) -> Result<UserName, NoUser> {
    let sources = attempt.rule.user.iter().zip(&attempt.typed);
    let name = sources
        .filter_map(|(source, typed)| found(source, typed.as_deref(), answer, verified))
        .find(|name| !name.trim().is_empty())
        .ok_or(NoUser::Missing)?;
    let name = match &attempt.rule.user_match {
        Some(pattern) => {
            let cut = pattern.captures(&name).and_then(|groups| groups.get(1)).ok_or(NoUser::NoMatch)?;
            Cow::Owned(cut.as_str().to_owned())
        }
        None => name,
    };
    Ok(UserName::parse(&name)?)
}

/// Which account an attempt is about, and how that is spelt.
pub struct Account<'a> {
    /// One however it is typed (VR-31).
    pub counted: String,
    /// As it was typed.
    pub typed: &'a str,
}

/// Which account an attempt is about, as far as the request says: untrusted. `None` when only the answer will tell.
pub fn account<'a>(attempt: &'a Attempt<'_>) -> Option<Account<'a>> {
    let sources = attempt.rule.user.iter().zip(&attempt.typed);
    let mut names = sources.filter_map(|(source, typed)| match source {
        UserSource::Fixed(name) => Some(name.as_str()),
        UserSource::Form(_)
        | UserSource::Json(_)
        | UserSource::Query(_)
        | UserSource::Basic
        | UserSource::ResponseHeader(_)
        | UserSource::ResponseJson(_)
        | UserSource::SetCookie(_)
        | UserSource::VerifyHeader(_)
        | UserSource::VerifyJson(_) => typed.as_deref(),
    });
    let name = names.find(|name| !name.trim().is_empty())?;
    let cut = attempt.rule.user_match.as_ref().and_then(|pattern| pattern.captures(name)?.get(1));
    Some(Account { counted: throttle::account(cut.map_or(name, |group| group.as_str())), typed: name })
}

fn found<'a>(
    source: &'a UserSource,
    typed: Option<&'a str>,
    answer: Answer<'a>,
    verified: Option<Answer<'a>>,
) -> Option<Cow<'a, str>> {
    match source {
        UserSource::Form(_) | UserSource::Json(_) | UserSource::Query(_) | UserSource::Basic => {
            typed.map(Cow::Borrowed)
        }
        UserSource::ResponseHeader(name) => header_text(answer, name),
        UserSource::VerifyHeader(name) => header_text(verified?, name),
        UserSource::ResponseJson(pointer) => body::text_at(whole(answer)?, pointer).map(Cow::Owned),
        UserSource::VerifyJson(pointer) => body::text_at(whole(verified?)?, pointer).map(Cow::Owned),
        UserSource::SetCookie(glob) => cookie_value(answer, glob).map(Cow::Owned),
        UserSource::Fixed(name) => Some(Cow::Borrowed(name)),
    }
}

fn whole(answer: Answer<'_>) -> Option<&[u8]> {
    answer.body.filter(|_| answer.is_whole())
}

fn header_text<'a>(answer: Answer<'a>, name: &HeaderName) -> Option<Cow<'a, str>> {
    let value = answer.headers.get(name)?;
    std::str::from_utf8(value.as_bytes()).ok().map(Cow::Borrowed)
}

fn cookie_value(answer: Answer<'_>, glob: &Glob) -> Option<String> {
    answer.headers.get_all(header::SET_COOKIE).iter().find_map(|line| {
        let cookie = SetCookie::parse(line, answer.now)?;
        let name = std::str::from_utf8(&cookie.name).ok()?;
        if !glob.matches(name) || cookie.is_deletion(answer.now) {
            return None;
        }
        let value = std::str::from_utf8(&cookie.value).ok()?;
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        // Decoded as a query value would be, except that a plus is a plus.
        let encoded = value.replace('+', "%2B");
        let (decoded, _) = parameters(&encoded).next()?;
        Some(decoded.into_owned())
    })
}
