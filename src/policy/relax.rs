//! The strict rules about messages by their names: which ones a site can be spared (`relax`), at what
//! price, and why not the others.

use crate::policy::message::Malformed;
use crate::policy::path::Ambiguity;

/// A rule about messages, by the name that is in the log and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// About the head of a request.
    Head(Malformed),
    /// About its path.
    Path(Ambiguity),
    /// The grammar of HTTP: lines, lengths, chunks.
    Syntax,
    /// Fields whose names have other characters than letters, digits and `-` are dropped (S65).
    HeaderName,
    /// Fields that tell the application to do another method are dropped (S70).
    MethodOverride,
    /// Answers have a status from 100 to 599 (RFC 9110 15).
    Status,
    /// Answers have no folded fields and no spaces before a colon (RFC 9112 5.1, 5.2).
    AnswerLines,
}

/// Whether a rule can be switched off for a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relaxing {
    /// Yes.
    Can {
        /// What passes then.
        passes: &'static str,
        /// What may come of it.
        risk: &'static str,
    },
    /// No, but this key of `[site.limits]` can be raised.
    Raise(&'static str),
    /// No: this is what would come of it.
    Never(&'static str),
}

/// For a rule without which others could be got round.
const SMUGGLING: &str = "what the application reads would not be what was judged: one request could hide in another";

impl Rule {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 26] = [
        Self::Path(Ambiguity::EncodedSlash),
        Self::Path(Ambiguity::Backslash),
        Self::Path(Ambiguity::Nul),
        Self::Path(Ambiguity::Control),
        Self::Path(Ambiguity::Escape),
        Self::Path(Ambiguity::EmptySegment),
        Self::Path(Ambiguity::DotParameter),
        Self::Path(Ambiguity::BadEncoding),
        Self::Path(Ambiguity::DoubleEncoding),
        Self::Path(Ambiguity::Overlong),
        Self::Head(Malformed::Target),
        Self::Head(Malformed::Method),
        Self::MethodOverride,
        Self::HeaderName,
        Self::Head(Malformed::Expectation),
        Self::Status,
        Self::AnswerLines,
        Self::Head(Malformed::HeaderCount),
        Self::Head(Malformed::HeaderBytes),
        Self::Head(Malformed::UriLength),
        Self::Head(Malformed::Host),
        Self::Head(Malformed::Authority),
        Self::Head(Malformed::TransferEncoding),
        Self::Head(Malformed::ContentLength),
        Self::Head(Malformed::Loop),
        Self::Syntax,
    ];

    /// The name in the log and in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head(malformed) => malformed.name(),
            Self::Path(ambiguity) => ambiguity.name(),
            Self::Syntax => "syntax",
            Self::HeaderName => "header-name",
            Self::MethodOverride => "method-override",
            Self::Status => "status",
            Self::AnswerLines => "answer-lines",
        }
    }

    /// The rule of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// Whether it can be switched off.
    pub fn relaxing(self) -> Relaxing {
        match self {
            Self::Head(malformed) => head(malformed),
            Self::Path(ambiguity) => path(ambiguity),
            Self::Syntax => Relaxing::Never(SMUGGLING),
            Self::HeaderName => Relaxing::Can {
                passes: "fields with other characters in their names than letters, digits and -",
                risk: "programs behind CGI or WSGI take X_Name for X-Name",
            },
            Self::MethodOverride => Relaxing::Can {
                passes: "X-HTTP-Method-Override and the like",
                risk: "the application does another method than the one that was judged",
            },
            Self::Status => Relaxing::Can {
                passes: "answers with a status from 600 to 999",
                risk: "each browser makes something else of them",
            },
            Self::AnswerLines => Relaxing::Can {
                passes: "answers with folded fields or spaces before a colon, mended",
                risk: "what was meant as a new field may be read as part of the one before",
            },
        }
    }

    /// What an operator can do about a refusal.
    pub fn remedy(self) -> Option<String> {
        match self.relaxing() {
            Relaxing::Can { passes, .. } => {
                Some(format!("relax = [\"{}\"] in this [[site]] lets pass: {passes}", self.name()))
            }
            Relaxing::Raise(key) => Some(format!("raise {key} in [site.limits]")),
            Relaxing::Never(_) => None,
        }
    }
}

fn head(malformed: Malformed) -> Relaxing {
    match malformed {
        Malformed::Host | Malformed::Authority => Relaxing::Never(
            "a request for two hosts, or none, would be judged by the rules of one and answered by another",
        ),
        Malformed::TransferEncoding | Malformed::ContentLength => Relaxing::Never(SMUGGLING),
        Malformed::Loop => Relaxing::Never("a request that goes round in a circle takes every connection there is"),
        Malformed::HeaderCount => Relaxing::Raise("header_count"),
        Malformed::HeaderBytes => Relaxing::Raise("header_bytes"),
        Malformed::UriLength => Relaxing::Raise("uri"),
        Malformed::Target => Relaxing::Can {
            passes: "targets with characters beyond ASCII",
            risk: "only the client knows whether UTF-8 was meant",
        },
        Malformed::Method => Relaxing::Can {
            passes: "methods of the application's own",
            risk: "rules that name methods do not name these",
        },
        Malformed::Expectation => Relaxing::Can {
            passes: "unknown expectations",
            risk: "the client waits for something that nobody promised",
        },
    }
}

fn path(ambiguity: Ambiguity) -> Relaxing {
    let (passes, risk) = match ambiguity {
        Ambiguity::EncodedSlash => ("paths with %2F", "the application may take it for a slash"),
        Ambiguity::Backslash => ("paths with a backslash or %5C", "the application may take it for a slash"),
        Ambiguity::Nul => ("paths with %00", "the application may end the path there"),
        Ambiguity::Control => ("paths with control characters", "the application may leave them out"),
        Ambiguity::Escape => ("paths with .. above the root", "the application may look outside of its directory"),
        Ambiguity::EmptySegment => ("paths with .. behind //", "the application may go back one directory more"),
        Ambiguity::DotParameter => ("paths with ..;", "the application may take it for .."),
        Ambiguity::BadEncoding => ("paths with a % without two digits", "the application may decode it its own way"),
        Ambiguity::DoubleEncoding => ("paths that decode twice, such as %252e", "the application may decode twice"),
        Ambiguity::Overlong => {
            ("paths with overlong characters, such as %c0%ae", "the application may read them as . or /")
        }
    };
    Relaxing::Can { passes, risk }
}

/// The rules that a site is spared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relaxed(Vec<Rule>);

impl Relaxed {
    /// All rules hold.
    pub const NONE: Self = Self(Vec::new());

    /// These.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Whether this rule is among them.
    pub fn has(&self, rule: Rule) -> bool {
        self.0.contains(&rule)
    }

    /// All of them, in the order of the file.
    pub fn rules(&self) -> impl Iterator<Item = Rule> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_rules() {
        for rule in Rule::ALL {
            assert_eq!(Rule::named(rule.name()), Some(rule));
        }
        assert_eq!(Rule::named("trace"), None);
    }

    #[test]
    fn what_would_let_one_request_hide_in_another_cannot_be_relaxed() {
        // S76, S79, S80, S82, S106, VR-58
        for name in ["host", "authority", "transfer-encoding", "syntax", "loop"] {
            let rule = Rule::named(name).unwrap();
            assert!(matches!(rule.relaxing(), Relaxing::Never(_)) && rule.remedy().is_none(), "{name}");
        }
    }
}
