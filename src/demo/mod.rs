//! `vestibule demo`: a small old-fashioned application and the proxy in front of it.
