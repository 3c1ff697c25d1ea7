//! Base 64 as it comes from outside: both alphabets of RFC 4648, with or without padding.

/// The bytes that `text` stands for; `None` when it holds anything else than digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_with_and_without_padding() {
        for (text, expect) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zm9vYmE", Some("fooba")),
            ("dXNlcjpww6Rzcw==", Some("user:päss")),
            ("Pz8_Pz8/", Some("??????")),
            ("Zm9v!", None),
        ] {
            let found = decode(text).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expect, "{text}");
        }
    }
}
