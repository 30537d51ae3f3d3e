//! Which of the application's cookies are kept in the session, and which go to the browser
//! (`[site.cookies]`).

use std::borrow::Cow;

use crate::policy::cookie::SetCookie;
use crate::policy::glob::Glob;

/// `[site.cookies] mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieMode {
    /// Vault what scripts cannot read and the well-known session cookies, harden the rest.
    #[default]
    Auto,
    /// Vault all but `relay` and `drop`.
    Vault,
    /// Harden all but `vault` and `drop`.
    Harden,
    /// Touch nothing but `vault` and `drop`.
    Pass,
}

/// `[site.cookies]`; lists are globs over cookie names. Precedence: drop, relay, vault, mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieRules {
    /// What happens to cookies that no list names.
    pub mode: CookieMode,
    /// Kept in the session.
    pub vault: Vec<Glob>,
    /// Go to the browser, hardened (except in mode `pass`).
    pub relay: Vec<Glob>,
    /// Never reach the browser nor the application again.
    pub drop: Vec<Glob>,
}

/// What becomes of one `Set-Cookie` of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Kept in the session.
    Vault,
    /// To the browser with `Secure` and `SameSite=Lax`.
    Harden,
    /// To the browser as it is.
    Pass,
    /// Nowhere.
    Drop,
}

impl CookieRules {
    /// What becomes of this cookie. `learned`: names vaulted before in mode `auto` (a deletion has
    /// no HttpOnly, but must reach the vault).
    pub fn fate(&self, cookie: &SetCookie, learned: &dyn Fn(&[u8]) -> bool) -> Fate {
        if let Some(list) = self.list_with(&cookie.name) {
            return match list {
                List::Drop => Fate::Drop,
                List::Relay if self.mode == CookieMode::Pass => Fate::Pass,
                List::Relay => Fate::Harden,
                List::Vault => Fate::Vault,
            };
        }
        match self.mode {
            CookieMode::Vault => Fate::Vault,
            CookieMode::Harden => Fate::Harden,
            CookieMode::Pass => Fate::Pass,
            CookieMode::Auto if cookie.http_only || is_kept_by_name(&cookie.name, learned) => Fate::Vault,
            CookieMode::Auto => Fate::Harden,
        }
    }

    /// Whether a client-sent cookie of this name is to be dropped, because it could only have come
    /// from the vault (or from before Vestibule was put in front).
    pub fn is_vaulted_name(&self, name: &[u8], learned: &dyn Fn(&[u8]) -> bool) -> bool {
        match (self.list_with(name), self.mode) {
            (Some(List::Drop | List::Vault), _) => true,
            (Some(List::Relay), _) => false,
            (None, CookieMode::Vault) => true,
            (None, CookieMode::Harden | CookieMode::Pass) => false,
            (None, CookieMode::Auto) => is_kept_by_name(name, learned),
        }
    }

    /// Whether a cookie that went to the vault did so only because it is HttpOnly: such a name is to
    /// be remembered, or a client-sent cookie of that name would not be told from the vault's.
    pub fn is_learned_from(&self, cookie: &SetCookie) -> bool {
        self.mode == CookieMode::Auto
            && cookie.http_only
            && self.list_with(&cookie.name).is_none()
            && !is_well_known_session(&cookie.name)
    }

    /// Whether the vault's cookie of this name may go to the application. It may not when the rules
    /// were changed since and now name it in `relay` or `drop`.
    pub fn is_sent_from_vault(&self, name: &[u8]) -> bool {
        match self.list_with(name) {
            Some(List::Drop | List::Relay) => false,
            Some(List::Vault) | None => true,
        }
    }

    /// Whether `;jsessionid=` and the like are to be removed from request targets.
    pub fn vaults_servlet_sessions(&self) -> bool {
        self.is_vaulted_name(b"JSESSIONID", &|_| false)
    }

