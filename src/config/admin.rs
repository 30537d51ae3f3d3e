//! `[admin]`

use crate::config::ListenAddress;
use crate::config::section::Section;
use crate::config::store::secret;
use crate::config::value;
use crate::secret::Secret;

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens.
    pub listen: AdminListen,
    /// Where the token for TCP is.
    pub token: Option<Secret>,
}

/// `[admin] listen`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// At a unix socket beside the store.
    Usual,
    /// At these places; none is off. TCP ones are on the loopback address, and there is a token.
    At(Vec<ListenAddress>),
}

pub(super) fn read_admin(section: &Section<'_>) -> AdminSettings {
    let token = read_token(section);
    let listen = read_listen(section, token.is_some());
    AdminSettings { listen, token }
}

fn read_token(section: &Section<'_>) -> Option<Secret> {
    let found = section.text("token")?;
    let token = secret(found.text, |path| section.reader.resolve(path));
    if token.is_none() {
        let help = "write token = \"env:NAME\" or token = \"file:PATH\"; a good one comes from: openssl rand -hex 32";
        section.reader.report_hidden(found.span, "admin.token is no place where a token is", help);
    }
    token
}

fn read_listen(section: &Section<'_>, has_token: bool) -> AdminListen {
    if section.is_off("listen") {
        return AdminListen::At(Vec::new());
    }
    let Some(found) = section.parsed("listen", |text| value::address(text, |path| section.reader.resolve(path))) else {
        return AdminListen::Usual;
    };
    for (address, span) in &found {
        let ListenAddress::Tcp(tcp) = address else { continue };
        let (message, help) = if !tcp.ip().is_loopback() {
            (
                format!("admin.listen cannot be {address}: the token would cross the network in the clear"),
                "write \"127.0.0.1:PORT\" or \"unix:PATH\", and reach it from elsewhere through ssh",
            )
        } else if !has_token && !section.has("token") {
            let help = "write token = \"env:NAME\" or token = \"file:PATH\": every user of this machine can connect";
            (format!("admin.listen has {address}, which needs admin.token"), help)
        } else {
            continue;
        };
        section.reader.report(span.clone(), message, help);
    }
    AdminListen::At(found.into_iter().map(|(address, _)| address).collect())
}
