//! `$(NAME)` in values, commands and arguments.

/// Replaces each `$(NAME)` that `lookup` knows; `$$` is a dollar sign, and what is unknown or not
/// closed stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let name = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        let Some((name, tail)) = name else {
            out.push('$');
            rest = after;
            continue;
        };
        match lookup(name) {
            Some(value) => out.push_str(&value),
            None => {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// [`expand`] over variables of which the last of a name counts.
pub fn expand_with(text: &str, env: &[(String, String)]) -> String {
    expand(text, |name| {
        let found = env.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_upstream_does() {
        let env = [
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ];
        let table = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(NONE)", "$(NONE)"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("ü$(A)ü", "ü1ü"),
        ];
        for (input, expected) in table {
            assert_eq!(expand_with(input, &env), expected, "{input}");
        }
    }
}
