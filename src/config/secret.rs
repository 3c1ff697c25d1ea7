//! A text that must not be shown: it prints as `***` wherever it is formatted.

use std::fmt;

/// A secret of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Words of examples and templates; a secret that holds one was never chosen.
const PLACEHOLDERS: [&str; 12] = [
    "change",
    "example",
    "placeholder",
    "password",
    "secret",
    "your-",
    "your_",
    "yourkey",
    "insert",
    "xxxx",
    "12345678",
    "abcdefgh",
];
/// Fewer different characters are a pattern, not a secret.
const DIFFERENT_MIN: usize = 8;

/// Why `text` is no secret of at least `chars_min` characters; the message never repeats it.
pub(super) fn weakness(text: &str, chars_min: usize) -> Option<String> {
    const ADVICE: &str = "make one with `openssl rand -hex 32`";
    if text.len() < chars_min {
        return Some(format!("has fewer than {chars_min} characters; {ADVICE}"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("may hold letters, digits and signs of ASCII only, without spaces".to_owned());
    }
    let folded = text.to_ascii_lowercase();
    let is_placeholder = PLACEHOLDERS.iter().any(|word| folded.contains(word));
    let mut different: Vec<char> = folded.chars().collect();
    different.sort_unstable();
    different.dedup();
    (is_placeholder || different.len() < DIFFERENT_MIN)
        .then(|| format!("looks like a placeholder; {ADVICE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("f3b1c0de9a");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
        assert_eq!(secret.reveal(), "f3b1c0de9a");
    }

    #[test]
    fn short_patterned_and_copied_secrets_are_refused() {
        let check = |text: &str, expect: Option<&str>| {
            let found = weakness(text, 24);
            assert_eq!(found.is_some(), expect.is_some(), "{text}: {found:?}");
            assert!(found.unwrap_or_default().contains(expect.unwrap_or_default()), "{text}");
        };
        check("9f2c4e7a1b8d3f6051c2a7e4", None);
        check("9f2c4e7a1b8d3f6051c2a7e", Some("fewer than 24"));
        check("", Some("fewer"));
        check("9f2c4e7a1b8d 3f6051c2a7e4", Some("spaces"));
        check("change-me-9f2c4e7a1b8d3f6051c2a7e4", Some("placeholder"));
        check("YOUR-API-KEY-0123456789-abc", Some("placeholder"));
        check("aaaaaaaaaaaaaaaaaaaaaaaabbbb", Some("placeholder"));
    }
}
