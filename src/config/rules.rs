//! `relax`: the rules about messages that a site is spared.

use crate::config::keys;
use crate::config::section::Section;
use crate::config::value;
use crate::config::value::Wrong;
use crate::policy::relax::Relaxed;
use crate::policy::relax::Relaxing;
use crate::policy::relax::Rule;

/// The names that may stand there.
pub(super) fn relaxable() -> Vec<&'static str> {
    let can = |rule: &Rule| matches!(rule.relaxing(), Relaxing::Can { .. });
    Rule::ALL.into_iter().filter(can).map(Rule::name).collect()
}

pub(super) fn read_relax(section: &Section<'_>) -> Relaxed {
    let rules = section.parsed("relax", rule).unwrap_or_default();
    Relaxed::new(rules.into_iter().map(|(rule, _)| rule).collect())
}

fn rule(name: &str) -> Result<Rule, Wrong> {
    let Some(rule) = Rule::named(name) else {
        let all = relaxable();
        let help = match keys::nearest(all.iter().copied(), name) {
            Some((near, _)) => format!("did you mean {near:?}?"),
            None => format!("one of {}", all.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")),
        };
        return value::wrong(format!("there is no rule {name:?}"), help);
    };
    match rule.relaxing() {
        Relaxing::Can { .. } => Ok(rule),
        Relaxing::Raise(key) => {
            value::wrong(format!("{name:?} is a limit"), format!("remove it, and raise {key} in [site.limits]"))
        }
        Relaxing::Never(why) => value::wrong(format!("{name:?} cannot be switched off"), format!("remove it: {why}")),
    }
}
