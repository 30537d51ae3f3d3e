//! Where cases are played: one Vestibule in front of one application.

use std::net::SocketAddr;

use super::application::Application;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;

/// Open but for `/private/`: what is refused here is refused for what it looks like.
const SITE: &str = r#"
[site.login]
path    = "/login"
user    = "form:username"
success = { status = 302 }

[site.access]
default   = "public"
protected = ["/private/*"]
"#;

/// It is running while this is kept.
pub struct Place {
    vestibule: Vestibule,
    pub application: Application,
    /// The cookie of alice's session.
    pub session: String,
}

impl Place {
    pub async fn open() -> Self {
        Self::with("native").await
    }

    /// Where this client speaks to the application (`upstream_client`).
    pub async fn with(client: &str) -> Self {
        let legacy = Upstream::legacy().await;
        let (vestibule, mut browser) = Vestibule::with(&legacy, SITE).await;
        browser.log_in("alice").await;
        let session = browser.session().unwrap();
        let application = Application::start().await;
        vestibule
            .remote
            .reload(&configure(&application.url(), &format!("upstream_client = \"{client}\"\n{SITE}")))
            .unwrap();
        Self { vestibule, application, session }
    }

    pub fn proxy(&self) -> SocketAddr {
        self.vestibule.https
    }
}
