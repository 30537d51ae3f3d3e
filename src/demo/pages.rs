//! The pages of the demo's application.

use http::HeaderMap;
use http::HeaderValue;

/// Its style sheet: public, so that the login page has it too.
pub(super) const STYLE: &str = "body{font:16px/1.5 Georgia,serif;margin:0;background:#d4d0c8;color:#000}\
main{max-width:46rem;margin:2rem auto;background:#fff;border:2px outset #eee;padding:0 2rem 2rem}\
h1{background:#000080;color:#fff;font:bold 18px/2 Tahoma,sans-serif;margin:0 -2rem 1rem;padding:0 1rem}\
h2{font:bold 18px/2 Tahoma,sans-serif;margin:1.5rem 0 0}table{border-collapse:collapse;font:13px/1.4 monospace;\
width:100%}td{border:1px solid #aaa;padding:2px 6px;word-break:break-word;vertical-align:top}\
td:first-child{white-space:nowrap}.ours td{background:#ffffcc}.error{color:#a00;font-weight:bold}\
input{font:inherit;margin:2px}#clock{font:bold 20px monospace}td+td::after{font:italic 13px Georgia,serif;color:#555}\
#x-forwarded-user td+td::after{content:' \u{2014} who you are; nobody can forge it'}\
#cookie td+td::after{content:' \u{2014} through Vestibule, the browser never had this one'}";

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
    let mut rows: Vec<_> =
        headers.iter().map(|(name, value)| (rank(name.as_str()), row(name.as_str(), value))).collect();
    rows.sort_by_key(|(rank, _)| *rank);
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    let notes: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    whole(
        "Intranet 98",
        &format!(
            "<p>Hello <b id=user>{}</b>. The time by WebSocket: <span id=clock>(not connected)</span></p>\
             <form method=post action=/logout><input type=submit value=\"Log out\"></form>\
             <h2>Your notes</h2><ul>{notes}</ul>\
             <form method=post action=/notes><input name=note> <input type=submit value=Add></form>\
             <h2>What this application received</h2>\
             <p>Yellow is what Vestibule set, whatever the client sent. Scripts of this page see these cookies: \
             <code id=cookies></code></p><table id=headers>{rows}</table>\
             <script>document.getElementById('cookies').textContent=document.cookie||'none';\
             var s=new WebSocket((location.protocol=='https:'?'wss://':'ws://')+location.host+'/clock');\
             var c=document.getElementById('clock');\
             s.onmessage=function(e){{c.textContent=e.data}};s.onclose=function(){{c.textContent='(closed)'}}</script>",
            escape(user)
        ),
    )
}

/// What is worth looking at comes first.
fn rank(name: &str) -> u8 {
    match name {
        "x-forwarded-user" => 0,
        "cookie" => 1,
        _ if is_ours(name) => 2,
        _ => 3,
    }
}

fn row(name: &str, value: &HeaderValue) -> String {
    let class = if is_ours(name) { " class=ours" } else { "" };
    let value = escape(&String::from_utf8_lossy(value.as_bytes()));
    format!("<tr id={name}{class}><td>{name}</td><td>{value}</td></tr>")
}

fn is_ours(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "via" | "x-real-ip")
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
