//! Enough of HTML to fill in a form as a browser does.

use regex::Regex;

/// A form of a page: where it goes, and the fields that it fills in itself.
#[derive(Debug)]
pub struct Form {
    pub action: String,
    pub fields: Vec<(String, String)>,
}

impl Form {
    /// The form of this page in which the pattern matches.
    pub fn with(html: &str, pattern: &str) -> Self {
        let pattern = Regex::new(pattern).unwrap();
        let form = html.split("<form").skip(1).map(|form| form.split("</form>").next().unwrap());
        let form = form
            .into_iter()
            .find(|form| pattern.is_match(form))
            .unwrap_or_else(|| panic!("no form with {pattern}: {html}"));
        let hidden = Regex::new(r"<input[^>]*>").unwrap();
        let hidden =
            hidden.find_iter(form).filter(|input| attribute(input.as_str(), "type").as_deref() == Some("hidden"));
        let field = |input: &str| Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default()));
        Self {
            action: attribute(form.split('>').next().unwrap(), "action").unwrap_or_default(),
            fields: hidden.filter_map(|input| field(input.as_str())).collect(),
        }
    }

    /// What is sent when these fields are filled in.
    pub fn filled<'a>(&'a self, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        own.filter(|(name, _)| fields.iter().all(|(other, _)| other != name)).chain(fields.iter().copied()).collect()
    }
}

/// The target of the link whose markup contains the text.
pub fn link(html: &str, text: &str) -> String {
    let links = Regex::new(r"<a [^>]*>").unwrap();
    let link = links.find_iter(html).find(|link| link.as_str().contains(text));
    attribute(link.unwrap_or_else(|| panic!("no link with {text}: {html}")).as_str(), "href").unwrap()
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let pattern = Regex::new(&format!(r#"(?i)\s{name}\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))"#)).unwrap();
    let found = pattern.captures(tag)?;
    let value = found.iter().skip(1).flatten().next()?.as_str();
    Some(value.replace("&amp;", "&").replace("&quot;", "\"").replace("&#39;", "'").replace("&#x27;", "'"))
}