    /// The first list, in order of precedence, that names it.
    fn list_with(&self, name: &[u8]) -> Option<List> {
        if self.drop.is_empty() && self.relay.is_empty() && self.vault.is_empty() {
            return None;
        }
        let name = String::from_utf8_lossy(name);
        let names = |globs: &[Glob], name: &Cow<'_, str>| globs.iter().any(|glob| glob.matches(name));
        [(List::Drop, &self.drop), (List::Relay, &self.relay), (List::Vault, &self.vault)]
            .into_iter()
            .find(|(_, globs)| names(globs, &name))
            .map(|(list, _)| list)
    }
}

#[derive(Clone, Copy)]
enum List {
    Drop,
    Relay,
    Vault,
}

fn is_kept_by_name(name: &[u8], learned: &dyn Fn(&[u8]) -> bool) -> bool {
    is_well_known_session(name) || learned(name)
}

/// Whether a cookie name is one of the well-known session cookies of frameworks. Letter case is
/// ignored: some of these servers ignore it as well, and would take `jsessionid` from a client.
pub fn is_well_known_session(name: &[u8]) -> bool {
    let Some(first) = name.first() else { return false };
    let mut begun = BEGINNINGS[usize::from(first & 31)];
    while begun != 0 {
        if WELL_KNOWN.get(begun.trailing_zeros() as usize).is_some_and(|pattern| pattern.matches(name)) {
            return true;
        }
        begun &= begun - 1;
    }
    is_drupal_session(name)
}

/// Which of [`WELL_KNOWN`] begin with a byte, as bits; letters whatever their case, and some others have a place in
/// common. A browser may send dozens of cookies, and few names have more than a handful to be compared with.
static BEGINNINGS: [u128; 32] = {
    let mut begun = [0; 32];
    let mut at = 0;
    while at < WELL_KNOWN.len() {
        let (Pattern::Exact(name) | Pattern::Start(name) | Pattern::Around(name, _)) = WELL_KNOWN[at];
        begun[(name[0] & 31) as usize] |= 1 << at;
        at += 1;
    }
    begun
};

