//! Names that some application takes for one another. Where a request has two of them, the
//! application may read one and we the other, and a client would be one user here and another there.

/// Whether a field of this name is the wanted one to some application: letter case ignored (ASP,
/// Delphi), `.`, space and `[` the same as `_`, cut at NUL, and `user[x]` an element of `user` (all
/// PHP).
pub(super) fn is_alike(name: &str, wanted: &str) -> bool {
    if name == wanted {
        return true;
    }
    let (name, wanted) = (path(name), path(wanted));
    let is_nameless = name.is_empty() || wanted.is_empty();
    !is_nameless && (name.starts_with(&wanted) || wanted.starts_with(&name) || name.join("_") == wanted.join("_"))
}

/// A name as those that ignore case or end it at NUL see it. By way of capitals, because the long s
/// and the Kelvin sign are letters of ASCII to some (Go).
pub(super) fn fold(name: &str) -> String {
    before_nul(name).to_uppercase().to_lowercase()
}

fn before_nul(name: &str) -> &str {
    name.split('\0').next().unwrap_or("")
}

/// The variable, and the keys in brackets.
fn path(name: &str) -> Vec<String> {
    let pieces = before_nul(name).split(['[', ']']).map(str::trim).filter(|piece| !piece.is_empty());
    pieces.map(|piece| fold(piece).replace([' ', '.'], "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_become_one_variable_are_alike() {
        // product 3.5
        for (name, wanted, alike) in [
            ("user", "user", true),
            ("User", "user", true),
            ("u\u{17f}er", "user", true),
            (" user", "user", true),
            ("user\0x", "user", true),
            ("user[]", "user", true),
            ("user[x]", "user", true),
            ("user", "user[x]", true),
            ("user[x]y", "user[x]", true),
            ("user[x", "user_x", true),
            ("user.x", "user_x", true),
            ("user x", "user_x", true),
            ("user[x]", "user[y]", false),
            ("user_x", "user", false),
            ("xuser", "user", false),
            ("", "user", false),
            ("[]", "user", false),
        ] {
            assert_eq!(is_alike(name, wanted), alike, "{name:?} {wanted:?}");
        }
    }
}
