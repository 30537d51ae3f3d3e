//! The pages of the demo's application.

use http::HeaderMap;

/// Its style sheet: public, so that the login page has it too.
pub(super) const STYLE: &str = "body{font:16px/1.5 Georgia,serif;margin:0;background:#d4d0c8;color:#000}\
main{max-width:46em;margin:2em auto;background:#fff;border:2px outset #eee;padding:1em 2em 2em}\
h1{background:#000080;color:#fff;font:bold 18px/2 Tahoma,sans-serif;margin:-1em -2em 1em;padding:0 1em}\
table{border-collapse:collapse;font:13px/1.4 monospace;width:100%}td{border:1px solid #aaa;padding:2px 6px;\
word-break:break-all;vertical-align:top}td:first-child{white-space:nowrap}.ours td{background:#ffffcc}\
.error{color:#a00;font-weight:bold}input{font:inherit;margin:2px}#clock{font:bold 20px monospace}";

/// The login form.
pub(super) fn login(session: &str, error: Option<&str>) -> String {
    let error = error.map(|error| format!("<p class=error>{}</p>", escape(error))).unwrap_or_default();
    whole(
        "Intranet 98: log in",
        &format!(
            "{error}<form method=post action=/login>\
             <input type=hidden name=token value={}>\
             <p><label>User name <input name=username autofocus></label></p>\
             <p><label>Password <input name=password type=password></label></p>\
             <p><input type=submit value=\"Log in\"></p></form>\
             <p>Try alice / wonderland or bob / builder.</p>",
            token(session)
        ),
    )
}

/// The token that belongs to a session's form.
pub(super) fn token(session: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, session.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The page behind the login.
pub(super) fn home(user: &str, notes: &[String], headers: &HeaderMap) -> String {
    let ours = |name: &str| name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "via" | "x-real-ip");
    let rows: String = headers
        .iter()
        .map(|(name, value)| {
            let class = if ours(name.as_str()) { " class=ours" } else { "" };
            let value = escape(&String::from_utf8_lossy(value.as_bytes()));
            format!("<tr{class}><td>{name}</td><td>{value}</td></tr>")
        })
        .collect();
    let notes: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    whole(
        "Intranet 98",
        &format!(
            "<p>Hello <b id=user>{}</b>. The time by WebSocket: <span id=clock>(not connected)</span></p>\
             <form method=post action=/logout><input type=submit value=\"Log out\"></form>\
             <h2>Your notes</h2><ul>{notes}</ul>\
             <form method=post action=/notes><input name=note> <input type=submit value=Add></form>\
             <h2>What this application received</h2>\
             <p>Marked: set by Vestibule, whatever the client sent.</p><table id=headers>{rows}</table>\
             <script>var s=new WebSocket('wss://'+location.host+'/clock');var c=document.getElementById('clock');\
             s.onmessage=function(e){{c.textContent=e.data}};s.onclose=function(){{c.textContent='(closed)'}}</script>",
            escape(user)
        ),
    )
}

/// A page with one sentence.
pub(super) fn plain(text: &str) -> String {
    whole("Intranet 98", &format!("<p>{}</p>", escape(text)))
}

fn whole(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html><head><meta charset=utf-8><title>{title}</title>\
         <link rel=stylesheet href=/static/style.css></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