enum Pattern {
    Exact(&'static [u8]),
    Start(&'static [u8]),
    Around(&'static [u8], &'static [u8]),
}

impl Pattern {
    fn matches(&self, name: &[u8]) -> bool {
        let starts = |start: &[u8]| name.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
        match self {
            Self::Exact(whole) => name.eq_ignore_ascii_case(whole),
            Self::Start(start) => starts(start),
            Self::Around(start, end) => {
                let rest = name.get(start.len()..).unwrap_or_default();
                let tail = rest.len().checked_sub(end.len()).and_then(|at| rest.get(at..));
                starts(start) && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
            }
        }
    }
}

const WELL_KNOWN: &[Pattern] = &[
    Pattern::Start(b"JSESSIONID"), // Java servlets; JSESSIONIDSSO (Tomcat), JSESSIONID.hash (Jenkins)
    Pattern::Exact(b"PHPSESSID"),  // PHP
    Pattern::Exact(b"PHPSESSIONID"), // PHP, a common variant
    Pattern::Exact(b"ASP.NET_SessionId"), // ASP.NET session state
    Pattern::Start(b"ASPSESSIONID"), // classic ASP: eight random letters follow
    Pattern::Start(b".ASPXAUTH"),  // ASP.NET forms authentication
    Pattern::Exact(b".ASPXROLES"), // ASP.NET role cache
    Pattern::Start(b".AspNet."),   // ASP.NET Identity (Katana)
    Pattern::Start(b".AspNetCore.Session"), // ASP.NET Core session state
    Pattern::Start(b".AspNetCore.Cookies"), // ASP.NET Core authentication, and its chunks C1, C2
    Pattern::Start(b".AspNetCore.Identity."), // ASP.NET Core Identity
    Pattern::Exact(b"connect.sid"), // Express
    Pattern::Exact(b"koa.sess"),   // Koa
    Pattern::Exact(b"koa:sess"),   // Koa, older
    Pattern::Exact(b"sails.sid"),  // Sails
    Pattern::Exact(b"express:sess"), // cookie-session
    Pattern::Exact(b"sessionid"),  // Django
    Pattern::Exact(b"session"),    // Flask, Starlette, Spring Session
    Pattern::Exact(b"session_id"), // Odoo, web2py and many home-made applications
    Pattern::Start(b"session_id_"), // web2py: the application's name follows
    Pattern::Exact(b"beaker.session.id"), // Pylons
    Pattern::Exact(b"TWISTED_SESSION"), // Twisted
    Pattern::Exact(b"TWISTED_SECURE_SESSION"), // Twisted
    Pattern::Exact(b"__ac"),       // Plone
    Pattern::Exact(b"_ZopeId"),    // Zope
    Pattern::Exact(b"trac_auth"),  // Trac
    Pattern::Exact(b"trac_session"), // Trac
    Pattern::Exact(b"laravel_session"), // Laravel
    Pattern::Exact(b"ci_session"), // CodeIgniter
    Pattern::Exact(b"symfony"),    // symfony 1
    Pattern::Exact(b"CAKEPHP"),    // CakePHP
    Pattern::Exact(b"yii_session"), // Yii
    Pattern::Around(b"_", b"_session"), // Rails: the application's name stands between
    Pattern::Around(b"_", b"_session_id"), // Rails 1 and 2
    Pattern::Exact(b"rack.session"), // Sinatra, Rack
    Pattern::Exact(b"CFID"),       // ColdFusion
    Pattern::Exact(b"CFTOKEN"),    // ColdFusion
    Pattern::Exact(b"CGISESSID"),  // Perl CGI::Session, Bugzilla
    Pattern::Exact(b"mojolicious"), // Mojolicious
    Pattern::Exact(b"plack_session"), // Plack
    Pattern::Exact(b"dancer.session"), // Dancer
    Pattern::Start(b"MoodleSession"), // Moodle
    Pattern::Start(b"wordpress_logged_in_"), // WordPress: a hash of the site's address follows
    Pattern::Start(b"wordpress_sec_"), // WordPress
    Pattern::Exact(b"DokuWiki"),   // DokuWiki
    Pattern::Start(b"phpMyAdmin"), // phpMyAdmin
    Pattern::Start(b"pmaAuth-"),   // phpMyAdmin, the encrypted password
    Pattern::Start(b"adminer_sid"), // Adminer
    Pattern::Exact(b"roundcube_sessid"), // Roundcube
    Pattern::Exact(b"roundcube_sessauth"), // Roundcube
    Pattern::Exact(b"fe_typo_user"), // TYPO3
    Pattern::Exact(b"be_typo_user"), // TYPO3
    Pattern::Exact(b"SQMSESSID"),  // SquirrelMail
    Pattern::Exact(b"MANTIS_STRING_COOKIE"), // MantisBT
    Pattern::Exact(b"zbx_session"), // Zabbix
    Pattern::Exact(b"zbx_sessionid"), // Zabbix, older
    Pattern::Exact(b"grafana_session"), // Grafana
    Pattern::Exact(b"i_like_gitea"), // Gitea
    Pattern::Exact(b"SID"),        // qBittorrent
    Pattern::Start(b"QBT_SID"),    // qBittorrent 5
    Pattern::Exact(b"LtpaToken"),  // WebSphere, Domino
    Pattern::Exact(b"LtpaToken2"), // WebSphere
    Pattern::Start(b"DomAuthSessId"), // Domino
];

/// Drupal: `SESS` or `SSESS`, then at least 32 hexadecimal digits.
fn is_drupal_session(name: &[u8]) -> bool {
    let hash = name.strip_prefix(b"SSESS").or_else(|| name.strip_prefix(b"SESS"));
    hash.is_some_and(|hash| hash.len() >= 32 && hash[..32].iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_with_all_that_begin_like_it() {
        for pattern in WELL_KNOWN {
            let (Pattern::Exact(begins) | Pattern::Start(begins) | Pattern::Around(begins, _)) = pattern;
            for known in [begins.to_vec(), begins.to_ascii_lowercase(), begins.to_ascii_uppercase()] {
                for behind in ["", "x", "app_session", "app_session_id"] {
                    let name = [&known, behind.as_bytes()].concat();
                    let is_known = WELL_KNOWN.iter().any(|pattern| pattern.matches(&name)) || is_drupal_session(&name);
                    assert_eq!(is_well_known_session(&name), is_known, "{}", String::from_utf8_lossy(&name));
                }
            }
        }
    }
}
