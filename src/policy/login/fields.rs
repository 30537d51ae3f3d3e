//! What a request says under the name of a field, in its query and in its body. What an application
//! might find in another place, or under a name that it takes for the same, puts it in doubt: nothing
//! is chosen, neither the first nor the last (product 3.5).

use std::borrow::Cow;

use crate::policy::login::FieldCondition;
use crate::policy::login::Unreadable;
use crate::policy::login::alias::fold;
use crate::policy::login::alias::is_alike;
use crate::policy::login::body::Body;
use crate::policy::login::body::Json;
use crate::policy::path::Target;
use crate::policy::path::parameters;

/// Everything in a request that some application takes for a field.
pub struct Fields<'a> {
    statements: Vec<Statement<'a>>,
}

struct Statement<'a> {
    place: Place,
    name: Cow<'a, str>,
    /// `None` for what only others than we take for a field.
    value: Option<Cow<'a, str>>,
}

/// Where a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The query.
    Query,
    /// A form in the body.
    Form,
    /// The top level of a JSON document in the body.
    Json,
}

/// What a request says about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing.
    Nothing,
    /// Nothing, but something that an application may take for it.
    Alike,
    /// This, and nothing else.
    Value(String),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// Yes.
    Yes,
    /// Only to an application that looks elsewhere than the rule, or takes another name or spelling for the same.
    Elsewhere,
    /// No.
    No,
}

impl<'a> Fields<'a> {
    /// The fields of a request.
    pub fn of(target: &'a Target, body: &'a Body) -> Self {
        let query = target.query().unwrap_or("");
        let said = |place, name, value| Statement { place, name, value: Some(value) };
        let mut statements: Vec<_> = parameters(query).map(|(name, value)| said(Place::Query, name, value)).collect();
        let shadow = |place, name| Statement { place, name, value: None };
        statements.extend(between_semicolons(query).map(|name| shadow(Place::Query, name)));
        match body {
            Body::Empty => {}
            Body::Form(form) => {
                let own = form.fields.iter().map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value)));
                statements.extend(own.map(|(name, value)| said(Place::Form, name, value)));
                statements.extend(form.shadows.iter().map(|name| shadow(Place::Form, Cow::Borrowed(&**name))));
            }
            Body::Json(Json::Object(members)) => {
                statements.extend(members.iter().map(|(name, value)| Statement {
                    place: Place::Json,
                    name: Cow::Borrowed(name),
                    value: value.text().map(Cow::Borrowed),
                }));
            }
            Body::Json(Json::Array(_) | Json::Scalar(_) | Json::Other) => {}
        }
        Self { statements }
    }

    /// The value of a field that stands in one place.
    ///
    /// # Errors
    /// When it, or what may be taken for it, is there more than once, or it is no UTF-8.
    pub fn one(&self, place: Place, name: &str) -> Result<Said, Unreadable> {
        let mut alike = self.alike(name);
        let (first, more) = (alike.next(), alike.next().is_some());
        let Some(first) = first else { return Ok(Said::Nothing) };
        let is_it = |said: &Statement<'_>| said.place == place && said.name == name && said.value.is_some();
        match &first.value {
            // It stands for bytes that are no UTF-8.
            Some(value) if value.contains(char::REPLACEMENT_CHARACTER) => Err(Unreadable::Encoding),
            Some(value) if is_it(first) && !more => Ok(Said::Value(value.clone().into_owned())),
            Some(_) | None if self.alike(name).any(is_it) => Err(Unreadable::DuplicateField),
            Some(_) | None => Ok(Said::Alike),
        }
    }

    /// Whether a field in one of these places meets the condition.
    ///
    /// # Errors
    /// When one does, and another that may be taken for it does not.
    pub fn meets(&self, places: &[Place], condition: &FieldCondition) -> Result<Met, Unreadable> {
        let mut alike = self.alike(&condition.name);
        if !self.may_meet(places, condition) {
            return Ok(if alike.any(|said| said.may_pass_for(condition)) { Met::Elsewhere } else { Met::No });
        }
        let contradicts = alike.any(|said| !said.meets(condition));
        if contradicts { Err(Unreadable::DuplicateField) } else { Ok(Met::Yes) }
    }

    /// Whether a field in one of these places meets the condition, whatever others say.
    pub fn may_meet(&self, places: &[Place], condition: &FieldCondition) -> bool {
        self.statements.iter().any(|said| places.contains(&said.place) && said.meets(condition))
    }

    /// Whether a query or a form has it, or what may be taken for it.
    pub fn is_in_parameters(&self, name: &str) -> bool {
        self.alike(name).any(|said| matches!(said.place, Place::Query | Place::Form))
    }

    /// Whether the query has it, or what may be taken for it.
    pub fn is_in_query(&self, name: &str) -> bool {
        self.alike(name).any(|said| said.place == Place::Query)
    }

    fn alike(&self, name: &str) -> impl Iterator<Item = &Statement<'a>> {
        self.statements.iter().filter(move |said| is_alike(&said.name, name))
    }
}

impl Statement<'_> {
    fn meets(&self, condition: &FieldCondition) -> bool {
        let is_wanted = |value: &str| condition.value.as_ref().is_none_or(|wanted| wanted == value);
        self.name == condition.name && self.value.as_deref().is_some_and(is_wanted)
    }

    /// The same for a field of a name that is alike, as some application sees it: whatever the letter case, and with
    /// the value for a key (`do[login]`).
    fn may_pass_for(&self, condition: &FieldCondition) -> bool {
        let Some((wanted, value)) = condition.value.as_deref().zip(self.value.as_deref()) else { return true };
        let is_list = self.name.contains('[') && !condition.name.contains('[');
        is_list || fold(value.trim()) == fold(wanted.trim())
    }
}

/// Names of the fields that applications find between semicolons, for whom those separate fields as
/// well.
pub(super) fn between_semicolons(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let pieces = text.split('&').filter(|piece| piece.contains(';')).flat_map(|piece| piece.split(';'));
    pieces.filter_map(|piece| parameters(piece).next()).map(|(name, _)| name)
}
